//! What requests notice of a refresh: their latency while one is under way, against before and after. `cargo bench --bench refresh`.
//!
//! The client is hyper's on HTTP/2, over a pipe in memory to a server in the same thread: of a request's way only the network is missing. The
//! token turns stale, so many requests go out while its successor is being fetched, it lands, as many go out with the new one, and so
//! on: both kinds alternate a few times each millisecond, and have the same neighbours. The time runs from the request's start to its answer's
//! end, and the refresh's own work, beginning and landing, falls on requests that are counted as under way.

mod support;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use std::{
    convert::Infallible,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};
use support::{Report, request::secret, timing::median};
use tokio::{runtime::Builder, sync::Notify, task::yield_now};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_jwt_refresh::{
    JwtRefreshLayer, Token, TokenProvider, TokenRequest,
    clock::{Clock, SystemClock},
};

const HOUR: Duration = Duration::from_secs(3600);
/// Each has a p99.9 of its own; of their ratios the median counts.
const BLOCKS: usize = 10;
const REFRESHES: usize = 200;
const REQUESTS: usize = 25;

/// The machine's clocks, put ahead by seconds.
struct Ahead(Arc<AtomicU64>);

impl Ahead {
    fn by(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

impl Clock for Ahead {
    fn wall(&self) -> SystemTime {
        SystemClock.wall() + self.by()
    }

    fn monotonic(&self) -> Instant {
        SystemClock.monotonic() + self.by()
    }
}

#[derive(Clone)]
struct Http2(SendRequest<Empty<Bytes>>);

impl Service<Request<Empty<Bytes>>> for Http2 {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = futures_util::future::BoxFuture<'static, hyper::Result<Response<Incoming>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Empty<Bytes>>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

async fn connect() -> Http2 {
    let (here, there) = tokio::io::duplex(64 * 1024);
    let answers =
        service_fn(|_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::spawn(server.serve_connection(TokioIo::new(there), TowerToHyperService::new(answers)));
    let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(here)).await.expect("a server");
    tokio::spawn(connection);
    Http2(client)
}

/// Latencies without a refresh and while one is under way, in seconds.
type Latencies = [Vec<f64>; 2];

async fn block(latencies: &mut Latencies) {
    let (ahead, answer) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let let_go = Arc::clone(&answer);
    let mut number = 0;
    let source = service_fn(move |_: TokenRequest| {
        let answer = Arc::clone(&answer);
        // The same bytes again would be no new token.
        number += 1;
        let token = format!("{number}{}", secret());
        async move {
            answer.notified().await;
            Ok::<_, BoxError>(Token::opaque(token)?.with_expires_in(HOUR))
        }
    });
    let provider = TokenProvider::builder()
        .min_interval(Duration::from_nanos(1))
        .seed(Token::opaque("seed").expect("legal").with_expires_in(HOUR))
        .clock(Ahead(Arc::clone(&ahead)))
        .build(source)
        .expect("legal settings");
    let mut client = JwtRefreshLayer::new(provider.clone()).layer(connect().await);
    let mut send = async || {
        let request = Request::get("https://api.example.com/jobs/1").body(Empty::new()).expect("valid");
        let start = Instant::now();
        let answer = client.ready().await.expect("connected").call(request).await.expect("answered");
        answer.into_body().collect().await.expect("whole");
        start.elapsed().as_secs_f64()
    };
    for _ in 0..REFRESHES {
        for _ in 0..REQUESTS {
            latencies[0].push(send().await);
        }
        let before = provider.current().expect("one is held").generation();
        ahead.fetch_add(3500, Ordering::Relaxed);
        for nth in 0..REQUESTS {
            if nth == REQUESTS / 2 {
                let_go.notify_one();
            }
            latencies[1].push(send().await);
        }
        while provider.current().expect("one is held").generation() == before {
            yield_now().await;
        }
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of them"
)]
fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)]
}

fn main() -> ExitCode {
    let mut report = Report::from_args();
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut all = Latencies::default();
    let mut ratios: [Vec<f64>; 2] = Default::default();
    for number in 0..=BLOCKS {
        let mut latencies = Latencies::default();
        runtime.block_on(block(&mut latencies));
        // The first warms up.
        if number == 0 {
            continue;
        }
        for (all, latencies) in all.iter_mut().zip(&mut latencies) {
            latencies.sort_unstable_by(f64::total_cmp);
            all.extend(latencies.iter());
        }
        for (ratios, share) in ratios.iter_mut().zip([0.5, 0.999]) {
            ratios.push(percentile(&latencies[1], share) / percentile(&latencies[0], share));
        }
    }
    let series = ["no refresh", "a refresh under way"];
    for (all, series) in all.iter_mut().zip(series) {
        all.sort_unstable_by(f64::total_cmp);
        let us = |share| percentile(all, share) * 1e6;
        report.say(format_args!(
            "{series:<20} p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us, of {} requests",
            us(0.5),
            us(0.99),
            us(0.999),
            all.len()
        ));
        histogram(&report, series, all);
    }
    let us = |nth: usize| percentile(&all[nth], 0.999) * 1e6;
    let note = format!("{:.0} against {:.0} us; p50 {:.2}", us(1), us(0), median(std::mem::take(&mut ratios[0])));
    report.row(
        "p99.9 of requests while a refresh is under way / without",
        "<= 1.1",
        median(std::mem::take(&mut ratios[1])),
        "ratio",
        &note,
    );
    report.end()
}

/// Per cent of all requests by latency in microseconds, ten buckets to a doubling.
fn histogram(report: &Report, series: &str, sorted: &[f64]) {
    let (mut edge, mut rest) = (1.0, sorted);
    while !rest.is_empty() {
        let next = edge * 2_f64.powf(0.1);
        let here = rest.partition_point(|latency| latency * 1e6 < next);
        #[allow(clippy::cast_precision_loss, reason = "they are few")]
        let share = here as f64 * 100.0 / sorted.len() as f64;
        if here > 0 {
            report.point("refresh", series, edge, share);
        }
        (edge, rest) = (next, &rest[here..]);
    }
}
