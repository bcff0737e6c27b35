//! What the layer's futures weigh. `cargo bench --bench sizes`.
//!
//! A caller that waits holds the provider's future in its own task; on top of it comes what is allocated for each waiter. The task itself is
//! not counted: its caller had it before.

mod support;

use allocation_counter::measure;
use http::{Request, Response};
use std::{
    future::Future,
    mem::{size_of, size_of_val},
    pin::pin,
    process::ExitCode,
    task::{Context, Poll, Waker},
};
use support::{
    Report,
    request::{Inner, Req, ours_and_kept, provider},
    stream::{FRAME, Reads, Streaming, material, streaming, upload},
};
use tokio::runtime::Builder;
use tower::{BoxError, Layer, Service, service_fn};
use tower_jwt_refresh::{JwtRefreshLayer, Token, TokenProvider, TokenRequest};

const WAITERS: usize = 1_000;
/// Of a body, by default.
const LIMIT: usize = 128 * 1024;

fn size_of_future<S: Service<Req>>(_: &S) -> usize {
    size_of::<S::Future>()
}

fn never_answers() -> TokenProvider {
    TokenProvider::new(service_fn(|_: TokenRequest| std::future::pending::<Result<Token, BoxError>>()))
}

/// Bytes that each further waiter takes, but for the future itself.
fn heap_per_waiter() -> f64 {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("no I/O");
    let provider = never_answers();
    let held = runtime.block_on(async {
        let mut cx = Context::from_waker(Waker::noop());
        // Starts the flight, which is nobody's.
        assert!(pin!(provider.token()).poll(&mut cx).is_pending());
        tokio::task::yield_now().await;
        let mut waiters = Vec::with_capacity(WAITERS);
        waiters.extend((0..WAITERS).map(|_| Some(provider.token())));
        let mut waiters: Vec<_> = waiters.into_iter().map(|waiter| Box::pin(waiter.expect("just put in"))).collect();
        let held = measure(|| {
            for waiter in &mut waiters {
                assert_eq!(waiter.as_mut().poll(&mut cx).map(drop), Poll::Pending);
            }
        });
        held.bytes_current
    });
    number(held) / number(WAITERS as i64)
}

fn number(count: i64) -> f64 {
    f64::from(i32::try_from(count).expect("few"))
}

type Uploads = tower::util::BoxService<Request<Streaming>, Response<()>, BoxError>;

/// The most that is held at a time while a body of 100 MiB goes through, less what it takes without the layer.
fn held_by_the_tee() -> f64 {
    let from = material();
    let most = |mut service: Uploads| measure(|| upload(&mut service, streaming(&from, 100 << 20))).bytes_max;
    let (with, without) =
        (most(Uploads::new(JwtRefreshLayer::new(provider()).layer(Reads))), most(Uploads::new(Reads)));
    number(i64::try_from(with).expect("few") - i64::try_from(without).expect("few"))
}

fn main() -> ExitCode {
    let mut report = Report::from_args();
    let provider = never_answers();
    let (ours, inner) = (size_of_future(&ours_and_kept(&provider)), size_of_future(&Inner));
    let request = size_of::<Req>();
    report.exact(
        "size of the response future, more than the inner future and one request",
        "<= 256",
        number((ours - inner - request) as i64),
        "bytes",
        &format!("{ours} against {inner} and {request}"),
    );
    let (wait, heap) = (number(size_of_val(&provider.token()) as i64), heap_per_waiter());
    report.at_least_as_good(
        "size of the provider's wait future plus heap per waiter",
        "<= 200",
        "<= 264",
        wait + heap,
        "bytes",
        &format!("{wait} and {heap}; tokio's Sleep takes 112 of it, its Notified 64"),
    );
    #[allow(clippy::cast_precision_loss, reason = "they are few")]
    let allowed = (LIMIT + FRAME) as f64;
    report.exact(
        "streaming body of 100 MiB through the tee: memory",
        &format!("<= {allowed}"),
        held_by_the_tee(),
        "bytes",
        "more than without the layer, at most; the goal is the policy's limit and a frame",
    );
    report.end()
}
