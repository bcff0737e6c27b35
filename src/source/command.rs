//! A program is run, and prints a token.

mod builder;
mod capture;
mod error;
mod output;
mod process;
mod stderr;

pub use builder::TokenCommandBuilder;
pub use error::{CommandError, OutputError};

use super::turns::Turns;
use crate::{BoxError, SourceError, Token, TokenRequest};
use capture::{Captured, LIMIT};
use output::Form;
use process::{Process, Stopped};
use std::{
    ffi::OsString,
    fmt,
    future::Future,
    io,
    pin::Pin,
    process::{Child, Command, ExitStatus},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use tower::Service;
use zeroize::Zeroizing;

/// For `scripts/fuzz` alone, which has no time to run a program for each input.
#[cfg(jwt_refresh_fuzz)]
#[doc(hidden)]
pub fn read_output(stdout: &[u8], exec_credential: bool) -> Result<Token, OutputError> {
    Form { exec_credential, ..Form::default() }.read(stdout)
}

/// A source that runs a program, such as a cloud's command-line tool, and reads the token that it prints.
///
/// ```
/// # fn main() -> Result<(), tower_jwt_refresh::ConfigError> {
/// use tower_jwt_refresh::{TokenProvider, source::TokenCommand};
///
/// let source = TokenCommand::program("gcloud").args(["config", "config-helper", "--format=json"]).build()?;
/// let provider = TokenProvider::new(source);
/// # Ok(()) }
/// ```
///
/// It is run when the provider needs a token, once for all who wait for it: about once in the life of a token.
///
/// # The program
/// It is found as the system finds programs, by path or in `PATH`, and gets its arguments as they are: no shell is in between. (On Windows a script is
/// named with its ending: `az.cmd`.) Its stdin is empty, so it cannot ask anybody. It has this process's environment and working directory.
/// What a server wrote into its [challenge](TokenRequest::challenge) never reaches it: that is text of strangers.
///
/// On Unix it leads a process group of its own. When its [time](TokenCommandBuilder::timeout) is over, when it prints more than 1 MiB, and when
/// the future is dropped, because the provider gives up or its runtime goes down, the whole group is killed and waited for, so that
/// nothing of it is left, be this process the first of a container or not; only what left the group by itself, a daemon, goes on, and what runs as
/// another user. On other systems the program itself is killed, and what it started is not. If this process itself is killed, nobody is left to do any of this.
///
/// What a program leaves running when it *ends by itself* is left alone, and not waited for, even if it holds the pipes open: tools start agents on purpose.
/// The pipes are closed then, and an agent that writes to one dies of it, so redirect its output where you start it. When it ends, it is for the first
/// process of the container to wait for it: if that is yours, have an `init` in front (`docker run --init`).
///
/// # What it prints
/// On stdout, with exit code 0, one of these. Which it is shows in its first character.
/// - The token, and nothing else but blanks around it. The `exp` of a JWT says when it ends; another token is sent until a server rejects
///   it, or until [`refresh_after`](TokenCommandBuilder::refresh_after).
/// - A JSON string: the same.
/// - A JSON object. The token is the first of `jwt`, `access_token`, `accessToken`, `token`, `authorizationToken` and `id_token` that is there, at
///   the top, or else in `status` or `credential`; or it is what [`token_at`](TokenCommandBuilder::token_at) points at. So the tools of Google
///   (`gcloud config config-helper --format=json`), Azure (`az account get-access-token`), AWS (`aws codeartifact get-authorization-token`) and
///   Kubernetes (`kubectl create token -o json`) need no setting. Its end is the first of these that makes sense, beside the token or at the top:
///   `expires_in` and `expiresIn`, in seconds; `expires_at`, `expires_on`, `expiresAt`, `expiration`, `Expiration`, `expirationTimestamp`, `expiry`,
///   `token_expiry` and `expiresOn`, as seconds or milliseconds since 1970 or as RFC 3339. A time without its zone, which older versions
///   of `az` give alone, is not believed. Or it is where [`lifetime_at`](TokenCommandBuilder::lifetime_at) and
///   [`expiry_at`](TokenCommandBuilder::expiry_at) say. Else, and if it is sooner than such a moment, the `exp` of a JWT counts.
/// - Kubernetes' `ExecCredential` with a token, of `client.authentication.k8s.io/v1`, `v1beta1` or `v1alpha1`. Plugins that must be told so are, by
///   [`exec_credential`](TokenCommandBuilder::exec_credential). A client certificate beside the token is not looked at.
///
/// # Failures
/// The error is a [`SourceError`] around a [`CommandError`]. It quotes the end of what the program wrote to its stderr, as plain text in one line, at most
/// 600 characters, without whatever looks like a secret: long words that no person would write, values with the names of secrets, what follows
/// `Bearer`, users in URLs, keys in PEM, what also stands on stdout or in a variable that was set here. This is for programs that tell more
/// than they know, not a promise that no secret can pass: a password among other words is a word. Nothing of its stdout is quoted, nor an argument.
///
/// Who needs a token gets it as the cause of [`TokenError::Unavailable`](crate::TokenError::Unavailable), or of
/// [`TokenError::NeedsCredential`](crate::TokenError::NeedsCredential) where the table says "seldom": each minute while requests fail for it, else each 15.
///
/// | what the program did | error | asked again |
/// | --- | --- | --- |
/// | it is not there, or not executable | [`NotStarted`](CommandError::NotStarted) | after the provider's backoff, 1 to 60 s: it may be about to be installed or upgraded |
/// | any exit code but 0 | [`Failed`](CommandError::Failed) | backoff |
/// | one of the [`permanent_exit_codes`](TokenCommandBuilder::permanent_exit_codes) | [`Failed`](CommandError::Failed) | seldom: somebody must act |
/// | a signal ended it | [`Killed`](CommandError::Killed) | backoff |
/// | the system did not start it within the [timeout](TokenCommandBuilder::timeout), since the file system does not answer | [`NotStarted`](CommandError::NotStarted) | backoff; it is killed as soon as it runs |
/// | an earlier run of it is not over within the [timeout](TokenCommandBuilder::timeout), though it was killed | [`Hung`](CommandError::Hung) | backoff; no second one is started meanwhile |
/// | it did not end within the [timeout](TokenCommandBuilder::timeout) | [`TimedOut`](CommandError::TimedOut) | backoff |
/// | over 1 MiB on stdout | [`TooLarge`](CommandError::TooLarge) | backoff |
/// | ended well with nothing on stdout, several words, broken JSON, JSON without a token, `null`, a client certificate alone | [`Output`](CommandError::Output) | backoff |
/// | printed an `error` of RFC 6749 section 5.2, `invalid_grant` perhaps, in the place of a token | [`Output`](CommandError::Output) | seldom: the credential needs repair |
/// | it could not be waited for | [`Lost`](CommandError::Lost) | backoff |
///
/// # Threads
/// Each run has a thread of its own, which starts the program and waits for it, since both can take for ever on a network file system that does not answer; no worker
/// of the runtime ever waits for that. There is one run at a time, whatever clones there are: a run has its turn until nothing of it is left, and who waits for a
/// turn does so within the [timeout](TokenCommandBuilder::timeout). So what hangs costs one thread and one process. A runtime that goes down kills the program
/// and waits for nothing.
///
/// # Panics
/// When it is polled in a tokio runtime without I/O or time, as all that is tokio's. A provider reports that as
/// [`FetchError::Panicked`](crate::FetchError::Panicked), and the program is not run. `#[tokio::main]` and `enable_all` have both.
///
/// # Cancel safety
/// Dropping the future kills the program. Nothing is lost but what it was about to print.
#[derive(Clone)]
pub struct TokenCommand(Arc<Inner>);

struct Inner {
    /// As errors name it.
    name: Arc<str>,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, Zeroizing<String>)>,
    timeout: Duration,
    form: Form,
    refresh_after: Option<Duration>,
    /// Exit codes.
    permanent: Vec<i32>,
    turns: Turns,
}

impl TokenCommand {
    /// Begins a command with this program, by its path or, to be looked for in `PATH`, by its name.
    pub fn program(program: impl Into<OsString>) -> TokenCommandBuilder {
        TokenCommandBuilder::new(program.into())
    }
}

impl Service<TokenRequest> for TokenCommand {
    type Response = Token;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Token, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: TokenRequest) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            inner.run(Command::spawn).await.map_err(|error| {
                let permanent = error.is_permanent(&inner.permanent);
                if permanent { SourceError::permanent(error) } else { SourceError::transient(error) }.into()
            })
        })
    }
}

impl Inner {
    /// Starts it by this.
    async fn run(
        &self,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child> + Send + 'static,
    ) -> Result<Token, CommandError> {
        let program = || Arc::clone(&self.name);
        let deadline = Instant::now() + self.timeout;
        let turn = timeout_at(deadline, self.turns.next()).await;
        let turn = turn.map_err(|_| CommandError::Hung { program: program(), after: self.timeout })?;
        let process = timeout_at(deadline, Process::start(self.command(), spawn, turn)).await;
        let process = process
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| CommandError::NotStarted { program: program(), error })?;
        let mut captured = Captured::default();
        let ended = timeout_at(deadline, process.end(&mut captured)).await;
        let stderr = || self.shown(&captured);
        match ended {
            Err(_) => Err(CommandError::TimedOut { program: program(), after: self.timeout, stderr: stderr() }),
            Ok(Err(Stopped::TooMuch)) => Err(CommandError::TooLarge { program: program(), limit: LIMIT }),
            Ok(Err(Stopped::Io(error))) => Err(CommandError::Lost { program: program(), error }),
            Ok(Ok(status)) if status.success() => {
                let token = self.form.read(captured.stdout.bytes());
                let token =
                    token.map_err(|error| CommandError::Output { program: program(), error, stderr: stderr() })?;
                Ok(match self.refresh_after {
                    Some(span) => token.with_refresh_after(span),
                    None => token,
                })
            }
            Ok(Ok(status)) => Err(match status.code() {
                Some(code) => CommandError::Failed { program: program(), code, stderr: stderr() },
                None => CommandError::Killed { program: program(), signal: signal(status), stderr: stderr() },
            }),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value.as_str())));
        command
    }

    fn shown(&self, captured: &Captured) -> String {
        let known: Vec<&str> = self
            .env
            .iter()
            .filter(|(name, value)| stderr::is_secret(name, value))
            .map(|(_, value)| value.as_str())
            .collect();
        let (tail, begun) = captured.stderr.last();
        stderr::shown(tail, begun, captured.stdout.bytes(), &known)
    }
}

/// What ended a process that has no exit code.
#[cfg(unix)]
fn signal(status: ExitStatus) -> i32 {
    std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default()
}

/// Elsewhere each has an exit code.
#[cfg(not(unix))]
fn signal(_: ExitStatus) -> i32 {
    0
}

impl fmt::Debug for TokenCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCommand")
            .field("program", &self.0.name)
            .field("timeout", &self.0.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn source() -> TokenCommand {
        TokenCommand::program("true").build().unwrap()
    }

    fn never(_: &mut Command) -> io::Result<Child> {
        panic!("it is not its turn")
    }

    // Scenario 104.
    #[tokio::test(start_paused = true)]
    async fn while_an_earlier_run_hangs_no_other_begins_and_the_error_says_so() {
        let (source, before) = (source(), Instant::now());
        let _hung = source.0.turns.next().await;
        let error = source.clone().0.run(never).await.unwrap_err();
        assert!(matches!(error, CommandError::Hung { .. }), "{error:?}");
        assert!(error.to_string().starts_with("true was not run: an earlier run"), "{error}");
        assert_eq!(before.elapsed(), source.0.timeout);
    }

    // Scenario 104.
    #[tokio::test(start_paused = true)]
    async fn a_start_that_hangs_ends_in_an_error_that_says_so_and_no_other_begins_beside_it() {
        let (source, before) = (source(), Instant::now());
        let (free, freed) = mpsc::channel::<()>();
        let hangs = move |_: &mut Command| Err(freed.recv().map_err(io::Error::other).unwrap_err());
        let error = source.0.run(hangs).await.unwrap_err();
        assert!(matches!(error, CommandError::NotStarted { .. }), "{error:?}");
        assert!(error.to_string().contains("a network file system that does not answer"), "{error}");
        assert_eq!(before.elapsed(), source.0.timeout);
        assert!(matches!(source.0.run(never).await, Err(CommandError::Hung { .. })));
        drop(free);
        drop(source.0.turns.next().await);
    }
}
