//! The program itself: it has one thread that starts it and waits for it, and anybody else may kill it.

use std::{
    io,
    process::{Child, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::Duration,
};

/// Where no system call waits for a child and leaves it there to be waited for, it is looked at so often.
const PAUSE: Duration = Duration::from_millis(10);

/// The lock orders killing and waiting: the number of a child that was waited for may be somebody else's. It is held for calls that do not block.
#[derive(Default)]
pub(super) struct Leader(Mutex<State>);

#[derive(Default)]
struct State {
    /// From its start until it was waited for.
    child: Option<Child>,
    killed: bool,
}

impl Leader {
    /// It runs from now on, unless it was killed before it did.
    pub(super) fn is(&self, mut child: Child) {
        let mut state = self.lock();
        if state.killed {
            kill(&mut child);
        }
        state.child = Some(child);
    }

    /// Kills it and its group, if it has not been waited for, or as soon as it runs. Blocks nobody.
    pub(super) fn kill(&self) {
        let mut state = self.lock();
        state.killed = true;
        if let Some(child) = &mut state.child {
            kill(child);
        }
    }

    /// Blocks until it has ended, and leaves its group alone if it did so by itself. Of those that were killed with it none is left that is a child of this
    /// process.
    pub(super) fn wait(&self) -> io::Result<ExitStatus> {
        let id = self.lock().child.as_ref().map(Child::id);
        let id = id.ok_or(io::ErrorKind::NotFound)?;
        loop {
            until_it_may_have_ended(id);
            let mut state = self.lock();
            let ended = match state.child.as_mut().map(Child::try_wait) {
                Some(Ok(None)) => continue,
                Some(ended) => ended.transpose(),
                None => None,
            };
            state.child = None;
            let killed = state.killed;
            drop(state);
            if killed {
                adopt(id);
            }
            return ended.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when it has ended, which it does not take note of, or sooner.
fn until_it_may_have_ended(id: u32) {
    #[cfg(all(
        unix,
        not(any(target_os = "cygwin", target_os = "horizon", target_os = "openbsd", target_os = "redox"))
    ))]
    {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let wait = |pid| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        if pid(id).is_some_and(|pid| rustix::io::retry_on_intr(|| wait(pid)).is_ok()) {
            return;
        }
    }
    let _ = id;
    sleep(PAUSE);
}

#[cfg(unix)]
fn pid(id: u32) -> Option<rustix::process::Pid> {
    i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw)
}

#[cfg(unix)]
fn kill(leader: &mut Child) {
    use rustix::process::{Signal, kill_process_group};
    if let Some(group) = pid(leader.id()) {
        // It fails where all have ended already, or run as another user; then there is nothing to be done.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

#[cfg(not(unix))]
fn kill(leader: &mut Child) {
    let _ = leader.kill();
}

/// What a killed group leaves to this process when it is the first of a container or a subreaper: those whose parents have ended, who then are its children, and
/// dead ones stay until somebody waits for them.
///
/// The group keeps its number while anybody is in it, so no other's children are waited for. That of an empty group could be given to a new one between two of
/// these calls; but numbers are given in turn, so thousands of processes would have to start in that moment.
#[cfg(unix)]
fn adopt(group: u32) {
    use rustix::{
        io::Errno,
        process::{WaitOptions, waitpgid},
    };
    let Some(group) = pid(group) else { return };
    while matches!(waitpgid(group, WaitOptions::empty()), Ok(_) | Err(Errno::INTR)) {}
}

#[cfg(not(unix))]
fn adopt(_: u32) {}
