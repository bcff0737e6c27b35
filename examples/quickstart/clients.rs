//! The three clients. Each is a tower service around the same HTTP client, and each counts its fetches in the same way.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tower::Service;
use tower_jwt_refresh::{BoxError, Token, TokenRequest, source::Exchange};

/// A fetch that takes longer has failed, in all three. One takes 50 ms.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(300);

/// What a hand-written loop has as "five minutes before it expires", at the pace of this run: 1 s is 300 s.
const WINDOW: Duration = Duration::from_secs(1);
/// The loop's "but sleep a minute at least".
const FLOOR: Duration = Duration::from_millis(200);
/// "A minute before it expires", below which a caller refreshes.
const NEAR: Duration = Duration::from_millis(200);

pub(crate) type Req = Request<Full<Bytes>>;
pub(crate) type Http = legacy::Client<HttpConnector, Full<Bytes>>;

pub(crate) fn http() -> Http {
    legacy::Client::builder(TokioExecutor::new()).build_http()
}

/// This crate's source, with its fetches counted.
#[derive(Clone)]
pub(crate) struct Counted {
    pub(crate) source: Exchange,
    pub(crate) gauge: Arc<Gauge>,
}

impl Service<TokenRequest> for Counted {
    type Response = Token;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Token, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.source.poll_ready(cx)
    }

    fn call(&mut self, request: TokenRequest) -> Self::Future {
        let (fetch, answer) = (self.gauge.enter(), self.source.call(request));
        Box::pin(async move {
            let _fetch = fetch;
            answer.await
        })
    }
}

/// Returns the cached token whatever its age, and has a loop that replaces it a while before it expires. A 401 is the caller's.
pub(crate) struct Naive {
    cached: RwLock<Token>,
}

impl Naive {
    pub(crate) async fn start(endpoint: Endpoint) -> Result<Arc<Self>, BoxError> {
        let naive = Arc::new(Self { cached: RwLock::new(endpoint.fetch().await?) });
        tokio::spawn(Arc::clone(&naive).refresh(endpoint));
        Ok(naive)
    }

    async fn refresh(self: Arc<Self>, endpoint: Endpoint) {
        loop {
            tokio::time::sleep(left(&self.token()).saturating_sub(WINDOW).max(FLOOR)).await;
            // A failure would be logged here; the next round tries again.
            if let Ok(token) = endpoint.fetch().await {
                store(&self.cached, token);
            }
        }
    }

    pub(crate) fn token(&self) -> Token {
        load(&self.cached)
    }
}

/// Refreshes on demand: a caller that finds the token near its expiry takes a lock, looks again, and fetches. If that fails it goes on with
/// the cached token, whatever its age. A 401 is the caller's.
pub(crate) struct Mutex {
    cached: RwLock<Token>,
    refreshing: tokio::sync::Mutex<()>,
    endpoint: Endpoint,
}

impl Mutex {
    pub(crate) async fn start(endpoint: Endpoint) -> Result<Arc<Self>, BoxError> {
        let cached = RwLock::new(endpoint.fetch().await?);
        Ok(Arc::new(Self { cached, refreshing: tokio::sync::Mutex::new(()), endpoint }))
    }

    pub(crate) async fn token(&self) -> Token {
        if let Some(good) = self.good() {
            return good;
        }
        let _refreshing = self.refreshing.lock().await;
        if let Some(good) = self.good() {
            return good;
        }
        match self.endpoint.fetch().await {
            Ok(token) => store(&self.cached, token),
            // A warning would be logged here.
            Err(_) => load(&self.cached),
        }
    }

    fn good(&self) -> Option<Token> {
        Some(load(&self.cached)).filter(|token| left(token) > NEAR)
    }
}

/// The HTTP client with a token put on each request, as both of them do it.
pub(crate) fn with_token<T, F>(
    http: Http,
    token: T,
) -> impl Service<Req, Response = Response<Incoming>, Error = BoxError, Future: Send> + Clone + Send + 'static
where
    T: Fn() -> F + Clone + Send + 'static,
    F: Future<Output = Token> + Send,
{
    tower::service_fn(move |mut request: Req| {
        let (http, token) = (http.clone(), token());
        async move {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.await.expose_secret()))?;
            request.headers_mut().insert(AUTHORIZATION, value);
            Ok(http.request(request).await?)
        }
    })
}

/// The token endpoint, as one writes it by hand.
pub(crate) struct Endpoint {
    pub(crate) http: Http,
    pub(crate) url: String,
    pub(crate) key: &'static str,
    pub(crate) gauge: Arc<Gauge>,
}

#[derive(Deserialize)]
struct Answer {
    jwt: String,
}

impl Endpoint {
    async fn fetch(&self) -> Result<Token, BoxError> {
        let _fetch = self.gauge.enter();
        let request = Request::post(&self.url).header("x-api-key", self.key).body(Full::default())?;
        tokio::time::timeout(TIMEOUT, async {
            let answer = self.http.request(request).await?;
            if !answer.status().is_success() {
                return Err(format!("the endpoint answered {}", answer.status()).into());
            }
            let body = answer.into_body().collect().await?.to_bytes();
            Ok(Token::from_jwt(serde_json::from_slice::<Answer>(&body)?.jwt)?)
        })
        .await?
    }
}

/// Counts the fetches of one client, around each.
#[derive(Default)]
pub(crate) struct Gauge {
    begun: AtomicU32,
    now: AtomicU32,
    most: AtomicU32,
}

/// One of them. Over when dropped, so that one that is given up on is not counted for ever.
pub(crate) struct Fetch(Arc<Gauge>);

impl Gauge {
    pub(crate) fn enter(self: &Arc<Self>) -> Fetch {
        // Relaxed: each number stands alone.
        self.begun.fetch_add(1, Ordering::Relaxed);
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        Fetch(Arc::clone(self))
    }

    pub(crate) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(crate) fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

fn left(token: &Token) -> Duration {
    token.expires_at().and_then(|at| at.duration_since(SystemTime::now()).ok()).unwrap_or_default()
}

fn load(cached: &RwLock<Token>) -> Token {
    cached.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn store(cached: &RwLock<Token>, token: Token) -> Token {
    cached.write().unwrap_or_else(PoisonError::into_inner).clone_from(&token);
    token
}
