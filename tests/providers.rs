//! One provider per key: made on first use, one for one key, and no key's trouble another's.

mod support;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use std::{
    collections::HashMap,
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};
use support::{Endpoint, HOUR, Reply, SECOND, settle};
use tokio::{runtime, time::Instant};
use tower::{Layer, ServiceExt, service_fn};
use tower_jwt_refresh::{
    BoxError, JwtRefreshLayer, Token, TokenError, TokenProvider, TokenProviders, TokenRequest, UseToken,
};

/// A source whose tokens bear the tenant's name and their own number.
fn of(tenant: &str) -> TokenProvider {
    let (tenant, mut number) = (tenant.to_owned(), 0);
    let source = service_fn(move |_: TokenRequest| {
        number += 1;
        let token = format!("{tenant}-{number}");
        support::whole_run::secret(&token);
        async move { Ok::<_, BoxError>(Token::opaque(token)?.with_expires_in(HOUR)) }
    });
    support::builder().0.build(source).unwrap()
}

async fn token(provider: &TokenProvider) -> String {
    provider.token().await.unwrap().expose_secret().to_owned()
}

/// Counts what the factory is asked for, by key.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<HashMap<String, u32>>>);

impl Calls {
    fn add(&self, key: &str) -> u32 {
        let mut calls = self.0.lock().unwrap();
        let count = calls.entry(key.to_owned()).or_default();
        *count += 1;
        *count
    }

    fn of(&self, key: &str) -> u32 {
        self.0.lock().unwrap().get(key).copied().unwrap_or_default()
    }
}

// Azure/azure-sdk-for-rust#1225: the second resource got the first one's token, and so did all after it.
#[tokio::test(start_paused = true)]
async fn each_key_has_its_own_token_whoever_was_first() {
    let providers: TokenProviders<String> = TokenProviders::new(|tenant: &String| Ok(of(tenant)));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let client = JwtRefreshLayer::new(of("nobody")).layer(service_fn({
        let seen = Arc::clone(&seen);
        move |request: Request<Full<Bytes>>| {
            seen.lock().unwrap().push(request.headers()["authorization"].to_str().unwrap().to_owned());
            async { Ok::<_, Infallible>(Response::new(())) }
        }
    }));
    for tenant in ["one", "two", "one", "three", "two"] {
        let request = Request::get("https://api.example.com/").extension(UseToken(providers.get(tenant).unwrap()));
        client.clone().oneshot(request.body(Full::default()).unwrap()).await.unwrap();
    }
    assert_eq!(*seen.lock().unwrap(), ["one-1", "two-1", "one-1", "three-1", "two-1"].map(|it| format!("Bearer {it}")));
    assert_eq!(providers.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn clones_share_their_providers() {
    let providers: TokenProviders<String> = TokenProviders::new(|tenant: &String| Ok(of(tenant)));
    assert!(providers.is_empty());
    let generation = providers.get("one").unwrap().token().await.unwrap().generation();
    let again = providers.clone().get(&"one".to_owned()).unwrap();
    assert_eq!(again.current().unwrap().generation(), generation);
}

// Scenario 88.
#[tokio::test(start_paused = true)]
async fn a_key_that_hangs_or_fails_or_is_refused_delays_no_other() {
    let providers = TokenProviders::new(|key: &u32| {
        let usual = match key {
            0 => Reply::Hang,
            1 => Reply::Fail,
            2 => Reply::Refuse,
            3 => Reply::Panic,
            _ => Reply::New(HOUR),
        };
        support::builder().0.build(Endpoint::new(usual).source())
    });
    let hanging = tokio::spawn({
        let provider = providers.get(&0).unwrap();
        async move { provider.token().await }
    });
    settle().await;
    let start = Instant::now();
    for key in 1..4 {
        providers.get(&key).unwrap().token().await.unwrap_err();
    }
    for key in 4..64 {
        assert_eq!(token(&providers.get(&key).unwrap()).await, "t1");
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(matches!(hanging.await.unwrap(), Err(TokenError::Unavailable { .. })));
    assert!(matches!(providers.get(&2).unwrap().token().await, Err(TokenError::NeedsCredential { .. })));
    assert_eq!(token(&providers.get(&4).unwrap()).await, "t1");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_keys_cost_a_fetch_each() {
    let calls = Calls::default();
    let providers: TokenProviders<String> = TokenProviders::new({
        let calls = calls.clone();
        move |tenant: &String| {
            calls.add(tenant);
            Ok(of(tenant))
        }
    });
    for _ in 0..3 {
        for key in 0..1000 {
            let tenant = format!("tenant{key}");
            assert_eq!(token(&providers.get(&tenant).unwrap()).await, format!("{tenant}-1"));
        }
    }
    assert_eq!(providers.len(), 1000);
    assert!((0..1000).all(|key| calls.of(&format!("tenant{key}")) == 1));
}

#[derive(Debug, PartialEq)]
struct Unknown(u32);

#[tokio::test(start_paused = true)]
async fn a_factory_that_fails_is_asked_anew_and_its_error_is_the_callers() {
    let calls = Calls::default();
    let providers = TokenProviders::new({
        let calls = calls.clone();
        move |tenant: &String| match calls.add(tenant) {
            count @ 1..3 => Err(Unknown(count)),
            _ => Ok(of(tenant)),
        }
    });
    assert_eq!(providers.get("one").unwrap_err(), Unknown(1));
    assert_eq!(providers.get("one").unwrap_err(), Unknown(2));
    assert!(providers.is_empty());
    assert_eq!(token(&providers.get("one").unwrap()).await, "one-1");
    assert_eq!((calls.of("one"), providers.len()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_factory_that_panics_harms_nobody_else() {
    let calls = Calls::default();
    let providers: TokenProviders<String> = TokenProviders::new({
        let calls = calls.clone();
        move |tenant: &String| {
            assert!(tenant != "bad" || calls.add(tenant) > 1, "the factory has a bug");
            Ok(of(tenant))
        }
    });
    let held = providers.get("good").unwrap();
    catch_unwind(AssertUnwindSafe(|| providers.get("bad"))).unwrap_err();
    assert_eq!(token(&held).await, "good-1");
    assert_eq!(token(&providers.get("other").unwrap()).await, "other-1");
    assert_eq!(token(&providers.get("bad").unwrap()).await, "bad-1");
    assert_eq!(providers.len(), 3);
}

/// A factory that asks for keys itself.
fn asking(first: &'static str, second: &'static str) -> TokenProviders<String> {
    let own: Arc<Mutex<Option<TokenProviders<String>>>> = Arc::default();
    let providers: TokenProviders<String> = TokenProviders::new({
        let own = Arc::clone(&own);
        move |tenant: &String| {
            let providers = own.lock().unwrap().clone().unwrap();
            for (key, wanted) in [("one", first), ("two", second)] {
                if tenant == key && wanted != "-" {
                    providers.get(wanted)?;
                }
            }
            Ok(of(tenant))
        }
    });
    *own.lock().unwrap() = Some(providers.clone());
    providers
}

#[tokio::test(start_paused = true)]
async fn a_factory_may_ask_for_other_keys() {
    let providers = asking("two", "-");
    assert_eq!(token(&providers.get("one").unwrap()).await, "one-1");
    assert_eq!(providers.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_factory_that_asks_for_its_own_key_is_told_so_instead_of_waiting_for_itself() {
    for (first, second) in [("one", "-"), ("two", "one")] {
        let providers = asking(first, second);
        let panic = catch_unwind(AssertUnwindSafe(|| providers.get("one"))).unwrap_err();
        assert!(panic.downcast_ref::<&str>().unwrap().contains("asked for the very key"));
        assert_eq!(token(&providers.get("three").unwrap()).await, "three-1");
        assert_eq!(providers.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_key_gets_a_new_provider_and_the_old_goes_on() {
    let calls = Calls::default();
    let providers: TokenProviders<String> = TokenProviders::new({
        let calls = calls.clone();
        move |tenant: &String| Ok(of(&format!("{tenant}{}", calls.add(tenant))))
    });
    let old = providers.get("one").unwrap();
    assert_eq!(token(&old).await, "one1-1");
    assert_eq!(token(&providers.remove("one").unwrap()).await, "one1-1");
    assert!(providers.remove("one").is_none());
    assert_eq!(token(&providers.get("one").unwrap()).await, "one2-1");
    tokio::time::sleep(SECOND).await;
    assert_eq!(old.refresh().await.unwrap().expose_secret(), "one1-2");
}

#[tokio::test(start_paused = true)]
async fn what_a_factory_began_to_make_before_its_key_was_removed_is_not_kept() {
    let (calls, own) = (Calls::default(), Arc::new(Mutex::new(None::<TokenProviders<String>>)));
    let providers: TokenProviders<String> = TokenProviders::new({
        let (calls, own) = (calls.clone(), Arc::clone(&own));
        move |tenant: &String| {
            let count = calls.add(tenant);
            if count == 1 {
                // The credential is read; now another comes.
                let providers = own.lock().unwrap().clone().unwrap();
                assert!(providers.remove(tenant.as_str()).is_none());
            }
            Ok(of(&format!("{tenant}{count}")))
        }
    });
    *own.lock().unwrap() = Some(providers.clone());
    assert_eq!(token(&providers.get("one").unwrap()).await, "one2-1");
    assert_eq!(token(&providers.get("one").unwrap()).await, "one2-1");
    own.lock().unwrap().take();
}

// Scenario 124, for all of them at once.
#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_all_fetches_and_begins_none() {
    let endpoints: Arc<Mutex<HashMap<u32, Endpoint>>> = Arc::default();
    let providers = TokenProviders::new({
        let endpoints = Arc::clone(&endpoints);
        move |key: &u32| {
            let endpoint = Endpoint::hourly().taking(SECOND * *key);
            endpoints.lock().unwrap().insert(*key, endpoint.clone());
            support::builder().0.build(endpoint.source())
        }
    });
    for key in [2, 5, 3] {
        let provider = providers.get(&key).unwrap();
        tokio::spawn(async move { provider.token().await });
    }
    providers.get(&9).unwrap();
    settle().await;
    let start = Instant::now();
    tokio::join!(providers.shutdown(), async {
        settle().await;
        let idle = providers.get(&9).unwrap();
        assert!(matches!(idle.token().await, Err(TokenError::ShutDown)), "while the others are waited for");
    });
    assert_eq!(start.elapsed(), 5 * SECOND);
    for key in [2, 5, 3] {
        let provider = providers.get(&key).unwrap();
        assert_eq!(provider.current().unwrap().expose_secret(), "t1");
        assert!(matches!(provider.token().await, Err(TokenError::ShutDown)));
    }
    for key in [9, 10] {
        assert!(matches!(providers.get(&key).unwrap().token().await, Err(TokenError::ShutDown)));
        assert_eq!(endpoints.lock().unwrap()[&key].fetches(), 0);
    }
    assert_eq!(providers.len(), 4);
}

fn paused() -> runtime::Runtime {
    runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

#[test]
fn a_shutdown_waits_no_longer_for_many_whose_runtime_is_frozen_than_for_one() {
    let providers =
        TokenProviders::new(|_: &u32| support::builder().0.build(Endpoint::hourly().taking(SECOND).source()));
    let frozen = paused();
    frozen.block_on(async {
        for key in 0..20 {
            let provider = providers.get(&key).unwrap();
            tokio::spawn(async move { provider.token().await });
        }
        settle().await;
    });
    paused().block_on(async {
        let start = Instant::now();
        providers.shutdown().await;
        let took = start.elapsed();
        assert!(took >= 31 * SECOND && took < 32 * SECOND, "{took:?}");
    });
}

#[test]
fn no_key_is_shown() {
    let providers: TokenProviders<String> = TokenProviders::new(|tenant: &String| Ok(of(tenant)));
    providers.get("secret-customer").unwrap();
    let shown = format!("{providers:?}");
    assert!(shown.starts_with("TokenProviders") && !shown.contains("customer"), "{shown}");
}
