//! What is printed: the settings, the progress, the table, the claims.

use crate::{
    clients::Gauge,
    options::Options,
    poll::Tally,
    support::{FETCH, Faced, LIFE},
};
use serde::Serialize;
use std::{
    error::Error,
    io::{IsTerminal, Write, stderr},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// What the callers of one client saw, and what it asked of the endpoint.
#[derive(Serialize)]
pub(crate) struct Row {
    requests: u64,
    caller_401: u64,
    caller_errors: u64,
    fetches: u32,
    max_parallel_fetches: u32,
    p50_us: u64,
    p99_us: u64,
    worst_stall_ms: u128,
    #[serde(skip)]
    first_error: Option<String>,
}

/// The whole run. Alone: against a real service.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) seconds: u64,
    pub(crate) ours: Row,
    #[serde(flatten)]
    pub(crate) others: Option<Others>,
}

#[derive(Serialize)]
pub(crate) struct Others {
    pub(crate) naive: Row,
    pub(crate) mutex: Row,
}

impl Row {
    pub(crate) fn new(tally: &Tally, gauge: &Gauge) -> Self {
        let times = tally.times();
        Self {
            requests: tally.requests.load(Ordering::Relaxed),
            caller_401: tally.unauthorized.load(Ordering::Relaxed),
            caller_errors: tally.errors.load(Ordering::Relaxed),
            fetches: gauge.begun(),
            max_parallel_fetches: gauge.most(),
            p50_us: times.percentile(50),
            p99_us: times.percentile(99),
            worst_stall_ms: times.worst().as_millis(),
            first_error: tally.first_error.get().cloned(),
        }
    }

    fn bad(&self) -> u64 {
        self.caller_401 + self.caller_errors
    }
}

impl Report {
    pub(crate) fn print(&self, json: bool) -> Result<(), serde_json::Error> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let mut rows = vec![("ours", &self.ours)];
        if let Some(Others { naive, mutex }) = &self.others {
            rows.extend([("naive", naive), ("mutex", mutex)]);
        }
        let line = |name: &str, cell: &dyn Fn(&Row) -> String| {
            let cells: String = rows.iter().map(|(_, row)| format!("{:>12}", cell(row))).collect();
            println!("{name:<24}{cells}");
        };
        let heads: String = rows.iter().map(|(name, _)| format!("{name:>12}")).collect();
        println!("{:<24}{heads}", "");
        line("requests", &|row| thousands(row.requests));
        line("401s the caller saw", &|row| thousands(row.caller_401));
        line("errors the caller saw", &|row| thousands(row.caller_errors));
        line("fetches", &|row| row.fetches.to_string());
        line("most fetches at once", &|row| row.max_parallel_fetches.to_string());
        line("p50", &|row| millis(row.p50_us));
        line("p99", &|row| millis(row.p99_us));
        line("worst stall", &|row| format!("{} ms", row.worst_stall_ms));
        for (name, row) in rows {
            if let Some(error) = &row.first_error {
                println!("first error of {name}: {error}");
            }
        }
        Ok(())
    }

    /// Is the longest that a caller of ours waited longer than of mutex?
    pub(crate) fn stalls_longer(&self) -> bool {
        self.others.as_ref().is_some_and(|others| self.ours.worst_stall_ms > others.mutex.worst_stall_ms)
    }

    /// What does not hold of what this program claims. `faced`: what `ours` met.
    pub(crate) fn broken_claims(&self, faced: Faced) -> Vec<String> {
        let ours = &self.ours;
        let mut claims = vec![
            (ours.caller_401 == 0, format!("no caller of ours sees a 401 ({} did)", ours.caller_401)),
            (ours.max_parallel_fetches == 1, format!("ours fetches once at a time ({})", ours.max_parallel_fetches)),
        ];
        let errors = ours.first_error.as_deref().unwrap_or_default();
        let Some(Others { naive, mutex }) = &self.others else {
            claims.push((ours.requests > ours.bad(), format!("the service answers: {errors}")));
            return broken(claims);
        };
        let (stall, most) = (ours.worst_stall_ms, mutex.worst_stall_ms);
        claims.extend([
            (
                ours.caller_errors == 0,
                format!("no caller of ours sees an error ({} did: {errors})", ours.caller_errors),
            ),
            (ours.requests >= 5_000, format!("ours makes 5,000 requests at least ({})", ours.requests)),
            (!self.stalls_longer(), format!("ours stalls no longer than mutex ({stall} ms, {most} ms)")),
            (naive.bad() > 0, "the faults reach the callers of naive".into()),
            (mutex.bad() > 0, "the faults reach the callers of mutex".into()),
            (faced.refused > 0, "the endpoint was down for ours".into()),
            (faced.unanswered == 1, "one fetch of ours was never answered".into()),
        ]);
        broken(claims)
    }
}

fn broken(claims: Vec<(bool, String)>) -> Vec<String> {
    claims.into_iter().filter(|(holds, _)| !holds).map(|(_, claim)| claim).collect()
}

pub(crate) fn explain(options: &Options) {
    let (life, fetch) = (LIFE.as_secs(), FETCH.as_millis());
    println!(
        "\
{} pollers poll a service on loopback without pause, through each of three clients, for {} s.
A token lives for {life} s (in earnest: minutes to hours) and a fetch takes {fetch} ms. Each client meets these, each in a token's life of its own:
  - the endpoint is down for 40 % of a token's life, from its half on
  - one fetch is never answered
  - all tokens are revoked, while no fetch is under way

ours   this crate, with its thresholds at the pace of these tokens:
         refresh_before(1 s)          fetch the successor when 1 s is left: half of the life (default 300 s)
         min_interval(50 ms)          two fetches are never closer, whatever happens (default 1 s)
         fetch_timeout(300 ms)        a fetch that takes longer has failed (default 30 s)
         backoff(50 ms, 500 ms)       the wait after a failed fetch, doubled by each further one (default 1 s to 60 s)
naive  the cached token whatever its age; a loop fetches when 1 s is left, and sleeps 200 ms at least; a 401 is the caller's
mutex  a caller that finds 200 ms left takes a lock, looks again, and fetches; if that fails, the cached token; a 401 is the caller's
       (both give up on a fetch after 300 ms, as ours does)
",
        options.pollers, options.seconds
    );
}

pub(crate) fn explain_real(options: &Options, auth_url: &str) {
    println!(
        "\
{} poller(s), a request a second each, for {} s. Tokens from {auth_url}, with the default settings:
  refresh_before 300 s, at most half of a token's life; min_runway 60 s, at most 5 % of it
  min_interval 1 s; fetch_timeout 30 s; backoff 1 s to 60 s
",
        options.pollers, options.seconds
    );
}

/// A line on the terminal, twice a second. Nothing where there is none.
pub(crate) struct Progress(Option<JoinHandle<()>>);

impl Progress {
    pub(crate) fn start(clients: Vec<(&'static str, Arc<Tally>)>, seconds: u64) -> Self {
        if !stderr().is_terminal() {
            return Self(None);
        }
        let begun = Instant::now();
        Self(Some(tokio::spawn(async move {
            loop {
                let mut line = format!("{:>3} of {seconds} s", begun.elapsed().as_secs());
                for (name, tally) in &clients {
                    let [requests, refused, errors] = [&tally.requests, &tally.unauthorized, &tally.errors]
                        .map(|number| thousands(number.load(Ordering::Relaxed)));
                    line += &format!("   {name} {requests} requests, {refused} 401s, {errors} errors");
                }
                show(&line);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        })))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
            show("");
        }
    }
}

/// Over the line before. A terminal that is gone is no reason to stop.
fn show(line: &str) {
    let _ = write!(stderr(), "\r\x1b[K{line}");
    let _ = stderr().flush();
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

fn millis(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}
