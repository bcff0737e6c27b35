//! Polling, and what the pollers saw.

use crate::clients::Req;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tower::{Service, ServiceExt};
use tower_jwt_refresh::BoxError;

/// Where to, how long, by how many.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) uri: Uri,
    pub(crate) until: Instant,
    /// Between two requests of one poller.
    pub(crate) pause: Duration,
    pub(crate) pollers: usize,
}

/// What the callers of one client saw, all pollers together.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) requests: AtomicU64,
    pub(crate) unauthorized: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) first_error: OnceLock<String>,
    times: Mutex<Times>,
}

impl Tally {
    pub(crate) fn times(&self) -> Times {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, outcome: Result<StatusCode, BoxError>) {
        // Relaxed: each number stands alone.
        self.requests.fetch_add(1, Ordering::Relaxed);
        let error = match outcome {
            Ok(status) if status.is_success() => return,
            Ok(StatusCode::UNAUTHORIZED) => {
                self.unauthorized.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ok(status) => status.to_string(),
            Err(error) => crate::report::chain(&*error),
        };
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.first_error.get_or_init(|| error);
    }
}

/// Adds the pollers of one client.
pub(crate) fn spawn<S>(pollers: &mut JoinSet<()>, client: &S, plan: &Plan, tally: &Arc<Tally>)
where
    S: Service<Req, Response = Response<Incoming>, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
{
    for _ in 0..plan.pollers {
        pollers.spawn(poll(client.clone(), plan.clone(), Arc::clone(tally)));
    }
}

async fn poll<S>(mut client: S, plan: Plan, tally: Arc<Tally>)
where
    S: Service<Req, Response = Response<Incoming>, Error: Into<BoxError>>,
{
    let mut times = Times::default();
    while Instant::now() < plan.until {
        let begun = Instant::now();
        let outcome = once(&mut client, &plan.uri).await;
        times.record(begun.elapsed());
        tally.count(outcome);
        if !plan.pause.is_zero() {
            tokio::time::sleep_until((Instant::now() + plan.pause).min(plan.until).into()).await;
        }
    }
    tally.times.lock().unwrap_or_else(PoisonError::into_inner).merge(&times);
}

/// One request and its whole answer.
async fn once<S>(client: &mut S, uri: &Uri) -> Result<StatusCode, BoxError>
where
    S: Service<Req, Response = Response<Incoming>, Error: Into<BoxError>>,
{
    let request = Request::get(uri).body(Full::<Bytes>::default())?;
    let response = client.ready().await.map_err(Into::into)?.call(request).await.map_err(Into::into)?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

/// How long requests took: counted in buckets that are 3 % wide at most, so that a long run needs no
/// more memory than a short one.
#[derive(Clone)]
pub(crate) struct Times {
    buckets: Vec<u64>,
    worst: Duration,
}

/// Buckets to a doubling.
const STEPS: u64 = 32;

impl Default for Times {
    fn default() -> Self {
        Self { buckets: vec![0; 64 * 32], worst: Duration::ZERO }
    }
}

impl Times {
    fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let doublings = micros.checked_ilog2().unwrap_or(0).saturating_sub(STEPS.ilog2());
        let bucket = u64::from(doublings) * STEPS + (micros >> doublings);
        self.buckets[usize::try_from(bucket).expect("a bucket's number is small")] += 1;
        self.worst = self.worst.max(time);
    }

    fn merge(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, others)| *mine += others);
        self.worst = self.worst.max(other.worst);
    }

    pub(crate) fn worst(&self) -> Duration {
        self.worst
    }

    /// In microseconds: what so many percent of the requests did not exceed.
    pub(crate) fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.buckets.iter().sum::<u64>() * percent).div_ceil(100);
        let mut seen = 0;
        for (bucket, count) in (0..).zip(&self.buckets) {
            seen += count;
            if seen >= wanted {
                let doublings = (bucket / STEPS).saturating_sub(1);
                let top = ((bucket - doublings * STEPS + 1) << doublings) - 1;
                return u64::try_from(self.worst.as_micros()).map_or(top, |worst| worst.min(top));
            }
        }
        0
    }
}
