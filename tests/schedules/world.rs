//! What the schedules run around: a token endpoint and an API in memory, behind one limit, that note whatever must not be.

use super::executor::Dice;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tower::Service;
use tower_jwt_refresh::{BoxError, Generation, Token, TokenProvider, TokenRequest, source::Reason};

/// The default, which every schedule keeps.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// At least so long is the first wait after a failure: half of what the schedules set.
pub const BACKOFF: Duration = Duration::from_secs(4);

/// Clones are the same world.
#[derive(Clone)]
pub struct World {
    dice: Dice,
    state: Arc<Mutex<State>>,
    talks: bool,
    start: Instant,
}

#[derive(Default)]
struct State {
    faults: Vec<String>,
    /// Every fetch succeeds at once, or in a while.
    healthy: bool,
    hangs: bool,
    lives: Vec<u64>,
    minted: usize,
    /// Each token: in which epoch it was asked for or set, and when it dies.
    tokens: HashMap<String, (u64, Option<Instant>)>,
    /// Grows with each `set` and `clear`.
    epoch: u64,
    refused: HashSet<String>,
    last_call: Option<Instant>,
    /// After a failed fetch, before when none may follow; unless something ended the wait.
    shut_until: Option<Instant>,
    busy: usize,
    /// Calls of `refresh` that have not ended.
    forced: usize,
    calls: usize,
    newest: Option<Generation>,
    newest_minted: usize,
}

impl World {
    pub fn new(dice: &Dice, talks: bool) -> Self {
        let kind = dice.below(4);
        let state = State {
            healthy: kind < 2,
            hangs: kind == 3 && dice.one_in(2),
            lives: dice.among(&[&[3600][..], &[60], &[60, 3600], &[20]]).to_vec(),
            ..State::default()
        };
        Self { dice: dice.clone(), state: Arc::new(Mutex::new(state)), talks, start: Instant::now() }
    }

    pub fn hangs(&self) -> bool {
        self.state().hangs
    }

    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// Must be empty.
    pub fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }

    /// Tells what happens, where one schedule is shown again.
    pub fn tell(&self, text: impl FnOnce() -> String) {
        if self.talks {
            eprintln!("{:>12.3?} {}", self.start.elapsed(), text());
        }
    }

    pub fn fault(&self, text: impl Into<String>) {
        self.state().faults.push(text.into());
    }

    /// The API refuses it from now on, or somebody said so.
    pub fn refuse(&self, token: &Token) {
        self.state().refused.insert(token.expose_secret().to_owned());
    }

    /// A token to put in by hand; call it right before.
    pub fn set(&self) -> Token {
        let mut state = self.state();
        state.minted += 1;
        let name = format!("s{}", state.minted);
        state.epoch += 1;
        let epoch = state.epoch;
        state.shut_until = None;
        state.tokens.insert(name.clone(), (epoch, None));
        Token::opaque(name).expect("legal")
    }

    pub fn clear(&self) {
        let mut state = self.state();
        state.epoch += 1;
        state.shut_until = None;
    }

    /// Somebody forces a fetch: waits after failures do not count until he has it.
    pub fn forces(&self, forces: bool) {
        let mut state = self.state();
        state.forced = if forces { state.forced + 1 } else { state.forced - 1 };
        state.shut_until = None;
    }

    /// Between any two steps.
    pub fn look(&self, provider: &TokenProvider) {
        let Some(token) = provider.current() else { return };
        let mut guard = self.state();
        let state = &mut *guard;
        let generation = Some(token.generation());
        if generation < state.newest {
            state.faults.push(format!("{} came back", token.expose_secret()));
        }
        if generation != state.newest {
            self.tell(|| format!("holds {}", token.expose_secret()));
            state.newest = generation;
            let name = token.expose_secret();
            let number = name[1..].parse().unwrap_or_default();
            if state.tokens.get(name).is_none_or(|(epoch, _)| *epoch != state.epoch) {
                state.faults.push(format!("{name} was asked for before `set` or `clear`, and is held"));
            }
            if number < state.newest_minted {
                state.faults.push(format!("{name} is older than the one before"));
            }
            state.newest_minted = number;
        }
    }

    /// Does the held token live, by our own reckoning?
    pub fn holds_living(&self, provider: &TokenProvider) -> bool {
        let Some(token) = provider.current() else { return false };
        self.state().lives(token.expose_secret())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn source(&self) -> Source {
        Source(self.clone())
    }

    pub fn api(&self) -> Api {
        Api(self.clone())
    }
}

impl State {
    fn lives(&self, token: &str) -> bool {
        self.tokens.get(token).is_some_and(|(_, dies)| dies.is_none_or(|dies| Instant::now() < dies))
    }

    /// A fetch failed while this token was held.
    fn failed(&mut self, held: Option<&str>, epoch: u64, at: Instant) {
        // What a `set` dropped is no failure.
        if epoch != self.epoch {
            return;
        }
        let dies = held.and_then(|held| self.tokens.get(held)).and_then(|(_, dies)| *dies);
        // A living token shortens the wait, to half of what it has left.
        let most = dies.map(|dies| dies.saturating_duration_since(at) / 2).filter(|most| !most.is_zero());
        self.shut_until = Some(at + most.map_or(BACKOFF / 2, |most| most.min(BACKOFF / 2)));
    }

    /// The endpoint is asked.
    fn called(&mut self, request: &TokenRequest) {
        let now = Instant::now();
        self.calls += 1;
        self.busy += 1;
        if self.busy > 1 {
            self.faults.push("two fetches at once".into());
        }
        if self.last_call.is_some_and(|last| now < last + MIN_INTERVAL) {
            self.faults.push("two fetches within `min_interval`".into());
        }
        let held = request.previous().map(|token| token.expose_secret().to_owned());
        if self.forced == 0 && self.shut_until.is_some_and(|until| now < until) {
            self.faults.push("asked again before the wait was over".into());
        }
        if request.reason() == Reason::Rejected && !held.as_ref().is_some_and(|held| self.refused.contains(held)) {
            self.faults.push(format!("{held:?} was replaced, and nobody had refused it"));
        }
        self.last_call = Some(now);
        self.shut_until = None;
    }
}

/// The token endpoint.
#[derive(Clone)]
pub struct Source(World);

/// Notes how a fetch ends that is dropped.
struct Fetch {
    world: World,
    held: Option<String>,
    epoch: u64,
    end: End,
}

#[derive(PartialEq)]
enum End {
    /// It must not be dropped.
    Asked,
    /// The provider's timeout drops it.
    Hangs,
    Answered,
}

impl Fetch {
    fn comes_to(&mut self, end: End) {
        self.end = end;
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let mut state = self.world.state();
        state.busy -= 1;
        match self.end {
            End::Asked => state.faults.push("a fetch was dropped".into()),
            End::Hangs => state.failed(self.held.as_deref(), self.epoch, Instant::now()),
            End::Answered => {}
        }
    }
}

impl Service<TokenRequest> for Source {
    type Response = Token;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Token, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.0.dice.one_in(4) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: TokenRequest) -> Self::Future {
        let world = self.0.clone();
        let (epoch, asked) = {
            let mut state = world.state();
            state.called(&request);
            self.0.tell(|| format!("asked: {request:?}"));
            (state.epoch, Instant::now())
        };
        let held = request.previous().map(|token| token.expose_secret().to_owned());
        let mut fetch = Fetch { world: world.clone(), held: held.clone(), epoch, end: End::Asked };
        Box::pin(async move {
            let dice = &world.dice;
            dice.wobble().await;
            let (healthy, hangs) = {
                let state = world.state();
                (state.healthy, state.hangs)
            };
            if hangs && dice.one_in(4) {
                fetch.comes_to(End::Hangs);
                std::future::pending::<()>().await;
            }
            if dice.one_in(2) {
                tokio::time::sleep(Duration::from_millis(dice.among(&[1, 300, 900]))).await;
                dice.wobble().await;
            }
            fetch.comes_to(End::Answered);
            let mut state = world.state();
            if !healthy && dice.one_in(2) {
                world.tell(|| "failed".into());
                state.failed(held.as_deref(), epoch, Instant::now());
                return Err("the endpoint is down".into());
            }
            state.minted += 1;
            let name = format!("m{}", state.minted);
            let life = (!dice.one_in(5)).then(|| Duration::from_secs(dice.among(&state.lives)));
            state.tokens.insert(name.clone(), (epoch, life.map(|life| asked + life)));
            let token = Token::opaque(name)?;
            Ok(life.map_or(token.clone(), |life| token.with_expires_in(life)))
        })
    }
}

/// Takes every token that nobody revoked.
#[derive(Clone)]
pub struct Api(World);

impl Service<Request<Full<Bytes>>> for Api {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let world = self.0.clone();
        let value = request.headers()["authorization"].to_str().expect("visible ASCII");
        let token = value.trim_start_matches("Bearer ").to_owned();
        {
            let mut state = world.state();
            if !state.lives(&token) {
                state.faults.push(format!("{token} was sent, and is dead"));
            }
        }
        Box::pin(async move {
            let dice = &world.dice;
            dice.wobble().await;
            // Judged somewhere on the way.
            let refused = world.state().refused.contains(&token);
            world.tell(|| format!("API: {token} {}", if refused { "refused" } else { "accepted" }));
            if dice.one_in(4) {
                tokio::time::sleep(Duration::from_millis(dice.among(&[1, 50]))).await;
            }
            dice.wobble().await;
            let status = if refused { 401 } else { 200 };
            Ok(Response::builder().status(status).body(Full::default()).expect("a status"))
        })
    }
}
