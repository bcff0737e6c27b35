//! One process: the real layer and the real provider, in a runtime of its own with a clock of its own, which goes only when the schedule says so.

use crate::world::{LEASE, Life, Shared, Store, number_of};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::runtime::{Builder, Runtime};
use tower::Layer;
use tower_jwt_refresh::{
    BoxError, SourceError, Token, TokenProvider, TokenRequest, clock::ManualClock, store::StoreLayer,
};

pub struct Process {
    pub life: Life,
    runtime: Runtime,
    clock: ManualClock,
    /// It stands still, and this much time has passed meanwhile.
    pub frozen: Option<Duration>,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    ended: bool,
    faults: Vec<String>,
}

impl Process {
    /// Gets a token, and then another one, as many times as there are rounds. The hosts' wall clocks are an hour apart from each other.
    pub fn start(world: &Shared, life: Life, rounds: usize) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("no I/O");
        let clock = ManualClock::new();
        let hour = Duration::from_secs(3600);
        match life.process {
            0 => {}
            1 => clock.jump_wall_ahead(hour),
            _ => clock.jump_wall_back(hour),
        }
        let layer = StoreLayer::new(Store { world: world.clone(), process: life }).clock(clock.clone());
        let source = {
            let world = world.clone();
            tower::service_fn(move |request: TokenRequest| {
                let shown = request.refresh_token().map_or(1, number_of);
                let asked = request.may_spend_refresh_token().then(|| world.refresh(life, shown));
                async move {
                    let Some(asked) = asked else { return Err::<Token, BoxError>("not without the lock".into()) };
                    let number = asked.await.ok_or_else(|| SourceError::permanent("invalid_grant"))?;
                    request.keep_refresh_token(format!("r{number}"));
                    Ok(Token::opaque(format!("t{number}"))?.with_expires_in(hour))
                }
            })
        };
        let script = Arc::<Mutex<Script>>::default();
        let ends = (Arc::clone(&script), world.clone(), clock.clone());
        runtime.spawn(async move {
            let (script, world, clock) = ends;
            let builder = TokenProvider::builder().clock(clock).jitter_seed(1);
            let provider = builder.build(layer.layer(source)).expect("legal settings");
            for round in 0..rounds {
                let mut tries = 0;
                loop {
                    let stored = world.lock().stored();
                    let got = if round == 0 { provider.token().await } else { provider.refresh().await };
                    match got {
                        Ok(token) if number_of(token.expose_secret()) < stored => {
                            let fault = format!("{life:?} got {} where t{stored} was stored", token.expose_secret());
                            script.lock().unwrap().faults.push(fault);
                        }
                        Ok(_) => {}
                        Err(_) if tries < 5 => {
                            tries += 1;
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            continue;
                        }
                        Err(error) => script.lock().unwrap().faults.push(format!("{life:?} got no token: {error:?}")),
                    }
                    break;
                }
            }
            // What it began it may end.
            drop(provider);
            script.lock().unwrap().ended = true;
        });
        Self { life, runtime, clock, frozen: None, script }
    }

    /// Runs until all it can do is wait.
    pub fn settle(&self) {
        self.runtime.block_on(async {
            for _ in 0..16 {
                tokio::task::yield_now().await;
            }
        });
    }

    pub fn time_passes(&mut self, span: Duration) {
        match &mut self.frozen {
            Some(missed) => *missed += span,
            None => {
                self.clock.advance(span);
                self.runtime.block_on(tokio::time::advance(span));
            }
        }
    }

    pub fn thaw(&mut self, timers: bool) {
        let missed = self.frozen.take().unwrap_or_default();
        self.clock.advance(missed);
        if timers {
            self.runtime.block_on(tokio::time::advance(missed));
        }
    }

    pub fn ended(&self) -> bool {
        self.script.lock().unwrap().ended
    }

    pub fn faults(&self) -> Vec<String> {
        self.script.lock().unwrap().faults.clone()
    }
}

/// Longer than a lease, so that one that is not renewed is over.
pub const A_WHILE: Duration = LEASE.saturating_add(Duration::from_secs(1));
