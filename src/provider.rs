//! The handle that holds the current token and decides when to ask the source.

mod background;
mod backoff;
mod builder;
mod flight;
#[cfg(feature = "store")]
mod follower;
mod jitter;
mod log;
mod primitives;
mod schedule;
mod shell;
mod state;
mod storm;
mod wait;

pub use builder::TokenProviderBuilder;

#[cfg(feature = "store")]
pub(crate) use follower::Follower;
pub(crate) use shell::Verdict;
#[cfg(feature = "store")]
pub(crate) use state::Offered;
pub(crate) use state::Rejection;
pub(crate) use wait::{Outcome, Waiter};

use crate::{BoxError, Generation, Placement, Token, TokenError, TokenRequest, clock::Now};
use background::Background;
use http::HeaderMap;
use jitter::Jitter;
use primitives::{Guard, watch};
use shell::{Core, Landing, Snapshot};
use state::{Machine, Over, Purpose};
use std::{
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tower::Service;
use wait::Finish;

/// Holds the current token, keeps it fresh, and gives it to all who need it.
///
/// Clones are handles to the same token: build one per credential and audience, and share it between all layers and clients.
/// Two providers over one source know nothing of each other and fetch twice.
///
/// It asks its source when the token is stale or rejected, in a task of its own that belongs to no caller; however many need
/// a token at once, there is one fetch. It works from the first use inside any tokio runtime that has its timer enabled, and
/// outlives runtimes.
///
/// ```
/// # use std::time::Duration;
/// use tower_jwt_refresh::{BoxError, Token, TokenProvider, TokenRequest};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// let provider = TokenProvider::builder()
///     .refresh_before(Duration::from_secs(120))
///     .build(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("secret")?) }))?;
/// provider.init().await?;
/// assert_eq!(provider.token().await?.expose_secret(), "secret");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TokenProvider {
    handle: Arc<Handle>,
}

/// What all clones share, and what ends with the last of them. A flight holds the [`Core`] alone, so that it ends when it
/// ends.
struct Handle {
    core: Arc<Core>,
    background: Background,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.wake.notify_one();
    }
}

/// How a provider fares. The stream of these is [`TokenProvider::subscribe`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenStatus {
    /// The token is good for a while.
    Fresh,
    /// There is none yet, or its successor is due. Usually lasts for a fetch.
    Stale,
    /// Fetches fail. Requests go out with the token held while it lives.
    Failing {
        /// When the first fetch failed after the last success.
        since: SystemTime,
        /// When the provider asks again by itself; a caller in need may bring it forward.
        next_try: Option<SystemTime>,
    },
    /// The source refuses the credential: somebody must repair it.
    NeedsCredential {
        /// When the first fetch failed after the last success.
        since: SystemTime,
    },
    /// [`clear`](TokenProvider::clear) was called.
    SignedOut,
    /// [`shutdown`](TokenProvider::shutdown) was called.
    ShutDown,
}

/// The numbers that the rules use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) refresh_before: Duration,
    pub(crate) min_runway: Duration,
    pub(crate) min_interval: Duration,
    pub(crate) fetch_timeout: Duration,
    pub(crate) backoff: (Duration, Duration),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            refresh_before: Duration::from_secs(300),
            min_runway: Duration::from_secs(60),
            min_interval: Duration::from_secs(1),
            fetch_timeout: Duration::from_secs(30),
            backoff: (Duration::from_secs(1), Duration::from_secs(60)),
        }
    }
}

impl Settings {
    /// No caller waits longer for a flight.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.min_interval.saturating_add(self.fetch_timeout)
    }
}

impl TokenProvider {
    /// A provider with the [default settings](TokenProviderBuilder).
    pub fn new<S>(source: S) -> Self
    where
        S: Service<TokenRequest, Response = Token> + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        Self::builder().build(source).expect("the default settings are valid")
    }

    /// Settings, a seed, a clock.
    pub fn builder() -> TokenProviderBuilder {
        TokenProviderBuilder::default()
    }

    /// Fetches the first token, if none that lives is held, and starts the background loop, which then refreshes even while nobody
    /// sends anything.
    ///
    /// Without it the first request that needs a token starts the fetch, and no loop ever runs: right for a program that makes a
    /// few requests and ends. If the first fetch fails, the loop goes on trying.
    ///
    /// # Errors
    /// As [`token`](Self::token).
    ///
    /// # Cancel safety
    /// The fetch and the loop belong to no caller: dropping this future stops neither.
    pub async fn init(&self) -> Result<(), TokenError> {
        if !self.handle.background.start(&self.handle) {
            return Err(TokenError::NoRuntime);
        }
        if self.living().is_some() {
            return Ok(());
        }
        self.token().await.map(drop)
    }

    /// A token as a request would get it: at once while one lives that is neither about to die nor rejected, after the fetch
    /// otherwise.
    ///
    /// # Errors
    /// [`TokenError`] if none lives and none can be had, at the latest after `min_interval + fetch_timeout`. A living token is never
    /// withheld because a refresh fails.
    ///
    /// # Cancel safety
    /// Dropping this future stops nothing: the fetch goes on for all others, and for the next call.
    pub async fn token(&self) -> Result<Token, TokenError> {
        if let Some(token) = self.core().fresh().and_then(|snapshot| snapshot.token.clone()) {
            return Ok(token);
        }
        self.finish(self.acquire()).await
    }

    /// A token that lives for another `span`, if the source can give one: for what outlives a request, such as a clone, an upload or
    /// a pooled connection.
    ///
    /// A source whose tokens never live that long is not asked in vain each time: where `span` is more than a new token would have a
    /// minute (or half its life) after it was minted, half of a token's life is what is asked for. While the source fails, or takes longer
    /// than half of what the held token has left, the best there is comes back: look at [`Token::expires_at`].
    ///
    /// # Errors
    /// As [`token`](Self::token).
    ///
    /// # Cancel safety
    /// As [`token`](Self::token).
    pub async fn token_valid_for(&self, span: Duration) -> Result<Token, TokenError> {
        self.finish(self.decide(Purpose::Send, |machine, now, _| machine.valid_for(now, span))).await
    }

    /// The living token, or none, at once: for sync code. Starts a fetch when it is stale, if a runtime is at hand.
    #[must_use]
    pub fn try_token(&self) -> Option<Token> {
        if let Some(token) = self.core().fresh().and_then(|snapshot| snapshot.token.clone()) {
            return Some(token);
        }
        match self.acquire() {
            Verdict::Send(token) => Some(token),
            Verdict::Wait(_) => self.living(),
            Verdict::Fail(_) | Verdict::Pass => None,
        }
    }

    /// The held token, whatever its age and whatever servers say of it.
    #[must_use]
    pub fn current(&self) -> Option<Token> {
        self.core().snapshot().token.clone()
    }

    /// Fetches, whatever the held token is worth: after a change of permissions, say.
    ///
    /// Waits after failures are ignored; `min_interval` is slept out, and a `Retry-After` of the endpoint is kept to. May join a flight that
    /// asked before this call: what changed at the issuer a moment ago may then not be in the token yet. If the source has
    /// nothing newer, the held token comes back.
    ///
    /// # Errors
    /// [`TokenError`] if the fetch fails, even while a token lives.
    ///
    /// # Cancel safety
    /// The fetch goes on.
    pub async fn refresh(&self) -> Result<Token, TokenError> {
        self.finish(self.decide(Purpose::Refresh, |machine, now, _| machine.forced(now))).await
    }

    /// A server rejected this token: the token to try instead. The one held, if it is newer already; else after a fetch.
    ///
    /// For clients that the layer does not fit; [`run`](Self::run) does the whole of it.
    ///
    /// # Errors
    /// [`TokenError`] if there is no newer one: the fetch failed, or servers reject token after token and the next fetch has to
    /// wait. The server's rejection is then the answer.
    ///
    /// # Cancel safety
    /// The token is marked and the fetch started before the first await.
    pub async fn replace(&self, rejected: &Token) -> Result<Token, TokenError> {
        self.finish(self.rejected(rejected.generation(), Rejection::default())).await
    }

    /// A server rejected this token: marks it and starts a fetch, if a runtime is at hand, and returns at once. Does nothing for a
    /// token that is not the one held.
    pub fn reject(&self, token: &Token) {
        if self.current().is_some_and(|current| current.generation() == token.generation()) {
            drop(self.rejected(token.generation(), Rejection::default()));
        }
    }

    /// Puts a token in by hand: from a login, or from another holder of the credential. It stands whatever a flight under way
    /// brings; those who wait get it. Ends all waits after failures but a `Retry-After`, and signs in again after a
    /// [`clear`](Self::clear).
    pub fn set(&self, token: Token) {
        self.core().event_with(|machine, now, jitter| machine.set(now, token, jitter.roll()), |()| Some(Over::Landed));
    }

    /// Signs out: no token is held, and until [`set`](Self::set) everything ends in [`TokenError::SignedOut`]. What a flight under way brings
    /// is dropped.
    pub fn clear(&self) {
        self.core().event_with(|machine, now, _| machine.clear(now), |()| Some(Over::Landed));
    }

    /// For clients that are no tower services: `f` makes and sends a request with the token it is given, `judge` says whether its
    /// outcome means that the token was rejected. Then there is a fetch, and a second call of `f`, and no third.
    ///
    /// ```
    /// # use tower_jwt_refresh::{BoxError, Token, TokenProvider, TokenRequest};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) }));
    /// # async fn get(_: &str) -> u16 { 200 }
    /// let status = provider.run(|token| async move { get(token.expose_secret()).await }, |status| *status == 401).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`token`](Self::token), before the first call. After a rejection the outcome of the last call is returned, whatever became
    /// of the fetch.
    ///
    /// # Cancel safety
    /// Dropping it drops `f`'s future; a fetch goes on.
    pub async fn run<F, Fut, J>(&self, mut f: F, judge: J) -> Result<Fut::Output, TokenError>
    where
        F: FnMut(Token) -> Fut,
        Fut: Future,
        J: Fn(&Fut::Output) -> bool,
    {
        let token = self.token().await?;
        let generation = token.generation();
        let outcome = f(token).await;
        if !judge(&outcome) {
            return Ok(outcome);
        }
        let Ok(token) = self.finish(self.rejected(generation, Rejection::default())).await else { return Ok(outcome) };
        let generation = token.generation();
        let outcome = f(token).await;
        if judge(&outcome) {
            drop(self.rejected(generation, Rejection { resent: true, ..Rejection::default() }));
        }
        Ok(outcome)
    }

    /// Puts the token into `headers` as `placement` says, over what is there. Gives it back, for [`replace`](Self::replace).
    ///
    /// Where the token may go is the caller's to judge: the layer's rules about https and origins do not apply here.
    ///
    /// # Errors
    /// As [`token`](Self::token); `headers` are untouched then.
    ///
    /// # Cancel safety
    /// As [`token`](Self::token).
    pub async fn authorize(&self, headers: &mut HeaderMap, placement: &Placement) -> Result<Token, TokenError> {
        let token = self.token().await?;
        placement.attach(headers, &token);
        Ok(token)
    }

    /// How it fares, now and from now on: for a health endpoint, or to alert somebody. Never holds up the provider, read or
    /// not; but what [`borrow`](watch::Receiver::borrow) gives is a read lock, to be let go before anything is asked of the provider.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<TokenStatus> {
        self.core().subscribe()
    }

    /// Starts no further fetch, and waits for the one under way, at most `min_interval + fetch_timeout`: a rotated refresh token must not
    /// be lost at exit. Requests afterwards fail with [`TokenError::ShutDown`].
    ///
    /// # Cancel safety
    /// It is shut down all the same; only the wait ends.
    pub async fn shutdown(&self) {
        if let Some(landing) = self.shut_down() {
            landing.ended(self.core().settings.longest_wait()).await;
        }
    }

    fn shut_down(&self) -> Option<Arc<Landing>> {
        self.core().event_with(|machine, _, _| machine.shut_down(), |()| None).1
    }

    // For `TokenProviders`.

    /// [`shutdown`](Self::shutdown) without the wait: how long that may take, if there is anything to wait for.
    pub(crate) fn end(&self) -> Option<Duration> {
        self.shut_down().map(|_| self.core().settings.longest_wait())
    }

    /// Ends it, if this is the only handle and no flight is under way. Of foreign code it calls the clock alone.
    pub(crate) fn retire(&self) -> bool {
        Arc::strong_count(&self.handle) == 1 && self.core().retire()
    }

    // For the layer.

    /// The request path while the token is fresh: no lock, no await, no allocation.
    pub(crate) fn fresh(&self) -> Option<Guard<Arc<Snapshot>>> {
        self.core().fresh()
    }

    /// The request path otherwise.
    pub(crate) fn acquire(&self) -> Verdict {
        self.decide(Purpose::Send, |machine, now, _| machine.asked(now))
    }

    pub(crate) fn rejected(&self, generation: Generation, rejection: Rejection) -> Verdict {
        let verdict = self.core().rejected(generation, rejection);
        self.handle.background.revive(&self.handle);
        verdict
    }

    pub(crate) fn accepted(&self, generation: Generation, sent: Now, resource: Option<u64>) {
        self.core().accepted(generation, sent, resource);
    }

    /// The moment, while any resource is remembered: then it matters when a request was sent.
    pub(crate) fn watch(&self) -> Option<Now> {
        (!self.core().snapshot().remembered.is_empty()).then(|| self.core().now())
    }

    fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// The held token if it is alive and nobody waits for its successor.
    pub(crate) fn unmarked(&self) -> Option<Token> {
        self.core().event(|machine, now, _| machine.unmarked(now))
    }

    /// The held token if it is alive, whatever servers say of it.
    fn living(&self) -> Option<Token> {
        self.core().event(|machine, now, _| machine.living(now))
    }

    fn decide(&self, purpose: Purpose, act: impl FnOnce(&mut Machine, Now, &mut Jitter) -> state::Decision) -> Verdict {
        let verdict = self.core().decide(purpose, None, act);
        self.handle.background.revive(&self.handle);
        verdict
    }

    fn finish(&self, verdict: Verdict) -> Finish {
        match verdict {
            Verdict::Send(token) => Finish::known(Ok(token)),
            Verdict::Fail(error) => Finish::known(Err(error)),
            Verdict::Pass => Finish::known(Err(self.core().event(|machine, now, _| machine.why_not(now)))),
            Verdict::Wait(waiter) => Finish::Wait { waiter },
        }
    }
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.core(), f)
    }
}
