//! Time: stands still, unless the model has a clock.
//!
//! Without one no sleep ever ends, and what the shell does then it must do by notifications alone. With one, [`pass`] moves it from a
//! thread of its own, so that the sleeps end at any moment that the interleavings allow, or [`go_on`] from one end of a sleep to the next.

use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    ops::Add,
    pin::{Pin, pin},
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

struct Passing {
    /// In nanoseconds; changes under the lock.
    now: AtomicU64,
    sleepers: Mutex<Sleepers>,
    changed: Condvar,
}

#[derive(Default)]
struct Sleepers {
    asleep: Vec<(Instant, Waker)>,
    stopped: bool,
}

// Of std: all threads of a model share one thread of the system.
std::thread_local! {
    static CLOCK: RefCell<Option<Arc<Passing>>> = const { RefCell::new(None) };
}

/// Before a run: does time pass in it?
pub(crate) fn reset(passes: bool) {
    let clock = Passing { now: AtomicU64::new(0), sleepers: Mutex::default(), changed: Condvar::new() };
    CLOCK.set(passes.then(|| Arc::new(clock)));
}

fn clock() -> Option<Arc<Passing>> {
    CLOCK.with_borrow(Clone::clone)
}

/// Time passes, and who sleeps looks at the clock.
pub(crate) fn pass(span: Duration) {
    let clock = clock().expect("a model in which time passes");
    clock.pass(clock.lock(), span);
}

/// Until somebody says [`stop`], time passes to the next end of a sleep whenever one is due within `span`.
pub(crate) fn go_on(span: Duration) {
    let clock = clock().expect("a model in which time passes");
    let mut sleepers = clock.lock();
    while !sleepers.stopped {
        let now = Instant::now();
        let ends = sleepers.asleep.iter().map(|(until, _)| *until);
        if let Some(next) = ends.filter(|until| *until > now && *until <= now + span).min() {
            clock.pass(sleepers, next.0 - now.0);
            sleepers = clock.lock();
        } else {
            sleepers = clock.changed.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

pub(crate) fn stop() {
    let clock = clock().expect("a model in which time passes");
    clock.lock().stopped = true;
    clock.changed.notify_one();
}

impl Passing {
    fn lock(&self) -> MutexGuard<'_, Sleepers> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, mut sleepers: MutexGuard<'_, Sleepers>, span: Duration) {
        self.now.fetch_add(u64::try_from(span.as_nanos()).expect("a short span"), Ordering::Release);
        let woken = std::mem::take(&mut sleepers.asleep);
        drop(sleepers);
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// How much has passed since the start.
pub(crate) fn passed() -> Duration {
    clock().map_or(Duration::ZERO, |clock| Duration::from_nanos(clock.now.load(Ordering::Acquire)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(passed())
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0 + span)
    }
}

#[derive(Debug)]
pub(crate) struct Sleep {
    until: Instant,
}

pub(crate) fn sleep(span: Duration) -> Sleep {
    sleep_until(Instant::now() + span)
}

pub(crate) fn sleep_until(until: Instant) -> Sleep {
    Sleep { until }
}

impl Sleep {
    pub(crate) fn reset(mut self: Pin<&mut Self>, until: Instant) {
        self.until = until;
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(clock) = clock() else {
            return if self.until.0.is_zero() { Poll::Ready(()) } else { Poll::Pending };
        };
        let mut sleepers = clock.lock();
        if Instant::now() >= self.until {
            return Poll::Ready(());
        }
        sleepers.asleep.push((self.until, cx.waker().clone()));
        clock.changed.notify_one();
        Poll::Pending
    }
}

#[derive(Debug)]
pub(crate) struct Elapsed;

pub(crate) async fn timeout<F: Future>(after: Duration, future: F) -> Result<F::Output, Elapsed> {
    let (mut future, mut sleep) = (pin!(future), pin!(sleep(after)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}
