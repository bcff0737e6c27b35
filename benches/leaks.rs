//! Nothing stays behind: memory and tasks after ten thousand providers, and after a million requests. `cargo bench --bench leaks`.
//!
//! Every allocation is counted. All is on one thread, since the counter is a thread's own, and on tokio's paused clock, so that hours of refreshes
//! take no time. Ends with an error if more is held afterwards than before.

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use std::{cell::Cell, convert::Infallible, process::ExitCode, rc::Rc, time::Duration};
use tokio::runtime::{Builder, Runtime};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_jwt_refresh::{JwtRefreshLayer, SourceError, Token, TokenProvider, TokenRequest, clock::ManualClock};

const PROVIDERS: u64 = 10_000;
const REQUESTS: u64 = 1_000_000;
const HOUR: Duration = Duration::from_secs(3600);
/// What tables that grew to their usual size may differ by.
const NOISE: i64 = 4096;

fn main() -> ExitCode {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("no I/O");
    let flat = [of_providers(&runtime), of_requests(&runtime)];
    if flat.iter().all(|flat| *flat) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A token that lives for an hour, each time another; each seventh time none.
fn provider() -> TokenProvider {
    let mut count = 0;
    let source = service_fn(move |_: TokenRequest| {
        count += 1;
        let number = count;
        async move {
            if number % 7 == 0 {
                return Err::<_, BoxError>(SourceError::transient("busy").into());
            }
            Ok(Token::opaque(format!("token-{number}"))?.with_expires_in(HOUR))
        }
    });
    let clock = ManualClock::following_tokio();
    TokenProvider::builder().clock(clock).build(source).expect("legal settings")
}

// aws/aws-sdk-java-v2#5796; restatedev/restate#5154.
fn of_providers(runtime: &Runtime) -> bool {
    let some = |count: u64| {
        runtime.block_on(async {
            for _ in 0..count / 100 {
                let mut all = Vec::new();
                for _ in 0..100 {
                    let provider = provider();
                    provider.init().await.expect("the first fetch succeeds");
                    let status = provider.subscribe();
                    let client = JwtRefreshLayer::new(provider.clone())
                        .layer(service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(Response::new(())) }));
                    client.oneshot(request(0)).await.expect("sent");
                    all.push((provider, status));
                }
                // Their loops refresh.
                tokio::time::sleep(2 * HOUR).await;
            }
            tokio::time::sleep(HOUR).await;
        });
    };
    some(200);
    let held = measure(|| some(PROVIDERS));
    let tasks = runtime.metrics().num_alive_tasks();
    println!("{PROVIDERS} providers, 100 at a time: {}, {tasks} tasks left", told(&held));
    held.bytes_current <= NOISE && tasks == 0
}

fn of_requests(runtime: &Runtime) -> bool {
    let provider = provider();
    runtime.block_on(provider.init()).expect("the first fetch succeeds");
    let refused = Rc::new(Cell::new(false));
    let (refuses, seen) = (Rc::clone(&refused), Rc::new(Cell::new(0_u64)));
    let count = Rc::clone(&seen);
    let client = JwtRefreshLayer::new(provider.clone()).layer(service_fn(move |request: Request<Full<Bytes>>| {
        count.set(count.get() + 1);
        // A token that is revoked, and a thing that is forbidden to all.
        let refuse = refuses.take() || request.uri().path().starts_with("/forbidden");
        let response = Response::builder().status(if refuse { 401 } else { 200 }).body(()).expect("a status");
        async move { Ok::<_, Infallible>(response) }
    }));
    let fetched = Cell::new(0_u64);
    let some = |requests: std::ops::Range<u64>| {
        runtime.block_on(async {
            for nth in requests {
                let before = provider.current().map(|token| token.generation());
                refused.set(nth % 5_000 == 4_999);
                client.clone().oneshot(request(nth)).await.expect("sent");
                if nth % 100 == 99 {
                    tokio::time::sleep(Duration::from_secs(20)).await;
                }
                fetched.set(fetched.get() + u64::from(provider.current().map(|token| token.generation()) != before));
            }
        });
    };
    let first = measure(|| some(0..REQUESTS / 10));
    let rest = measure(|| some(REQUESTS / 10..REQUESTS));
    println!("the first {} requests: {}", REQUESTS / 10, told(&first));
    println!("to {REQUESTS} requests: {}, {} sendings, {} tokens", told(&rest), seen.get(), fetched.get());
    drop((client, provider));
    runtime.block_on(async { tokio::time::sleep(HOUR).await });
    let tasks = runtime.metrics().num_alive_tasks();
    println!("afterwards: {tasks} tasks left");
    rest.bytes_current <= NOISE && tasks == 0
}

fn request(nth: u64) -> Request<Full<Bytes>> {
    let uri = match nth % 1_000 {
        999 => format!("https://api.example.com/forbidden/{nth}"),
        _ => "https://api.example.com/jobs/1".into(),
    };
    Request::post(uri).body(Full::from("body")).expect("legal")
}

fn told(held: &AllocationInfo) -> String {
    let AllocationInfo { bytes_current, bytes_max, count_total, .. } = held;
    format!("{bytes_current} bytes more than before, {bytes_max} at most, {count_total} allocations")
}
