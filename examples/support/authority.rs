//! A small authorization server and an API that trusts it, on loopback. Access tokens live for 2 s, and each refresh token serves once.

#![allow(dead_code, unreachable_pub, reason = "each example uses its part")]

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub const LIFE: Duration = Duration::from_secs(2);
/// `my-service:my-secret`
const BASIC: &str = "Basic bXktc2VydmljZTpteS1zZWNyZXQ=";
/// What `/private` wants of a login.
pub const STRONG: &str = "urn:example:strong";

/// A running server. Ends with its runtime.
#[derive(Clone)]
pub struct Authority {
    address: SocketAddr,
    state: Arc<Mutex<Issued>>,
}

#[derive(Default)]
struct Issued {
    access: HashMap<String, Access>,
    refresh: u32,
    seen: Seen,
}

struct Access {
    dies: Instant,
    login: Option<String>,
}

/// What the server was asked.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub discoveries: u32,
    pub tokens: u32,
    /// Refresh tokens that had been used before.
    pub spent: u32,
    pub stronger_logins: u32,
    /// 401s of the API.
    pub refusals: u32,
}

impl Authority {
    pub async fn serve() -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let authority = Self { address: listener.local_addr()?, state: Arc::default() };
        let router = Router::new()
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/token", post(token))
            .route("/jobs", get(jobs))
            .route("/private", get(private))
            .with_state(authority.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(authority)
    }

    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn api(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What a login would leave.
    pub fn log_in(&self) -> String {
        let mut state = self.state();
        state.refresh += 1;
        format!("refresh-{}", state.refresh)
    }

    pub fn seen(&self) -> Seen {
        self.state().seen.clone()
    }

    fn state(&self) -> MutexGuard<'_, Issued> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn metadata(State(authority): State<Authority>) -> Response {
    authority.state().seen.discoveries += 1;
    let issuer = authority.issuer();
    Json(json!({ "issuer": issuer, "token_endpoint": format!("{issuer}/token") })).into_response()
}

async fn token(State(authority): State<Authority>, headers: HeaderMap, body: Bytes) -> Response {
    let form: HashMap<_, _> = form_urlencoded::parse(&body).into_owned().collect();
    let refuse = |error: &str| (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response();
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != BASIC) {
        return refuse("invalid_client");
    }
    let mut state = authority.state();
    let refresh = match form["grant_type"].as_str() {
        "client_credentials" => None,
        "refresh_token" if form["refresh_token"] == format!("refresh-{}", state.refresh) => {
            state.refresh += 1;
            Some(format!("refresh-{}", state.refresh))
        }
        "refresh_token" => {
            state.seen.spent += 1;
            return refuse("invalid_grant");
        }
        _ => return refuse("unsupported_grant_type"),
    };
    state.seen.tokens += 1;
    let login = form.get("acr_values").cloned();
    state.seen.stronger_logins += u32::from(login.is_some());
    let access = format!("access-{}", state.seen.tokens);
    state.access.insert(access.clone(), Access { dies: Instant::now() + LIFE, login });
    Json(json!({ "access_token": access, "token_type": "Bearer", "expires_in": LIFE.as_secs(), "refresh_token": refresh }))
        .into_response()
}

async fn jobs(State(authority): State<Authority>, headers: HeaderMap) -> Response {
    authority.judge(&headers, |_| None)
}

/// RFC 9470.
async fn private(State(authority): State<Authority>, headers: HeaderMap) -> Response {
    let challenge = format!(r#"Bearer error="insufficient_user_authentication", acr_values="{STRONG}""#);
    authority.judge(&headers, |access| (access.login.as_deref() != Some(STRONG)).then_some(challenge))
}

impl Authority {
    fn judge(&self, headers: &HeaderMap, lacking: impl FnOnce(&Access) -> Option<String>) -> Response {
        let mut state = self.state();
        let name = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let challenge = match name.and_then(|name| state.access.get(name)).filter(|access| Instant::now() < access.dies)
        {
            None => Some(r#"Bearer error="invalid_token""#.to_owned()),
            Some(access) => lacking(access),
        };
        match challenge {
            None => name.unwrap_or_default().to_owned().into_response(),
            Some(challenge) => {
                state.seen.refusals += 1;
                (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
            }
        }
    }
}
