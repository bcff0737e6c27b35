//! `GET /.sidecar/health`: how the token fares, and never the token.

use crate::{Body, answer};
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use std::time::SystemTime;
use tower_jwt_refresh::{Token, TokenProvider, TokenStatus};

/// What begins so is the sidecar's own and never forwarded.
pub(crate) const OURS: &str = "/.sidecar/";

/// 200 while there is a token that lives, else 503.
pub(crate) fn answer(method: &Method, path: &str, provider: &TokenProvider) -> Response<Body> {
    if path != "/.sidecar/health" {
        return answer::text(StatusCode::NOT_FOUND, "there is /.sidecar/health, and nothing else");
    }
    if ![Method::GET, Method::HEAD].contains(method) {
        let mut response = answer::text(StatusCode::METHOD_NOT_ALLOWED, "the health is read by GET");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let now = SystemTime::now();
    let status = provider.subscribe().borrow().clone();
    let (usable, life) = life(provider.current().as_ref(), now);
    let mut report = Map::from_iter([("usable".to_owned(), usable.into()), ("expires_in_seconds".to_owned(), life)]);
    report.extend(told(&status, now));
    let status = if usable { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer::typed(status, "application/json", format!("{}\n", Value::from(report)))
}

/// Null: nobody knows.
fn life(token: Option<&Token>, now: SystemTime) -> (bool, Value) {
    let Some(token) = token else { return (false, Value::Null) };
    let Some(end) = token.expires_at() else { return (true, Value::Null) };
    (end > now, seconds(now, end))
}

fn told(status: &TokenStatus, now: SystemTime) -> Map<String, Value> {
    let fields = match status {
        TokenStatus::Fresh => json!({"token": "fresh"}),
        TokenStatus::Stale => json!({"token": "stale"}),
        TokenStatus::Failing { since, next_try } => json!({
            "token": "failing",
            "failing_for_seconds": seconds(*since, now),
            "next_try_in_seconds": next_try.map(|next| seconds(now, next)),
        }),
        TokenStatus::NeedsCredential { since } => {
            json!({"token": "needs credential", "failing_for_seconds": seconds(*since, now)})
        }
        _ => json!({"token": "shut down"}),
    };
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// From one to the other, to a tenth; not below zero.
fn seconds(from: SystemTime, to: SystemTime) -> Value {
    let span = to.duration_since(from).unwrap_or_default();
    ((span.as_secs_f64() * 10.0).round() / 10.0).into()
}
