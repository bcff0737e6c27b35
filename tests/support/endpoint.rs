//! A token endpoint: a source whose answers a test lays out beforehand, and that counts what it is asked.

use super::whole_run;
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tower::Service;
use tower_jwt_refresh::{BoxError, SourceError, Token, TokenRequest, source::Reason};

/// What the endpoint answers.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A new token `t<number>` that expires so long after it was asked for.
    New(Duration),
    /// A new token without an expiry.
    Opaque,
    /// Exactly this one.
    This(Token),
    /// A transient failure.
    Fail,
    /// A refused credential.
    Refuse,
    /// Too busy, with a `Retry-After`.
    Busy(Duration),
    /// No answer, ever.
    Hang,
    /// A panic while it answers.
    Panic,
    /// A panic in `call` itself.
    PanicAtOnce,
}

/// One fetch, as the endpoint saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Instant,
    pub reason: Reason,
    pub challenge: Option<String>,
    pub previous: Option<String>,
}

/// Clones are the same endpoint.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Something was asked.
    asked: Notify,
    /// The gate was opened.
    opened: Notify,
}

struct State {
    usual: Reply,
    next: VecDeque<Reply>,
    delay: Duration,
    shut: bool,
    asked: Vec<Asked>,
    minted: u32,
    busy: usize,
    most_at_once: usize,
}

impl Endpoint {
    /// Always gives this, at once.
    pub fn new(usual: Reply) -> Self {
        whole_run::listen();
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                usual,
                next: VecDeque::new(),
                delay: Duration::ZERO,
                shut: false,
                asked: Vec::new(),
                minted: 0,
                busy: 0,
                most_at_once: 0,
            }),
            asked: Notify::new(),
            opened: Notify::new(),
        }))
    }

    /// New tokens that live for an hour.
    pub fn hourly() -> Self {
        Self::new(Reply::New(Duration::from_secs(3600)))
    }

    /// Each answer takes this long (of tokio's clock).
    pub fn taking(self, delay: Duration) -> Self {
        self.set_delay(delay);
        self
    }

    pub fn set_delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// From now on the answer is this.
    pub fn usually(&self, reply: Reply) {
        self.state().usual = reply;
    }

    /// The next answer is this, before the usual one; several queue up.
    pub fn next(&self, reply: Reply) {
        self.state().next.push_back(reply);
    }

    /// Answers wait until [`open`](Self::open): for tests that order events and not times.
    pub fn shut(&self) {
        self.state().shut = true;
    }

    pub fn open(&self) {
        self.state().shut = false;
        self.0.opened.notify_waiters();
    }

    /// Resolves once it was asked for the `count`-th time.
    pub async fn asked_times(&self, count: usize) {
        loop {
            let more = self.0.asked.notified();
            if self.fetches() >= count {
                return;
            }
            more.await;
        }
    }

    pub fn fetches(&self) -> usize {
        self.state().asked.len()
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// The times between one fetch and the next.
    pub fn gaps(&self) -> Vec<Duration> {
        self.asked().windows(2).map(|pair| pair[1].at - pair[0].at).collect()
    }

    /// The most fetches that were ever in progress at once.
    pub fn most_at_once(&self) -> usize {
        self.state().most_at_once
    }

    /// Fetches in progress.
    pub fn busy(&self) -> usize {
        self.state().busy
    }

    /// The source for a provider.
    pub fn source(&self) -> Source {
        Source(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn ask(&self, request: &TokenRequest) -> (Reply, Busy) {
        let mut state = self.state();
        state.asked.push(Asked {
            at: Instant::now(),
            reason: request.reason(),
            challenge: request.challenge().map(str::to_owned),
            previous: request.previous().map(|token| token.expose_secret().to_owned()),
        });
        state.busy += 1;
        state.most_at_once = state.most_at_once.max(state.busy);
        let reply = state.next.pop_front().unwrap_or_else(|| state.usual.clone());
        drop(state);
        self.0.asked.notify_waiters();
        (reply, Busy(self.clone()))
    }

    async fn answer(self, reply: Reply, busy: Busy) -> Result<Token, BoxError> {
        loop {
            let opened = self.0.opened.notified();
            if !self.state().shut {
                break;
            }
            opened.await;
        }
        let delay = self.state().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mint = || {
            let mut state = self.state();
            state.minted += 1;
            Token::opaque(format!("t{}", state.minted))
        };
        let answer = match reply {
            Reply::New(life) => Ok(mint()?.with_expires_in(life)),
            Reply::Opaque => Ok(mint()?),
            Reply::This(token) => Ok(token),
            Reply::Fail => Err("the endpoint is down".into()),
            Reply::Refuse => Err(SourceError::permanent("the credential was revoked").into()),
            Reply::Busy(wait) => Err(SourceError::transient("too busy").retry_after(wait).into()),
            Reply::Hang => std::future::pending().await,
            Reply::Panic | Reply::PanicAtOnce => panic!("the endpoint's client has a bug"),
        };
        drop(busy);
        answer.inspect(|token: &Token| whole_run::secret(token.expose_secret()))
    }
}

/// Counts a fetch as in progress until it ends, however it ends.
struct Busy(Endpoint);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.state().busy -= 1;
    }
}

pub struct Source(Endpoint);

impl Service<TokenRequest> for Source {
    type Response = Token;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Token, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: TokenRequest) -> Self::Future {
        let (reply, busy) = self.0.ask(&request);
        assert!(!matches!(reply, Reply::PanicAtOnce), "the endpoint's client has a bug");
        Box::pin(self.0.clone().answer(reply, busy))
    }
}
