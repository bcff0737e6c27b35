//! The issuer and the API behind it, on one address.
//!
//! A refresh token is good for one use. Shown again it is theft, and the login with all that came from it is withdrawn, but for the one before the
//! last: that is taken for [`GRACE`](super::GRACE) as long as its successor was not used, since its owner may have died with the answer.

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
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// How long the endpoint takes to answer, and for how long afterwards the answer may be on its way to the store.
const FETCH: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub struct Issuer {
    address: SocketAddr,
    state: Arc<Mutex<Login>>,
}

#[derive(Default)]
struct Login {
    refresh_token: String,
    /// The one before it, and until when that is taken.
    before: Option<(String, Instant)>,
    /// By access token, when it dies.
    alive: HashMap<String, Instant>,
    fetches: u32,
    by_grace: u32,
    granted_to: HashMap<usize, u32>,
    /// Who fetched last, and when that began.
    last: Option<(usize, Instant)>,
    withdrawn: u32,
}

impl Issuer {
    pub async fn serve() -> io::Result<Self> {
        let state = Arc::new(Mutex::new(Login { refresh_token: secret("refresh"), ..Login::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let issuer = Self { address: listener.local_addr()?, state };
        let router = Router::new().route("/token", post(token)).route("/work", get(work)).with_state(issuer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(issuer)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a login leaves. A worker that starts anew is given the same one: only the store knows what came of it.
    pub fn log_in(&self) -> String {
        self.login().refresh_token.clone()
    }

    /// No access token that is out is taken any more.
    pub fn revoke(&self) {
        self.login().alive.clear();
    }

    pub fn fetches(&self) -> u32 {
        self.login().fetches
    }

    pub fn by_grace(&self) -> u32 {
        self.login().by_grace
    }

    pub fn granted_to(&self, worker: usize) -> u32 {
        self.login().granted_to.get(&worker).copied().unwrap_or(0)
    }

    pub fn withdrawn(&self) -> u32 {
        self.login().withdrawn
    }

    /// Who is at it right now.
    pub fn fetching(&self) -> Option<usize> {
        self.login().last.filter(|(_, begun)| begun.elapsed() < 2 * FETCH).map(|(worker, _)| worker)
    }

    fn login(&self) -> MutexGuard<'_, Login> {
        self.state.lock().expect("nothing panics while it holds the login")
    }
}

/// Told from others by its number alone: these are secrets of nobody.
fn secret(kind: &str) -> String {
    format!("{kind}-{:016x}", fastrand::u64(..))
}

async fn token(State(issuer): State<Issuer>, form: Bytes) -> Response {
    let asked: HashMap<_, _> = form_urlencoded::parse(&form).collect();
    let worker = asked.get("worker").and_then(|worker| worker.parse().ok()).unwrap_or(usize::MAX);
    {
        let mut login = issuer.login();
        login.fetches += 1;
        login.last = Some((worker, Instant::now()));
    }
    tokio::time::sleep(FETCH).await;
    let shown = asked.get("refresh_token").map_or("", |shown| shown);
    match issuer.login().grant(worker, shown) {
        Some((access, refresh)) => Json(json!({
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": super::LIFE.as_secs(),
            "refresh_token": refresh,
        }))
        .into_response(),
        None => (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response(),
    }
}

impl Login {
    fn grant(&mut self, worker: usize, shown: &str) -> Option<(String, String)> {
        let now = Instant::now();
        let by_grace = self.before.as_ref().is_some_and(|(before, until)| before == shown && now < *until);
        if self.withdrawn > 0 || (shown != self.refresh_token && !by_grace) {
            self.withdrawn = 1;
            self.alive.clear();
            return None;
        }
        self.by_grace += u32::from(by_grace);
        if !by_grace {
            self.before = Some((self.refresh_token.clone(), now + super::GRACE));
        }
        self.refresh_token = secret("refresh");
        let access = secret("access");
        self.alive.retain(|_, dies| *dies > now);
        self.alive.insert(access.clone(), now + super::LIFE);
        *self.granted_to.entry(worker).or_default() += 1;
        Some((access, self.refresh_token.clone()))
    }
}

async fn work(State(issuer): State<Issuer>, headers: HeaderMap) -> StatusCode {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let login = issuer.login();
    match shown.and_then(|shown| login.alive.get(shown)) {
        Some(dies) if *dies > Instant::now() => StatusCode::OK,
        _ => StatusCode::UNAUTHORIZED,
    }
}
