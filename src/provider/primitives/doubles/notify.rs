//! `Notify`.

use loom::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};
use std::{
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

#[derive(Debug)]
pub(crate) struct Notify {
    /// How often all were notified.
    all: AtomicUsize,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    permit: bool,
    entered: u64,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    waker: Waker,
    /// By `notify_one`, and not polled since.
    notified: bool,
}

pub(crate) type OwnedNotified = Notified<Arc<Notify>>;

#[derive(Debug)]
pub(crate) struct Notified<N: Deref<Target = Notify>> {
    notify: N,
    /// `all` when this was created.
    seen: usize,
    id: Option<u64>,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self { all: AtomicUsize::new(0), list: Mutex::new(List::default()) }
    }

    pub(crate) fn notified(&self) -> Notified<&Notify> {
        Notified { seen: self.all.load(Ordering::Acquire), notify: self, id: None }
    }

    pub(crate) fn notified_owned(self: Arc<Self>) -> OwnedNotified {
        Notified { seen: self.all.load(Ordering::Acquire), notify: self, id: None }
    }

    pub(crate) fn notify_waiters(&self) {
        let woken: Vec<Waker> = {
            let mut list = self.lock();
            self.all.fetch_add(1, Ordering::Release);
            list.waiting.extract_if(.., |waiting| !waiting.notified).map(|waiting| waiting.waker).collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn notify_one(&self) {
        let waker = self.lock().pass_on();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> loom::sync::MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    fn pass_on(&mut self) -> Option<Waker> {
        let Some(first) = self.waiting.iter_mut().find(|waiting| !waiting.notified) else {
            self.permit = true;
            return None;
        };
        first.notified = true;
        Some(first.waker.clone())
    }
}

impl<N: Deref<Target = Notify> + Unpin> Future for Notified<N> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut list = this.notify.lock();
        let place = list.waiting.iter().position(|waiting| Some(waiting.id) == this.id);
        if this.notify.all.load(Ordering::Acquire) != this.seen || place.is_some_and(|at| list.waiting[at].notified) {
            if let Some(at) = place {
                list.waiting.remove(at);
            }
            this.id = None;
            return Poll::Ready(());
        }
        if let Some(at) = place {
            list.waiting[at].waker.clone_from(cx.waker());
        } else if std::mem::take(&mut list.permit) {
            return Poll::Ready(());
        } else {
            list.entered += 1;
            let id = list.entered;
            list.waiting.push(Waiting { id, waker: cx.waker().clone(), notified: false });
            this.id = Some(id);
        }
        Poll::Pending
    }
}

impl<N: Deref<Target = Notify>> Drop for Notified<N> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let next = {
            let mut list = self.notify.lock();
            let place = list.waiting.iter().position(|waiting| waiting.id == id);
            place.map(|at| list.waiting.remove(at)).filter(|waiting| waiting.notified).and_then(|_| list.pass_on())
        };
        if let Some(waker) = next {
            waker.wake();
        }
    }
}
