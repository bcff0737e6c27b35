//! What went wrong with Redis, in words that hold no password.

use crate::store::StoreError;
use redis::{ErrorKind, RedisError, ServerErrorKind};
use std::{error::Error, time::Duration};

/// The cause of a [`StoreError`] of [`RedisStore`](super::RedisStore).
///
/// The `redis` crate's own error is not kept: a server may quote a command's arguments in its answer, `AUTH`'s among them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisFailure {
    /// No answer in time; also while a connection is made.
    #[error("Redis did not answer within {within:?}")]
    TimedOut {
        /// The limit.
        within: Duration,
    },
    /// No connection, or it broke: in the words of the system, or of TLS.
    #[error("no connection to Redis: {0}")]
    Connection(String),
    /// It wants another user name or password, or one at all.
    #[error("Redis refuses the login (WRONGPASS or NOAUTH): check the user name and the password of the client")]
    Login,
    /// The user may not do what the store does.
    #[error(
        "Redis does not let this user run the store's commands (NOPERM): allow `+eval +hget +hmget +hset +hdel +hincrby +time +publish +subscribe +unsubscribe`, the key and the channel of its name"
    )]
    NotAllowed,
    /// The key holds no hash: something else uses it.
    #[error("the key holds something else (WRONGTYPE): give the store a key of its own")]
    OtherContent,
    /// Another error of the server, by its code.
    #[error("Redis answered with {code}")]
    Refused {
        /// Its first word, such as `READONLY`, `OOM`, `LOADING`, `CLUSTERDOWN` or `ERR`.
        code: String,
    },
    /// The client is not made for this server, as it says itself.
    #[error("the Redis client cannot work here: {0}")]
    Client(String),
    /// An answer of another shape than the store's scripts give.
    #[error("Redis gave an answer that no script of the store gives")]
    Answer,
}

impl RedisFailure {
    /// Whether the connection may have served its time.
    pub(super) fn breaks_the_connection(&self) -> bool {
        !matches!(self, Self::NotAllowed | Self::OtherContent | Self::Answer)
    }

    /// Whether it can end by itself within moments, as a restart or a failover does.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Connection(_) | Self::Refused { .. })
    }
}

impl From<RedisError> for RedisFailure {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Login,
            ErrorKind::Server(ServerErrorKind::NoPerm) => Self::NotAllowed,
            ErrorKind::Io => Self::Connection(cause(&error)),
            ErrorKind::UnexpectedReturnType | ErrorKind::Parse => Self::Answer,
            _ => match error.code() {
                Some("WRONGPASS" | "NOAUTH") => Self::Login,
                Some("WRONGTYPE") => Self::OtherContent,
                Some(code) => Self::Refused { code: code.chars().take(32).collect() },
                None => Self::Client(cause(&error)),
            },
        }
    }
}

/// What is behind an error that no server made.
fn cause(error: &RedisError) -> String {
    error.source().map_or_else(|| error.category().to_owned(), ToString::to_string)
}

impl From<RedisFailure> for StoreError {
    fn from(failure: RedisFailure) -> Self {
        match failure {
            RedisFailure::OtherContent => Self::Unusable(failure.into()),
            failure => Self::Unavailable(failure.into()),
        }
    }
}
