//! Why a file brought no token.

use crate::InvalidToken;
use std::{io, path::Path, sync::Arc, time::Duration};

/// Why a [`TokenFile`](super::TokenFile) brought no token. Never quotes the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFileError {
    /// Nothing is there.
    #[error("there is no token file {path:?}: is the path right, its volume mounted, its writer running?")]
    Missing {
        /// Where it was looked for.
        path: Arc<Path>,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// This process may not read it.
    #[error(
        "the token file {path:?} may not be read by this process: let its user read the file and enter the folders above it"
    )]
    Denied {
        /// Which.
        path: Arc<Path>,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// Something else than a file. It was not read.
    #[error("{path:?} is {kind}, and a token is read from a regular file: name the file itself")]
    NotAFile {
        /// Which.
        path: Arc<Path>,
        /// What it is.
        kind: &'static str,
    },
    /// Nothing but blanks.
    #[error(
        "the token file {path:?} is empty: its writer has nothing yet, or writes in place (have it write a file beside it and rename that)"
    )]
    Empty {
        /// Which.
        path: Arc<Path>,
    },
    /// More than any token needs.
    #[error("the token file {path:?} has over {limit} bytes, so it is no token: is this the right file?")]
    TooLarge {
        /// Which.
        path: Arc<Path>,
        /// The limit in bytes.
        limit: usize,
    },
    /// Binary, or UTF-16 as some shells write it.
    #[error("the token file {path:?} is not UTF-8: write the token as plain ASCII (`>` of PowerShell 5 writes UTF-16)")]
    NotText {
        /// Which.
        path: Arc<Path>,
    },
    /// A JSON value, of which one member may be the token.
    #[error(
        "the token file {path:?} holds JSON, and the bare token is wanted: have its writer take the token out (`jq -r`), or read it in a source of your own"
    )]
    Json {
        /// Which.
        path: Arc<Path>,
    },
    /// It could not be sent.
    #[error("the token file {path:?} does not hold one token and nothing else")]
    Illegal {
        /// Which.
        path: Arc<Path>,
        /// What is wrong with it.
        #[source]
        error: InvalidToken,
    },
    /// Half a token, or a file that does not stand still.
    #[error(
        "the token file {path:?} is half-written: have its writer write a file beside it and rename that; if that is the whole token, and of another kind than the one before, it is taken once the file is a minute old, or the one before dead or refused"
    )]
    Torn {
        /// Which.
        path: Arc<Path>,
    },
    /// The file system does not answer.
    #[error(
        "the token file {path:?} could not be read within {after:.1?}: is it on a network file system that does not answer?"
    )]
    Hung {
        /// Which.
        path: Arc<Path>,
        /// The limit.
        after: Duration,
    },
    /// Anything else.
    #[error("the token file {path:?} could not be read")]
    Read {
        /// Which.
        path: Arc<Path>,
        /// What the system says.
        #[source]
        error: io::Error,
    },
}
