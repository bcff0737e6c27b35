//! Does a request cost more when there is more of something? `cargo bench --bench growth`.
//!
//! Flat means: the cost among many is at most 1.1 times the cost among few, and nothing is held afterwards that was not held before.
//! Each figure compares the two within one process, in turn where both can be had at a time.

mod support;

use futures_util::FutureExt;
use std::{
    cell::Cell,
    process::ExitCode,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use support::{
    Report,
    flights::{Flight, Ours, Watch, fetch},
    request::{Inner, Req, fixed, ours_and_kept, provider, request, secret, send},
    timing::{in_turn, median},
};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::Notify,
    task::yield_now,
};
use tower::{BoxError, Service, service_fn};
use tower_jwt_refresh::{JwtRefresh, Token, TokenProvider, TokenRequest};

fn per_request<S: Service<Req>>(service: &mut S, requests: u32) -> Duration {
    let start = Instant::now();
    for _ in 0..requests {
        send(service, request());
    }
    start.elapsed() / requests
}

/// One client's first requests and its last of a million, beside a static layer that tells how fast the machine was meanwhile.
fn of_requests(report: &mut Report) {
    const PARTS: usize = 400;
    let (mut client, mut fixed) = (ours_and_kept(&provider()), fixed());
    send(&mut fixed, request());
    let parts: Vec<f64> = (0..PARTS)
        .map(|_| {
            let ours = per_request(&mut client, 2_500);
            ours.as_secs_f64() / per_request(&mut fixed, 2_500).as_secs_f64()
        })
        .collect();
    let (first, last) = (median(parts[1..PARTS / 10].to_vec()), median(parts[PARTS - PARTS / 10..].to_vec()));
    report.row(
        "cost per request, from 1 to 1,000,000 requests: the last 100,000 / the first",
        "<= 1.1",
        last / first,
        "ratio",
        "both as a ratio to the static layer between them",
    );
}

/// A request through one client, while as many others exist with a loop each; and through all of them in turn.
fn of_providers(report: &mut Report) {
    const PROVIDERS: usize = 10_000;
    let runtime = Builder::new_current_thread().enable_time().build().expect("no I/O");
    let made = || {
        let source = service_fn(|_: TokenRequest| async {
            Ok::<_, BoxError>(Token::opaque(secret())?.with_expires_in(Duration::from_secs(3600)))
        });
        let provider = TokenProvider::new(source);
        runtime.block_on(provider.init()).expect("the source answers");
        provider
    };
    let mut alone = ours_and_kept(&made());
    let before = in_turn(200, [&mut || per_request(&mut alone, 500), &mut || per_request(&mut fixed(), 500)]);
    let mut clients: Vec<JwtRefresh<Inner>> = (0..PROVIDERS).map(|_| ours_and_kept(&made())).collect();
    let mut statics: Vec<_> = (0..PROVIDERS).map(|_| fixed()).collect();
    let after = in_turn(200, [&mut || per_request(&mut alone, 500), &mut || per_request(&mut fixed(), 500)]);
    let all = in_turn(
        10,
        [
            &mut || {
                let start = Instant::now();
                clients.iter_mut().for_each(|client| send(client, request()));
                start.elapsed()
            },
            &mut || {
                let start = Instant::now();
                statics.iter_mut().for_each(|client| send(client, request()));
                start.elapsed()
            },
        ],
    );
    report.row(
        "cost per request, from 1 to 10,000 providers: with 10,000 / with 1",
        "<= 1.1",
        after.ratio(0, 1) / before.ratio(0, 1),
        "ratio",
        &format!(
            "{:.0} ns; each of 10,000 in turn, their memory cold: {:.0} ns, {:.0} ns with as many static layers",
            after.median(0) * 1e9,
            all.median(0) * 1e9 / 1e4,
            all.median(1) * 1e9 / 1e4
        ),
    );
}

/// From the first caller's start to the last one's end; the fetch is over once all wait.
fn flight<F: Flight>(waiters: usize) -> Duration {
    let runtime = Builder::new_current_thread().enable_time().build_local(LocalOptions::default()).expect("no I/O");
    let answer = Arc::new(Notify::new());
    let let_go = Arc::clone(&answer);
    let flight = F::new(fetch(move || {
        let answer = Arc::clone(&answer);
        async move {
            answer.notified().await;
            Ok(Token::opaque("secret")?.with_expires_in(Duration::from_secs(3600)))
        }
        .boxed()
    }));
    runtime.block_on(async {
        let mut tasks = Vec::with_capacity(waiters);
        let waiting = Rc::new(Cell::new(0));
        let start = Instant::now();
        tasks.extend((0..waiters).map(|_| {
            let (flight, waiting) = (flight.clone(), Rc::clone(&waiting));
            tokio::task::spawn_local(async move {
                waiting.set(waiting.get() + 1);
                flight.token().await.is_some()
            })
        }));
        while waiting.get() < waiters {
            yield_now().await;
        }
        let_go.notify_one();
        for task in tasks {
            assert!(task.await.expect("no panic"));
        }
        start.elapsed()
    })
}

fn of_waiters(report: &mut Report) {
    let few = |repeats: u32, waiters: usize| -> Duration { (0..repeats).map(|_| flight::<Ours>(waiters)).sum() };
    let times = in_turn(
        20,
        [
            &mut || few(100, 1),
            &mut || few(100, 1_000),
            &mut || few(1, 100_000),
            &mut || flight::<Watch>(1_000),
            &mut || flight::<Watch>(100_000),
        ],
    );
    let per_waiter = times.median_of(|row| row[2].as_secs_f64() / 1e5 / (row[1].as_secs_f64() / 1e5));
    let ns = |nth: usize, waiters: f64| times.median(nth) * 1e9 / waiters;
    report.row(
        "cost per waiter, from 1 to 100,000 waiters: among 100,000 / alone",
        "<= 1.1",
        times.median_of(|row| row[2].as_secs_f64() / 1e5 / (row[0].as_secs_f64() / 100.0)),
        "ratio",
        &format!(
            "{:.0} ns each, {:.0} alone with the flight, {:.0} among 1,000 ({per_waiter:.2}); watch by hand {:.0} among 1,000, {:.0} among 100,000",
            ns(2, 1e5),
            ns(0, 100.0),
            ns(1, 1e5),
            ns(3, 1e3),
            ns(4, 1e5)
        ),
    );
}

fn main() -> ExitCode {
    let mut report = Report::from_args();
    of_requests(&mut report);
    of_providers(&mut report);
    of_waiters(&mut report);
    report.end()
}
