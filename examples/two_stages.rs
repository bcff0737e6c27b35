//! A token that gets a token: a sign-in hands out a session in a header of its answer, and only a session gets tokens for a project, by PUT. GitHub's
//! Apps and OpenStack's Keystone are of this kind.
//!
//! `cargo run --example two_stages`. The service is on loopback; it gives sessions that live for an hour, and ends the first one early.

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{post, put},
};
use http::{HeaderMap, HeaderName, Method, StatusCode, header::AUTHORIZATION};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, TokenProvider, source::Exchange};

const SESSION: HeaderName = HeaderName::from_static("x-subject-token");

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (base, service) = serve().await?; // stands in for your service

    // The first stage: a password for a session, which comes in a header; its end is in the body.
    let sign_in = Exchange::post(format!("{base}/sessions"))
        .json(json!({ "user": "me", "password": "durable" }).to_string())
        .token_from_header(SESSION)
        .lifetime_at("/session/lives_for")
        .build()?;
    let session = TokenProvider::new(sign_in);

    // The second: whoever shows a session gets a token. The session is renewed by itself, and once more if it is refused.
    let project = Exchange::request(Method::PUT, format!("{base}/projects/42/token"))
        .layer(JwtRefreshLayer::new(session))
        .build()?;
    let provider = TokenProvider::new(project);

    println!("a token for the project: {}", provider.token().await?.expose_secret());
    service.sessions_ended.store(1, Relaxed);
    println!("and one after the session was ended: {}", provider.refresh().await?.expose_secret());

    let counts = (service.sessions.load(Relaxed), service.tokens.load(Relaxed));
    println!("sign-ins and tokens: {counts:?}");
    if counts == (2, 2) { Ok(()) } else { Err("each stage should have been asked twice".into()) }
}

#[derive(Default)]
struct Service {
    sessions: AtomicUsize,
    /// The first so many are refused.
    sessions_ended: AtomicUsize,
    tokens: AtomicUsize,
}

async fn serve() -> Result<(String, Arc<Service>), BoxError> {
    let service = Arc::new(Service::default());
    let router = Router::new()
        .route("/sessions", post(sign_in))
        .route("/projects/42/token", put(token))
        .with_state(Arc::clone(&service));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok((base, service))
}

async fn sign_in(State(service): State<Arc<Service>>, Json(login): Json<serde_json::Value>) -> Response {
    if login["password"] != "durable" {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let session = format!("session-{}", service.sessions.fetch_add(1, Relaxed) + 1);
    (StatusCode::CREATED, [(SESSION, session)], Json(json!({ "session": { "lives_for": 3600 } }))).into_response()
}

async fn token(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer session-"));
    match shown.and_then(|number| number.parse::<usize>().ok()) {
        Some(session) if session > service.sessions_ended.load(Relaxed) => {
            let count = service.tokens.fetch_add(1, Relaxed) + 1;
            Json(json!({ "token": format!("token-{count}"), "expires_in": 600 })).into_response()
        }
        _ => StatusCode::UNAUTHORIZED.into_response(),
    }
}
