//! One seed: a week of one process, over however many runtimes.

use crate::{
    driver::{Driver, Next},
    report::Report,
    sim::Sim,
};
use std::{cell::RefCell, sync::Arc, time::Duration};
use tokio::runtime::Runtime;
use tower::BoxError;

thread_local! {
    /// What panicked on this thread, and should not have.
    pub static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What a seed showed.
pub struct Outcome {
    pub seed: u64,
    pub report: Report,
    pub broken: Option<String>,
}

pub fn run(seed: u64, verbose: bool) -> Outcome {
    PANICKED.take();
    let sim = Arc::new(Sim::new(seed, verbose));
    if let Err(error) = week(&sim, seed) {
        sim.state().oracle.breaks("the simulation itself", error);
    }
    let mut state = sim.state();
    if let Some(panic) = PANICKED.take() {
        state.oracle.breaks("6 never a panic", panic);
    }
    state.oracle.report.time = sim.clock.now().mono;
    Outcome { seed, report: state.oracle.report.clone(), broken: state.oracle.broken.take() }
}

fn week(sim: &Arc<Sim>, seed: u64) -> Result<(), BoxError> {
    let mut driver = Driver::new(sim, seed)?;
    let mut runtime = new_runtime()?;
    let mut frozen: Vec<(Runtime, Duration)> = Vec::new();
    if sim.settings.init {
        let provider = driver.provider.clone();
        drop(runtime.spawn(async move { provider.init().await }));
    }
    loop {
        match drive(&runtime, sim, Duration::ZERO, driver.goes_on()) {
            Next::Over => break,
            Next::Drop => {
                sim.state().oracle.moves(!frozen.is_empty(), false);
                ends(sim, runtime);
                runtime = new_runtime()?;
            }
            Next::Freeze => {
                sim.state().oracle.moves(true, true);
                let since = sim.clock.now().mono;
                frozen.push((std::mem::replace(&mut runtime, new_runtime()?), since));
            }
            Next::Thaw => {
                let Some((thawed, since)) = frozen.pop() else { continue };
                sim.state().oracle.moves(!frozen.is_empty(), true);
                ends(sim, std::mem::replace(&mut runtime, thawed));
                // Its clock went on meanwhile.
                let slept = sim.clock.now().mono - since;
                drive(&runtime, sim, slept, std::future::ready(()));
            }
        }
    }
    sim.state().oracle.moves(false, false);
    frozen.into_iter().for_each(|(runtime, _)| ends(sim, runtime));
    let whole = !sim.state().oracle.is_over();
    if whole {
        drive(&runtime, sim, Duration::ZERO, driver.nothing_is_left());
    } else {
        drop(driver);
        sim.state().oracle.provider = None;
    }
    ends(sim, runtime);
    Ok(())
}

fn new_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()
}

fn drive<F: Future>(runtime: &Runtime, sim: &Sim, behind: Duration, work: F) -> F::Output {
    runtime.block_on(async {
        if !behind.is_zero() {
            tokio::time::advance(behind).await;
        }
        sim.clock.enter();
        let output = work.await;
        sim.clock.leave();
        output
    })
}

fn ends(sim: &Sim, runtime: Runtime) {
    sim.state().oracle.dropping = true;
    drop(runtime);
    sim.state().oracle.dropping = false;
}
