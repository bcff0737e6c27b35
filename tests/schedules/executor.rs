//! An executor whose order is drawn from a seed.
//!
//! Its tasks are polled in any order, as often as the dice say, between two turns of tokio's own (current-thread) executor, which runs what
//! the provider spawned. So everything that callers do is ordered in all ways against flight and loop, which take turns with each other.
//! Time is tokio's paused clock: it jumps when nobody can run, and now and then while somebody can, as on a machine that is busy.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

/// All that is random, from one seed. Clones go on with the same numbers.
#[derive(Clone)]
pub struct Dice(Arc<AtomicU64>);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// SplitMix64. One thread alone throws them.
    fn next(&self) -> u64 {
        let state = self.0.load(Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.store(state, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&self, sides: usize) -> usize {
        usize::try_from(self.next() % sides as u64).expect("it is below")
    }

    pub fn one_in(&self, sides: usize) -> bool {
        self.below(sides) == 0
    }

    pub fn among<T: Copy>(&self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Gives way a few times.
    pub async fn wobble(&self) {
        while self.one_in(3) {
            tokio::task::yield_now().await;
        }
    }
}

struct Woken {
    flag: AtomicBool,
    executor: Arc<Mutex<Option<Waker>>>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.flag.store(true, Ordering::Relaxed);
        let executor = self.executor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(executor) = executor {
            executor.wake();
        }
    }
}

struct Task<'a> {
    future: Pin<Box<dyn Future<Output = ()> + 'a>>,
    woken: Arc<Woken>,
    waker: Waker,
}

/// Runs all tasks to their end, and `look` after every step. `ahead` counts the time that passed while somebody could run.
pub async fn run<'a>(
    futures: Vec<Pin<Box<dyn Future<Output = ()> + 'a>>>,
    dice: &Dice,
    ahead: &Cell<Duration>,
    mut look: impl FnMut(),
) {
    let executor: Arc<Mutex<Option<Waker>>> = Arc::default();
    let mut tasks: Vec<_> = futures
        .into_iter()
        .map(|future| {
            let woken = Arc::new(Woken { flag: AtomicBool::new(true), executor: Arc::clone(&executor) });
            Task { future, waker: Waker::from(Arc::clone(&woken)), woken }
        })
        .collect();
    // How often tokio gets a turn, and time goes ahead, differs from schedule to schedule.
    let (turns, haste) = (dice.among(&[2, 4, 16]), dice.among(&[8, 64, 100_000]));
    let mut ready = Vec::new();
    let mut steps = 0;
    while !tasks.is_empty() {
        steps += 1;
        assert!(steps < 100_000, "{} tasks spin", tasks.len());
        ready.clear();
        ready.extend((0..tasks.len()).filter(|nth| tasks[*nth].woken.flag.load(Ordering::Relaxed)));
        if ready.is_empty() {
            let any = |tasks: &[Task<'_>]| tasks.iter().any(|task| task.woken.flag.load(Ordering::Relaxed));
            poll_fn(|cx| {
                *executor.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
                if any(&tasks) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        } else if dice.one_in(haste) {
            let by = Duration::from_millis(dice.among(&[1, 100, 500]));
            ahead.set(ahead.get() + by);
            tokio::time::advance(by).await;
        } else if dice.one_in(turns) {
            tokio::task::yield_now().await;
        } else {
            let nth = dice.among(&ready);
            let task = &mut tasks[nth];
            task.woken.flag.store(false, Ordering::Relaxed);
            if task.future.as_mut().poll(&mut Context::from_waker(&task.waker)).is_ready() {
                drop(tasks.swap_remove(nth));
            }
        }
        look();
    }
}

/// None if it was given up: dropped after some poll that left it waiting. Now and then it is polled though nobody woke it.
pub async fn perhaps<F: Future>(future: F, dice: &Dice, gives_up: bool) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if gives_up && dice.one_in(3) => Poll::Ready(None),
        Poll::Pending => {
            if dice.one_in(6) {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        }
    })
    .await
}
