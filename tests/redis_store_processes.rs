//! Real processes on one Redis, and a server that takes a refresh token that is shown twice for theft.
#![cfg(unix)]

#[path = "support/family.rs"]
mod family;
#[path = "support/oauth2.rs"]
mod oauth2;
#[path = "support/process.rs"]
mod processes;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "support/exchange.rs"]
mod server;
mod support;

use family::Family;
use processes::{Process, end_with_the_test, say};
use redis_server::Redis;
use std::{env, time::Duration};
use support::whole_run;
use tokio::runtime::{Builder, Runtime};
use tower::Layer;
use tower_jwt_refresh::{
    TokenProvider,
    source::oauth2::{ClientAuth, OAuth2},
    store::{RedisStore, StoreLayer},
};

fn start(refreshes: usize, redis: &Redis, url: &str) -> Process {
    let (refreshes, socket) = (refreshes.to_string(), redis.socket());
    let socket = socket.to_str().unwrap();
    Process::start(&[("STORE_REFRESHES", &refreshes), ("STORE_PATH", socket), ("STORE_URL", url)])
}

#[test]
#[ignore = "a process of the other tests"]
fn process() {
    let Ok(refreshes) = env::var("STORE_REFRESHES") else { return };
    end_with_the_test();
    whole_run::listen();
    let socket = env::var("STORE_PATH").unwrap();
    let client = redis::Client::open(format!("redis+unix://{socket}")).unwrap();
    let source = OAuth2::refresh_token(env::var("STORE_URL").unwrap(), ClientAuth::public("id"), "r1").build().unwrap();
    let store = RedisStore::new(client, "token").with_lease(Duration::from_secs(1));
    let builder = TokenProvider::builder().min_interval(Duration::from_millis(1));
    let provider = builder.build(StoreLayer::new(store).layer(source)).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for _ in 0..refreshes.parse().unwrap() {
            say(provider.refresh().await.unwrap().expose_secret());
        }
    });
}

/// Drives the server while the test waits for processes.
fn serving() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

// Scenario 128.
#[test]
fn eight_processes_on_one_redis_never_show_a_refresh_token_twice() {
    let (redis, serving) = (Redis::start(), serving());
    let (server, family) = serving.block_on(Family::strict());
    let processes: Vec<_> = (0..8).map(|_| start(25, &redis, &server.url())).collect();
    processes.into_iter().for_each(Process::ends_well);
    assert_eq!(family.refused(), 0);
    let granted = family.granted();
    assert!((25..=8 * 25).contains(&granted), "{granted}");
    println!("8 processes x 25 refreshes: {granted} fetches");
}

// Scenario 128. Whoever dies has a lease of a second.
#[test]
fn processes_that_are_killed_at_random_never_cost_the_login() {
    let (redis, serving) = (Redis::start(), serving());
    let (server, family) = serving.block_on(Family::with_grace());
    let another = || start(1_000_000, &redis, &server.url());
    let mut processes: Vec<_> = (0..4).map(|_| another()).collect();
    let mut random = fastrand::Rng::with_seed(2);
    for kill in 0..12 {
        let process = random.usize(0..processes.len());
        for _ in 0..random.usize(1..5) {
            assert!(processes[process].says().is_some(), "one has failed after {kill} kills");
        }
        for _ in 0..random.usize(0..100_000) {
            std::hint::spin_loop();
        }
        std::mem::replace(&mut processes[process], another()).kill();
    }
    for mut process in processes {
        assert!(process.says().is_some());
        process.kill();
    }
    assert_eq!(family.refused(), 0);
    println!("16 kills: {} fetches, {} of them by the server's grace", family.granted(), family.by_grace());
    assert!(family.by_grace() <= 16);
}
