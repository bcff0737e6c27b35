//! Tasks: each a thread of the model.

use loom::thread::{self, JoinHandle, Thread};
use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

#[derive(Default)]
struct Tasks {
    spawned: u64,
    /// So many more are dropped instead of polled: their runtime shuts down.
    dropped: u64,
    running: Vec<JoinHandle<()>>,
}

// Of std: all threads of a model share one thread of the system.
std::thread_local! {
    static TASKS: RefCell<Tasks> = RefCell::default();
}

loom::thread_local! {
    static CURRENT: Cell<Option<task::Id>> = Cell::new(None);
}

/// Before a run: the first `dropped` tasks are never polled.
pub(crate) fn reset(dropped: u64) {
    TASKS.set(Tasks { dropped, ..Tasks::default() });
}

/// Waits for every task that was spawned, and for what they spawn.
pub(crate) fn join_all() {
    while let Some(task) = TASKS.with_borrow_mut(|tasks| tasks.running.pop()) {
        task.join().expect("no task panics");
    }
}

pub(crate) mod runtime {
    use super::{CURRENT, TASKS, block_on, task, thread};
    use std::future::Future;

    /// The one runtime there is: at hand everywhere.
    #[derive(Debug)]
    pub(crate) struct Handle;

    #[derive(Debug)]
    pub(crate) struct NoRuntime;

    impl Handle {
        pub(crate) fn try_current() -> Result<Self, NoRuntime> {
            Ok(Self)
        }

        /// What comes back is to be dropped, as tokio's: the task runs on.
        pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Box<task::Id> {
            let (id, dropped) = TASKS.with_borrow_mut(|tasks| {
                tasks.spawned += 1;
                let dropped = tasks.dropped > 0;
                tasks.dropped = tasks.dropped.saturating_sub(1);
                (task::Id(tasks.spawned), dropped)
            });
            let thread = thread::spawn(move || {
                if dropped {
                    return drop(future);
                }
                CURRENT.with(|current| current.set(Some(id)));
                block_on(future);
            });
            TASKS.with_borrow_mut(|tasks| tasks.running.push(thread));
            Box::new(id)
        }
    }
}

pub(crate) mod task {
    use super::{CURRENT, Cell};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Id(pub(super) u64);

    pub(crate) fn try_id() -> Option<Id> {
        CURRENT.with(Cell::get)
    }
}

/// Polls it to its end on this thread, which sleeps until it is woken.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let alarm = Arc::new(Alarm { thread: thread::current(), state: Mutex::new(State::Silent) });
    let waker = Waker::from(Arc::clone(&alarm));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        alarm.wait();
    }
}

struct Alarm {
    thread: Thread,
    state: Mutex<State>,
}

/// No step of the model: a wake-up that comes before the sleep and one that comes after it have the same effect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Silent,
    Asleep,
    Rung,
}

impl Alarm {
    fn swap(&self, state: State) -> State {
        std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), state)
    }

    fn wait(&self) {
        if self.swap(State::Asleep) != State::Rung {
            thread::park();
        }
        self.swap(State::Silent);
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        // Only who sleeps here is woken: one that waits for a lock must not be.
        if self.swap(State::Rung) == State::Asleep {
            self.thread.unpark();
        }
    }
}
