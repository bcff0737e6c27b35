//! Why a command brought no token.

use crate::source::AnswerError;
use std::{fmt, io, sync::Arc, time::Duration};

/// Why a [`TokenCommand`](super::TokenCommand) brought no token.
///
/// `program` is its name without its arguments, which may hold a secret. `stderr` is the end of what it wrote there, in one line, at most 600
/// characters; whatever looks like a secret is cut out of it. Nothing of its stdout is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It did not start.
    #[error("{program} could not be started: {}", advice(error))]
    NotStarted {
        /// Which.
        program: Arc<str>,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// An earlier run is not over, so it was not run again: there is one at a time.
    #[error(
        "{program} was not run: an earlier run of it was not over within {after:.1?} (on a network file system that does not answer, or as another user, it cannot be killed; or a clone of this source runs it, and it takes long)"
    )]
    Hung {
        /// Which.
        program: Arc<str>,
        /// How long its end was waited for.
        after: Duration,
    },
    /// It ended with another exit code than 0.
    #[error("{program} failed with exit code {code}, {}", Wrote(stderr))]
    Failed {
        /// Which.
        program: Arc<str>,
        /// Its exit code.
        code: i32,
        /// The end of its stderr.
        stderr: String,
    },
    /// A signal ended it, and not ours.
    #[error("{program} was killed by signal {signal}, {}", Wrote(stderr))]
    Killed {
        /// Which.
        program: Arc<str>,
        /// Which, by its number.
        signal: i32,
        /// The end of its stderr.
        stderr: String,
    },
    /// It had not ended in time, and was killed.
    #[error(
        "{program} did not end within {after:.1?} and was killed (does it wait for somebody to answer? or raise `timeout`), {}",
        Wrote(stderr)
    )]
    TimedOut {
        /// Which.
        program: Arc<str>,
        /// The limit.
        after: Duration,
        /// The end of its stderr.
        stderr: String,
    },
    /// It wrote more than any token needs, and was killed.
    #[error("{program} wrote over {limit} bytes to its stdout and was killed: is it the right command?")]
    TooLarge {
        /// Which.
        program: Arc<str>,
        /// The limit in bytes.
        limit: usize,
    },
    /// It could not be waited for, or its output not be read.
    #[error("{program} was lost")]
    Lost {
        /// Which.
        program: Arc<str>,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It ended well, and wrote no usable token.
    #[error("{program} printed no usable token, {}", Wrote(stderr))]
    Output {
        /// Which.
        program: Arc<str>,
        /// What is wrong with its stdout.
        #[source]
        error: OutputError,
        /// The end of its stderr.
        stderr: String,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such program (is it installed, and in this process's `PATH`? or, of a script, the interpreter in its first line?)"
        }
        io::ErrorKind::PermissionDenied => "this user may not execute it",
        io::ErrorKind::TimedOut => {
            "the system did not do so in time (is it, or the interpreter in its first line, on a network file system that does not answer?)"
        }
        _ => "the system refuses it",
    }
}

struct Wrote<'a>(&'a str);

impl fmt::Display for Wrote<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("and wrote nothing to its stderr")
        } else {
            write!(f, "and wrote to its stderr: {}", self.0)
        }
    }
}

/// What is wrong with a program's stdout, where a token should be. Never quotes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// Nothing.
    #[error("its stdout is empty: a program must print the token there, and nothing else")]
    Empty,
    /// Binary, or in another encoding.
    #[error("its stdout is not UTF-8")]
    NotUtf8,
    /// A word that stands for none.
    #[error("it printed `{word}`, as programs do that looked for a token and found none")]
    Nothing {
        /// Which.
        word: &'static str,
    },
    /// A message, perhaps.
    #[error("it printed {words} words: let it print the token alone, or JSON, and messages to its stderr")]
    SeveralWords {
        /// How many.
        words: usize,
    },
    /// It begins like JSON, and is none.
    #[error("it printed what begins like JSON, and is none")]
    NotJson,
    /// An array, say.
    #[error("it printed JSON that is neither an object nor a string: name the token's place with `token_at`")]
    NotAnObject,
    /// An error, though it ended well.
    #[error("it printed an error in the place of a token{}: run it by hand to see which", code.map(|code| format!(" ({code})")).unwrap_or_default())]
    Refused {
        /// OAuth's error code (RFC 6749 section 5.2), if it is one; then asking again cannot help.
        code: Option<&'static str>,
    },
    /// There is no token where it was looked for.
    #[error("its JSON has no token at {place}: name its place with `token_at`")]
    NoToken {
        /// Where.
        place: String,
    },
    /// The token, or what is beside it, is of no use.
    #[error("what it printed has no usable token")]
    Unusable(#[source] AnswerError),
    /// Something else than what was asked for by name.
    #[error("it printed something else than Kubernetes' `ExecCredential`, which `exec_credential` asks for")]
    NoExecCredential,
    /// A version of `ExecCredential` that nobody knows here.
    #[error(
        "it printed an `ExecCredential` that is none of `client.authentication.k8s.io/v1`, `v1beta1` and `v1alpha1`: look at its `apiVersion`"
    )]
    ExecVersion,
    /// Certificates, which are no token.
    #[error(
        "its `ExecCredential` has a client certificate and no token: it is for TLS, and belongs into the client's TLS configuration"
    )]
    OnlyCertificate,
}

impl CommandError {
    /// Asking again cannot help: the program says so by its exit code, or prints OAuth's refusal.
    ///
    /// One that is not there is none of these. Looking for it again costs nobody anything, and while it is upgraded it is missing for a moment: a wait of a
    /// quarter of an hour would outlast the token.
    pub(super) fn is_permanent(&self, codes: &[i32]) -> bool {
        match self {
            Self::Failed { code, .. } => codes.contains(code),
            Self::Output { error: OutputError::Refused { code }, .. } => code.is_some(),
            _ => false,
        }
    }
}
