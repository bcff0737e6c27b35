//! An API on loopback, HTTP/1.1 and HTTP/2 in plaintext.

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use http_body_util::BodyExt;
use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{net::TcpListener, sync::Barrier};

/// A request as the server saw it; without what it left unread.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// `-` where there was none.
    pub token: String,
}

/// Answers 200 with `ok`; 401 with `refused` to a token that was revoked. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    state: Arc<Mutex<Rules>>,
}

#[derive(Default)]
struct Rules {
    revoked: HashSet<String>,
    refuse_all: bool,
    refused_path: Option<&'static str>,
    reads_a_frame: bool,
    together: Option<Arc<Barrier>>,
    moved_to: Option<String>,
    statuses: Vec<u16>,
    seen: Vec<Seen>,
}

impl Server {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let router = axum::Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    /// A server that refuses the token `old`.
    pub async fn refusing() -> Self {
        let server = Self::new().await;
        server.rules().revoked.insert("old".into());
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn refuse_all(&self) {
        self.rules().refuse_all = true;
    }

    /// Whatever the token.
    pub fn refuse_path(&self, path: &'static str) {
        self.rules().refused_path = Some(path);
    }

    /// Of what it refuses it reads one frame of the body.
    pub fn refuse_early(&self) {
        self.rules().reads_a_frame = true;
    }

    /// Refusals are answered once so many have come.
    pub fn refuse_together(&self, count: usize) {
        self.rules().together = Some(Arc::new(Barrier::new(count)));
    }

    /// `/moved` is a redirect to there.
    pub fn move_to(&self, url: String) {
        self.rules().moved_to = Some(url);
    }

    /// The next accepted requests get this status.
    pub fn answer_next(&self, status: u16) {
        self.rules().statuses.push(status);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.rules().seen.clone()
    }

    pub fn tokens(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.token).collect()
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let (head, mut body) = request.into_parts();
    let value = ["authorization", "x-api-key"].iter().find_map(|name| head.headers.get(*name));
    let token = value.map_or("-", |value| value.to_str().unwrap()).replace("Bearer ", "");
    crate::support::whole_run::secret(&token);
    let (refused, early, together) = {
        let rules = server.rules();
        let refused = rules.refuse_all
            || rules.revoked.contains(&token)
            || rules.refused_path.is_some_and(|path| path == head.uri.path());
        (refused, refused && rules.reads_a_frame, rules.together.clone())
    };
    let body = if early {
        body.frame().await.and_then(Result::ok).and_then(|frame| frame.into_data().ok()).unwrap_or_default()
    } else {
        let Ok(whole) = body.collect().await else { return plain(400, "cut off") };
        whole.to_bytes()
    };
    let path = head.uri.path().to_owned();
    let (moved, status) = {
        let mut rules = server.rules();
        let moved = rules.moved_to.clone().filter(|_| path == "/moved");
        let (method, version, headers) = (head.method, head.version, head.headers);
        rules.seen.push(Seen { method, path, version, headers, body, token });
        (moved, if refused { None } else { rules.statuses.pop() })
    };
    match (refused, moved) {
        (true, _) => {
            if let Some(all) = together {
                all.wait().await;
            }
            plain(401, "refused")
        }
        (false, Some(there)) => Response::builder().status(307).header("location", there).body(Body::empty()).unwrap(),
        (false, None) => plain(status.unwrap_or(200), "ok"),
    }
}

fn plain(status: u16, text: &'static str) -> Response {
    Response::builder().status(status).body(Body::from(text)).unwrap()
}
