//! Who sends what, and what goes wrong, over a week: one timeline, driven on whichever runtime it is.

use crate::{
    callers::{Call, Client},
    clock::SimClock,
    endpoint::{source, spell},
    plan::{Fault, log},
    run::PANICKED,
    sim::Sim,
};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tower::BoxError;
use tower_jwt_refresh::TokenProvider;

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// Requests of one seed, at most.
const REQUESTS: u32 = 20_000;

/// Why the driver came back.
pub enum Next {
    Over,
    Drop,
    Freeze,
    Thaw,
}

pub struct Driver {
    sim: Arc<Sim>,
    client: Client,
    pub provider: TokenProvider,
    /// Goes with the source.
    alive: Weak<()>,
    calls: u32,
    next_fault: Duration,
    next_burst: Duration,
    sign_in: Option<Duration>,
    thaw: Option<Duration>,
    /// The runtime is dropped then, or frozen for so long.
    cut: Option<(Duration, Option<Duration>)>,
}

impl Driver {
    pub fn new(sim: &Arc<Sim>, seed: u64) -> Result<Self, BoxError> {
        let alive = Arc::new(());
        let weak = Arc::downgrade(&alive);
        let mut builder = sim.settings.builder().clock(sim.clock.clone()).jitter_seed(seed);
        if sim.with(|state| state.rng.u32(..4) == 0) {
            let (token, says) = sim.with(|state| {
                let (token, says) = state.mint(None);
                state.oracle.seeded(token, says);
                (token, says)
            });
            builder = builder.seed(spell(token, says)?);
        }
        let provider = builder.build(source(sim, alive))?;
        sim.state().oracle.provider = Some(provider.clone());
        let client = Client::new(sim, provider.clone())?;
        let (next_fault, next_burst) = (MINUTE * 5, Duration::ZERO);
        let sim = Arc::clone(sim);
        Ok(Self {
            sim,
            client,
            provider,
            alive: weak,
            calls: 0,
            next_fault,
            next_burst,
            sign_in: None,
            thaw: None,
            cut: None,
        })
    }

    /// Drives this runtime until it is its turn to be dropped, or the week is over.
    pub async fn goes_on(&mut self) -> Next {
        loop {
            let now = self.sim.clock.now().mono;
            let ends = self.sim.state().wrong.next_end();
            let cut = self.cut.map(|(at, _)| at);
            let times = [cut, Some(self.next_fault), Some(self.next_burst), self.sign_in, self.thaw, ends, Some(WEEK)];
            let next = times.into_iter().flatten().min().unwrap_or(WEEK);
            if next > now {
                tokio::time::sleep(next - now).await;
            }
            let now = self.sim.clock.now().mono;
            let out = self.client.permits_out();
            self.sim.with(|state| state.oracle.permits(out, state.served));
            if now >= WEEK || self.sim.with(|state| state.oracle.is_over()) || PANICKED.with_borrow(Option::is_some) {
                return Next::Over;
            }
            if ends.is_some_and(|at| at <= now) {
                self.sim.state().wrong.pass(now);
                self.burst_soon(now);
            }
            if self.sign_in.is_some_and(|at| at <= now) {
                self.sign_in = None;
                self.push();
                self.burst_soon(now);
            }
            if now >= self.next_burst {
                self.burst(now);
            }
            if self.thaw.is_some_and(|at| at <= now) {
                self.thaw = None;
                self.burst_soon(now);
                return Next::Thaw;
            }
            if let Some((_, frozen)) = self.cut.take_if(|(at, _)| *at <= now) {
                self.burst_soon(now);
                self.thaw = frozen.map(|span| now + span);
                return if frozen.is_some() { Next::Freeze } else { Next::Drop };
            }
            if now >= self.next_fault {
                self.next_fault = now + self.sim.with(|state| log(&mut state.rng, MINUTE, HOUR * 5));
                self.burst_soon(now);
                self.fault(now);
            }
        }
    }

    /// Something happened: who calls right then?
    fn burst_soon(&mut self, now: Duration) {
        let soon = self.sim.with(|state| {
            Duration::from_millis([0, state.rng.u64(..3_000), state.rng.u64(..90_000)][state.rng.usize(..3)])
        });
        self.next_burst = self.next_burst.min(now + soon);
    }

    fn burst(&mut self, now: Duration) {
        let sim = Arc::clone(&self.sim);
        let (calls, next) = sim.with(|state| {
            let rng = &mut state.rng;
            let many = [1, 3, 20, 60][rng.usize(..4)];
            let spread = [Duration::ZERO, Duration::from_secs(1), MINUTE, MINUTE * 10, HOUR * 2][rng.usize(..5)];
            let calls: Vec<_> = (0..rng.u32(1..=many)).map(|_| Call::draw(rng, spread)).collect();
            // Half of them come around the moments at which a token turns stale, urgent or dead.
            let random = log(rng, Duration::from_secs(1), HOUR * 2);
            let before = [300_000, 60_000, 1_000, 0][rng.usize(..4)] + rng.u64(..3_000);
            let near = state.oracle.ends_in().filter(|_| rng.bool());
            let near =
                near.and_then(|left| left.checked_sub(Duration::from_millis(before.saturating_sub(rng.u64(..3_000)))));
            (calls, near.filter(|near| !near.is_zero()).unwrap_or(random))
        });
        self.next_burst = now + next;
        for call in calls {
            self.call(call);
        }
    }

    fn call(&mut self, call: Call) {
        if self.calls < REQUESTS {
            self.calls += 1;
            self.client.start(self.calls, call);
        }
    }

    fn push(&mut self) {
        let (token, says) = self.sim.with(|state| state.mint(None));
        if let Ok(spelt) = spell(token, says) {
            self.provider.set(spelt);
            self.sim.state().oracle.pushed(token, says);
        }
    }

    fn fault(&mut self, now: Duration) {
        let sim = Arc::clone(&self.sim);
        let (fault, span, jump) = sim.with(|state| {
            let fault = Fault::draw(&mut state.rng);
            let span = fault.span(&mut state.rng);
            let what = state.rng.u64(..1 << 40);
            if let Some(span) = span {
                let what = if matches!(fault, Fault::Forbids | Fault::BlamesRequest) { what % 12 } else { what };
                state.wrong.begin(fault, now + span, what);
            }
            state.oracle.report.fault(fault);
            (fault, span, log(&mut state.rng, Duration::from_secs(1), HOUR * 10))
        });
        sim.trace(format_args!("{} {span:?} {jump:?}", fault.as_str()));
        match fault {
            Fault::Revoked => sim.state().tokens.revoke_all(),
            Fault::WallAhead => sim.state().oracle.jump(|clock| clock.set_wall_ahead(jump)),
            Fault::WallBack => sim.state().oracle.jump(|clock| clock.set_wall_back(jump)),
            Fault::WallRight => sim.state().oracle.jump(SimClock::set_wall_right),
            Fault::Suspended => sim.state().oracle.jump(|clock| clock.suspend(jump)),
            Fault::Pushed => {
                // Often while a flight is under way, whose result is then dropped.
                if jump.as_millis().is_multiple_of(2) {
                    self.call(Call::refresh());
                }
                self.sign_in = Some(now + Duration::from_millis(sim.with(|state| state.rng.u64(..600))));
            }
            Fault::SignedOut => {
                self.provider.clear();
                sim.state().oracle.cleared();
                self.sign_in = Some(now + jump / 60);
            }
            Fault::Forced => {
                for _ in 0..1 + now.as_millis() % 3 {
                    self.call(Call::refresh());
                }
            }
            Fault::RuntimeDropped | Fault::RuntimeFrozen if self.thaw.is_none() && self.cut.is_none() => {
                // Best in the middle of something.
                let soon = sim.with(|state| state.rng.u64(..1_000));
                self.cut =
                    Some((now + Duration::from_millis(soon), (fault == Fault::RuntimeFrozen).then_some(jump / 20)));
                self.next_burst = now;
                if !soon.is_multiple_of(3) {
                    self.call(Call::refresh());
                }
            }
            _ => {}
        }
    }

    /// The week is over: everybody is served, all handles go, and nothing is left ("Nothing outlives its users but a flight, to its own end").
    pub async fn nothing_is_left(self) {
        let Self { sim, client, provider, alive, .. } = self;
        sim.state().wrong.clear();
        for _ in 0..1000 {
            if sim.state().oracle.is_idle() {
                break;
            }
            tokio::time::sleep(MINUTE).await;
        }
        // A burst that is still to come, and a last flight.
        tokio::time::sleep(HOUR * 3).await;
        let permits = client.permits_out();
        drop((client, provider));
        sim.state().oracle.provider = None;
        tokio::time::sleep(sim.settings.lost_after()).await;
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let mut state = sim.state();
        let (served, idle) = (state.served, state.oracle.is_idle());
        for (left, what) in [
            (!idle, "callers"),
            (permits > 0, "permits"),
            (served > 0, "requests at the server"),
            (tasks > 0, "tasks"),
            (alive.strong_count() > 0, "the source"),
            (sim.clock.holders() > 2, "the provider"),
        ] {
            if left {
                state.oracle.breaks("10 nothing outlives its users", format!("{what} left"));
            }
        }
    }
}
