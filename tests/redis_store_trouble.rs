//! A Redis that is down, hangs, holds something else, wants a password or speaks TLS, and what is said of it.
#![cfg(unix)]

#[path = "support/redis.rs"]
mod server;
mod support;

use rcgen::{CertificateParams, KeyPair};
use redis::{Client, TlsCertificates};
use server::{Redis, port, soon, write};
use std::{error::Error, time::Duration};
use support::{Endpoint, HOUR, Logs};
use tower::Layer;
use tower_jwt_refresh::{
    TokenProvider,
    clock::ManualClock,
    store::{RedisFailure, RedisStore, SealKey, Sealed, StoreError, StoreLayer, TokenStore},
};

const KEY: &str = "token:api";
const NOW: Duration = Duration::ZERO;

/// Another process: a provider whose token is due when the test says so.
fn process(store: impl TokenStore, endpoint: &Endpoint) -> (TokenProvider, ManualClock) {
    let clock = ManualClock::new();
    let source = StoreLayer::new(store).layer(endpoint.source());
    let builder = TokenProvider::builder().clock(clock.clone()).min_interval(Duration::from_millis(1));
    (builder.build(source).unwrap(), clock)
}

async fn secret(provider: &TokenProvider) -> String {
    soon(provider.token()).await.unwrap().expose_secret().to_owned()
}

/// All that it says, down to its last cause, for people and for logs.
fn words(error: &(dyn Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.map(|error| format!("{error} {error:?} ")).collect()
}

fn failure(error: StoreError) -> RedisFailure {
    let (StoreError::Unavailable(cause) | StoreError::Unusable(cause)) = error else { panic!("{error:?}") };
    *cause.downcast().unwrap()
}

async fn load_fails(store: &RedisStore) -> RedisFailure {
    failure(soon(store.load()).await.unwrap_err())
}

async fn put(store: &impl TokenStore, value: &[u8]) {
    let mut lock = soon(store.lock(NOW)).await.unwrap();
    lock.save(value).await.unwrap();
    lock.unlock().await;
}

// Duende.AccessTokenManagement#32: a time-out of the store failed requests.
#[tokio::test]
async fn a_redis_that_goes_down_is_a_miss_with_one_warning_and_found_again() {
    let (logs, _guard) = Logs::listen();
    let mut redis = Redis::with(&["--appendonly", "yes"]);
    let endpoint = Endpoint::hourly();
    let (one, one_clock) = process(RedisStore::new(redis.client(), KEY), &endpoint);
    assert_eq!(secret(&one).await, "t1");
    redis.kill();
    for number in 2..4 {
        one_clock.advance(2 * HOUR);
        assert_eq!(secret(&one).await, format!("t{number}"));
    }
    assert_eq!(logs.warnings().len(), 1, "{:#?}", logs.warnings());
    assert!(logs.warnings()[0].contains("no connection to Redis"), "{:#?}", logs.warnings());
    redis.start_again();
    one_clock.advance(2 * HOUR);
    assert_eq!(secret(&one).await, "t4");
    let (other, _) = process(RedisStore::new(redis.client(), KEY), &endpoint);
    assert_eq!(secret(&other).await, "t4", "adopted");
    assert_eq!(endpoint.fetches(), 4);
    assert_eq!(logs.warnings().len(), 1, "{:#?}", logs.warnings());
}

#[tokio::test]
async fn a_restart_between_two_commands_costs_nothing_but_a_new_connection() {
    let mut redis = Redis::with(&["--appendonly", "yes"]);
    let store = RedisStore::new(redis.client(), KEY);
    put(&store, b"kept").await;
    redis.kill();
    redis.start_again();
    assert_eq!(soon(store.load()).await.unwrap().value().unwrap(), b"kept");
}

#[tokio::test]
async fn a_save_outlasts_a_restart() {
    let mut redis = Redis::with(&["--appendonly", "yes"]);
    let store = RedisStore::new(redis.client(), KEY);
    let mut lock = soon(store.lock(NOW)).await.unwrap();
    redis.kill();
    let ((), saved) = tokio::join!(
        async {
            assert!(matches!(load_fails(&store).await, RedisFailure::Connection(_)));
            redis.start_again();
        },
        soon(lock.save(b"only copy")),
    );
    saved.unwrap();
    assert_eq!(soon(store.load()).await.unwrap().value().unwrap(), b"only copy");
}

#[tokio::test]
async fn a_redis_that_hangs_is_given_up_and_found_again() {
    let redis = Redis::start();
    let store = RedisStore::new(redis.client(), KEY);
    put(&store, b"kept").await;
    redis.signal("STOP");
    assert!(matches!(load_fails(&store).await, RedisFailure::TimedOut { .. }));
    redis.signal("CONT");
    assert_eq!(soon(store.load()).await.unwrap().value().unwrap(), b"kept");
}

#[tokio::test]
async fn a_key_of_something_else_is_left_alone() {
    let (redis, endpoint) = (Redis::start(), Endpoint::hourly());
    redis.run::<()>(&format!("SET {KEY} precious"));
    let store = RedisStore::new(redis.client(), KEY);
    assert!(matches!(load_fails(&store).await, RedisFailure::OtherContent));
    let (provider, _) = process(store, &endpoint);
    assert_eq!(secret(&provider).await, "t1");
    assert_eq!(redis.run::<String>(&format!("GET {KEY}")), "precious");
}

#[tokio::test]
async fn garbage_is_written_over_and_what_another_key_has_sealed_is_not() {
    let (redis, endpoint) = (Redis::start(), Endpoint::hourly());
    let store = RedisStore::new(redis.client(), KEY);
    let sealed = |store: RedisStore, key: u8| Sealed::new(store, SealKey::new(&[key; 32]).unwrap(), KEY);
    put(&store, b"garbage").await;
    let (provider, _) = process(store.clone(), &endpoint);
    assert_eq!(secret(&provider).await, "t1");
    assert!(redis.field(KEY, "value").unwrap().contains("\"t1\""));

    let other = store.with_key("sealed");
    let (provider, _) = process(sealed(other.clone(), 1), &endpoint);
    assert_eq!(secret(&provider).await, "t2");
    let (same, _) = process(sealed(other.clone(), 1), &endpoint);
    assert_eq!(secret(&same).await, "t2", "adopted");
    let before: Vec<u8> = redis.run("HGET sealed value");
    assert!(!before.windows(4).any(|bytes| bytes == b"\"t2\""), "it can be read");

    let (logs, _guard) = Logs::listen();
    let (wrong, clock) = process(sealed(other.clone(), 2), &endpoint);
    assert_eq!(secret(&wrong).await, "t3", "it goes on alone");
    clock.advance(2 * HOUR);
    assert_eq!(secret(&wrong).await, "t4");
    assert_eq!(redis.run::<Vec<u8>>("HGET sealed value"), before);
    let (warnings, cause) = (logs.warnings(), "is not opened by any key given");
    assert!(warnings.len() == 1 && warnings[0].contains(cause), "{warnings:#?}");
    // Moved to where another token belongs.
    put(&store, &before).await;
    assert!(
        matches!(soon(sealed(store, 1).load()).await, Ok(loaded) if loaded.value().is_some()),
        "for the same purpose"
    );
    let moved = Sealed::new(other, SealKey::new(&[1; 32]).unwrap(), "another");
    assert!(matches!(soon(moved.load()).await, Err(StoreError::Unusable(_))));
}

#[tokio::test]
async fn no_error_and_no_log_holds_a_password() {
    let (logs, _guard) = Logs::listen();
    let redis = Redis::with(&["--requirepass", "right-s3cr3t"]);
    let right = RedisStore::new(redis.client_as("pass=right-s3cr3t"), KEY);
    put(&right, b"value-s3cr3t").await;
    for login in ["pass=wrong-s3cr3t", "user=nobody&pass=wrong-s3cr3t", ""] {
        let store = RedisStore::new(redis.client_as(login), KEY);
        let failure = load_fails(&store).await;
        assert!(matches!(failure, RedisFailure::Login), "{failure:?}");
        let said = words(&failure) + &format!("{store:?}");
        assert!(!said.contains("s3cr3t"), "{said}");
        let (provider, _) = process(store, &Endpoint::hourly());
        secret(&provider).await;
    }
    assert!(!logs.text().contains("s3cr3t"), "{}", logs.text());
    assert!(logs.text().contains("refuses the login"));
}

// A server quotes what it does not know, arguments and all.
#[tokio::test]
async fn a_server_that_quotes_what_it_was_told_is_not_quoted() {
    let redis = Redis::with(&["--rename-command", "EVAL", ""]);
    let store = RedisStore::new(redis.client(), "key-s3cr3t");
    let failure = load_fails(&store).await;
    assert!(matches!(&failure, RedisFailure::Refused { code } if code == "ERR"), "{failure:?}");
    assert!(!words(&failure).contains("s3cr3t"), "{failure}");
}

#[tokio::test]
async fn the_rights_that_the_docs_name_are_enough() {
    let redis = Redis::start();
    let rights = "+eval +hget +hmget +hset +hdel +hincrby +time +publish +subscribe +unsubscribe";
    redis.run::<()>(&format!("ACL SETUSER tokens on >pw resetkeys resetchannels ~{KEY} &{KEY} -@all {rights}"));
    let store = RedisStore::new(redis.client_as("user=tokens&pass=pw"), KEY);
    put(&store, b"value").await;
    let lock = soon(store.lock(NOW)).await.unwrap();
    let other = RedisStore::new(redis.client_as("user=tokens&pass=pw"), KEY);
    let waits = tokio::spawn(async move { other.lock(Duration::from_secs(60)).await.map(drop) });
    server::until(|| redis.run::<(String, u32)>(&format!("PUBSUB NUMSUB {KEY}")).1 == 1).await;
    lock.unlock().await;
    soon(waits).await.unwrap().unwrap();
    let elsewhere = store.with_key("token:other");
    assert!(matches!(load_fails(&elsewhere).await, RedisFailure::NotAllowed));
}

#[tokio::test]
async fn it_goes_over_tls_to_a_server_that_is_known_and_to_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let (cert, key) = (write(&dir, "cert.pem", &certificate), write(&dir, "key.pem", &key.serialize_pem()));
    let port = port();
    let settings = ["--tls-port", &port.to_string(), "--tls-cert-file", &cert, "--tls-key-file", &key];
    let _redis = Redis::in_dir(dir, &[&settings[..], &["--tls-auth-clients", "no"]].concat());
    let url = format!("rediss://localhost:{port}");
    let known = TlsCertificates { client_tls: None, root_cert: Some(certificate.into_bytes()) };
    let store = RedisStore::new(Client::build_with_tls(url.as_str(), known).unwrap(), KEY);
    put(&store, b"value").await;
    assert_eq!(soon(store.load()).await.unwrap().value().unwrap(), b"value");
    let unknown = RedisStore::new(Client::open(url).unwrap(), KEY);
    let failure = load_fails(&unknown).await;
    assert!(matches!(&failure, RedisFailure::Connection(cause) if cause.contains("certificate")), "{failure:?}");
}

#[tokio::test]
async fn a_thousand_providers_on_one_redis_fetch_once_a_lifetime() {
    let (redis, endpoint, clock) = (Redis::start(), Endpoint::hourly(), ManualClock::new());
    let providers: Vec<_> = (0..4)
        .flat_map(|_| {
            // Four programs, say.
            let store = RedisStore::new(redis.client(), KEY);
            (0..250).map(move |_| store.clone())
        })
        .map(|store| {
            let source = StoreLayer::new(store).clock(clock.clone()).layer(endpoint.source());
            TokenProvider::builder().clock(clock.clone()).min_interval(Duration::from_millis(1)).build(source).unwrap()
        })
        .collect();
    for lifetime in 1..=3 {
        let got = soon(futures_util::future::join_all(providers.iter().map(TokenProvider::token))).await;
        for token in got {
            assert_eq!(token.unwrap().expose_secret(), format!("t{lifetime}"));
        }
        assert_eq!(endpoint.fetches(), lifetime);
        clock.advance(2 * HOUR);
    }
}
