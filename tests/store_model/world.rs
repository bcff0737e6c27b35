//! What the processes of a schedule share, a store and an issuer, and the gates before both: whatever a process asks of them waits there until the
//! schedule lets it through.

use crate::lease::{Leased, Owner};
use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};
use tower_jwt_refresh::store::{BoxFuture, Loaded, StoreError, StoreLock, TokenStore};

pub const LEASE: Duration = Duration::from_secs(10);

/// What a process asks for.
#[derive(Clone, Debug)]
pub enum Ask {
    Load,
    Acquire(Owner),
    Save(Owner, Vec<u8>),
    Release(Owner),
    /// The issuer, with the refresh token of this number.
    Refresh(u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Load,
    Acquire,
    Save,
    Release,
    Refresh,
}

impl Kind {
    /// Of two processes: whichever comes first, both have the same answers, and leave the same behind.
    pub fn commutes_with(self, other: Self) -> bool {
        use Kind::{Load, Refresh, Save};
        match (self, other) {
            (Load, Save) | (Save, Load) | (Refresh, Refresh) => false,
            (Load | Refresh, _) | (_, Load | Refresh) => true,
            _ => false,
        }
    }
}

impl Ask {
    fn kind(&self) -> Kind {
        match self {
            Self::Load => Kind::Load,
            Self::Acquire(_) => Kind::Acquire,
            Self::Save(..) => Kind::Save,
            Self::Release(_) => Kind::Release,
            Self::Refresh(_) => Kind::Refresh,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Answer {
    Loaded(Option<Vec<u8>>, Duration),
    /// Zero: it is the asker's.
    Left(Duration),
    Done(bool),
    /// The next access token and refresh token have this number.
    Granted(u32),
    InvalidGrant,
}

/// Why a wait for the lease is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum News {
    Saved,
    Freed,
    TimePassed,
}

struct Gate {
    /// Which life of which process.
    process: Life,
    /// It waits for news, until this moment at most.
    waits: Option<Duration>,
    ask: Option<Ask>,
    answer: Option<Answer>,
    news: Option<News>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    pub process: usize,
    pub life: u32,
}

#[derive(Default)]
pub struct World {
    pub now: Duration,
    pub store: Leased,
    gates: BTreeMap<u64, Gate>,
    number: u64,
    /// Whose each lease was.
    owners: Vec<Life>,
    /// The newest refresh token.
    issued: u32,
    /// Those that were shown, in their order.
    shown: Vec<u32>,
    /// Shown though it was spent, by the last answer but one: what a grace window heals.
    pub again: usize,
    /// Who has called the issuer, and not saved what it answered.
    critical: Vec<Life>,
    /// Faults that befell somebody in there.
    pub excused: usize,
    pub refused: usize,
    pub faults: Vec<String>,
    pub log: Vec<String>,
    dead: Vec<Life>,
}

#[derive(Clone)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(World { issued: 1, ..World::default() })))
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, process: Life, ask: Ask) -> Answer {
        let number = self.lock().gate(process, Some(ask), None);
        Passing { world: self.clone(), number }.await.0.expect("let through with an answer")
    }

    async fn wait(&self, process: Life, until: Duration) -> News {
        let number = self.lock().gate(process, None, Some(until));
        Passing { world: self.clone(), number }.await.1.expect("woken with news")
    }

    /// What the source of a process does. It counts as shown from here on: there is no way back.
    pub fn refresh(&self, process: Life, token: u32) -> impl Future<Output = Option<u32>> + Send + use<> {
        let this = self.clone();
        this.lock().critical.push(process);
        async move {
            match this.ask(process, Ask::Refresh(token)).await {
                Answer::Granted(number) => Some(number),
                _ => None,
            }
        }
    }
}

struct Passing {
    world: Shared,
    number: u64,
}

impl Future for Passing {
    type Output = (Option<Answer>, Option<News>);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut world = self.world.lock();
        let gate = world.gates.get_mut(&self.number).expect("it is there until this is gone");
        if gate.answer.is_none() && gate.news.is_none() {
            gate.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready((gate.answer.take(), gate.news.take()))
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let gate = self.world.lock().gates.remove(&self.number);
        drop(gate);
    }
}

impl World {
    fn gate(&mut self, process: Life, ask: Option<Ask>, waits: Option<Duration>) -> u64 {
        self.number += 1;
        self.gates.insert(self.number, Gate { process, waits, ask, answer: None, news: None, waker: None });
        self.number
    }

    /// What waits at the gates, in the order in which it came.
    pub fn asked(&self) -> Vec<(u64, Life, Kind)> {
        let asks = |(number, gate): (&u64, &Gate)| gate.ask.as_ref().map(|ask| (*number, gate.process, ask.kind()));
        self.gates.iter().filter_map(asks).collect()
    }

    /// Lets it through: it happens, and the answer is there.
    pub fn pass(&mut self, number: u64) -> Option<Waker> {
        let gate = self.gates.get_mut(&number).expect("it waits");
        let (process, ask) = (gate.process, gate.ask.take().expect("it asks"));
        let answer = self.happens(process, &ask);
        let what = if let Ask::Save(owner, _) = &ask { format!("Save({owner})") } else { format!("{ask:?}") };
        let Life { process: nth, life } = process;
        self.log.push(format!("{nth}.{life}: {what} -> {answer:?}"));
        let gate = self.gates.get_mut(&number).expect("still");
        gate.answer = Some(answer);
        let waker = gate.waker.take();
        if waker.is_none() && matches!(ask, Ask::Release(_)) {
            // Nobody waits for that of a dropped lock.
            self.gates.remove(&number);
        }
        waker
    }

    fn happens(&mut self, process: Life, ask: &Ask) -> Answer {
        match ask {
            Ask::Load => Answer::Loaded(self.store.value.clone(), self.now),
            Ask::Acquire(owner) => Answer::Left(self.store.acquire(*owner, self.now, LEASE)),
            Ask::Save(owner, value) => {
                let before = self.store.value.as_deref().map(revision);
                let saved = self.store.save(*owner, value);
                if saved {
                    if before.is_some_and(|before| before.0 != revision(value).0 || before.1 >= revision(value).1) {
                        self.faults.push(format!("the revision went from {before:?} to {:?}", revision(value)));
                    }
                    self.critical.retain(|life| *life != process);
                    self.tell(News::Saved);
                } else {
                    self.refused += 1;
                }
                Answer::Done(saved)
            }
            Ask::Release(owner) => {
                let freed = self.store.release(*owner);
                if freed {
                    self.tell(News::Freed);
                }
                Answer::Done(freed)
            }
            Ask::Refresh(token) => {
                if self.shown.contains(token) {
                    if self.shown.last() != Some(token) {
                        self.faults.push(format!("refresh token {token} was shown again, of {:?}", self.shown));
                        return Answer::InvalidGrant;
                    }
                    self.again += 1;
                }
                self.shown.push(*token);
                self.issued += 1;
                Answer::Granted(self.issued)
            }
        }
    }

    pub fn tell(&mut self, news: News) {
        let now = self.now;
        let told = |gate: &&mut Gate| gate.waits.is_some_and(|until| news != News::TimePassed || until <= now);
        for gate in self.gates.values_mut().filter(told) {
            gate.news.get_or_insert(news);
            if let Some(waker) = gate.waker.take() {
                waker.wake();
            }
        }
    }

    pub fn fetches(&self) -> usize {
        self.shown.len()
    }

    /// It crashes, or stands still for longer than its lease lasts.
    pub fn fault_befalls(&mut self, process: Life) {
        if self.critical.contains(&process) {
            self.critical.retain(|life| *life != process);
            self.excused += 1;
        }
    }

    /// What it sent and did not arrive is lost.
    pub fn dies(&mut self, process: Life) {
        self.fault_befalls(process);
        self.dead.push(process);
    }

    pub fn forget_the_dead(&mut self) {
        self.gates.retain(|_, gate| !self.dead.contains(&gate.process));
    }

    /// The number of the token that is stored.
    pub fn stored(&self) -> u32 {
        self.store.value.as_deref().map_or(0, |value| number_of(field(value, "access_token").trim_matches('"')))
    }
}

/// Of `t7`, and of `r7`.
pub fn number_of(token: &str) -> u32 {
    token[1..].parse().expect("a letter and a number")
}

fn field(record: &[u8], name: &str) -> String {
    let record: serde_json::Value = serde_json::from_slice(record).expect("the layer writes JSON");
    record[name].to_string()
}

/// The line too: all are of one.
fn revision(record: &[u8]) -> (u64, u64) {
    let number = |name| field(record, name).parse().expect("a number");
    (number("line"), number("revision"))
}

/// The store as one process has it: `RedisStore`, but for the network.
#[derive(Clone)]
pub struct Store {
    pub world: Shared,
    pub process: Life,
}

impl TokenStore for Store {
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        Box::pin(async {
            let Answer::Loaded(value, now) = self.world.ask(self.process, Ask::Load).await else { unreachable!() };
            let loaded = value.map_or_else(Loaded::empty, Loaded::holding);
            Ok(loaded.at(SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000) + now))
        })
    }

    fn lock(&self, wait: Duration) -> BoxFuture<'_, Result<Box<dyn StoreLock>, StoreError>> {
        Box::pin(async move {
            let (owner, give_up) = {
                let mut world = self.world.lock();
                world.owners.push(self.process);
                let owner = Owner::try_from(world.owners.len()).expect("few");
                (owner, world.now + wait)
            };
            let mut lease = Lease { store: self.clone(), owner, until: Duration::ZERO, to_release: true };
            loop {
                let asked = self.world.lock().now;
                let Answer::Left(left) = self.world.ask(self.process, Ask::Acquire(owner)).await else {
                    unreachable!()
                };
                if left.is_zero() {
                    lease.until = asked + LEASE;
                    return Ok(Box::new(lease) as Box<dyn StoreLock>);
                }
                lease.to_release = false;
                let now = self.world.lock().now;
                if now >= give_up || self.world.wait(self.process, give_up.min(now + left)).await == News::Saved {
                    return Err(StoreError::Busy);
                }
                lease.to_release = true;
            }
        })
    }
}

struct Lease {
    store: Store,
    owner: Owner,
    /// As the process knows it. It is renewed as long as the process runs, see [`World::time_passes`].
    until: Duration,
    to_release: bool,
}

impl StoreLock for Lease {
    fn is_held(&self) -> bool {
        let world = self.store.world.lock();
        // A renewal that came through says the same as the store does; one that did not is that of a process that stood still.
        world.now < self.until || (world.store.owner == Some(self.owner) && world.now < world.store.until)
    }

    fn save<'a>(&'a mut self, value: &'a [u8]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            match self.store.world.ask(self.store.process, Ask::Save(self.owner, value.to_vec())).await {
                Answer::Done(true) => Ok(()),
                _ => Err(StoreError::LockLost),
            }
        })
    }

    fn unlock(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.store.world.ask(self.store.process, Ask::Release(self.owner)).await;
            self.to_release = false;
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut world = self.store.world.lock();
        if self.to_release && !world.dead.contains(&self.store.process) {
            world.gate(self.store.process, Some(Ask::Release(self.owner)), None);
        }
    }
}

impl World {
    /// Of who runs, the lease is renewed meanwhile.
    pub fn time_passes(&mut self, span: Duration, runs: impl Fn(Life) -> bool) {
        self.now += span;
        if let Some(holder) = self.store.owner
            && runs(self.owners[holder as usize - 1])
        {
            self.store.renew(holder, self.now, LEASE);
        }
        self.tell(News::TimePassed);
    }
}
