//! A child process that cannot be left behind: dropped before it ended, it is killed, with all that it started.
//!
//! Unix: it leads a process group of its own, and the group is killed. That is safe only until the leader was waited for, since its number may
//! then be given to others; so one that ended by itself is waited for once, and its group is left alone from then on.
//!
//! Elsewhere only the program itself is killed: what it started is told nothing, but is not waited for either.
//!
//! # The thread
//! To start a program takes until the system has read it, and a killed one ends when the system lets go of it: on a mount that does not answer, neither ever
//! happens, and nothing can be done about it. So each run has a thread, which starts the program, owns it and waits for it, whatever becomes of who
//! asked: while it starts, and afterwards. It holds the turn to the end, so a program that hangs costs one thread and no second one is started beside it.
//!
//! The thread is none of tokio's. Those may all be taken, a runtime that goes down waits for them, and some systems kill a program that asks for it when the
//! thread ends that started it. Only the pipes are tokio's, as each is read while the other is, with a limit of time over both. They are made first, so that
//! what tokio has to say against them is said while there is no program yet.
//!
//! Killing does not wait for that thread: it is done by who drops the future, there and then, since the process may be about to end.

mod leader;

use super::{
    super::turns::Turn,
    capture::{Captured, TooMuch},
};
use leader::Leader;
#[cfg(unix)]
use std::os::fd::OwnedFd as Owned;
#[cfg(windows)]
use std::os::windows::io::OwnedHandle as Owned;
use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    process::{ChildStderr, ChildStdout},
    sync::oneshot,
    time::{Sleep, sleep},
};
use zeroize::Zeroizing;

/// What a program wrote is in the pipe when it ends, and is read once the runtime has looked at the pipe again, which it does before it lets any
/// timer end. Who holds the pipe beyond that is not waited for.
const AFTER_THE_END: Duration = Duration::from_millis(100);

/// Kills first and closes the pipes then: a program that dies of a closed pipe has ended by itself, and its group would be left alone.
pub(super) struct Process {
    wanted: Wanted,
    stdout: ChildStdout,
    stderr: ChildStderr,
    exit: oneshot::Receiver<io::Result<ExitStatus>>,
}

/// Whoever has this wants the program to run.
struct Wanted(Arc<Leader>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.kill();
    }
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
    /// Starts it by this, which is [`Command::spawn`]. Whatever happens to the future, the turn is given back when nothing of the program is left.
    pub(super) async fn start(
        mut command: Command,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child> + Send + 'static,
        turn: Turn,
    ) -> io::Result<Self> {
        let ((stdout, theirs), (stderr, too)) = (io::pipe()?, io::pipe()?);
        let stdout = ChildStdout::from_std(Owned::from(stdout).into())?;
        let stderr = ChildStderr::from_std(Owned::from(stderr).into())?;
        command.stdin(Stdio::null()).stdout(theirs).stderr(too);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let (begun, begins) = oneshot::channel();
        let (ended, exit) = oneshot::channel();
        let process = Self { wanted: Wanted(Arc::default()), stdout, stderr, exit };
        let leader = Arc::clone(&process.wanted.0);
        let run = move || {
            let _turn = turn;
            let child = spawn(&mut command);
            // It has the other ends of the pipes, and a copy of the variables that were set.
            drop(command);
            // Nobody may be left who listens.
            match child {
                Ok(child) => {
                    leader.is(child);
                    let _ = begun.send(Ok(()));
                    let _ = ended.send(leader.wait());
                }
                Err(error) => drop(begun.send(Err(error))),
            }
        };
        thread::Builder::new().name("token-command".into()).spawn(run)?;
        begins.await.map_err(io::Error::other)??;
        Ok(process)
    }

    /// Waits for its end, and reads what it writes until then. Dropped before, it kills it.
    pub(super) async fn end(self, captured: &mut Captured) -> Result<ExitStatus, Stopped> {
        let (stdout, stderr, mut exit) = (&mut Some(self.stdout), &mut Some(self.stderr), self.exit);
        // The last to be named is the first to be dropped.
        let _wanted = self.wanted;
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
                    let ended = ready!(Pin::new(&mut exit).poll(cx));
                    let ended = ended.unwrap_or_else(|gone| Err(io::Error::other(gone))).map_err(Stopped::Io)?;
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

#[cfg(all(test, unix))]
mod tests {
    use super::{super::super::turns::Turns, *};
    use futures_util::FutureExt;
    use rustix::{
        io::Errno,
        process::{Pid, test_kill_process},
    };
    use std::{ffi::OsStr, sync::mpsc};
    use tokio::time::timeout;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script].map(OsStr::new));
        command
    }

    /// Starts it when it is told, and tells by whom and what it is.
    fn held_up(
        told: mpsc::Receiver<()>,
        begun: mpsc::Sender<(thread::ThreadId, u32)>,
    ) -> impl FnOnce(&mut Command) -> io::Result<Child> + Send + 'static {
        move |command| {
            told.recv().unwrap();
            let child = command.spawn()?;
            begun.send((thread::current().id(), child.id())).unwrap();
            Ok(child)
        }
    }

    // Scenario 104.
    #[tokio::test]
    async fn a_start_that_hangs_blocks_no_worker_and_what_comes_of_it_too_late_is_killed_before_the_next_turn() {
        let turns = Turns::default();
        let ((tell, told), (begun, begins)) = (mpsc::channel(), mpsc::channel());
        let start = Process::start(sh("sleep 1000 & wait"), held_up(told, begun), turns.next().await);
        assert!(start.boxed().now_or_never().is_none(), "it hangs, and nobody wants it any more");
        assert!(turns.next().now_or_never().is_none(), "its turn is not over");
        tell.send(()).unwrap();
        let (thread, id) = begins.recv().unwrap();
        assert_ne!(thread, thread::current().id());
        // Far more than it takes: a test must end, too.
        drop(timeout(Duration::from_secs(20), turns.next()).await.expect("it was not killed"));
        let id = Pid::from_raw(id.try_into().unwrap()).unwrap();
        assert_eq!(test_kill_process(id), Err(Errno::SRCH), "it was waited for");
    }

    #[tokio::test]
    async fn a_program_that_cannot_be_started_gives_its_turn_back() {
        let turns = Turns::default();
        let nothing = Command::new("/nowhere/cloud");
        let error = Process::start(nothing, Command::spawn, turns.next().await).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        drop(turns.next().await);
    }
}
