//! A fetch with a refresh token on a runtime that nobody drives any more: it locks nobody out, and does no harm when it runs again.

#[path = "support/oauth2.rs"]
mod oauth2;
#[path = "support/exchange.rs"]
mod server;
mod support;

use oauth2::{Kept, provider_of, refreshing, rotating, shown, with_refresh_token};
use server::{Server, Step, ok};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use support::{HOUR, SECOND};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Semaphore, mpsc},
};
use tower_jwt_refresh::{TokenProvider, source::oauth2::OAuth2};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// The limit of a fetch and of its callback, and a bit.
async fn until_the_turn_is_overdue() {
    tokio::time::pause();
    tokio::time::advance(SECOND * 26).await;
    tokio::time::resume();
}

/// Begins a fetch on a runtime that is driven until the test has seen `begun`, and not after.
fn freeze(source: &OAuth2, begun: impl Future<Output = ()>) -> (Runtime, TokenProvider) {
    let (runtime, provider) = (current_thread(), provider_of(source.clone()).0);
    let asking = provider.clone();
    runtime.spawn(async move { asking.token().await.map(drop) });
    runtime.block_on(begun);
    (runtime, provider)
}

/// Answers the connection that came as the `n`-th, from 0, with `steps(n)`, whatever the others do.
async fn serve(steps: impl Fn(usize) -> Vec<Step> + Send + 'static) -> Server {
    let (server, listener) = Server::listen().await;
    let serving = server.clone();
    tokio::spawn(async move {
        for count in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let (serving, steps) = (serving.clone(), steps(count));
            tokio::spawn(async move { serving.serve_one(stream, &steps).await });
        }
    });
    server
}

fn serving() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn asked_once(server: &Server) {
    while server.asked().is_empty() {
        tokio::task::yield_now().await;
    }
}

// Scenario 133.
#[test]
fn a_fetch_on_a_frozen_runtime_keeps_the_refresh_token_from_nobody_for_long() {
    let serving = serving();
    let server = serving
        .block_on(async { serve(|count| if count == 0 { vec![Step::Hang] } else { with_refresh_token("r2") }).await });
    let source = refreshing(&server).build().unwrap();
    let _frozen = freeze(&source, asked_once(&server));
    current_thread().block_on(async {
        until_the_turn_is_overdue().await;
        let (provider, clock) = provider_of(source);
        provider.token().await.unwrap();
        clock.advance(HOUR);
        provider.token().await.unwrap();
    });
    assert_eq!(shown(&server), ["r1", "r1", "r2"]);
}

// Scenario 133.
#[test]
fn a_login_waits_for_a_frozen_fetch_until_it_is_overdue_and_no_longer() {
    let serving = serving();
    let permits = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&permits);
    let server = serving.block_on(async move {
        serve(move |count| match count {
            0 => [vec![Step::Wait(Arc::clone(&wait))], with_refresh_token("r2")].concat(),
            _ => ok(r#"{"access_token":"t"}"#),
        })
        .await
    });
    let source = refreshing(&server).build().unwrap();
    let (frozen, late) = freeze(&source, asked_once(&server));
    current_thread().block_on(async {
        tokio::time::pause();
        let login = tokio::spawn({
            let source = source.clone();
            async move { source.set_refresh_token("login").await.unwrap() }
        });
        tokio::time::advance(SECOND * 24).await;
        support::settle().await;
        assert!(!login.is_finished());
        tokio::time::advance(SECOND * 2).await;
        login.await.unwrap();
    });
    // The frozen fetch runs again, and gets a successor of the token before the login.
    permits.add_permits(1);
    frozen.block_on(async { late.token().await.map(drop) }).unwrap();
    current_thread().block_on(async { provider_of(source).0.token().await.map(drop) }).unwrap();
    assert_eq!(shown(&server), ["r1", "login"]);
}

#[test]
fn a_successor_that_reaches_an_overdue_fetch_is_kept_if_there_is_no_newer_one() {
    let serving = serving();
    let permits = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&permits);
    let server = serving.block_on(async move {
        serve(move |count| match count {
            0 => [vec![Step::Wait(Arc::clone(&wait))], with_refresh_token("r2")].concat(),
            1 => server::answer("400 Bad Request", "", r#"{"error":"invalid_grant"}"#),
            _ => ok(r#"{"access_token":"t"}"#),
        })
        .await
    });
    let source = refreshing(&server).build().unwrap();
    let (frozen, late) = freeze(&source, asked_once(&server));
    current_thread().block_on(async {
        until_the_turn_is_overdue().await;
        provider_of(source.clone()).0.token().await.unwrap_err();
    });
    permits.add_permits(1);
    frozen.block_on(async { late.token().await.map(drop) }).unwrap();
    current_thread().block_on(async { provider_of(source).0.token().await.map(drop) }).unwrap();
    assert_eq!(shown(&server), ["r1", "r1", "r2"]);
}

#[test]
fn a_callback_that_was_frozen_until_its_turn_was_over_does_not_go_on() {
    let serving = serving();
    let server = serving.block_on(rotating());
    let (kept, permits) = (Kept::default(), Arc::new(Semaphore::new(0)));
    let (entered, mut entries) = mpsc::unbounded_channel();
    let (keeper, wait) = (kept.clone(), Arc::clone(&permits));
    let source = refreshing(&server).on_rotation(move |new| {
        entered.send(()).unwrap();
        let (keeper, wait, new) = (keeper.clone(), Arc::clone(&wait), new.to_owned());
        async move {
            if new == "r2" {
                wait.acquire().await?.forget();
            }
            keeper.put(&new);
            Ok(())
        }
    });
    let source = source.build().unwrap();
    let (frozen, late) = freeze(&source, async { entries.recv().await.unwrap() });
    current_thread().block_on(async {
        until_the_turn_is_overdue().await;
        source.set_refresh_token("r2").await.unwrap();
        provider_of(source.clone()).0.token().await.unwrap();
    });
    permits.add_permits(1);
    frozen.block_on(async { late.token().await.map(drop) }).unwrap();
    assert_eq!(kept.all(), ["r3"], "an old one over a new one");
    assert_eq!(shown(&server), ["r1", "r2"]);
}

#[test]
fn a_fetch_that_was_frozen_before_it_asked_does_not_show_what_is_spent() {
    let serving = serving();
    let server = serving.block_on(rotating());
    let (entered, mut entries) = mpsc::unbounded_channel();
    let calls = AtomicUsize::new(0);
    let source = refreshing(&server).on_rotation(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        entered.send(()).unwrap();
        async move {
            match call {
                0 => Err("the disk is full".into()),
                1 => std::future::pending().await,
                _ => Ok(()),
            }
        }
    });
    let source = source.build().unwrap();
    current_thread().block_on(async { provider_of(source.clone()).0.token().await.map(drop) }).unwrap();
    // The second call, before r2 is shown.
    let (frozen, late) = freeze(&source, async {
        entries.recv().await.unwrap();
        entries.recv().await.unwrap();
    });
    current_thread().block_on(async {
        until_the_turn_is_overdue().await;
        provider_of(source.clone()).0.token().await.unwrap();
    });
    frozen.block_on(async { late.token().await.map(drop) }).unwrap_err();
    assert_eq!(shown(&server), ["r1", "r2"]);
}
