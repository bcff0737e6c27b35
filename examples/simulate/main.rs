//! A week in the life of a client, by the thousand: the whole layer, a simulated server, endpoint and network, in tokio's paused
//! time. Faults are drawn at random; an oracle that knows the truth checks every promise at every step.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 200            # 0..200
//! cargo run --release --example simulate -- --seeds 200 --from 500 # 500..700
//! cargo run --release --example simulate -- --seed 17              # that one, and all that happens in it
//! ```
//!
//! Ends with 1 if a promise was broken. A seed does the same on each run of one build.

#![allow(unreachable_pub, reason = "the parts of one program")]

mod callers;
mod clock;
mod driver;
mod endpoint;
mod oracle;
mod plan;
mod report;
mod run;
mod server;
mod settings;
mod sim;

use report::Report;
use run::{Outcome, PANICKED};
use std::{
    panic,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// No seed takes that long: it spins without time going on.
const STUCK: Duration = Duration::from_secs(120);

struct Options {
    from: u64,
    seeds: u64,
    verbose: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options { from: 0, seeds: 200, verbose: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        let value: u64 = value.ok_or_else(|| format!("{name} wants a number"))?;
        match name.as_str() {
            "--seeds" => options.seeds = value,
            "--from" => options.from = value,
            "--seed" => options = Options { from: value, seeds: 1, verbose: true },
            _ => return Err(format!("{name} is none of --seeds, --from, --seed")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&endpoint::PANIC) {
            PANICKED.set(Some(info.to_string()));
            usual(info);
        }
    }));

    let began = Instant::now();
    let (mut sum, mut broken) = (Report::default(), 0);
    explore(&options, |outcome| {
        sum.add(&outcome.report);
        if let Some(what) = &outcome.broken {
            broken += 1;
            let seed = outcome.seed;
            println!("seed {seed}: {what}\n  again: cargo run --release --example simulate -- --seed {seed}");
        }
    });
    println!("{sum}");
    println!("{} seeds in {:.1?}, {broken} with a broken promise", options.seeds, began.elapsed());
    ExitCode::from(u8::from(broken > 0))
}

/// Runs all seeds on all cores; one that never ends ends the program.
fn explore(options: &Options, mut each: impl FnMut(Outcome)) {
    let next = AtomicU64::new(options.from);
    let end = options.from + options.seeds;
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let busy: Vec<Mutex<Option<(u64, Instant)>>> = (0..workers).map(|_| Mutex::new(None)).collect();
    let (send, receive) = mpsc::channel();
    thread::scope(|scope| {
        for mine in &busy {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    *mine.lock().expect("nobody panics with it") = Some((seed, Instant::now()));
                    let outcome = run::run(seed, options.verbose);
                    *mine.lock().expect("nobody panics with it") = None;
                    if send.send(outcome).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        loop {
            match receive.recv_timeout(Duration::from_secs(1)) {
                Ok(outcome) => each(outcome),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    for mine in &busy {
                        if let Some((seed, since)) = *mine.lock().expect("nobody panics with it")
                            && since.elapsed() > STUCK
                        {
                            println!("seed {seed}: something spins and time stands still");
                            std::process::exit(1);
                        }
                    }
                }
            }
        }
    });
}
