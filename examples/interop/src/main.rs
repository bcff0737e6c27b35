//! The whole layer against an authorization server that nobody here wrote: the OpenID-certified `oidc-provider`, over real sockets.
//!
//! `scripts/interop` installs it, starts it and runs this. What is claimed is printed as a table, and if a claim does not hold the run fails.

mod callers;
mod machine;
mod report;
mod server;
mod silence;
mod trouble;
mod user;

use report::Report;
use server::Server;
use std::{path::PathBuf, process::ExitCode};
use tower_jwt_refresh::BoxError;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(issuer), Some(directory)) =
        (arguments.next().and_then(|issuer| issuer.into_string().ok()), arguments.next())
    else {
        eprintln!(
            "interop: run `scripts/interop`, which starts the provider, or say `interop <issuer> <its directory>`"
        );
        return ExitCode::FAILURE;
    };
    match run(Server::new(issuer, PathBuf::from(directory))).await {
        Ok(report) => report.end(),
        Err(error) => {
            eprintln!("interop: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(server: Server) -> Result<Report, BoxError> {
    let report = Report::new();
    silence::listen(&server)?;
    // Each client is its own at the provider, so all run at once.
    tokio::try_join!(
        machine::credentials(&server, &report),
        user::rotation(&server, &report),
        user::public_client(&server, &report),
        trouble::revoked(&server, &report),
        trouble::refused(&server, &report),
        trouble::wrong_issuer(&server, &report),
    )?;
    silence::kept(&server, &report).await?;
    Ok(report)
}
