//! What all parts of the run share: its time, its books, and the list of promises that broke.

use crate::{book::Book, fetches::Fetches, ledger::Ledger, report::Report};
use std::{
    collections::HashMap,
    fmt::Display,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tower_jwt_refresh::clock::{Clock, ManualClock};

/// How the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stack {
    Hyper1,
    Hyper2,
    Tonic,
    Reqwest,
}

pub const STACKS: [Stack; 4] = [Stack::Hyper1, Stack::Hyper2, Stack::Tonic, Stack::Reqwest];

impl Stack {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hyper1 => "hyper, HTTP/1.1",
            Self::Hyper2 => "hyper, HTTP/2",
            Self::Tonic => "tonic",
            Self::Reqwest => "reqwest, HTTP/2",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Chaos,
    /// Nothing new goes wrong; what went wrong before may still be noticed.
    Settling,
    /// Every call has to succeed.
    Calm,
    Over,
}

const PHASES: [Phase; 4] = [Phase::Chaos, Phase::Settling, Phase::Calm, Phase::Over];

pub struct World {
    pub seed: u64,
    pub clock: ManualClock,
    /// The run's start, by the machine's clock and by the run's own, which jumps.
    start: (Instant, Instant),
    jumps: AtomicU32,
    phase: AtomicU8,
    ids: AtomicU64,
    pub book: Book,
    pub ledger: Ledger,
    pub fetches: Fetches,
    pub report: Report,
    /// What befell each stack, and when.
    troubles: [Mutex<Vec<(Duration, &'static str)>>; STACKS.len()],
    connections: Mutex<Connections>,
    /// What runs as long as all.
    pub background: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Connections {
    /// What befell each connection; the first word stands.
    fates: Vec<Option<&'static str>>,
    /// By the port that the server sees it come from.
    ports: HashMap<u16, u32>,
}

impl World {
    pub fn new(seed: u64) -> Arc<Self> {
        let clock = ManualClock::following_tokio();
        Arc::new(Self {
            seed,
            start: (Instant::now(), clock.monotonic()),
            clock,
            jumps: AtomicU32::new(0),
            phase: AtomicU8::new(0),
            ids: AtomicU64::new(0),
            book: Book::default(),
            ledger: Ledger::default(),
            fetches: Fetches::default(),
            report: Report::default(),
            troubles: Default::default(),
            connections: Mutex::default(),
            background: Mutex::default(),
        })
    }

    /// By the machine's clock: for what happens on sockets.
    pub fn real(&self) -> Duration {
        self.start.0.elapsed()
    }

    /// By the clock that the provider, the issuer and the servers share: for tokens.
    pub fn now(&self) -> Duration {
        self.clock.monotonic().saturating_duration_since(self.start.1)
    }

    /// As if the machine had been suspended.
    pub fn jump(&self, by: Duration) {
        // Counted first: who reads the time and then the count cannot miss it.
        self.jumps.fetch_add(1, Ordering::SeqCst);
        self.clock.advance(by);
    }

    pub fn jumps(&self) -> u32 {
        self.jumps.load(Ordering::SeqCst)
    }

    pub fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::SeqCst))]
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub fn breaks(&self, promise: &'static str, what: impl Display) {
        self.report.breaks(promise, format!("{what} ({:.2?}, {:?})", self.real(), self.phase()));
    }

    /// Something befalls this stack. Said before it is done, so that whoever sees the consequence finds the cause.
    pub fn trouble(&self, stack: Stack, why: &'static str) {
        let now = self.real();
        let mut troubles = lock(&self.troubles[stack as usize]);
        // One note a millisecond is enough.
        if troubles.last().is_none_or(|(at, last)| *last != why || now > *at + Duration::from_millis(1)) {
            troubles.push((now, why));
        }
    }

    pub fn trouble_all(&self, why: &'static str) {
        STACKS.iter().for_each(|stack| self.trouble(*stack, why));
    }

    /// The last trouble of a stack between two moments of the machine's clock.
    pub fn troubled(&self, stack: Stack, from: Duration, to: Duration) -> Option<&'static str> {
        let troubles = lock(&self.troubles[stack as usize]);
        troubles
            .iter()
            .rev()
            .skip_while(|(at, _)| *at > to)
            .take_while(|(at, _)| *at >= from)
            .map(|(_, why)| *why)
            .next()
    }

    /// A connection that the server will see come from this port.
    pub fn connection(&self, port: u16) -> u32 {
        let mut connections = lock(&self.connections);
        let number = u32::try_from(connections.fates.len()).expect("fewer connections");
        connections.fates.push(None);
        connections.ports.insert(port, number);
        number
    }

    pub fn connection_from(&self, port: u16) -> Option<u32> {
        lock(&self.connections).ports.get(&port).copied()
    }

    pub fn befalls(&self, connection: u32, why: &'static str) {
        if let Some(fate) = lock(&self.connections).fates.get_mut(connection as usize) {
            fate.get_or_insert(why);
        }
    }

    pub fn fate(&self, connection: u32) -> Option<&'static str> {
        lock(&self.connections).fates.get(connection as usize).copied().flatten()
    }

    /// What the books themselves take in memory.
    pub fn bytes(&self) -> usize {
        let troubles: usize = self.troubles.iter().map(|list| lock(list).capacity() * 32).sum();
        self.ledger.bytes() + troubles + lock(&self.connections).fates.capacity() * 32
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
