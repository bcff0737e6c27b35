//! A stampede: so many callers, each a task of its own, need a token that takes 50 ms to fetch. `cargo bench --bench waiters`.
//!
//! Counted is the time from the first caller's start to the last caller's end, less the 50 ms: what the callers' number costs, whether
//! before the fetch is under way, while it is, or afterwards. Runs on tokio's usual runtime, with a worker for each core.

mod support;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use support::{
    Report,
    flights::{DoubleChecked, Fetch, Flight, Ours, SharedFuture, Watch, fetch},
    timing::in_turn,
};
use tokio::runtime::Runtime;
use tower_jwt_refresh::Token;

const FETCH: Duration = Duration::from_millis(50);

fn succeeds() -> Fetch {
    fetch(|| async {
        tokio::time::sleep(FETCH).await;
        Ok(Token::opaque("secret")?.with_expires_in(Duration::from_secs(3600)))
    })
}

fn fails(count: &Arc<AtomicU32>) -> Fetch {
    let count = Arc::clone(count);
    fetch(move || {
        count.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(FETCH).await;
            Err("down".into())
        }
    })
}

fn stampede<F: Flight>(runtime: &Runtime, callers: usize, fetch: Fetch, gets_one: bool) -> Duration {
    let flight = F::new(fetch);
    runtime.block_on(async {
        let mut tasks = Vec::with_capacity(callers);
        let start = Instant::now();
        tasks.extend((0..callers).map(|_| {
            let flight = flight.clone();
            tokio::spawn(async move { flight.token().await.is_some() })
        }));
        for task in tasks {
            assert_eq!(task.await.expect("no panic"), gets_one);
        }
        start.elapsed()
    })
}

fn over_the_fetch<F: Flight>(runtime: &Runtime, callers: usize) -> Duration {
    stampede::<F>(runtime, callers, succeeds(), true).saturating_sub(FETCH)
}

fn main() -> ExitCode {
    let mut report = Report::from_args();
    let runtime = Runtime::new().expect("threads");
    let asked = Arc::new(AtomicU32::new(0));
    for (callers, rounds) in [(1_000, 10), (10_000, 10), (100_000, 20)] {
        let before = asked.load(Ordering::Relaxed);
        let times = in_turn(
            rounds,
            [
                &mut || over_the_fetch::<Ours>(&runtime, callers),
                &mut || over_the_fetch::<SharedFuture>(&runtime, callers),
                &mut || over_the_fetch::<DoubleChecked>(&runtime, callers),
                &mut || over_the_fetch::<Watch>(&runtime, callers),
                &mut || stampede::<Ours>(&runtime, callers, fails(&asked), false).saturating_sub(FETCH),
            ],
        );
        let names = [Ours::NAME, SharedFuture::NAME, DoubleChecked::NAME, Watch::NAME, "this crate, the fetch fails"];
        report.say(format_args!("{callers} callers, ms over the fetch"));
        for (nth, name) in names.into_iter().enumerate() {
            let over = times.median(nth) * 1e3;
            report.say(format_args!("  {name:<30} {over:>8.2}"));
            #[allow(clippy::cast_precision_loss, reason = "they are few")]
            report.point("stampede", name, callers as f64, over);
        }
        if callers == 100_000 {
            let best = (1..4).min_by(|a, b| times.median(*a).total_cmp(&times.median(*b))).expect("three");
            report.row(
                "100,000 callers waiting on one flight: time past the fetch / best by hand",
                "<= 1.1",
                times.ratio(0, best),
                "ratio",
                &format!(
                    "{:.1} ms against {:.1} ms with {}",
                    times.median(0) * 1e3,
                    times.median(best) * 1e3,
                    names[best]
                ),
            );
            let whole = |nth: usize| times.median(nth) * 1e3;
            report.row(
                "failing fetch, 100,000 waiters: time past the fetch / the stampede that succeeds",
                "<= 1.1",
                times.ratio(4, 0),
                "ratio",
                &format!("{:.1} ms against {:.1} ms", whole(4), whole(0)),
            );
            let (stampedes, fetches) = (rounds + rounds.div_ceil(10), asked.load(Ordering::Relaxed) - before);
            report.exact(
                "failing fetch, 100,000 waiters: fetches",
                "<= 1",
                f64::from(fetches) / f64::from(u32::try_from(stampedes).expect("few")),
                "fetches",
                &format!("{fetches} in {stampedes} stampedes"),
            );
        }
    }
    a_hundred(&mut report, &runtime);
    report.end()
}

fn a_hundred(report: &mut Report, runtime: &Runtime) {
    let asked = Arc::new(AtomicU32::new(0));
    let times = in_turn(20, [&mut || stampede::<Ours>(runtime, 100, fails(&asked), false)]);
    report.row(
        "failing fetch of 50 ms, 100 waiters: time / the fetch",
        "<= 1.5",
        times.median(0) / FETCH.as_secs_f64(),
        "ratio",
        &format!("{:.1} ms", times.median(0) * 1e3),
    );
    let fetches = asked.load(Ordering::Relaxed);
    report.exact(
        "failing fetch of 50 ms, 100 waiters: fetches",
        "<= 1",
        f64::from(fetches) / 22.0,
        "fetches",
        &format!("{fetches} in 22 stampedes"),
    );
}
