//! A store in memory with faults, and a server in memory that takes each refresh token once.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use crate::support::whole_run;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::Notify,
    task::yield_now,
    time::{Instant, sleep, timeout_at},
};
use tower::{Layer, Service};
use tower_jwt_refresh::{
    BoxError, SourceError, Token, TokenProvider, TokenProviderBuilder, TokenRequest,
    clock::{Clock, ManualClock},
    store::{BoxFuture, Loaded, StoreError, StoreLayer, StoreLock, Stored, TokenStore},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Load,
    Lock,
    Save,
    Unlock,
}

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Down,
    Hang,
    Slow(Duration),
    /// Another one has the lock.
    Busy,
}

/// Clones are the same store. Each step awaits something before and after it does its work.
#[derive(Clone, Default)]
pub struct Memory(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    freed: Notify,
    told: Notify,
    stepped: Notify,
}

#[derive(Default)]
struct State {
    value: Option<Vec<u8>>,
    /// Of the lock that was given last.
    number: u64,
    locked: bool,
    faults: Vec<(Step, Fault)>,
    steps: Vec<Step>,
    clock: Option<ManualClock>,
}

impl Memory {
    /// One that tells the time.
    pub fn with_clock(clock: ManualClock) -> Self {
        let memory = Self::default();
        memory.state().clock = Some(clock);
        memory
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, until [`heal`](Self::heal).
    pub fn break_down(&self, step: Step, fault: Fault) {
        self.state().faults.push((step, fault));
    }

    pub fn heal(&self) {
        self.state().faults.clear();
    }

    pub fn steps(&self) -> Vec<Step> {
        self.state().steps.clone()
    }

    pub fn count(&self, step: Step) -> usize {
        self.state().steps.iter().filter(|taken| **taken == step).count()
    }

    /// Resolves once that step was taken for the `count`-th time.
    pub async fn taken(&self, step: Step, count: usize) {
        loop {
            let more = self.0.stepped.notified();
            if self.count(step) >= count {
                return;
            }
            more.await;
        }
    }

    pub fn value(&self) -> Option<String> {
        self.state().value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned())
    }

    pub fn put(&self, value: &str) {
        self.state().value = Some(value.as_bytes().to_vec());
    }

    pub fn remove(&self) {
        self.state().value = None;
    }

    /// Tells those who watch that something may have changed.
    pub fn tell(&self) {
        self.0.told.notify_waiters();
    }

    /// One member of what is stored.
    pub fn member(&self, name: &str) -> Option<serde_json::Value> {
        let value: serde_json::Value = serde_json::from_str(&self.value()?).unwrap();
        value.get(name).cloned()
    }

    pub fn refresh_token(&self) -> Option<String> {
        self.member("refresh_token").map(|token| token.as_str().unwrap().to_owned())
    }

    pub fn is_locked(&self) -> bool {
        self.state().locked
    }

    /// The lock's time is over, though its holder does not know it.
    pub fn end_lock(&self) {
        let mut state = self.state();
        (state.locked, state.number) = (false, state.number + 1);
        drop(state);
        self.0.freed.notify_waiters();
    }

    async fn step(&self, step: Step) -> Result<(), StoreError> {
        let fault = {
            let mut state = self.state();
            state.steps.push(step);
            state.faults.iter().find(|(at, _)| *at == step).map(|(_, fault)| *fault)
        };
        self.0.stepped.notify_waiters();
        yield_now().await;
        match fault {
            Some(Fault::Down) => Err(StoreError::Unavailable("the store is down".into())),
            Some(Fault::Busy) => Err(StoreError::Busy),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Slow(by)) => {
                sleep(by).await;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl TokenStore for Memory {
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        Box::pin(async {
            self.step(Step::Load).await?;
            let loaded = {
                let state = self.state();
                let loaded = state.value.clone().map_or_else(Loaded::empty, Loaded::holding);
                match &state.clock {
                    Some(clock) => loaded.at(clock.wall()),
                    None => loaded,
                }
            };
            yield_now().await;
            Ok(loaded)
        })
    }

    fn lock(&self, wait: Duration) -> BoxFuture<'_, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            let end = Instant::now() + wait;
            self.step(Step::Lock).await?;
            let number = loop {
                let freed = self.0.freed.notified();
                {
                    let mut state = self.state();
                    if !state.locked {
                        (state.locked, state.number) = (true, state.number + 1);
                        break state.number;
                    }
                }
                timeout_at(end, freed).await.map_err(|_| StoreError::Busy)?;
            };
            let lock = MemoryLock { memory: self.clone(), number };
            yield_now().await;
            Ok(Box::new(lock) as Box<dyn StoreLock>)
        })
    }

    fn watch<'a>(&'a self, changed: &'a Notify) -> BoxFuture<'a, ()> {
        Box::pin(async {
            loop {
                let told = self.0.told.notified();
                changed.notify_one();
                told.await;
            }
        })
    }
}

struct MemoryLock {
    memory: Memory,
    number: u64,
}

impl StoreLock for MemoryLock {
    fn is_held(&self) -> bool {
        let state = self.memory.state();
        state.locked && state.number == self.number
    }

    fn save<'a>(&'a mut self, value: &'a [u8]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async {
            self.memory.step(Step::Save).await?;
            if !self.is_held() {
                return Err(StoreError::LockLost);
            }
            self.memory.state().value = Some(value.to_vec());
            self.memory.tell();
            yield_now().await;
            Ok(())
        })
    }

    fn unlock(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let _ = self.memory.step(Step::Unlock).await;
            drop(self);
            yield_now().await;
        })
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        if self.is_held() {
            self.memory.state().locked = false;
            self.memory.0.freed.notify_waiters();
        }
    }
}

/// What the server does with one request.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Grant,
    /// A failure before anything is spent.
    Fail,
    /// The answer is lost, and the refresh token spent.
    Lost,
    /// The new refresh token arrives, with an access token that is of no use.
    Useless,
    Hang,
}

/// Its n-th access token is `t<n>`, and comes with the refresh token `r<n + 1>`. Clones are the same server.
#[derive(Clone)]
pub struct Issuer(Arc<Mutex<Granted>>, Arc<Notify>);

struct Granted {
    count: usize,
    valid: String,
    /// The one before is taken as well.
    grace: Option<String>,
    has_grace: bool,
    shown: Vec<String>,
    refused: usize,
    next: VecDeque<Answer>,
    shut: bool,
    holds: bool,
}

impl Issuer {
    pub fn new() -> Self {
        whole_run::listen();
        let granted = Granted {
            count: 0,
            valid: "r1".to_owned(),
            grace: None,
            has_grace: false,
            shown: Vec::new(),
            refused: 0,
            next: VecDeque::new(),
            shut: false,
            holds: false,
        };
        Self(Arc::new(Mutex::new(granted)), Arc::default())
    }

    /// It takes the refresh token before the last one too, as long as the last was not used.
    pub fn with_grace(self) -> Self {
        self.state().has_grace = true;
        self
    }

    fn state(&self) -> MutexGuard<'_, Granted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn next(&self, answer: Answer) {
        self.state().next.push_back(answer);
    }

    /// Answers wait until [`open`](Self::open).
    pub fn shut(&self) {
        let mut state = self.state();
        (state.shut, state.holds) = (true, true);
    }

    /// Those that come from now on do not wait.
    pub fn let_others_pass(&self) {
        self.state().shut = false;
    }

    pub fn open(&self) {
        let mut state = self.state();
        (state.shut, state.holds) = (false, false);
        drop(state);
        self.1.notify_waiters();
    }

    pub fn shown(&self) -> Vec<String> {
        self.state().shown.clone()
    }

    /// How often it gave a token.
    pub fn granted(&self) -> usize {
        self.state().count
    }

    /// The refresh token that it takes.
    pub fn valid(&self) -> String {
        self.state().valid.clone()
    }

    pub fn refused(&self) -> usize {
        self.state().refused
    }

    pub async fn shown_times(&self, count: usize) {
        loop {
            let more = self.1.notified();
            if self.shown().len() >= count {
                return;
            }
            more.await;
        }
    }

    /// A process's source: made with `r1`, as a configuration would.
    pub fn source(
        &self,
    ) -> impl Service<TokenRequest, Response = Token, Error = BoxError, Future: Send> + Send + use<> {
        let issuer = self.clone();
        tower::service_fn(move |request: TokenRequest| issuer.clone().answer(request))
    }

    async fn answer(self, request: TokenRequest) -> Result<Token, BoxError> {
        if !request.may_spend_refresh_token() {
            return Err("not without the lock".into());
        }
        let shown = request.refresh_token().unwrap_or("r1").to_owned();
        whole_run::secret(&shown);
        let answer = {
            let mut state = self.state();
            state.shown.push(shown.clone());
            state.next.pop_front().unwrap_or(Answer::Grant)
        };
        self.1.notify_waiters();
        let mut waits = self.state().shut;
        yield_now().await;
        while waits {
            let opened = self.1.notified();
            waits = self.state().holds;
            if waits {
                opened.await;
            }
        }
        let (count, successor) = {
            let mut state = self.state();
            if matches!(answer, Answer::Fail) {
                return Err("the server is down".into());
            }
            if shown != state.valid && Some(&shown) != state.grace.as_ref() {
                state.refused += 1;
                return Err(SourceError::permanent("invalid_grant").into());
            }
            state.count += 1;
            let successor = format!("r{}", state.count + 1);
            state.grace = state.has_grace.then_some(shown);
            state.valid.clone_from(&successor);
            (state.count, successor)
        };
        whole_run::secret(&successor);
        if matches!(answer, Answer::Lost) {
            return Err("the connection broke".into());
        }
        if matches!(answer, Answer::Hang) {
            return std::future::pending().await;
        }
        request.keep_refresh_token(successor);
        yield_now().await;
        if matches!(answer, Answer::Useless) {
            return Err("the access token is none".into());
        }
        Ok(Token::opaque(format!("t{count}"))?.with_expires_in(Duration::from_secs(3600)))
    }
}

/// A process: its provider, its source, its layer over the store that all have.
pub fn process_of<S>(layer: StoreLayer, source: S, clock: &ManualClock) -> (TokenProvider, StoreLayer)
where
    S: Service<TokenRequest, Response = Token, Error: Into<BoxError>, Future: Send + 'static> + Send + 'static,
{
    let layer = layer.clock(clock.clone());
    let provider = builder(clock).build(layer.layer(source)).unwrap();
    (provider, layer)
}

pub fn process<S>(store: &Memory, source: S, clock: &ManualClock) -> TokenProvider
where
    S: Service<TokenRequest, Response = Token, Error: Into<BoxError>, Future: Send + 'static> + Send + 'static,
{
    process_of(StoreLayer::new(store.clone()), source, clock).0
}

pub fn builder(clock: &ManualClock) -> TokenProviderBuilder {
    whole_run::listen();
    TokenProvider::builder().clock(clock.clone())
}

/// The token itself, or what it says of its failure.
pub async fn secret(provider: &TokenProvider) -> String {
    match provider.token().await {
        Ok(token) => token.expose_secret().to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

/// What a provider is given by its source, without a provider.
pub async fn call(stored: &mut Stored, request: &TokenRequest) -> Result<Token, BoxError> {
    stored.call(request.clone()).await
}

pub fn in_an_hour(clock: &impl Clock) -> SystemTime {
    clock.wall() + Duration::from_secs(3600)
}
