//! The shell around the machine: one short lock, one snapshot that readers see, one task that flies.
//!
//! # Who may do what
//! - The [`Machine`] is touched under `locked` alone, which is never held across an await, a call into foreign code (source,
//!   waker, subscriber, log) or a spawn. Each change that readers must see publishes a new [`Snapshot`] *under* that lock, so
//!   snapshots follow each other as the machine's states did.
//! - A reader whose token is fresh loads the snapshot, compares two times and is done: no lock, no await, no allocation. What it
//!   sees is of one piece (token, expiry and generation live in one `Arc`). A snapshot that is replaced a moment later only means
//!   that the request went out a moment earlier.
//! - Everybody else goes through [`Core::decide`]. Two who find the token stale are ordered by the lock: the first starts the flight,
//!   the second finds it under way. A rejection names its generation, and is compared under the lock that stores tokens: an old one
//!   cannot touch a newer token.
//!
//! # Waiting
//! A flight has a [`Landing`]. Its result goes into the machine first, then `over` is set, then `landed` is notified. A waiter takes
//! the landing under the lock, creates its notification, and only then looks at `over`: either it sees the result there, or the
//! notification is yet to come and reaches it, since `notify_waiters` wakes all that were created before it. So no wake-up is lost, and
//! nobody needs the lock to wait.
//!
//! # A flight belongs to nobody
//! Its task owns all it needs. Callers hold its landing only, so dropping them changes nothing. If the task itself is dropped (its
//! runtime shuts down, or it never was polled), a guard says so; if it is frozen, whoever looks finds it too old. In both cases the
//! machine forgets it, and whatever it still brings names a number that is no longer under way.
//!
//! Locks, atomics, notifications, tasks and timers come from [`primitives`](super::primitives), so that `model` can take all of this
//! through every interleaving of what the above speaks of.

use super::{
    Settings, TokenStatus, flight,
    jitter::Jitter,
    primitives::{ArcSwap, AtomicU64, Guard, Instant, Mutex, MutexGuard, Notify, OnceLock, runtime, task, time, watch},
    state::{Decision, Machine, Over, Purpose, Rejection},
    wait::Waiter,
};
use crate::{
    BoxError, FetchError, Generation, Token, TokenError, TokenRequest,
    clock::{Clocks, Horizon, Now},
};
use std::{
    fmt,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};
use tower::util::BoxService;

pub(crate) type Source = BoxService<TokenRequest, Token, BoxError>;

pub(crate) struct Core {
    pub(crate) settings: Settings,
    clocks: Clocks,
    snapshot: ArcSwap<Snapshot>,
    locked: Mutex<Locked>,
    /// Taken for one `poll_ready` or one `call` at a time, by flights alone: a frozen one keeps it from nobody.
    pub(crate) source: Mutex<Source>,
    status: watch::Sender<TokenStatus>,
    /// Of the status last sent; read and written under the channel's own lock, and so no primitive of its own.
    told: std::sync::atomic::AtomicU64,
    /// Wakes the loop.
    pub(crate) wake: Arc<Notify>,
}

struct Locked {
    machine: Machine,
    jitter: Jitter,
    published: u64,
    /// As of the last event, and how many times it changed.
    status: TokenStatus,
    changes: u64,
    landing: Option<Arc<Landing>>,
    /// What the loop sleeps for; none before it looked for the first time.
    armed: Option<Duration>,
}

/// What the request path sees.
pub(crate) struct Snapshot {
    pub(crate) token: Option<Token>,
    fresh_until: Horizon,
    /// Resources that are remembered, hashed; nearly always none.
    pub(crate) remembered: Vec<u64>,
    /// When the last accepted request with this generation was sent, in milliseconds plus one; only kept while anything is
    /// remembered.
    evidence: Arc<AtomicU64>,
}

/// Where a flight will end.
pub(crate) struct Landing {
    pub(crate) number: u64,
    over: OnceLock<Over>,
    pub(crate) landed: Arc<Notify>,
    /// The task it runs in, to tell a source that waits for itself.
    task: OnceLock<task::Id>,
}

impl Landing {
    pub(crate) fn over(&self) -> Option<Over> {
        self.over.get().copied()
    }

    /// Waits until it is over, at most so long: one that is lost tells nobody until somebody looks. Without a runtime it does not wait.
    pub(crate) async fn ended(&self, at_most: Duration) {
        // Before `over` is looked at, so that one of the two tells.
        let landed = Arc::clone(&self.landed).notified_owned();
        if self.over().is_none() && runtime::Handle::try_current().is_ok() {
            let _ = time::timeout(at_most, landed).await;
        }
    }

    fn end(&self, over: Over) {
        // The first end counts: whoever waits was promised that one.
        let _ = self.over.set(over);
        self.landed.notify_waiters();
    }
}

/// A decision, with what it takes to carry it out.
pub(crate) enum Verdict {
    Send(Token),
    Wait(Waiter),
    Fail(TokenError),
    Pass,
}

impl Core {
    pub(crate) fn new(settings: Settings, clocks: Clocks, jitter: Jitter, source: Source) -> Self {
        let machine = Machine::new(settings, Generation::new_provider());
        let status = machine.status(clocks.now());
        Self {
            settings,
            snapshot: ArcSwap::from_pointee(Snapshot::of(&machine, &clocks, None)),
            status: watch::Sender::new(status.clone()),
            locked: Mutex::new(Locked {
                machine,
                jitter,
                published: 0,
                status,
                changes: 0,
                landing: None,
                armed: None,
            }),
            clocks,
            source: Mutex::new(source),
            told: std::sync::atomic::AtomicU64::new(0),
            wake: Arc::new(Notify::new()),
        }
    }

    pub(crate) fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<TokenStatus> {
        self.status.subscribe()
    }

    /// The request path: the snapshot, if its token is fresh.
    #[inline]
    pub(crate) fn fresh(&self) -> Option<Guard<Arc<Snapshot>>> {
        let snapshot = self.snapshot.load();
        self.clocks.is_before(snapshot.fresh_until).then_some(snapshot)
    }

    pub(crate) fn now(&self) -> Now {
        self.clocks.now()
    }

    /// Lets something happen to the machine, and tells the world what changed.
    pub(crate) fn event<T>(&self, act: impl FnOnce(&mut Machine, Now, &mut Jitter) -> T) -> T {
        self.event_with(act, |_| None).0
    }

    /// `end` says how the flight ended that the event took away; unsaid, it is lost.
    pub(crate) fn event_with<T>(
        &self,
        act: impl FnOnce(&mut Machine, Now, &mut Jitter) -> T,
        end: impl FnOnce(&T) -> Option<Over>,
    ) -> (T, Option<Arc<Landing>>) {
        let now = self.clocks.now();
        let mut guard = self.lock();
        let locked = &mut *guard;
        let result = act(&mut locked.machine, now, &mut locked.jitter);
        let over = end(&result);
        let ended = locked.follow_flight(over.is_some());
        let landing = locked.landing.clone();
        if locked.published != locked.machine.version() {
            locked.published = locked.machine.version();
            let before = self.snapshot.load();
            self.snapshot.store(Arc::new(Snapshot::of(&locked.machine, &self.clocks, Some(&before))));
        }
        let notes = locked.machine.notes();
        let status = locked.machine.status(now);
        // Mostly nothing is to be told, and then the channel's lock, which all waiters of a flight would want at a time, is left alone.
        let news = (locked.status != status).then(|| {
            locked.status.clone_from(&status);
            locked.changes += 1;
            let runway = locked.machine.held().map(|held| held.runway(now));
            (locked.changes, status, runway, locked.machine.trouble().cloned())
        });
        // Where a flight ended, the loop sleeps until that would be lost: it has to look now, not in the middle of the quiet that follows. Not where
        // one was lost: a runtime that goes down drops each task as it is spawned, and a loop woken by that would start them for ever.
        let landed = ended.is_some() && over.is_some();
        let replan =
            locked.armed.is_some_and(|armed| landed || locked.machine.wake(now).is_some_and(|wake| wake < armed));
        drop(guard);

        if let Some(ended) = ended {
            ended.end(over.unwrap_or(Over::Lost));
        }
        if replan {
            self.wake.notify_one();
        }
        for note in notes {
            super::log::note(note);
        }
        if let Some((at, status, runway, error)) = news {
            self.tell(at, &status, runway, error.as_deref());
        }
        (result, landing)
    }

    fn tell(&self, at: u64, status: &TokenStatus, runway: Option<Duration>, error: Option<&FetchError>) {
        let mut changed = None;
        self.status.send_if_modified(|told| {
            // Relaxed: the channel's lock orders it. A change that was overtaken on its way here has nothing to tell.
            if at < self.told.load(Ordering::Relaxed) {
                return false;
            }
            // Also where nothing changes: the change before this one may still be on its way here.
            self.told.store(at, Ordering::Relaxed);
            if told == status {
                return false;
            }
            changed = Some(std::mem::replace(told, status.clone()));
            true
        });
        if let Some(before) = changed {
            super::log::status(&before, status, runway, error.map(|error| error as &dyn std::error::Error));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        // Nothing panics under the lock; if it did, the machine is whole between two events.
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it, unless a flight is under way: none begins after that. Tells nobody: for one that nobody holds.
    pub(crate) fn retire(&self) -> bool {
        let now = self.clocks.now();
        let mut locked = self.lock();
        // Nobody else looks: the flight of a frozen runtime would be under way for ever.
        locked.machine.look(now);
        let idle = locked.machine.under_way().is_none();
        if idle {
            locked.machine.shut_down();
        }
        idle
    }

    /// Asks the machine, and starts the flight it wants.
    pub(crate) fn decide(
        self: &Arc<Self>,
        purpose: Purpose,
        deadline: Option<Instant>,
        act: impl FnOnce(&mut Machine, Now, &mut Jitter) -> Decision,
    ) -> Verdict {
        let ((decision, left), landing) = self.event_with(
            |machine, now, jitter| {
                let decision = act(machine, now, jitter);
                (decision, machine.left(now))
            },
            |_| None,
        );
        let (start, verdict) = match decision {
            Decision::Send { token, start } => (start, Some(Verdict::Send(token))),
            Decision::Unavailable(error) => (None, Some(Verdict::Fail(error))),
            Decision::Pass { start } => (start, Some(Verdict::Pass)),
            Decision::Wait { start, at_most } => {
                let landing = landing.expect("a wait is for a flight");
                let runs = self.start(start) && runtime::Handle::try_current().is_ok();
                // A runtime that shuts down drops a task as it is spawned: starting another would spin.
                if !runs || start.is_some() && landing.over() == Some(Over::Lost) {
                    return self.instead_of_waiting(purpose, TokenError::NoRuntime);
                }
                if task::try_id().is_some_and(|id| landing.task.get() == Some(&id)) {
                    return self.instead_of_waiting(purpose, TokenError::Recursive);
                }
                let now = Instant::now();
                let deadline = deadline.unwrap_or_else(|| now + self.settings.longest_wait());
                let bound = at_most.map_or(deadline, |at_most| deadline.min(now + at_most));
                let lost = now + left.unwrap_or_default();
                return Verdict::Wait(Waiter::new(Arc::clone(self), landing, purpose, deadline, bound, lost));
            }
        };
        self.start(start);
        verdict.unwrap_or(Verdict::Pass)
    }

    /// Nobody can wait here: send what lives.
    fn instead_of_waiting(&self, purpose: Purpose, error: TokenError) -> Verdict {
        match purpose {
            Purpose::Replace(_) | Purpose::Refresh => Verdict::Fail(error),
            Purpose::Send => {
                self.event(|machine, now, _| machine.living(now)).map_or(Verdict::Fail(error), Verdict::Send)
            }
        }
    }

    /// Puts a flight into the air. False: there is no runtime here to carry it.
    pub(crate) fn start(self: &Arc<Self>, number: Option<u64>) -> bool {
        let Some(number) = number else { return true };
        match runtime::Handle::try_current() {
            Ok(runtime) => {
                drop(runtime.spawn(flight::fly(Arc::clone(self), number)));
                true
            }
            Err(_) => {
                self.event(|machine, _, _| machine.lost(number));
                false
            }
        }
    }

    /// A flight's task is running.
    pub(crate) fn flying(&self, number: u64) -> TokenRequest {
        let locked = self.lock();
        if let (Some(landing), Some(id)) = (&locked.landing, task::try_id())
            && landing.number == number
        {
            let _ = landing.task.set(id);
        }
        locked.machine.request()
    }

    /// A server refused `generation`: report it, and find out what the caller does now.
    pub(crate) fn rejected(self: &Arc<Self>, generation: Generation, mut rejection: Rejection) -> Verdict {
        rejection.accepted = self.evidence(generation);
        self.decide(Purpose::Replace(generation), None, |machine, now, jitter| {
            machine.rejected(now, generation, rejection, jitter.roll())
        })
    }

    /// A server took a request, sent at `sent` with `generation`, while something was remembered.
    pub(crate) fn accepted(&self, generation: Generation, sent: Now, resource: Option<u64>) {
        let snapshot = self.snapshot.load();
        if snapshot.token.as_ref().is_some_and(|token| token.generation() == generation) {
            let sent = u64::try_from(sent.mono.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
            // Relaxed: a lone number; a rejection that misses it by a hair is treated like any other.
            snapshot.evidence.fetch_max(sent, Ordering::Relaxed);
        }
        if let Some(key) = resource.filter(|key| snapshot.remembered.contains(key)) {
            self.event(|machine, _, _| machine.accepted(key));
        }
    }

    fn evidence(&self, generation: Generation) -> Option<Duration> {
        let snapshot = self.snapshot.load();
        snapshot.token.as_ref().filter(|token| token.generation() == generation)?;
        snapshot.evidence.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
    }

    /// The loop looks: starts what is due, says how long to sleep.
    pub(crate) fn tick(self: &Arc<Self>) -> Option<Duration> {
        let start = self.event(|machine, now, _| machine.tick(now));
        self.start(start);
        let now = self.clocks.now();
        // Read and armed under one lock: whatever changes the plan afterwards finds out that the loop sleeps too long.
        let mut locked = self.lock();
        let wake = locked.machine.wake(now);
        locked.armed = Some(wake.unwrap_or(Duration::MAX));
        wake.map(|wake| wake.saturating_sub(now.mono))
    }
}

impl Locked {
    /// Keeps the landing that of the flight under way. Gives back the one whose flight is gone; `whole` says that what waits is to
    /// be told now even if the flight still occupies its place.
    fn follow_flight(&mut self, whole: bool) -> Option<Arc<Landing>> {
        let under_way = self.machine.under_way();
        if self.landing.as_ref().map(|landing| landing.number) == under_way && !(whole && under_way.is_some()) {
            return None;
        }
        let task = self.landing.as_ref().filter(|landing| Some(landing.number) == under_way).map(|it| it.task.clone());
        let next = under_way.map(|number| {
            Arc::new(Landing {
                number,
                over: OnceLock::new(),
                landed: Arc::new(Notify::new()),
                task: task.unwrap_or_default(),
            })
        });
        std::mem::replace(&mut self.landing, next)
    }
}

impl Snapshot {
    fn of(machine: &Machine, clocks: &Clocks, before: Option<&Snapshot>) -> Self {
        let held = machine.held();
        let token = held.map(|held| held.token.clone());
        let generation = token.as_ref().map(Token::generation);
        let same = before.filter(|before| before.token.as_ref().map(Token::generation) == generation);
        Self {
            fresh_until: clocks.horizon(
                held.filter(|_| !machine.is_ended()).map_or(Now::default(), super::schedule::Held::fresh_until),
            ),
            remembered: machine.resources().keys(),
            evidence: same.map_or_else(Arc::default, |before| Arc::clone(&before.evidence)),
            token,
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.snapshot.load();
        f.debug_struct("TokenProvider")
            .field("token", &snapshot.token)
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

#[cfg(all(test, jwt_refresh_loom))]
mod model;
