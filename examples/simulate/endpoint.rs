//! The token endpoint, as the provider's source: what it answers is drawn, by what is wrong with it.

use crate::{
    oracle::{Answer, held::Says, number},
    plan::Fault,
    sim::{Sim, State},
};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::sleep;
use tower::{BoxError, Service};
use tower_jwt_refresh::{SourceError, Token, TokenRequest};

/// What a planned panic says, so that the hook can keep quiet about it.
pub const PANIC: &str = "a simulated panic of the source";

/// What the endpoint does with one fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Mints,
    Fails { permanent: bool, retry_after: Option<Duration> },
    Hangs,
    Panics,
    PanicsAtOnce,
}

const DOWN: Fate = Fate::Fails { permanent: false, retry_after: None };

/// The source. `alive` is held as long as it is.
pub fn source(
    sim: &Arc<Sim>,
    alive: Arc<()>,
) -> impl Service<TokenRequest, Response = Token, Error = BoxError, Future: Send + 'static> + Send + 'static {
    let sim = Arc::clone(sim);
    tower::service_fn(move |request: TokenRequest| {
        let _ = &alive;
        fetch(Arc::clone(&sim), &request)
    })
}

/// Says so if it is dropped without an answer.
struct Fetching {
    sim: Arc<Sim>,
    fetch: u32,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.sim.state().oracle.dropped(self.fetch);
    }
}

fn fetch(sim: Arc<Sim>, request: &TokenRequest) -> impl Future<Output = Result<Token, BoxError>> + Send + use<> {
    let (fetch, fate, latency) = sim.with(|state| {
        let healthy = state.wrong.endpoint().is_none();
        let fetch = state.oracle.asked(request.reason(), healthy);
        let (fate, latency) = state.fate();
        (fetch, fate, latency)
    });
    sim.trace(format_args!("fetch {fetch} ({}): {fate:?} after {latency:?}", request.reason()));
    let previous = request.previous().map(|token| number(token.expose_secret()));
    let fetching = Fetching { sim: Arc::clone(&sim), fetch };
    if fate == Fate::PanicsAtOnce {
        fetching.panics();
    }
    async move {
        if !latency.is_zero() {
            sleep(latency).await;
        }
        match fate {
            Fate::Mints => {
                let (token, says) = sim.with(|state| {
                    let (token, says) = state.mint(previous);
                    state.oracle.answered(fetch, Answer::Token(token, says));
                    (token, says)
                });
                sim.trace(format_args!("fetch {fetch} brings t{token}, which says {says:?}"));
                spell(token, says)
            }
            Fate::Fails { permanent, retry_after } => {
                sim.with(|state| state.oracle.answered(fetch, Answer::Failed { permanent, retry_after }));
                let error = if permanent { SourceError::permanent("no") } else { SourceError::transient("down") };
                Err(match retry_after {
                    Some(wait) => error.retry_after(wait),
                    None => error,
                }
                .into())
            }
            Fate::Hangs => std::future::pending().await,
            Fate::Panics | Fate::PanicsAtOnce => fetching.panics(),
        }
    }
}

impl Fetching {
    fn panics(&self) -> ! {
        let answer = Answer::Failed { permanent: false, retry_after: None };
        self.sim.with(|state| state.oracle.answered(self.fetch, answer));
        std::panic::panic_any(PANIC)
    }
}

/// A token's text and what it says of itself.
pub fn spell(token: u32, says: Says) -> Result<Token, BoxError> {
    let spelt = Token::opaque(format!("t{token}"))?;
    Ok(match says {
        Says::Nothing => spelt,
        Says::In(span) => spelt.with_expires_in(span),
        Says::At(wall) => spelt.with_expires_at(std::time::UNIX_EPOCH + wall),
    })
}

impl State {
    fn fate(&mut self) -> (Fate, Duration) {
        let rng = &mut self.rng;
        let soon = if rng.u32(..8) == 0 { Duration::ZERO } else { Duration::from_millis(rng.u64(1..400)) };
        let Some((fault, what)) = self.wrong.endpoint() else { return (Fate::Mints, soon) };
        let fate = match fault {
            Fault::Down => DOWN,
            Fault::Busy => {
                // Some say nonsense.
                let wait = Duration::from_millis([what % 60_000, what % 900_000][rng.usize(..2)]);
                Fate::Fails { permanent: false, retry_after: Some(wait) }
            }
            Fault::RefusesCredential => Fate::Fails { permanent: true, retry_after: None },
            Fault::Hangs => Fate::Hangs,
            Fault::Panics if rng.bool() => Fate::Panics,
            Fault::Panics => Fate::PanicsAtOnce,
            Fault::Flaky if rng.bool() => [DOWN, Fate::Hangs, Fate::Panics][rng.usize(..3)],
            Fault::SlowEndpoint => return (Fate::Mints, soon + Duration::from_millis(rng.u64(..45_000))),
            _ => Fate::Mints,
        };
        (fate, soon)
    }

    /// A token, and what is said of it.
    pub fn mint(&mut self, previous: Option<u32>) -> (u32, Says) {
        let truth = self.oracle.now().truth;
        let life = self.tokens.life;
        let spans = self.tokens.spans;
        let lives = |life: Duration| (Some(truth + life), if spans { Says::In(life) } else { Says::At(truth + life) });
        match (self.wrong.endpoint(), previous) {
            (Some((Fault::SameToken, _)), Some(previous)) => return (previous, self.tokens.says(previous)),
            (Some((Fault::SlidingSession, what)), Some(previous)) => {
                let life = Duration::from_secs(60 + what % 3600);
                let says = lives(life).1;
                self.tokens.extend(previous, truth + life, says);
                return (previous, says);
            }
            _ => {}
        }
        let (dies, says) = match self.wrong.endpoint() {
            // Its clock, or its cache, is wrong; the servers take the token, mostly.
            Some((Fault::BornDead, what)) => {
                let dies = if what.is_multiple_of(5) { truth } else { truth + life };
                (Some(dies), Says::At(truth - Duration::from_secs(1 + what % 7200)))
            }
            Some((Fault::ShortLives, what)) => lives(Duration::from_millis(200 + what % 60_000)),
            // The servers know when it dies, and do not tell.
            Some((Fault::NoExpiry, what)) => (Some(truth + Duration::from_secs(10 + what % 7200)), Says::Nothing),
            _ => lives(life),
        };
        (self.tokens.issue(dies, says), says)
    }
}
