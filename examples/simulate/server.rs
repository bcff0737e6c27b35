//! The servers: they know which token is good, and judge each request by that when it arrives.

use crate::{
    oracle::{held::Says, number},
    plan::Fault,
    sim::{Sim, State},
};
use bytes::Bytes;
use fastrand::Rng;
use http::{
    Request, Response, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::sleep;
use tower::{BoxError, Service};

/// All tokens that were ever issued, by number.
pub struct Tokens {
    list: Vec<Issued>,
    /// How long they usually live.
    pub life: Duration,
    /// Do they say so as a span, or as a moment?
    pub spans: bool,
}

struct Issued {
    /// By the true time.
    dies: Option<Duration>,
    revoked: bool,
    says: Says,
}

impl Tokens {
    pub fn draw(rng: &mut Rng) -> Self {
        let life = crate::plan::log(rng, Duration::from_secs(300), Duration::from_secs(24 * 3600));
        Self { list: Vec::new(), life, spans: rng.bool() }
    }

    pub fn issue(&mut self, dies: Option<Duration>, says: Says) -> u32 {
        self.list.push(Issued { dies, revoked: false, says });
        u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX)
    }

    pub fn extend(&mut self, token: u32, dies: Duration, says: Says) {
        if let Some(issued) = self.list.get_mut(token as usize) {
            (issued.dies, issued.says) = (Some(dies), says);
        }
    }

    pub fn revoke_all(&mut self) {
        self.list.iter_mut().for_each(|issued| issued.revoked = true);
    }

    pub fn says(&self, token: u32) -> Says {
        self.list.get(token as usize).map_or(Says::Nothing, |issued| issued.says)
    }

    fn is_good(&self, token: u32, truth: Duration) -> bool {
        self.list
            .get(token as usize)
            .is_some_and(|issued| !issued.revoked && issued.dies.is_none_or(|dies| truth < dies))
    }
}

/// What becomes of a request.
enum Verdict {
    Accepted,
    Refused,
    /// A 401 that does not mean the token.
    Blamed,
    Broken,
}

/// The servers as one caller's client sees them, under a limit that all share.
#[derive(Clone)]
pub struct Server {
    sim: Arc<Sim>,
    id: u32,
}

/// Counts a request while a server has it.
struct Serving(Arc<Sim>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.state().served -= 1;
    }
}

impl Server {
    pub fn new(sim: &Arc<Sim>, id: u32) -> Self {
        Self { sim: Arc::clone(sim), id }
    }
}

impl State {
    /// How long a request, or an answer, is on its way.
    fn latency(&mut self) -> Duration {
        let mut latency = Duration::from_millis(self.rng.u64(0..150));
        for (fault, _) in self.wrong.servers() {
            match fault {
                Fault::SlowServer => latency += Duration::from_millis(self.rng.u64(..10_000)),
                Fault::HangingServer => latency += Duration::from_millis(self.rng.u64(20_000..60_000)),
                _ => {}
            }
        }
        latency
    }

    fn judge(&mut self, path: u64, public: bool, token: Option<u32>, truth: Duration) -> Verdict {
        for (fault, what) in self.wrong.servers() {
            match fault {
                Fault::BrokenServer if self.rng.u32(..2) == 0 => return Verdict::Broken,
                Fault::RefusesAll => return Verdict::Refused,
                Fault::Forbids if path == what => return Verdict::Refused,
                Fault::BlamesRequest if path == what => return Verdict::Blamed,
                Fault::BadBackend if self.rng.u32(..3) == 0 => return Verdict::Refused,
                _ => {}
            }
        }
        if public || token.is_some_and(|token| self.tokens.is_good(token, truth)) {
            Verdict::Accepted
        } else {
            Verdict::Refused
        }
    }
}

fn answer(verdict: &Verdict) -> Result<Response<Full<Bytes>>, BoxError> {
    let refused = |challenge| Response::builder().status(StatusCode::UNAUTHORIZED).header(WWW_AUTHENTICATE, challenge);
    let response = match verdict {
        Verdict::Accepted => Response::builder(),
        Verdict::Refused => refused(r#"Bearer error="invalid_token""#),
        Verdict::Blamed => refused(crate::callers::BLAMED),
        Verdict::Broken => return Err("connection reset".into()),
    };
    Ok(response.body(Full::default())?)
}

impl Service<Request<Full<Bytes>>> for Server {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let (sim, id) = (Arc::clone(&self.sim), self.id);
        let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).map(number);
        let path: u64 = request.uri().path().get(1..).and_then(|path| path.parse().ok()).unwrap_or_default();
        let public = request.uri().host() != Some(crate::callers::HOST) || path == crate::callers::PUBLIC;
        let (there, back) = sim.with(|state| {
            state.served += 1;
            state.oracle.sends(id, token);
            (state.latency(), state.latency())
        });
        let serving = Serving(Arc::clone(&sim));
        sim.trace(format_args!("#{id} is sent to /{path} with {token:?}"));
        Box::pin(async move {
            let _serving = serving;
            sleep(there).await;
            let verdict = sim.with(|state| {
                let truth = sim.clock.now().truth;
                state.judge(path, public, token, truth)
            });
            sleep(back).await;
            sim.with(|state| match verdict {
                Verdict::Refused => state.oracle.refused(id),
                Verdict::Accepted | Verdict::Blamed => state.oracle.accepted(id),
                Verdict::Broken => {}
            });
            if matches!(verdict, Verdict::Refused) {
                sim.trace(format_args!("#{id} is refused"));
            }
            answer(&verdict)
        })
    }
}

/// Above the limit: sees that it is not ready, so that its queue is not taken for the layer's wait.
#[derive(Clone)]
pub struct Probe<S> {
    inner: S,
    sim: Arc<Sim>,
    id: u32,
    queues: bool,
}

impl<S> Probe<S> {
    pub fn new(inner: S, sim: &Arc<Sim>, id: u32) -> Self {
        Self { inner, sim: Arc::clone(sim), id, queues: false }
    }
}

impl<S, R> Service<R> for Probe<S>
where
    S: Service<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let poll = self.inner.poll_ready(cx);
        if self.queues != poll.is_pending() {
            self.queues = poll.is_pending();
            self.sim.state().oracle.queues(self.id, !self.queues);
        }
        poll
    }

    fn call(&mut self, request: R) -> S::Future {
        self.inner.call(request)
    }
}
