//! Providers that a real Redis tells what other processes store.
#![cfg(unix)]

#[path = "support/redis.rs"]
mod server;
mod support;

use server::{Redis, until};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use support::{Endpoint, HOUR};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixListener,
    sync::Notify,
};
use tower::Layer;
use tower_jwt_refresh::{
    TokenProvider,
    clock::ManualClock,
    store::{RedisStore, StoreLayer, Stored, TokenStore},
};

const KEY: &str = "token:api";

/// A process with connections of its own, and its hands on the clock.
fn process(redis: &Redis, endpoint: &Endpoint) -> (TokenProvider, Stored, ManualClock) {
    let clock = ManualClock::new();
    let store = RedisStore::new(redis.client(), KEY);
    let shared = StoreLayer::new(store).layer(endpoint.source());
    let builder = TokenProvider::builder().clock(clock.clone()).min_interval(Duration::from_millis(1));
    (builder.build(shared.clone()).unwrap(), shared, clock)
}

async fn has(provider: &TokenProvider, secret: &str) {
    until(|| provider.current().is_some_and(|token| token.expose_secret() == secret)).await;
}

async fn gets(one: &(TokenProvider, Stored, ManualClock), secret: &str) {
    one.2.advance(HOUR * 2);
    assert_eq!(server::soon(one.0.token()).await.unwrap().expose_secret(), secret);
}

fn subscribers(redis: &Redis) -> usize {
    redis.run::<(String, usize)>(&format!("PUBSUB NUMSUB {KEY}")).1
}

#[tokio::test]
async fn a_process_that_follows_has_what_another_saves_without_asking() {
    let (redis, endpoint) = (Redis::start(), Endpoint::hourly());
    let (one, (other, shared, _)) = (process(&redis, &endpoint), process(&redis, &endpoint));
    gets(&one, "t1").await;
    shared.follow(&other);
    has(&other, "t1").await;
    for number in 2..5 {
        gets(&one, &format!("t{number}")).await;
        has(&other, &format!("t{number}")).await;
    }
    assert_eq!(endpoint.fetches(), 4);
    assert_eq!(subscribers(&redis), 1);
    drop((other, shared));
    until(|| subscribers(&redis) == 0).await;
}

#[tokio::test]
async fn a_subscription_that_broke_is_made_anew_and_nothing_is_missed() {
    let (redis, endpoint) = (Redis::start(), Endpoint::hourly());
    let (one, (other, shared, _)) = (process(&redis, &endpoint), process(&redis, &endpoint));
    shared.follow(&other);
    until(|| subscribers(&redis) == 1).await;
    for number in 1..4 {
        assert_eq!(redis.run::<usize>("CLIENT KILL TYPE pubsub"), 1);
        gets(&one, &format!("t{number}")).await;
        has(&other, &format!("t{number}")).await;
        until(|| subscribers(&redis) == 1).await;
    }
}

#[tokio::test]
async fn a_redis_that_was_away_is_heard_again_and_not_complained_of() {
    let (logs, _guard) = support::Logs::listen();
    let (mut redis, endpoint) = (Redis::with(&["--appendonly", "yes"]), Endpoint::hourly());
    let (one, (other, shared, _)) = (process(&redis, &endpoint), process(&redis, &endpoint));
    shared.follow(&other);
    gets(&one, "t1").await;
    has(&other, "t1").await;
    redis.kill();
    // Nobody else wants to connect now.
    std::fs::remove_file(redis.socket()).unwrap();
    let in_its_place = UnixListener::bind(redis.socket()).unwrap();
    drop(server::soon(in_its_place.accept()).await.unwrap());
    drop(in_its_place);
    gets(&one, "t2").await;
    let of_the_outage = logs.warnings().len();
    assert_eq!(of_the_outage, 1, "{:#?}", logs.warnings());
    std::fs::remove_file(redis.socket()).unwrap();
    redis.start_again();
    gets(&one, "t3").await;
    has(&other, "t3").await;
    assert_eq!(logs.warnings().len(), of_the_outage, "{:#?}", logs.warnings());
}

// Flushed, or failed over to a replica that lacks the last writes, without the end of a connection.
#[tokio::test]
async fn a_redis_that_begins_anew_is_believed() {
    let (redis, endpoint) = (Redis::start(), Endpoint::hourly());
    let (one, (other, shared, _)) = (process(&redis, &endpoint), process(&redis, &endpoint));
    shared.follow(&other);
    for number in 1..4 {
        gets(&one, &format!("t{number}")).await;
        has(&other, &format!("t{number}")).await;
    }
    redis.run::<()>("FLUSHALL");
    let fresh = process(&redis, &endpoint);
    gets(&fresh, "t4").await;
    has(&other, "t4").await;
}

/// Its connections may subscribe, and are closed then. Counts them.
fn that_hangs_up_on_subscribers(socket: &std::path::Path) -> Arc<AtomicUsize> {
    let (server, count) = (UnixListener::bind(socket).unwrap(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((connection, _)) = server.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut lines = BufReader::new(connection).lines();
                while let Some(line) = lines.next_line().await.unwrap() {
                    let answer = match line.as_str() {
                        "SUBSCRIBE" => format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{KEY}\r\n:1\r\n", KEY.len()),
                        "CLIENT" => "+OK\r\n".to_owned(),
                        _ => continue,
                    };
                    lines.get_mut().write_all(answer.as_bytes()).await.unwrap();
                    if line == "SUBSCRIBE" {
                        return;
                    }
                }
            });
        }
    });
    count
}

#[tokio::test]
async fn a_redis_that_ends_each_subscription_is_not_asked_without_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("redis.sock");
    let count = that_hangs_up_on_subscribers(&socket);
    let client = redis::Client::open(format!("redis+unix://{}", socket.display())).unwrap();
    let (store, changed) = (RedisStore::new(client, KEY), Notify::new());
    let mut watching = std::pin::pin!(store.watch(&changed));
    let told = async {
        changed.notified().await;
        changed.notified().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        () = watching.as_mut() => unreachable!("it ends never"),
        () = server::soon(told) => {}
    }
    assert!(count.load(Ordering::Relaxed) <= 4, "{} in a second", count.load(Ordering::Relaxed));
}
