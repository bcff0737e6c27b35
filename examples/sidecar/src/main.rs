//! The process: options, signals, exit codes.

use sidecar::{HELP, Options, Sidecar};
use std::{env, io, process::ExitCode};
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};
use tower_jwt_refresh::BoxError;

#[tokio::main]
async fn main() -> ExitCode {
    // What the provider warns of: a credential that is refused, a clock that is wrong.
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(io::stderr)
        .init();
    match run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sidecar: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<ExitCode, BoxError> {
    let Some(options) = Options::read(env::args_os().skip(1), |name| env::var(name).ok())? else {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    let mut signals = Signals::new()?;
    let sidecar = Sidecar::bind(&options).await?;
    println!("sidecar: listening on {}", sidecar.address());

    let (stop, stopped) = oneshot::channel::<()>();
    let served = sidecar.run(async move { drop(stopped.await) });
    let mut served = std::pin::pin!(served);
    select! {
        () = &mut served => return Ok(ExitCode::SUCCESS),
        () = signals.next() => drop(stop),
    }
    println!("sidecar: ending; a second signal ends it at once");
    select! {
        () = served => Ok(ExitCode::SUCCESS),
        () = signals.next() => Err("ended with requests under way".into()),
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
