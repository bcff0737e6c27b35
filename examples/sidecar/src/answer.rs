//! What the sidecar says by itself, each in one line that a person can act on.

use crate::{Body, gate::Refusal};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use std::{error::Error, time::Duration};
use tower_jwt_refresh::{BoxError, ScopeError, TokenError};

pub(crate) fn text(status: StatusCode, why: &str) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", format!("sidecar: {why}\n"))
}

pub(crate) fn typed(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(crate) fn refused(refusal: &Refusal) -> Response<Body> {
    text(refusal.status, &refusal.why)
}

/// No token is 503: the service behind may be well. No answer is 502.
pub(crate) fn failed(error: &BoxError) -> Response<Body> {
    let Some(token) = error.downcast_ref::<TokenError>() else {
        let why = if error.is::<ScopeError>() { "the request was not sent" } else { "the upstream gave no answer" };
        return text(StatusCode::BAD_GATEWAY, &format!("{why}: {}", chain(&**error)));
    };
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, &chain(token));
    if let Some(wait) = retry_in(token) {
        let seconds = wait.as_secs_f64().ceil().max(1.0);
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::try_from(format!("{seconds}")).expect("a number"));
    }
    response
}

fn retry_in(error: &TokenError) -> Option<Duration> {
    match error {
        TokenError::Unavailable { retry_in, .. }
        | TokenError::NeedsCredential { retry_in, .. }
        | TokenError::NotReplaced { retry_in } => Some(*retry_in),
        _ => None,
    }
}

/// An error and its causes. None of them holds a token or a credential.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
