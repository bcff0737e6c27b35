//! What the layer costs a request while the token is fresh, as a ratio to layers that do less. `cargo bench --bench request`.
//!
//! Variants are run as `support::timing` says. The goals' figures hold all of a request's life, the same for each variant: the request is
//! made (URI parsed, six headers put in), sent through the layer to a service that answers at once, and dropped with its answer, so that the
//! layer is seen beside the least that any request costs. Since making it is more than half of that, the second figures leave
//! it out: there 64 requests are made before the clock starts.

mod support;

use std::{
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};
use support::{
    Report,
    request::{Req, fixed, fixed_and_kept, ours, ours_and_kept, provider, request, send},
    timing::{Rounds, in_turn},
};
use tower::Service;

const ROUNDS: usize = 400;
const BATCHES: u32 = 8;
const BATCH: u32 = 64;

fn with_the_making<S: Service<Req>>(service: &mut S) -> Duration {
    let start = Instant::now();
    for _ in 0..BATCHES * BATCH {
        send(service, request());
    }
    start.elapsed() / (BATCHES * BATCH)
}

fn without<S: Service<Req>>(service: &mut S, made: &mut Vec<Req>) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..BATCHES {
        made.extend((0..BATCH).map(|_| request()));
        let start = Instant::now();
        for request in made.drain(..) {
            send(service, request);
        }
        took += start.elapsed();
    }
    took / (BATCHES * BATCH)
}

fn made_alone() -> Duration {
    let start = Instant::now();
    for _ in 0..BATCHES * BATCH {
        drop(black_box(request()));
    }
    start.elapsed() / (BATCHES * BATCH)
}

fn main() -> ExitCode {
    let mut report = Report::from_args();
    let provider = provider();
    let (mut a, mut b, mut c, mut d) = (fixed(), fixed_and_kept(), ours(&provider), ours_and_kept(&provider));
    let whole = in_turn(
        ROUNDS,
        [
            &mut || with_the_making(&mut a),
            &mut || with_the_making(&mut b),
            &mut || with_the_making(&mut c),
            &mut || with_the_making(&mut d),
            &mut made_alone,
        ],
    );
    let (mut w, mut x, mut y, mut z) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let sent = in_turn(
        ROUNDS,
        [
            &mut || without(&mut a, &mut w),
            &mut || without(&mut b, &mut x),
            &mut || without(&mut c, &mut y),
            &mut || without(&mut d, &mut z),
        ],
    );
    report.say(format_args!("median of {ROUNDS} rounds, ns per request   made and sent   sent alone"));
    let names = [
        "tower-http, fixed header",
        "tower::retry over it, a copy kept",
        "this layer, no copy kept",
        "this layer, a copy kept",
    ];
    for (nth, name) in names.into_iter().enumerate() {
        let [whole, sent] = [whole.median(nth) * 1e9, sent.median(nth) * 1e9];
        report.say(format_args!("  {name:<40} {whole:>8.0} {sent:>12.0}"));
    }
    report.say(format_args!("  {:<40} {:>8.0}", "the request made and dropped, unsent", whole.median(4) * 1e9));
    let note = |of, to| {
        let ns = |rounds: &Rounds<5>, of| rounds.median(of) * 1e9;
        format!(
            "{:.0} against {:.0} ns; {:.2} with the request made before",
            ns(&whole, of),
            ns(&whole, to),
            sent.ratio(of, to)
        )
    };
    report.row("fresh token, no copy kept: time / static header", "<= 1.10", whole.ratio(2, 0), "ratio", &note(2, 0));
    report.row(
        "fresh token, copy kept: time / tower::retry and static header",
        "<= 0.80",
        whole.ratio(3, 1),
        "ratio",
        &note(3, 1),
    );
    report.end()
}
