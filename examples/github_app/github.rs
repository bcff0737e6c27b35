//! As much of GitHub as an app's authentication needs, on loopback: <https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app>.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The one that there is.
pub(super) const INSTALLATION: u64 = 4711;

/// How long an installation token lives; an hour there. `expires_at` names a second, so up to one second less.
const LIFE: Duration = Duration::from_secs(4);

/// A running GitHub. Ends with its runtime.
#[derive(Clone)]
pub(super) struct GitHub {
    pub(super) url: String,
    app: Arc<App>,
    state: Arc<Mutex<Tokens>>,
}

struct App {
    client_id: &'static str,
    public: DecodingKey,
}

#[derive(Default)]
struct Tokens {
    alive: HashMap<String, SystemTime>,
    jwts: HashSet<String>,
    seen: Seen,
}

/// What came.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) tokens: u32,
    pub(super) jwts: usize,
    pub(super) refused: u32,
}

impl GitHub {
    /// With one app, and one installation of it.
    pub(super) async fn serve(client_id: &'static str, public_key: &str) -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let public = DecodingKey::from_rsa_pem(public_key.as_bytes()).map_err(io::Error::other)?;
        let github = Self {
            url: format!("http://{}", listener.local_addr()?),
            app: Arc::new(App { client_id, public }),
            state: Arc::default(),
        };
        let router = Router::new()
            .route("/app/installations/{id}/access_tokens", post(access_tokens))
            .route("/installation/repositories", get(repositories))
            .with_state(github.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(github)
    }

    pub(super) fn revoke_all(&self) {
        self.lock().alive.clear();
    }

    pub(super) fn seen(&self) -> Seen {
        let tokens = self.lock();
        Seen { jwts: tokens.jwts.len(), ..tokens.seen }
    }

    fn lock(&self) -> MutexGuard<'_, Tokens> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key that no app here has.
pub(super) fn another_key() -> String {
    rcgen::KeyPair::generate().expect("the system has random numbers").serialize_pem()
}

/// What is wrong with the app's JWT, if anything.
fn judge(app: &App, jwt: &str, now: SystemTime) -> Result<(), &'static str> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_issuer(&[app.client_id]);
    // Judged below: GitHub limits both.
    validation.validate_exp = false;
    validation.set_required_spec_claims(&["iss", "exp"]);
    let claims = decode::<Value>(jwt, &app.public, &validation).map_err(|_| "not signed by this app")?.claims;
    let (Some(iat), Some(exp)) = (claims["iat"].as_u64(), claims["exp"].as_u64()) else {
        return Err("iat and exp must be integers");
    };
    if iat > now {
        Err("iat is in the future")
    } else if exp <= now {
        Err("exp is in the past")
    } else if exp > now + 600 {
        Err("exp is over 10 minutes in the future")
    } else {
        Ok(())
    }
}

/// No, and why, in the form that GitHub gives it.
struct Refusal(StatusCode, &'static str);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, message) = self;
        (status, Json(json!({"message": message}))).into_response()
    }
}

/// The bearer token of a request that has what each must have.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    if !headers.contains_key(header::USER_AGENT) {
        return Err(Refusal(StatusCode::FORBIDDEN, "no User-Agent"));
    }
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer "));
    token.ok_or(Refusal(StatusCode::UNAUTHORIZED, "no token"))
}

async fn access_tokens(
    State(github): State<GitHub>,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refusal> {
    let now = SystemTime::now();
    let jwt = bearer(&headers)?;
    judge(&github.app, jwt, now).map_err(|problem| Refusal(StatusCode::UNAUTHORIZED, problem))?;
    if id != INSTALLATION {
        return Err(Refusal(StatusCode::NOT_FOUND, "no such installation"));
    }
    let mut tokens = github.lock();
    tokens.jwts.insert(jwt.to_owned());
    tokens.seen.tokens += 1;
    let token = format!("ghs_example{}", tokens.seen.tokens);
    let expires = now + LIFE;
    tokens.alive.insert(token.clone(), expires);
    Ok((StatusCode::CREATED, Json(json!({"token": token, "expires_at": rfc3339(expires)}))))
}

async fn repositories(State(github): State<GitHub>, headers: HeaderMap) -> Result<String, Refusal> {
    let token = bearer(&headers)?;
    let mut tokens = github.lock();
    if tokens.alive.get(token).is_some_and(|dies| SystemTime::now() < *dies) {
        return Ok(format!("GitHub saw {token}"));
    }
    tokens.seen.refused += 1;
    Err(Refusal(StatusCode::UNAUTHORIZED, "no such token"))
}

/// `2026-11-25T17:18:32Z`, by the calendar that counts years from March, so that the leap day is a year's last.
fn rfc3339(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}
