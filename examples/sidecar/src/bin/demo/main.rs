//! One Python script that polls for longer than a token lives, run twice: straight to the service it dies of a 401, through the sidecar it
//! does not. Ends with an error if either is otherwise.

mod service;

use service::{KEY, LIFE, Service};
use sidecar::{Options, Sidecar};
use std::{ffi::OsString, io, process::ExitCode};
use tokio::{process::Command, sync::oneshot};
use tower_jwt_refresh::BoxError;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/poll.py");
const SECONDS: &str = "7";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), BoxError> {
    let service = Service::start().await?;
    let url = format!("http://{}", service.address);
    let token_url = format!("{url}/api/v1/auth/token");

    println!("poll.py, straight to a service whose tokens live for {} s:", LIFE.as_secs());
    let direct = poll(&url, &service.mint()).await?;

    let arguments = ["--upstream", &url, "--token-url", &token_url, "--listen", "127.0.0.1:0"].map(OsString::from);
    let options = Options::read(arguments, |_| Some(KEY.to_owned()))?.ok_or("no help was asked for")?;
    let sidecar = Sidecar::bind(&options).await?;
    let address = sidecar.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(sidecar.run(async move { drop(stopped.await) }));
    println!("the same script, through the sidecar:");
    let fetches = service.fetches();
    let through = poll(&address, "any").await?;
    println!("  the sidecar fetched {} tokens", service.fetches() - fetches);
    drop(stop);
    serving.await?;

    if direct {
        return Err("straight to the service the script should have died of a 401, and did not".into());
    }
    if !through {
        return Err("through the sidecar the script should have seen no 401, and died".into());
    }
    Ok(())
}

/// Did the script come to its end?
async fn poll(url: &str, token: &str) -> Result<bool, BoxError> {
    let mut script = Command::new("python3");
    // What is on this machine needs no proxy.
    script.arg(SCRIPT).arg(SECONDS).env("API_URL", url).env("API_TOKEN", token).env("no_proxy", "*");
    match script.kill_on_drop(true).status().await {
        // 4 is how it dies of a 401; anything else is a defect of its own.
        Ok(status) if [Some(0), Some(4)].contains(&status.code()) => Ok(status.success()),
        Ok(status) => Err(format!("poll.py ended with {status}").into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("this shows a Python script, and there is no python3 in the PATH: install it, or run the script where there is one".into())
        }
        Err(error) => Err(format!("python3: {error}").into()),
    }
}
