//! Around the source: each fetch is written down, and none may come too early or beside another.

use crate::{
    report::ISSUER,
    world::{World, lock},
};
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{runtime::Handle, task::JoinSet};
use tower::{Layer, Service};
use tower_jwt_refresh::{BoxError, Token, TokenRequest, source::Reason};

/// The provider's settings, short enough for much to happen in a few seconds.
pub const MIN_INTERVAL: Duration = Duration::from_millis(250);
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));
/// How long a caller waits at most for a token.
pub const LONGEST_WAIT: Duration = MIN_INTERVAL.saturating_add(FETCH_TIMEOUT);
/// Between the provider's look at the clock and ours another thread may have had this core.
const SLACK: Duration = Duration::from_millis(50);
/// From a token's arrival at the source to the last caller that had looked before.
const LANDING: Duration = Duration::from_millis(250);

#[derive(Default)]
pub struct Fetches(Mutex<Vec<Fetch>>);

struct Fetch {
    reason: Reason,
    /// By the run's clock, and by the machine's.
    asked: Duration,
    began: Duration,
    jumps: u32,
    end: Option<(Duration, End)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Good,
    Failed,
    /// The clock jumped, so the provider may have given it up as lost.
    Unclear,
}

impl Fetches {
    /// Between these moments of the machine's clock, was the last that the issuer had said a failure?
    pub fn failing(&self, from: Duration, to: Duration) -> bool {
        let mut since = None;
        for fetch in lock(&self.0).iter() {
            match fetch.end {
                Some((_, End::Failed)) => _ = since.get_or_insert(fetch.began),
                Some((end, End::Good)) => {
                    if since.take().is_some_and(|since| since <= to && end + LANDING >= from) {
                        return true;
                    }
                }
                Some((_, End::Unclear)) | None => {}
            }
        }
        since.is_some_and(|since| since <= to)
    }

    /// May the storm brake have been on for a token when it was refused? Then a refusal had led to it or to one before it, not long ago.
    pub fn storm(&self, minted: Duration, refused: Duration) -> bool {
        let brake = BACKOFF.1.max(MIN_INTERVAL);
        let fetches = lock(&self.0);
        let mut begun = fetches.iter().filter(|fetch| fetch.reason == Reason::Rejected);
        begun.any(|fetch| fetch.asked <= minted && fetch.asked + brake >= refused)
    }

    pub fn count(&self) -> usize {
        lock(&self.0).len()
    }

    fn begin(&self, world: &World, reason: Reason) -> usize {
        let mut fetches = lock(&self.0);
        let (asked, began, jumps) = (world.now(), world.real(), world.jumps());
        if let Some(last) = fetches.last() {
            let since = asked.saturating_sub(last.asked);
            if since + SLACK < MIN_INTERVAL {
                world.breaks("two fetches are never closer than min_interval", format!("{since:.2?} apart"));
            }
            // A jump makes the one under way look lost, which is the one case where two may overlap.
            if last.end.is_none() && last.jumps == jumps {
                world.breaks("one fetch at a time", format!("one for {reason} beside one for {}", last.reason));
            }
        }
        fetches.push(Fetch { reason, asked, began, jumps, end: None });
        fetches.len() - 1
    }
}

/// What to put around a source: it works on the issuer's runtime, which two thousand callers do not keep busy.
pub struct Watch(pub Arc<World>, pub Handle);

impl<S> Layer<S> for Watch {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, world: Arc::clone(&self.0), runtime: self.1.clone() }
    }
}

pub struct Watched<S> {
    inner: S,
    world: Arc<World>,
    runtime: Handle,
}

impl<S> Service<TokenRequest> for Watched<S>
where
    S: Service<TokenRequest, Response = Token, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Token;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Token, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: TokenRequest) -> Self::Future {
        let world = Arc::clone(&self.world);
        let reason = request.reason();
        let under_way = UnderWay { number: world.fetches.begin(&world, reason), world, end: End::Failed };
        let fetch = self.inner.call(request);
        // Aborted with whoever waits for it.
        let mut fetches = JoinSet::new();
        fetches.spawn_on(fetch, &self.runtime);
        Box::pin(async move {
            let mut under_way = under_way;
            let fetched = fetches.join_next().await.expect("there is one")?;
            let (world, jumps) = (&under_way.world, lock(&under_way.world.fetches.0)[under_way.number].jumps);
            world.report.count(
                ISSUER,
                match reason {
                    Reason::Initial => "fetches, initial",
                    Reason::Scheduled => "fetches, scheduled",
                    Reason::Expiring => "fetches, expiring",
                    Reason::Rejected => "fetches, rejected",
                    _ => "fetches, forced",
                },
            );
            match &fetched {
                Ok(token) if world.jumps() != jumps => {
                    world.book.skewed(token.expose_secret());
                    under_way.end = End::Unclear;
                }
                Ok(_) => under_way.end = End::Good,
                Err(_) => world.report.count(ISSUER, "fetches that failed"),
            }
            fetched
        })
    }
}

/// A fetch that is given up has failed.
struct UnderWay {
    world: Arc<World>,
    number: usize,
    end: End,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.world.fetches.0)[self.number].end = Some((self.world.real(), self.end));
    }
}
