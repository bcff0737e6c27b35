//! Real servers, real clients, real TLS, and everything that goes wrong with them, all at once.
//!
//! `cargo run --release --example chaos -- --seconds 10 [--callers 2000] [--seed N]`. Two thousand callers over hyper, tonic and reqwest share one
//! provider, while servers are killed, connections cut, certificates renewed, tokens revoked, and their issuer is ill. What each caller saw is held against
//! what the servers did: see `judge.rs` for what is allowed. Then all is calm, and every call has to succeed. Ends with status 1 if a promise broke; the seed
//! decides what goes wrong and in which order, not how threads and sockets take turns.

#![allow(unreachable_pub, reason = "its parts are modules of one program")]

mod api;
mod authority;
mod book;
mod callers;
mod content;
mod door;
#[path = "../../tests/echo/generated.rs"]
#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, dead_code, missing_debug_implementations, rust_2018_idioms, unreachable_pub, reason = "generated")]
mod generated;
mod fetches;
mod grpc;
mod handler;
mod issuer;
mod judge;
mod ledger;
mod mesh;
mod options;
mod proxy;
mod reading;
mod report;
mod run;
mod stacks;
mod weather;
mod wire;
mod world;

use generated as echo;
use std::{
    panic,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio::runtime::Builder;
use tower_jwt_refresh::BoxError;
use world::World;

static PANICS: AtomicUsize = AtomicUsize::new(0);

fn main() -> Result<ExitCode, BoxError> {
    let options = match options::read() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return Ok(ExitCode::from(2));
        }
    };
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        usual(info);
    }));
    // A call over HTTP/1.1 takes four sockets: the client's, two of the proxy, the server's.
    rlimit::increase_nofile_limit(u64::MAX)?;

    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let world = runtime.block_on(async { World::new(options.seed) });
    let apart = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(run::run(&world, &options, apart.handle()))?;
    for runtime in [&runtime, &apart] {
        runtime.block_on(run::nothing_is_left(&world));
    }
    let panics = PANICS.load(Ordering::SeqCst);
    if panics > 0 {
        world.breaks("nothing panics", format!("{panics} times"));
    }
    println!("{}", world.report);
    let kept = world.report.kept();
    println!("{}: --seed {}", if kept { "every promise was kept" } else { "a promise broke" }, options.seed);
    Ok(ExitCode::from(u8::from(!kept)))
}
