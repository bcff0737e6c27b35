//! Requests on all cores at once, all with one shared token, against one core. `cargo bench --bench scale`.
//!
//! Each thread has its own clone of one service, as each task of a program has. What all share is the token: in the static layer the reference
//! count of the header's value, in this one that of the layer's settings as well. How much more is sent with all cores than with one is
//! compared with how the static layer fares in the same round.

mod support;

use std::{
    process::ExitCode,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};
use support::{
    Report,
    request::{Req, fixed, fixed_and_kept, ours, ours_and_kept, provider, request, send},
    timing::in_turn,
};
use tower::Service;

const ROUNDS: usize = 60;
const REQUESTS: u32 = 20_000;

/// From the first thread's start to the last one's end.
fn on<S: Service<Req> + Clone + Send>(threads: usize, service: &S) -> Duration {
    let barrier = Barrier::new(threads);
    let run = |mut service: S| {
        barrier.wait();
        let start = Instant::now();
        for _ in 0..REQUESTS {
            send(&mut service, request());
        }
        (start, Instant::now())
    };
    let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                let service = service.clone();
                scope.spawn(move || run(service))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let start = spans.iter().map(|span| span.0).min().expect("one thread at least");
    spans.iter().map(|span| span.1).max().expect("one thread at least") - start
}

fn main() -> ExitCode {
    let mut report = Report::from_args();
    let cores = thread::available_parallelism().expect("known").get();
    let provider = provider();
    let (a, b, c, d) = (fixed(), fixed_and_kept(), ours(&provider), ours_and_kept(&provider));
    let times = in_turn(
        ROUNDS,
        [
            &mut || on(1, &a),
            &mut || on(cores, &a),
            &mut || on(1, &c),
            &mut || on(cores, &c),
            &mut || on(1, &b),
            &mut || on(cores, &b),
            &mut || on(1, &d),
            &mut || on(cores, &d),
        ],
    );
    let times_as_much = |nth: usize| {
        #[allow(clippy::cast_precision_loss, reason = "they are few")]
        let cores = cores as f64;
        times.median_of(|row| cores * row[nth].as_secs_f64() / row[nth + 1].as_secs_f64())
    };
    let against = |ours: usize, fixed: usize| {
        times.median_of(|row| {
            let scales = |nth: usize| row[nth].as_secs_f64() / row[nth + 1].as_secs_f64();
            scales(ours) / scales(fixed)
        })
    };
    report.row(
        "throughput with all cores on one shared token / one core: of what the static layer scales",
        ">= 0.97",
        against(2, 0),
        "ratio",
        &format!(
            "{cores} cores: x{:.2} against x{:.2}; with a copy kept x{:.2} against x{:.2} of tower::retry",
            times_as_much(2),
            times_as_much(0),
            times_as_much(6),
            times_as_much(4)
        ),
    );
    report.end()
}
