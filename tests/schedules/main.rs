//! The provider and the layer under hundreds of thousands of orders of events that nobody thought of: too large for a model checker, and so drawn
//! from seeds. `scripts/schedules` runs them in release; `SCHEDULES` says how many, `SEED` which is the first.
//!
//! A schedule is a few callers on one thread, each with a few things to do, some of which are given up midway; an endpoint that is healthy, or
//! fails, or hangs; an API that revokes tokens. What one schedule covers and what not is said in `executor.rs`. Several threads at once are the
//! model checker's.
//!
//! What must hold: one fetch at a time, none within `min_interval` nor before the wait after a failure is over; none for a refusal that
//! nobody spoke of the held token; none is dropped midway; tokens never go backwards, nor past a `set` or `clear`; no dead one is sent; none that lives
//! is withheld; everybody ends, and in time; no permit and no task is left.

#![allow(unreachable_pub, reason = "the parts are modules of their own")]

mod executor;
mod world;

use bytes::Bytes;
use executor::{Dice, perhaps, run};
use http::Request;
use http_body_util::Full;
use std::{cell::Cell, future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::{runtime::Builder, sync::Semaphore, time::Instant};
use tower::{Layer, ServiceExt, limit::ConcurrencyLimit};
use tower_jwt_refresh::{JwtRefresh, JwtRefreshLayer, TokenError, TokenProvider, clock::ManualClock};
use world::{Api, BACKOFF, World};

type Client = JwtRefresh<ConcurrencyLimit<Api>>;

/// A flight takes a second of `min_interval`, one of the endpoint, and what it waits for the limit; a caller may find the first of two refused
/// or dropped.
const IN_TIME: Duration = Duration::from_secs(8);
/// The provider's own bound, for two waits.
const AT_LAST: Duration = Duration::from_secs(63);

struct Caller<'a> {
    dice: &'a Dice,
    world: &'a World,
    provider: TokenProvider,
    client: Client,
    ahead: &'a Cell<Duration>,
    /// May `set` and `clear` happen?
    outside: bool,
}

impl Caller<'_> {
    async fn acts(self) {
        for _ in 0..=self.dice.below(3) {
            let (start, ahead) = (Instant::now(), self.ahead.get());
            let gives_up = self.dice.one_in(4);
            let what = self.acts_once(gives_up).await;
            self.world.tell(|| format!("over: {what}"));
            let took = start.elapsed().saturating_sub(self.ahead.get() - ahead);
            let bound = if self.world.hangs() { AT_LAST } else { IN_TIME };
            if what != "sleep" && took > bound {
                self.world.fault(format!("`{what}` took {took:?}"));
            }
        }
    }

    async fn acts_once(&self, gives_up: bool) -> &'static str {
        let (dice, provider) = (self.dice, &self.provider);
        match dice.below(if self.outside { 16 } else { 14 }) {
            0..=3 => {
                // A clone of its own: given up, it must not stay in the limit's queue.
                let request = Request::get("https://api.example.com/").body(Full::<Bytes>::default()).expect("legal");
                let sent = self.client.clone().oneshot(request);
                if let Some(Err(error)) = perhaps(sent, dice, gives_up).await {
                    self.withheld(error.downcast_ref().expect("the API never fails"));
                }
                "request"
            }
            4 | 5 => {
                if let Some(Err(error)) = perhaps(provider.token(), dice, gives_up).await {
                    self.withheld(&error);
                }
                "token"
            }
            6 => {
                self.world.forces(true);
                perhaps(provider.refresh(), dice, gives_up).await;
                self.world.forces(false);
                "refresh"
            }
            7 => {
                if let Some(Err(error)) =
                    perhaps(provider.token_valid_for(Duration::from_secs(30)), dice, gives_up).await
                {
                    self.withheld(&error);
                }
                "token_valid_for"
            }
            8 => {
                let Some(token) = provider.current() else { return "nothing" };
                self.world.refuse(&token);
                dice.wobble().await;
                perhaps(provider.replace(&token), dice, gives_up).await;
                "replace"
            }
            9 => {
                let Some(token) = provider.current() else { return "nothing" };
                self.world.refuse(&token);
                dice.wobble().await;
                provider.reject(&token);
                "reject"
            }
            10 => {
                if provider.try_token().is_none() && self.world.holds_living(provider) {
                    self.world.fault("a living token was withheld");
                }
                "try_token"
            }
            11 => {
                let Some(token) = provider.current() else { return "nothing" };
                self.world.refuse(&token);
                "revoke"
            }
            12 | 13 => {
                tokio::time::sleep(Duration::from_secs(dice.among(&[1, 10, 50, 59, 3300]))).await;
                "sleep"
            }
            14 => {
                provider.set(self.world.set());
                "set"
            }
            _ => {
                self.world.clear();
                provider.clear();
                // Nothing comes of nothing: signed in again, perhaps after a while.
                dice.wobble().await;
                provider.set(self.world.set());
                "clear"
            }
        }
    }

    /// A caller got no token.
    fn withheld(&self, error: &TokenError) {
        if self.world.holds_living(&self.provider) && !matches!(error, TokenError::SignedOut) {
            self.world.fault(format!("a living token was withheld: {error}"));
        }
    }
}

/// Gives the number of fetches.
fn schedule(seed: u64, talks: bool) -> usize {
    let dice = Dice::new(seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("no I/O");
    let calls = runtime.block_on(async {
        let world = World::new(&dice, talks);
        let limit = Arc::new(Semaphore::new(dice.among(&[1, 2, 8])));
        let permits = limit.available_permits();
        let builder = TokenProvider::builder()
            .clock(ManualClock::following_tokio())
            .backoff(BACKOFF, 2 * BACKOFF)
            .jitter_seed(seed);
        let outside = dice.one_in(3);
        // A flight that `set` drops while its source waits leaves it in the limit's queue, until the next: then the API has a limit of its own.
        let of_source = if outside { Arc::new(Semaphore::new(1)) } else { Arc::clone(&limit) };
        let source = ConcurrencyLimit::with_semaphore(world.source(), of_source);
        let provider = builder.build(source).expect("legal settings");
        let client = ConcurrencyLimit::with_semaphore(world.api(), Arc::clone(&limit));
        let client = JwtRefreshLayer::new(provider.clone()).layer(client);
        let ahead = Cell::new(Duration::ZERO);
        let mut tasks: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
        for _ in 0..2 + dice.below(5) {
            let (provider, client) = (provider.clone(), client.clone());
            let caller = Caller { dice: &dice, world: &world, provider, client, ahead: &ahead, outside };
            tasks.push(Box::pin(caller.acts()));
        }
        if dice.one_in(2) {
            let provider = provider.clone();
            tasks.push(Box::pin(async move { drop(provider.init().await) }));
        }
        drop(client);
        run(tasks, &dice, &ahead, || world.look(&provider)).await;

        // The last flight ends by itself, and everything with it.
        drop(provider);
        tokio::time::sleep(2 * AT_LAST).await;
        if limit.available_permits() != permits {
            world.fault("a permit is gone");
        }
        let left = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        if left > 0 {
            world.fault(format!("{left} tasks are left"));
        }
        let faults = world.faults();
        assert!(faults.is_empty(), "{faults:#?}");
        world.calls()
    });
    drop(runtime);
    calls
}

/// Says how to see a failure again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again: SCHEDULES=1 SEED={} scripts/schedules", self.0);
        }
    }
}

// The rules in one place; each schedule is one seed.
#[test]
fn whatever_the_order_of_events_the_rules_hold() {
    let number = |name, usual| std::env::var(name).ok().map_or(usual, |text| text.parse().expect("a number"));
    let count = number("SCHEDULES", if cfg!(debug_assertions) { 2_000 } else { 500_000 });
    let first = number("SEED", 0);
    let mut replay = Replay(first);
    let mut calls = 0;
    for seed in first..first + count {
        replay.0 = seed;
        calls += schedule(seed, count == 1);
    }
    println!("{count} schedules with {calls} fetches");
    assert!(count < 100 || calls > 0);
}
