//! What is seen while the fleet runs, and at its end.

use crate::{USED, issuer::Issuer, workers::Workers};
use serde_json::json;
use std::{
    fmt,
    io::{IsTerminal, Write, stdout},
    time::Duration,
};

pub struct Report {
    processes: usize,
    requests: u64,
    caller_401: u64,
    failed: u64,
    adopted: u64,
    fetches: u32,
    by_grace: u32,
    lifetimes: u32,
    kills: u32,
    families_revoked: u32,
}

impl Report {
    pub fn new(span: Duration, revocations: u32, workers: &Workers, issuer: &Issuer) -> Self {
        let sum = workers.sum();
        let by_age = u32::try_from(span.as_secs() / USED.as_secs()).expect("it does not run for centuries");
        Self {
            processes: workers.count(),
            requests: sum.good + sum.unauthorized + sum.failed,
            caller_401: sum.unauthorized,
            failed: sum.failed,
            adopted: adopted(workers, issuer),
            fetches: issuer.fetches(),
            by_grace: issuer.by_grace(),
            lifetimes: 1 + by_age + revocations,
            kills: workers.kills,
            families_revoked: issuer.withdrawn(),
        }
    }

    pub fn holds(&self) -> bool {
        self.requests > 0
            && self.caller_401 == 0
            && self.families_revoked == 0
            && self.fetches <= self.lifetimes + self.kills
    }

    pub fn json(&self) -> serde_json::Value {
        json!({
            "processes": self.processes,
            "requests": self.requests,
            "caller_401": self.caller_401,
            "fetches": self.fetches,
            "lifetimes": self.lifetimes,
            "kills": self.kills,
            "families_revoked": self.families_revoked,
        })
    }
}

/// Tokens that a worker had and did not fetch.
fn adopted(workers: &Workers, issuer: &Issuer) -> u64 {
    workers
        .each()
        .enumerate()
        .map(|(number, counts)| counts.tokens.saturating_sub(issuer.granted_to(number).into()))
        .sum()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_lifetime = f64::from(self.fetches) / f64::from(self.lifetimes);
        writeln!(f, "\nprocesses                 {:>9}", self.processes)?;
        writeln!(f, "requests                  {:>9}", self.requests)?;
        writeln!(f, "401s that callers saw     {:>9}", self.caller_401)?;
        writeln!(f, "errors that callers saw   {:>9}", self.failed)?;
        writeln!(f, "workers killed            {:>9}", self.kills)?;
        writeln!(f, "lifetimes of a token      {:>9}", self.lifetimes)?;
        writeln!(f, "fetches                   {:>9}", self.fetches)?;
        writeln!(f, "  per lifetime            {per_lifetime:>9.2}")?;
        writeln!(f, "  healed by the grace     {:>9}", self.by_grace)?;
        writeln!(f, "tokens adopted            {:>9}", self.adopted)?;
        write!(f, "families revoked          {:>9}", self.families_revoked)
    }
}

/// One line that stands, on a terminal; a line a second elsewhere; nothing for `--json`.
pub struct View {
    silent: bool,
    terminal: bool,
    next: Duration,
}

impl View {
    pub fn new(silent: bool) -> Self {
        Self { silent, terminal: stdout().is_terminal(), next: Duration::ZERO }
    }

    pub fn event(&self, what: &str) {
        if !self.silent {
            println!("{}{what}", if self.terminal { "\r\x1b[K" } else { "" });
        }
    }

    pub fn show(&mut self, passed: Duration, workers: &Workers, issuer: &Issuer) {
        if self.silent || passed < self.next {
            return;
        }
        self.next = passed + Duration::from_millis(if self.terminal { 200 } else { 1_000 });
        let sum = workers.sum();
        let line = format!(
            "{:>3} s  {} processes, {} killed, {} requests, {} refused, {} failed, {} fetches, {} adopted",
            passed.as_secs(),
            workers.count(),
            workers.kills,
            sum.good,
            sum.unauthorized,
            sum.failed,
            issuer.fetches(),
            adopted(workers, issuer)
        );
        if self.terminal {
            print!("\r\x1b[K{line}");
            let _ = stdout().flush();
        } else {
            println!("{line}");
        }
    }
}
