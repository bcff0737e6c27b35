//! An API in memory that judges tokens: the inner service of the layer.

use super::whole_run;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use std::{
    collections::HashSet,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tower::Service;

pub fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::builder().uri(uri).body(Full::default()).expect("a valid URI")
}

pub fn post(uri: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::builder().method(Method::POST).uri(uri).body(Full::from(body)).expect("a valid URI")
}

/// A request as the API saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Without the prefix.
    pub token: Option<String>,
    pub status: StatusCode,
}

/// Answers 200 with `ok`, or 401 with `refused` to what it does not like: no token, one that was revoked, or a path that is
/// forbidden to all. Clones are the same API.
#[derive(Clone)]
pub struct Api(Arc<Mutex<State>>);

type Judge = dyn FnMut(&Seen) -> Option<Response<Full<Bytes>>> + Send;

struct State {
    revoked: HashSet<String>,
    /// Every token that was seen before this call is dead.
    forbidden: HashSet<String>,
    refuse_all: bool,
    refusal: Box<dyn Fn() -> Response<Full<Bytes>> + Send>,
    judge: Option<Box<Judge>>,
    delay: Duration,
    seen: Vec<Seen>,
}

impl Api {
    pub fn new() -> Self {
        whole_run::listen();
        Self(Arc::new(Mutex::new(State {
            revoked: HashSet::new(),
            forbidden: HashSet::new(),
            refuse_all: false,
            refusal: Box::new(|| answer(401, "refused")),
            judge: None,
            delay: Duration::ZERO,
            seen: Vec::new(),
        })))
    }

    /// This token is refused from now on.
    pub fn revoke(&self, token: &str) {
        self.state().revoked.insert(token.to_owned());
    }

    /// Everything under this path is refused, whatever the token.
    pub fn forbid(&self, path: &str) {
        self.state().forbidden.insert(path.to_owned());
    }

    pub fn allow(&self, path: &str) {
        self.state().forbidden.remove(path);
    }

    /// Refuses an endpoint's token `t<number>` once so long has passed since it was asked for: the server's own clock. The endpoint must never fail.
    pub fn expire(&self, endpoint: &super::Endpoint, life: Duration) {
        let endpoint = endpoint.clone();
        self.judge_by(move |seen| {
            let number: usize = seen.token.as_ref()?.strip_prefix('t')?.parse().ok()?;
            (seen.at >= endpoint.asked()[number - 1].at + life).then(|| answer(401, "expired"))
        });
    }

    /// Every token is refused while true.
    pub fn refuse_all(&self, refuse: bool) {
        self.state().refuse_all = refuse;
    }

    /// What a refusal looks like. Default: 401 with the body `refused`.
    pub fn refuse_with(&self, refusal: impl Fn() -> Response<Full<Bytes>> + Send + 'static) {
        self.state().refusal = Box::new(refusal);
    }

    /// Asked first; what it gives is the answer.
    pub fn judge_by(&self, judge: impl FnMut(&Seen) -> Option<Response<Full<Bytes>>> + Send + 'static) {
        self.state().judge = Some(Box::new(judge));
    }

    /// Each answer takes this long (of tokio's clock).
    pub fn set_delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// The tokens of all requests, in order; `-` where there was none.
    pub fn tokens(&self) -> Vec<String> {
        self.state().seen.iter().map(|seen| seen.token.clone().unwrap_or_else(|| "-".into())).collect()
    }

    pub fn forget_seen(&self) {
        self.state().seen.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn serve(self, request: Request<Full<Bytes>>, at: Instant) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let delay = self.state().delay;
        let value = ["authorization", "x-api-key"].iter().find_map(|name| head.headers.get(*name));
        let token = value.and_then(|value| value.to_str().ok());
        let token = token.map(|value| value.rsplit(' ').next().unwrap_or(value).to_owned());
        token.iter().for_each(|token| whole_run::secret(token));
        let mut seen =
            Seen { at, method: head.method, uri: head.uri, headers: head.headers, body, token, status: StatusCode::OK };
        // Judged when it arrives; the answer may take its time.
        let response = {
            let mut state = self.state();
            let response = state.judge.as_mut().and_then(|judge| judge(&seen)).unwrap_or_else(|| {
                let refused = state.refuse_all
                    || state.forbidden.contains(seen.uri.path())
                    || seen.token.as_ref().is_none_or(|token| state.revoked.contains(token));
                if refused { (state.refusal)() } else { answer(200, "ok") }
            });
            seen.status = response.status();
            state.seen.push(seen);
            response
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Ok(response)
    }
}

pub fn answer(status: u16, body: &'static str) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::from(body)).expect("a valid status")
}

impl Service<Request<Full<Bytes>>> for Api {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        Box::pin(self.clone().serve(request, Instant::now()))
    }
}
