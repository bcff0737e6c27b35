//! What was done, what came of it, and which promises broke.

use crate::world::{STACKS, Stack, lock};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub const CHAOS: &str = "chaos";
pub const ISSUER: &str = "issuer";
pub const NETWORK: &str = "network";
pub const SERVER: &str = "server";

/// How many of each are told in words.
const EXAMPLES: usize = 3;

#[derive(Default)]
pub struct Report {
    counts: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    bytes: AtomicU64,
    longest: Mutex<BTreeMap<&'static str, Duration>>,
    broken: Mutex<BTreeMap<&'static str, (u64, Vec<String>)>>,
}

impl Report {
    /// What the proxies see in plain text, which shows that they would see a token.
    pub const CONTROL: &'static str = "server names seen in plain text";

    pub fn count(&self, section: &'static str, name: &'static str) {
        *lock(&self.counts).entry((section, name)).or_default() += 1;
    }

    pub fn counted(&self, section: &'static str, name: &'static str) -> u64 {
        lock(&self.counts).get(&(section, name)).copied().unwrap_or_default()
    }

    /// How long the longest call took.
    pub fn took(&self, stack: Stack, span: Duration) {
        let mut longest = lock(&self.longest);
        let longest = longest.entry(stack.as_str()).or_default();
        *longest = span.max(*longest);
    }

    pub fn longest(&self, stack: Stack) -> Duration {
        lock(&self.longest).get(stack.as_str()).copied().unwrap_or_default()
    }

    /// Passed on by the proxies.
    pub fn bytes(&self, more: u64) {
        self.bytes.fetch_add(more, Ordering::Relaxed);
    }

    pub fn breaks(&self, promise: &'static str, what: String) {
        let mut broken = lock(&self.broken);
        let (count, examples) = broken.entry(promise).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(what);
        }
    }

    pub fn kept(&self) -> bool {
        lock(&self.broken).is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = lock(&self.counts);
        for section in STACKS.map(Stack::as_str).into_iter().chain([SERVER, ISSUER, NETWORK, CHAOS]) {
            writeln!(f, "{section}")?;
            if let Some(longest) = lock(&self.longest).get(section) {
                writeln!(f, "  {:<48}{:>10.1?}", "longest call", longest)?;
            }
            for ((_, name), count) in counts.iter().filter(|((of, _), _)| *of == section) {
                writeln!(f, "  {name:<48}{count:>10}")?;
            }
        }
        writeln!(f, "{:<50}{:>10}", "megabytes between clients and server", self.bytes.load(Ordering::Relaxed) >> 20)?;
        for (promise, (count, examples)) in lock(&self.broken).iter() {
            writeln!(f, "BROKEN, {count} times: {promise}")?;
            examples.iter().try_for_each(|what| writeln!(f, "  {what}"))?;
        }
        Ok(())
    }
}
