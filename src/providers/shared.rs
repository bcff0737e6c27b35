//! What all handles share: the providers that are kept, those being made, and the lock before them.
//!
//! # Who may do what
//! All that changes is in [`State`], behind one lock. It is held for a look-up or a few steps of house-keeping; never across an await, never while
//! the factory runs, and never while a provider is dropped (which drops a source, foreign code). Of foreign code it sees the key's own `Hash`, `Eq`,
//! `Clone` and `Drop`, as in any map.
//!
//! # One provider per key
//! Whoever finds none for a key puts the key into `making`, lets go of the lock, and alone runs the factory; others who want that key meanwhile wait on
//! `made`, and look again: there it is, or the factory failed or panicked, and one of them is next. A guard takes the key out of `making` however
//! the factory ends. Other keys never wait. A `remove` meanwhile makes what the factory brings void: it saw what was there before.
//!
//! # Only what nobody uses is dropped
//! To drop what somebody holds would free nothing, and the next `get` would make a second provider beside it, which could show a refresh token that the
//! first has just spent. So a provider gives way only if this map has the one handle to it *and* no flight of it is under way; then it
//! ends in the same step, and none begins after that. Two arguments make this sound:
//! - A handle comes from another handle. If ours is the only one, there is no other to clone, and ours is cloned under the lock alone. The loop of a
//!   provider turns its weak reference into a handle for a moment: then it is in use, or finds that it has ended.
//! - Whoever started a flight did so under the provider's own lock *before* it let go of its handle. We see that handle gone, and take that lock
//!   afterwards: so we see the flight.

use super::recent::Recent;
use crate::TokenProvider;
use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// How many of the oldest are looked at in one step, so that no request waits for a thousand others' house-keeping.
const LOOKS: usize = 8;

pub(super) type Factory<K, E> = dyn Fn(&K) -> Result<TokenProvider, E> + Send + Sync;

pub(super) struct Shared<K, E> {
    pub(super) factory: Box<Factory<K, E>>,
    pub(super) capacity: usize,
    pub(super) idle_after: Duration,
    state: Mutex<State<K>>,
    /// A factory returned.
    made: Condvar,
    /// The last handle is gone.
    pub(super) gone: Arc<Notify>,
}

pub(super) struct State<K> {
    pub(super) kept: Recent<K, TokenProvider>,
    /// Keys whose factory runs.
    making: HashMap<K, Making>,
    /// Is there a task that drops what is idle?
    pub(super) swept: bool,
    shut_down: bool,
}

struct Making {
    by: ThreadId,
    /// The key was removed meanwhile.
    void: bool,
}

/// A provider to hand out, and what its caller does for all others.
pub(super) struct Kept {
    pub(super) provider: TokenProvider,
    /// Ended, and to be dropped outside of the lock.
    pub(super) idle: Vec<TokenProvider>,
    /// Is there a task that drops what is idle?
    pub(super) swept: bool,
    /// All are shut down, and so is this one to be.
    pub(super) shut_down: bool,
}

pub(super) enum Found<'a, K: Hash + Eq + Clone, E> {
    Kept(Kept),
    Missing(Turn<'a, K, E>),
}

impl<K, E> Shared<K, E> {
    pub(super) fn lock(&self) -> MutexGuard<'_, State<K>> {
        // A key's own code may have panicked. The state is whole all the same: see `recent`.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone, E> Shared<K, E> {
    pub(super) fn new(factory: Box<Factory<K, E>>, capacity: usize, idle_after: Duration) -> Self {
        let state = State { kept: Recent::new(), making: HashMap::new(), swept: false, shut_down: false };
        let (state, made, gone) = (Mutex::new(state), Condvar::new(), Arc::new(Notify::new()));
        Self { factory, capacity, idle_after, state, made, gone }
    }

    pub(super) fn find<Q>(&self, key: &Q) -> Found<'_, K, E>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if let Some(provider) = state.kept.touch(key, now) {
                let provider = provider.clone();
                return Found::Kept(self.tidied(&mut state, provider, now));
            }
            let Some(making) = state.making.get(key) else { break };
            if making.by == thread::current().id() {
                drop(state);
                panic!("the factory of a `TokenProviders` asked for the very key whose provider it is to make");
            }
            state = self.made.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let key = key.to_owned();
        state.making.insert(key.clone(), Making { by: thread::current().id(), void: false });
        Found::Missing(Turn { shared: self, key, over: false })
    }

    pub(super) fn remove<Q>(&self, key: &Q) -> Option<TokenProvider>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut state = self.lock();
        if let Some(making) = state.making.get_mut(key) {
            making.void = true;
        }
        state.kept.remove(key)
    }

    /// None that comes from now on is kept. Gives back those that are.
    pub(super) fn shut_down(&self) -> Vec<TokenProvider> {
        let mut state = self.lock();
        state.shut_down = true;
        state.kept.values().cloned().collect()
    }

    fn tidied(&self, state: &mut State<K>, provider: TokenProvider, now: Instant) -> Kept {
        Kept { provider, idle: self.tidy(state, self.capacity, now), swept: state.swept, shut_down: false }
    }

    /// Takes out what is idle for too long, or one too many, a few at a time. One that is in use counts as used now, and its turn comes again.
    fn tidy(&self, state: &mut State<K>, capacity: usize, now: Instant) -> Vec<TokenProvider> {
        let mut idle = Vec::new();
        for _ in 0..LOOKS {
            let Some((provider, used)) = state.kept.oldest() else { break };
            if state.kept.len() <= capacity && now.saturating_duration_since(used) < self.idle_after {
                break;
            }
            if provider.retire() {
                idle.extend(state.kept.remove_oldest());
            } else {
                state.kept.renew_oldest(now);
            }
        }
        idle
    }

    /// Drops some that are idle, says when to look again. None: none is kept, and this was the last look.
    pub(super) fn sweep(&self) -> Option<Instant> {
        let mut state = self.lock();
        let idle = self.tidy(&mut state, usize::MAX, Instant::now());
        let next = state.kept.oldest().map(|(_, used)| used + self.idle_after);
        state.swept = next.is_some();
        drop(state);
        drop(idle);
        next
    }
}

impl<K, E> Drop for Shared<K, E> {
    fn drop(&mut self) {
        self.gone.notify_one();
    }
}

/// The right to make this key's provider. Over when it is dropped, with or without one.
pub(super) struct Turn<'a, K: Hash + Eq + Clone, E> {
    shared: &'a Shared<K, E>,
    pub(super) key: K,
    over: bool,
}

impl<K: Hash + Eq + Clone, E> Turn<'_, K, E> {
    /// None: the key was removed meanwhile, and this one is void.
    pub(super) fn keep(mut self, provider: TokenProvider) -> Option<Kept> {
        let now = Instant::now();
        let mut state = self.shared.lock();
        self.over = true;
        if state.making.remove(&self.key).is_none_or(|making| making.void) {
            return None;
        }
        if state.shut_down {
            return Some(Kept { provider, idle: Vec::new(), swept: false, shut_down: true });
        }
        state.kept.insert(self.key.clone(), provider.clone(), now);
        Some(self.shared.tidied(&mut state, provider, now))
    }
}

impl<K: Hash + Eq + Clone, E> Drop for Turn<'_, K, E> {
    fn drop(&mut self) {
        if !self.over {
            self.shared.lock().making.remove(&self.key);
        }
        self.shared.made.notify_all();
    }
}
