//! A child process that cannot be left behind: dropped before it ended, it is killed, with all that it started.
//!
//! Unix: it leads a process group of its own, and the group is killed. That is safe only until the leader was waited for, since its number may
//! then be given to others; so one that ended by itself is waited for once, here, and its group is left alone from then on.
//!
//! Elsewhere only the program itself is killed: what it started is told nothing, but is not waited for either.

use super::capture::{Captured, TooMuch};
use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    process::{ExitStatus, Stdio},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::{Sleep, sleep},
};
use zeroize::Zeroizing;

/// What a program wrote is in the pipe when it ends, and is read once the runtime has looked at the pipe again, which it does before it lets any
/// timer end. Who holds the pipe beyond that is not waited for.
const AFTER_THE_END: Duration = Duration::from_millis(100);

pub(super) struct Process {
    /// Taken when it is dropped.
    child: Option<Child>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

/// Why it did not come to its end.
pub(super) enum Stopped {
    TooMuch,
    Io(io::Error),
}

impl From<TooMuch> for Stopped {
    fn from(_: TooMuch) -> Self {
        Self::TooMuch
    }
}

impl Process {
    pub(super) fn start(command: std::process::Command) -> io::Result<Self> {
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Ok(Self { child: Some(child), stdout, stderr })
    }

    /// Waits for its end, and reads what it writes until then.
    pub(super) async fn end(&mut self, captured: &mut Captured) -> Result<ExitStatus, Stopped> {
        let child = self.child.as_mut().expect("taken only when it is dropped");
        let (stdout, stderr) = (&mut self.stdout, &mut self.stderr);
        let mut exit = pin!(child.wait());
        let mut status = None;
        let mut rest: Pin<&mut Option<Sleep>> = pin!(None);
        poll_fn(|cx| {
            read(stdout, cx, |bytes| captured.stdout.push(bytes))?;
            read(stderr, cx, |bytes| {
                captured.stderr.push(bytes);
                Ok(())
            })?;
            let status = match status {
                Some(status) => status,
                None => {
                    let ended = ready!(exit.as_mut().poll(cx)).map_err(Stopped::Io)?;
                    rest.set(Some(sleep(AFTER_THE_END)));
                    *status.insert(ended)
                }
            };
            let rest = rest.as_mut().as_pin_mut().expect("set when it ended");
            if stdout.is_some() || stderr.is_some() {
                ready!(rest.poll(cx));
            }
            Poll::Ready(Ok(status))
        })
        .await
    }
}

/// Takes what is there, and closes a pipe that has ended.
fn read<P: AsyncRead + Unpin>(
    pipe: &mut Option<P>,
    cx: &mut Context<'_>,
    mut take: impl FnMut(&[u8]) -> Result<(), TooMuch>,
) -> Result<(), Stopped> {
    let mut chunk = Zeroizing::new([0; 4096]);
    while let Some(open) = pipe {
        let mut buffer = ReadBuf::new(&mut *chunk);
        match Pin::new(open).poll_read(cx, &mut buffer) {
            Poll::Pending => break,
            Poll::Ready(Err(error)) => return Err(Stopped::Io(error)),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => *pipe = None,
            Poll::Ready(Ok(())) => take(buffer.filled())?,
        }
    }
    Ok(())
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            kill(child);
        }
    }
}

#[cfg(unix)]
fn kill(mut child: Child) {
    use rustix::{
        io::retry_on_intr,
        process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
    };
    // None: it was waited for.
    let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else { return };
    // It fails where all have ended already, or run as another user; then there is nothing to be done.
    let _ = kill_process_group(pid, Signal::KILL);
    // The runtime may be going down, and with it whatever waits for children; so this has a thread, for the moment that a killed process takes to
    // end. The child is moved there, so that nobody else waits for it and gives its number away meanwhile. Without a thread tokio does what it can.
    let reap = move || {
        let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT));
        let _ = child.try_wait();
    };
    let _ = std::thread::Builder::new().name("token-command".into()).spawn(reap);
}

#[cfg(not(unix))]
fn kill(mut child: Child) {
    let _ = child.start_kill();
}
