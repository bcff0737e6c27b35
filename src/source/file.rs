//! A token that somebody else writes into a file, and replaces there.

mod content;
mod cut;
mod error;
mod open;
mod read;
mod settle;

pub use error::TokenFileError;

use super::turns::Turns;
use crate::{BoxError, Token, TokenRequest};
use read::{Failed, Read};
use std::{
    fmt,
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::timeout;
use tower::Service;

/// Below the provider's `fetch_timeout` of 30 s, so that the error names the file.
const LONGEST: Duration = Duration::from_secs(10);

/// A source that reads a token which somebody else writes into a file and replaces there: the kubelet, a SPIFFE helper, a CI system, a Vault
/// agent.
///
/// ```
/// use tower_jwt_refresh::{TokenProvider, source::TokenFile};
///
/// let provider = TokenProvider::new(TokenFile::new("/var/run/secrets/kubernetes.io/serviceaccount/token"));
/// ```
///
/// # When it is read
/// When a token is first needed, once a [minute](Self::refresh_after) from then on, and at once when a server refuses the token. With
/// [`init`](crate::TokenProvider::init) that goes on while nobody sends anything; without it the request that finds a minute over goes out with the token held, and
/// the file is read beside it. A file that is as it was is neither news nor a failure, and the token stays fresh.
///
/// The path is opened anew each time, so it does not matter how the file is replaced: by rename, by the `..data` symlink of a Kubernetes volume, or by
/// writing over it. A relative path is looked up in the directory that the process is in at the time.
///
/// # What is in it
/// One token in UTF-8, with or without a byte order mark, blanks and line ends around it; at most 64 KiB. If it is a JWT its `exp` is heeded; anything else
/// has no known end, and is sent until a server refuses it or the file changes.
///
/// # Half-written files
/// Have the writer write a file beside it and rename that: then nobody ever sees half a token. Of a file that is written in place this source catches
/// most:
/// - One that changes while it is read, or was written less than 100 ms ago, is read again, up to four times, until two looks 50 ms apart agree. If none do and yet
///   all gave the same bytes, those are taken: some file systems have every file written just now.
/// - Where the token held is a JWT, less than three parts, or a signature much shorter under the same header, is taken for its successor cut short. A whole token can
///   look so too: one of another kind, or of a shorter key of which the header says nothing. So this is believed only while the file is less than a minute old,
///   and the token held lives and was not refused; after that, whatever is in the file is sent.
///
/// What is left is a writer that stops for more than 100 ms in its first token or within a token of another kind, or for more than a minute, and a file system that
/// keeps no fractions of a second. Such a token is sent; the refusal makes the file be read again, and the request is sent once more with what is there then.
///
/// # Failures
/// The error is a [`TokenFileError`]. It names the path and never quotes the file. All are transient, and the file is looked at again after the provider's
/// backoff, 1 to 60 s: whatever is wrong with a file heals as soon as somebody repairs it, and to look costs nothing. The token held is sent meanwhile, while
/// it lives, and the provider warns once. Who needs a token and has none gets it as the cause of
/// [`TokenError::Unavailable`](crate::TokenError::Unavailable).
///
/// | what is there | error |
/// | --- | --- |
/// | nothing: not mounted yet, or removed | [`Missing`](TokenFileError::Missing) |
/// | a file, or a folder above it, that this process may not read | [`Denied`](TokenFileError::Denied) |
/// | a directory, pipe, socket or device; none of them is opened | [`NotAFile`](TokenFileError::NotAFile) |
/// | nothing but blanks | [`Empty`](TokenFileError::Empty) |
/// | over 64 KiB | [`TooLarge`](TokenFileError::TooLarge) |
/// | bytes that are no UTF-8 | [`NotText`](TokenFileError::NotText) |
/// | JSON | [`Json`](TokenFileError::Json) |
/// | two lines, a NUL, anything else that no header can hold | [`Illegal`](TokenFileError::Illegal) |
/// | half a token, so far as that can be told, or what does not stand still | [`Torn`](TokenFileError::Torn) |
/// | a file system that does not answer for 10 s | [`Hung`](TokenFileError::Hung) |
/// | anything else that the system reports | [`Read`](TokenFileError::Read) |
///
/// # Threads
/// The file is read in tokio's pool of blocking threads, never on a worker. A network file system that does not answer keeps one of those threads, and no second: clones take
/// turns, and nobody begins to read while a read hangs. Dropping the runtime waits for that thread; a program that must end whatever
/// happens calls [`shutdown_timeout`](tokio::runtime::Runtime::shutdown_timeout).
///
/// # Cancel safety
/// Dropping the future loses nothing. A read that has begun ends by itself.
#[derive(Clone)]
pub struct TokenFile {
    path: Arc<Path>,
    refresh_after: Duration,
    turns: Turns,
}

impl TokenFile {
    /// The file at this path. It need not be there yet.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().into(), refresh_after: Duration::from_secs(60), turns: Turns::default() }
    }

    /// How long after one look the next is due; less than a second counts as one. Default 60 s: the kubelet replaces a token when it has a fifth of its life left,
    /// two minutes or more, and a look each minute is in time for that.
    #[must_use]
    pub fn refresh_after(self, span: Duration) -> Self {
        Self { refresh_after: span.max(Duration::from_secs(1)), ..self }
    }

    async fn read(&self) -> Result<Read, Failed> {
        let path = Arc::clone(&self.path);
        let read = self.turns.take(move || read::read(&path)).await;
        // Gone: the runtime is shutting down.
        read.unwrap_or_else(|gone| Err(Failed::Io(io::Error::other(gone))))
    }

    async fn token(self, request: TokenRequest) -> Result<Token, TokenFileError> {
        let hung = |_| TokenFileError::Hung { path: Arc::clone(&self.path), after: LONGEST };
        let read = timeout(LONGEST, settle::settled(|| self.read())).await.map_err(hung)?;
        let read = read.map_err(|failed| failed.at(&self.path))?;
        let token =
            content::token(read.bytes(), cut::doubted(&request, &read)).map_err(|wrong| wrong.at(&self.path))?;
        Ok(token.with_refresh_after(self.refresh_after))
    }
}

impl Service<TokenRequest> for TokenFile {
    type Response = Token;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Token, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: TokenRequest) -> Self::Future {
        let token = self.clone().token(request);
        Box::pin(async { token.await.map_err(Into::into) })
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile")
            .field("path", &self.path)
            .field("refresh_after", &self.refresh_after)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Reason;
    use std::{pin::pin, task::Waker};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn while_a_read_hangs_the_next_one_ends_in_an_error_that_says_so() {
        let file = TokenFile::new("token");
        // The turn is taken by work that does not end; a thread that did so would hold up tokio's paused clock.
        let mut hung = pin!(file.turns.hold());
        assert!(hung.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let before = Instant::now();
        let request = TokenRequest::new(Reason::Initial, None, None);
        let error = file.clone().token(request).await.unwrap_err();
        assert!(matches!(error, TokenFileError::Hung { after: LONGEST, .. }), "{error}");
        assert_eq!(before.elapsed(), LONGEST);
    }

    #[test]
    fn a_pause_between_looks_of_less_than_a_second_is_a_second() {
        let after = |span| TokenFile::new("token").refresh_after(span).refresh_after;
        assert_eq!(after(Duration::ZERO), Duration::from_secs(1));
        assert_eq!(after(Duration::from_secs(3)), Duration::from_secs(3));
    }
}
