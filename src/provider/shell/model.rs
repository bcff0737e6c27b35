//! The shell under the model checker: each test is a situation, gone through in every interleaving (`scripts/loom`).
//!
//! What each of them shows besides what it asserts: nobody hangs, since a thread that sleeps for ever fails the run; nothing of the
//! provider outlives its users; and but for the models of timers nobody needs one, since time stands still: all are woken by
//! notifications.

mod flights;
mod landings;
mod readers;
mod timers;

use super::Core;
use crate::{
    BoxError, Token, TokenRequest, TokenStatus,
    clock::{Clock, Clocks},
    provider::{
        Background, Handle, Settings, TokenProvider,
        jitter::Jitter,
        primitives::doubles::{tasks, time, watch},
    },
};
use loom::{
    model::Builder,
    thread::{self, JoinHandle},
};
use std::{
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tower::util::BoxService;

const HOUR: Duration = Duration::from_secs(3600);
/// Within `refresh_before`.
const STALE: Duration = Duration::from_secs(200);

/// How a situation is gone through.
struct Model {
    name: &'static str,
    /// So many times at most a thread is stopped that could go on, unless `SHELL_PREEMPTIONS` says otherwise; none: as often as can be.
    preemptions: Option<usize>,
    time_passes: bool,
    /// Is it a question in what order changes of the status come through?
    status: bool,
    /// So many tasks are dropped instead of run.
    dropped: u64,
}

impl Model {
    const fn of(name: &'static str) -> Self {
        Self { name, preemptions: None, time_passes: false, status: false, dropped: 0 }
    }

    const fn preemptions(self, bound: usize) -> Self {
        Self { preemptions: Some(bound), ..self }
    }

    const fn with_time(self) -> Self {
        Self { time_passes: true, ..self }
    }

    const fn with_status(self) -> Self {
        Self { status: true, ..self }
    }

    const fn dropping_the_first_task(self) -> Self {
        Self { dropped: 1, ..self }
    }

    fn check(self, situation: impl Fn() + Send + Sync + 'static) {
        let Self { name, preemptions, time_passes, status, dropped } = self;
        let mut builder = Builder::new();
        builder.max_branches = 10_000;
        builder.preemption_bound = match std::env::var("SHELL_PREEMPTIONS").as_deref() {
            Ok("all") => None,
            Ok(more) if more.starts_with('+') => preemptions.map(|usual| usual + more.parse::<usize>().expect("+1")),
            Ok(bound) => preemptions.and(Some(bound.parse().expect("a number, or all"))),
            Err(_) => preemptions,
        };
        let bound = builder.preemption_bound.map_or_else(|| "any number of".into(), |bound| format!("at most {bound}"));
        let runs = Arc::new(AtomicUsize::new(0));
        let (counted, started) = (Arc::clone(&runs), Instant::now());
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            tasks::reset(dropped);
            time::reset(time_passes);
            watch::reset(status);
            situation();
            tasks::join_all();
        });
        let (runs, took) = (runs.load(Ordering::Relaxed), started.elapsed());
        println!("loom: {name}: {runs} interleavings with {bound} preemptions, {:.1} s", took.as_secs_f64());
    }
}

/// Goes with the model's time, from the same start in every run.
struct ModelClock;

impl Clock for ModelClock {
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + 1_000_000 * HOUR + time::passed()
    }

    fn monotonic(&self) -> Instant {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        *START + time::passed()
    }
}

/// A provider whose source answers at once, and what can be seen of it when it is gone.
struct Seen {
    asked: Arc<AtomicUsize>,
    source: Weak<()>,
    core: Weak<Core>,
    status: watch::Receiver<TokenStatus>,
}

/// `held` is what token `a` has left; `answer` is given the number of the question.
fn provider(
    held: Option<Duration>,
    answer: impl Fn(usize) -> Result<Token, BoxError> + Send + Sync + 'static,
) -> (TokenProvider, Seen) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let owned = Arc::new(());
    let source = Arc::downgrade(&owned);
    let service = tower::service_fn(move |_: TokenRequest| {
        let _by_the_source_alone = &owned;
        let answer = answer(count.fetch_add(1, Ordering::Relaxed) + 1);
        async move { answer }
    });
    // No sleep before a source is asked again: nobody would end it.
    let settings = Settings { min_interval: Duration::ZERO, ..Settings::default() };
    let core =
        Arc::new(Core::new(settings, Clocks::new(Box::new(ModelClock)), Jitter::new(None), BoxService::new(service)));
    if let Some(left) = held {
        core.event(|machine, now, jitter| machine.seed(now, token("a", left), jitter.roll()));
    }
    let seen = Seen { asked, source, core: Arc::downgrade(&core), status: core.subscribe() };
    (TokenProvider { handle: Arc::new(Handle { core, background: Background::default() }) }, seen)
}

fn token(secret: &str, lives: Duration) -> Token {
    Token::opaque(secret).unwrap().with_expires_in(lives)
}

/// What most sources of the models answer.
fn b(_: usize) -> Result<Token, BoxError> {
    Ok(token("b", HOUR))
}

fn secret(token: Option<Token>) -> Option<String> {
    token.map(|token| token.expose_secret().to_owned())
}

fn spawn<T: 'static>(provider: &TokenProvider, act: impl FnOnce(TokenProvider) -> T + 'static) -> JoinHandle<T> {
    let provider = provider.clone();
    thread::spawn(move || act(provider))
}

impl Seen {
    /// All is over and the handles are dropped: how often the source was asked, what the status says, and that nothing is left.
    fn end(&self, asked: usize, status: &TokenStatus) {
        tasks::join_all();
        assert_eq!(self.asked.load(Ordering::Relaxed), asked, "times the source was asked");
        assert_eq!(&*self.status.borrow(), status);
        assert!(self.core.upgrade().is_none(), "the provider outlives its handles and flights");
        assert!(self.source.upgrade().is_none(), "the source outlives its provider");
    }
}
