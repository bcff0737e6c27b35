//! A service for the examples to talk to, served by axum on loopback: `POST /api/v1/auth/token` gives a token for an API key,
//! `GET /api/v1/jobs/1` wants that token. Tokens are JWTs that live for 2 s, so that an example shows in seconds what a program meets
//! in days.

#![allow(dead_code, unreachable_pub, reason = "each example uses its part")]

mod faults;

pub use faults::{Faced, Faults};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use faults::{Answer, Client};
use serde_json::json;
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long a token lives.
pub const LIFE: Duration = Duration::from_secs(2);
/// How long the endpoint takes to mint one.
pub const FETCH: Duration = Duration::from_millis(50);

/// A running service. Ends with its runtime.
#[derive(Clone)]
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<Tokens>>,
}

struct Tokens {
    /// By API key.
    clients: HashMap<String, Client>,
    /// What the API accepts.
    alive: HashMap<String, Issued>,
    issued: u32,
    /// Fetches that wait for their answer.
    under_way: usize,
}

struct Issued {
    number: u32,
    dies: SystemTime,
}

/// Serves, and gives tokens for these API keys.
pub async fn serve(keys: &[&str]) -> io::Result<Server> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let clients = keys.iter().map(|key| ((*key).to_owned(), Client::default())).collect();
    let tokens = Tokens { clients, alive: HashMap::new(), issued: 0, under_way: 0 };
    let server = Server { address: listener.local_addr()?, state: Arc::new(Mutex::new(tokens)) };
    let router = Router::new()
        .route("/api/v1/auth/token", post(token))
        .route("/api/v1/jobs/1", get(job))
        .with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(server)
}

impl Server {
    pub fn auth_url(&self) -> String {
        format!("http://{}/api/v1/auth/token", self.address)
    }

    pub fn api_url(&self) -> String {
        format!("http://{}/api/v1/jobs/1", self.address)
    }

    /// What the endpoint does to each client from now on.
    pub fn plan(&self, faults: Faults) {
        self.lock().clients.values_mut().for_each(|client| client.plan(faults));
    }

    /// What happened to that client.
    pub fn faced(&self, key: &str) -> Faced {
        self.lock().clients.get(key).map(Client::faced).unwrap_or_default()
    }

    /// Revokes all tokens, unless a fetch is under way: then somebody might have a new one in hand already.
    pub fn revoke_all(&self) -> bool {
        let mut tokens = self.lock();
        if tokens.under_way == 0 {
            tokens.alive.clear();
        }
        tokens.under_way == 0
    }

    fn lock(&self) -> MutexGuard<'_, Tokens> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tokens {
    /// A JWT with an `exp` in fractions of a second. Nobody here looks at the signature: what is not in `alive` is unknown.
    fn mint(&mut self, key: &str) -> String {
        let now = SystemTime::now();
        let exp = (now + LIFE).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.issued += 1;
        let part = |claims: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
        let head = part(json!({"alg": "HS256", "typ": "JWT"}));
        let jwt = format!("{head}.{}.c2lnbmF0dXJl", part(json!({"sub": key, "jti": self.issued, "exp": exp})));
        self.alive.retain(|_, issued| issued.dies > now);
        self.alive.insert(jwt.clone(), Issued { number: self.issued, dies: now + LIFE });
        if let Some(client) = self.clients.get_mut(key) {
            client.minted(Instant::now());
        }
        jwt
    }
}

/// Counts a fetch until it is answered, or its connection gone.
struct UnderWay(Server);

impl UnderWay {
    fn new(server: &Server) -> Self {
        server.lock().under_way += 1;
        Self(server.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
    }
}

async fn token(State(server): State<Server>, headers: HeaderMap) -> Response {
    let _under_way = UnderWay::new(&server);
    let key = headers.get("x-api-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    let answer = server.lock().clients.get_mut(key).map(|client| client.fetches(Instant::now()));
    match answer {
        None => (StatusCode::UNAUTHORIZED, "unknown API key").into_response(),
        Some(Answer::Down) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Some(Answer::Never) => std::future::pending().await,
        Some(Answer::Token) => {
            tokio::time::sleep(FETCH).await;
            Json(json!({"jwt": server.lock().mint(key)})).into_response()
        }
    }
}

async fn job(State(server): State<Server>, headers: HeaderMap) -> Response {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let tokens = server.lock();
    let left = |issued: &Issued| issued.dies.duration_since(SystemTime::now()).ok();
    match tokens.alive.get(token).and_then(|issued| Some((issued.number, left(issued)?))) {
        Some((number, left)) => format!("token {number}, {:.1} s left", left.as_secs_f64()).into_response(),
        None => {
            let challenge = [(header::WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#)];
            (StatusCode::UNAUTHORIZED, challenge, "Invalid JWT").into_response()
        }
    }
}
