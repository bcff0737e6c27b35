//! A fleet of processes that share one login: N workers, one Redis, and an issuer whose refresh tokens are good for one use.
//!
//! ```text
//! cargo run --release --all-features --example fleet               # 8 processes, 30 s
//! cargo run --release --all-features --example fleet -- --alone    # the same without the store: what it is for
//! cargo run --release --all-features --example fleet -- --processes 16 --seconds 60 --seed 7 --json
//! ```
//!
//! All are real processes, and `redis-server` must be installed. Workers are killed at random, half of them while they fetch; Redis is killed and
//! started again once; the access token is revoked once. Ends with 1 if a caller saw a 401, if the login was lost, or if there were more fetches
//! than lifetimes and kills. `--alone` always ends with 0: there the login is lost, as the issuer sees a refresh token twice.
//!
//! *Lifetimes* are the tokens that one process alone would have needed: one, another for each [`USED`] of the run, and one for the revocation.

#![allow(unreachable_pub, reason = "the parts of one program")]

mod issuer;
mod options;
mod redis;
mod report;
mod worker;
mod workers;

use issuer::Issuer;
use options::Options;
use redis::Redis;
use report::Report;
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tower_jwt_refresh::BoxError;
use workers::Workers;

/// How long an access token lives.
const LIFE: Duration = Duration::from_secs(12);
/// How long before its end it is replaced. More than [`LEASE`], so that a worker which dies as it fetches costs no caller anything.
const REFRESH_BEFORE: Duration = Duration::from_secs(5);
/// So an access token is used for so long.
const USED: Duration = Duration::from_secs(7);
/// Whoever fetches has the store for so long after its last sign of life.
const LEASE: Duration = Duration::from_secs(3);
/// The issuer takes a spent refresh token for so long, if its successor was not used. Longer than [`LEASE`]: when a worker dies between the issuer's
/// answer and the save, the next one can only show the token that was spent.
const GRACE: Duration = Duration::from_secs(8);
/// How long Redis is away.
const CUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let done = match options::read() {
        Ok(options::Role::Worker(worker)) => runtime.block_on(worker::work(worker)).map(|()| true),
        Ok(options::Role::Fleet(options)) => runtime.block_on(run(&options)),
        Err(usage) => Err(usage.into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<bool, BoxError> {
    let mut redis = Redis::start().await?;
    let issuer = Issuer::serve().await?;
    let store = (!options.alone).then(|| redis.url());
    let mut workers = Workers::start(options.processes, &issuer, store)?;
    let mut dice = fastrand::Rng::with_seed(options.seed);

    let begun = Instant::now();
    let mut looks = interval(Duration::from_millis(50));
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut revoked, mut cut) = (false, false);
    let mut next_kill = Duration::from_secs(2);
    let mut view = report::View::new(options.json);
    while begun.elapsed() < options.span {
        looks.tick().await;
        let passed = begun.elapsed();
        workers.tend()?;
        if !revoked && passed > options.span.mul_f64(0.35) {
            revoked = true;
            issuer.revoke();
            view.event("the access token is revoked");
        }
        if !cut && passed > options.span.mul_f64(0.6) {
            cut = true;
            redis.kill().await?;
            view.event("Redis is killed");
            sleep(CUT).await;
            redis.start_again().await?;
            view.event("Redis is back");
        }
        // None at the end, so that what a kill costs is seen.
        if passed > next_kill && passed + GRACE < options.span {
            // Every second one waits for a worker to kill while it fetches, or right after it was answered.
            let victim = if dice.bool() { Some(dice.usize(..options.processes)) } else { issuer.fetching() };
            if let Some(victim) = victim {
                workers.kill(victim)?;
                next_kill = passed + Duration::from_millis(dice.u64(1_000..3_000));
            }
        }
        view.show(passed, &workers, &issuer);
    }
    let report = Report::new(begun.elapsed(), u32::from(revoked), &workers, &issuer);
    drop(workers);
    if options.json {
        println!("{}", report.json());
    } else {
        println!("{report}");
    }
    Ok(options.alone || report.holds())
}
