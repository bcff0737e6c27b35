//! tonic: its body, the end of its streams, and an interceptor where the channel is somebody else's.

use crate::{
    FetchError, Placement, TokenError, TokenProvider,
    body::{ReplayBody, Split},
};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};
use tonic::{Code, Request, Status, body::Body, service::Interceptor};

impl ReplayBody for Body {
    /// Recorded up to the limit while it is sent.
    fn split(self, limit: usize) -> Split<Self> {
        Split::tee(self, limit, Self::new, |error| error)
    }
}

/// Puts the token into the metadata of each call: for a client that takes an interceptor and no channel of yours, such as an exporter.
///
/// It is sync, so it can neither wait nor resend: it attaches the token that lives and starts a refresh when that one is stale. Call
/// [`TokenProvider::init`] first, or the first call finds none. Where the client takes any channel, put the
/// [layer](crate::JwtRefreshLayer) around it instead: that one heals a refused token as well. Here the answer is not seen: report a refusal
/// with [`TokenProvider::reject`], and the next call has a new token.
///
/// An interceptor does not see where the call goes: use it on channels that go over TLS, to a server that may have the token.
///
/// # Errors
/// A call for which no token lives fails with `Status::unauthenticated`, unsent.
///
/// ```
/// # use tower_jwt_refresh::{BoxError, Token, TokenProvider, TokenRequest, clients::TokenInterceptor};
/// use tonic::service::Interceptor;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) }));
/// provider.init().await?;
/// let mut interceptor = TokenInterceptor::new(provider); // GreeterClient::with_interceptor(channel, interceptor)
/// let request = interceptor.call(tonic::Request::new(()))?;
/// assert!(request.metadata().contains_key("authorization"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct TokenInterceptor {
    provider: TokenProvider,
    placement: Placement,
}

impl TokenInterceptor {
    /// The provider's token as `authorization: Bearer`.
    #[must_use]
    pub fn new(provider: TokenProvider) -> Self {
        Self { provider, placement: Placement::bearer() }
    }

    /// Where the token goes in the metadata. Default [`Placement::bearer`].
    #[must_use]
    pub fn place(self, placement: Placement) -> Self {
        Self { placement, ..self }
    }
}

impl Interceptor for TokenInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata_mut().as_mut();
        // As in the layer: what the caller set itself is the caller's.
        if headers.contains_key(self.placement.name()) {
            return Ok(request);
        }
        let token = self.provider.try_token().ok_or_else(|| {
            Status::unauthenticated("there is no living token: call `TokenProvider::init` first, or see its status for why the source gives none")
        })?;
        self.placement.attach(headers, &token);
        Ok(request)
    }
}

/// Shows `hook` the trailers of an answer whose body is still to come.
pub(crate) fn watch_trailers(response: &mut http::Response<Body>, hook: impl FnOnce(&HeaderMap) + Send + 'static) {
    let body = std::mem::take(response.body_mut());
    *response.body_mut() = Body::new(Watched { body, hook: Some(hook) });
}

pin_project! {
    struct Watched<H> {
        #[pin]
        body: Body,
        hook: Option<H>,
    }
}

impl<H: FnOnce(&HeaderMap)> http_body::Body for Watched<H> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let polled = this.body.poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
            && let Some(hook) = this.hook.take()
        {
            hook(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A [`TokenError`] as a status, made when somebody looks for one.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct StatusSlot(OnceLock<Status>);

impl Clone for StatusSlot {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// What tonic looks for in an error's chain. Its source is what the error's would be.
pub(crate) fn status_of(error: &TokenError) -> &Status {
    static TIMED_OUT: OnceLock<Status> = OnceLock::new();
    static NOT_REPLACED: OnceLock<Status> = OnceLock::new();
    static SIGNED_OUT: OnceLock<Status> = OnceLock::new();
    static SHUT_DOWN: OnceLock<Status> = OnceLock::new();
    static NO_RUNTIME: OnceLock<Status> = OnceLock::new();
    static RECURSIVE: OnceLock<Status> = OnceLock::new();
    let caused = |code, cause: &Arc<FetchError>| {
        let mut status = Status::new(code, error.to_string());
        status.set_source(cause.clone());
        status
    };
    let lasting = || Status::unauthenticated(error.to_string());
    match error {
        TokenError::Unavailable { error, status, .. } => status.0.get_or_init(|| caused(Code::Unavailable, error)),
        TokenError::NeedsCredential { error, status, .. } => {
            status.0.get_or_init(|| caused(Code::Unauthenticated, error))
        }
        // One for all, so without the times that each of these two has.
        TokenError::TimedOut { .. } => TIMED_OUT.get_or_init(|| Status::unavailable("no token in time: try again")),
        TokenError::NotReplaced { .. } => NOT_REPLACED.get_or_init(|| {
            Status::unauthenticated("no newer token: servers rejected the last ones too, look at what they say")
        }),
        TokenError::SignedOut => SIGNED_OUT.get_or_init(lasting),
        TokenError::ShutDown => SHUT_DOWN.get_or_init(lasting),
        TokenError::NoRuntime => NO_RUNTIME.get_or_init(lasting),
        TokenError::Recursive => RECURSIVE.get_or_init(lasting),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_error_says_by_its_code_whether_to_try_again_and_by_its_message_what_is_wrong() {
        let cause = || Arc::new(FetchError::Panicked);
        for (error, code, says) in [
            (TokenError::unavailable(cause(), SECOND, SECOND), Code::Unavailable, "has been failing for 1.0s"),
            (TokenError::TimedOut { after: SECOND }, Code::Unavailable, "try again"),
            (TokenError::needs_credential(cause(), SECOND, SECOND), Code::Unauthenticated, "repair the credential"),
            (TokenError::NotReplaced { retry_in: SECOND }, Code::Unauthenticated, "rejected the last ones"),
            (TokenError::SignedOut, Code::Unauthenticated, "signed out"),
            (TokenError::ShutDown, Code::Unauthenticated, "shut down"),
            (TokenError::NoRuntime, Code::Unauthenticated, "tokio runtime"),
            (TokenError::Recursive, Code::Unauthenticated, "the source asked for the very token"),
        ] {
            let status = Status::from_error(error.into());
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains(says), "{status}");
        }
    }

    #[test]
    fn a_clone_has_a_status_of_its_own_with_the_same_cause() {
        let error = TokenError::unavailable(Arc::new(FetchError::Panicked), SECOND, SECOND);
        let cause = |error| std::ptr::from_ref(std::error::Error::source(status_of(error)).unwrap()).cast::<()>();
        assert_eq!(cause(&error), cause(&error.clone()));
    }
}
