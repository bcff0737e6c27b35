//! The callback that keeps a new refresh token: awaited before the access token is used, bounded, and never a reason to lose one.

#[path = "support/oauth2.rs"]
mod oauth2;
#[path = "support/exchange.rs"]
mod server;
mod support;

use oauth2::{Kept, oauth2_error, provider, provider_of, refreshing, request, rotating, shown, with_refresh_token};
use server::{Server, answer, ok};
use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};
use support::{HOUR, Logs, SECOND};
use tokio::sync::{Semaphore, mpsc};
use tower::{Service, ServiceExt};
use tower_jwt_refresh::source::oauth2::OAuth2Error;

#[tokio::test]
async fn the_new_refresh_token_is_kept_before_the_access_token_is_there() {
    let server = rotating().await;
    let (entered, mut entries) = mpsc::unbounded_channel();
    let permits = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&permits);
    let (provider, _) = provider(refreshing(&server).on_rotation(move |new| {
        entered.send(new.to_owned()).unwrap();
        let wait = Arc::clone(&wait);
        async move {
            wait.acquire().await?.forget();
            Ok(())
        }
    }));
    let waiting = tokio::spawn({
        let provider = provider.clone();
        async move { provider.token().await }
    });
    assert_eq!(entries.recv().await.unwrap(), "r2");
    support::settle().await;
    assert!(provider.current().is_none(), "the callback has not ended");
    permits.add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap().expose_secret(), "t1");
}

// Scenario 124.
#[tokio::test]
async fn shutdown_waits_until_the_callback_has_kept_the_new_refresh_token() {
    let server = rotating().await;
    let (kept, permits) = (Kept::default(), Arc::new(Semaphore::new(0)));
    let (entered, mut entries) = mpsc::unbounded_channel();
    let (keeper, wait) = (kept.clone(), Arc::clone(&permits));
    let (provider, _) = provider(refreshing(&server).on_rotation(move |new| {
        entered.send(()).unwrap();
        let (keeper, wait, new) = (keeper.clone(), Arc::clone(&wait), new.to_owned());
        async move {
            wait.acquire().await?.forget();
            keeper.put(&new);
            Ok(())
        }
    }));
    assert!(provider.try_token().is_none());
    entries.recv().await.unwrap();
    let down = tokio::spawn({
        let provider = provider.clone();
        async move { provider.shutdown().await }
    });
    support::settle().await;
    assert!(!down.is_finished());
    permits.add_permits(1);
    down.await.unwrap();
    assert_eq!(kept.all(), ["r2"]);
}

#[tokio::test]
async fn a_callback_that_fails_or_panics_costs_no_token_is_warned_of_once_and_called_again() {
    for panics in [false, true] {
        let (logs, _guard) = Logs::listen();
        let server =
            Server::new(
                |count| if count == 0 { with_refresh_token("r2-s3cr3t") } else { ok(r#"{"access_token":"t"}"#) },
            )
            .await;
        let kept = Kept::default();
        let keeper = kept.clone();
        let (provider, clock) = provider(refreshing(&server).on_rotation(move |new| {
            keeper.put(new);
            let calls = keeper.all().len();
            assert!(!(panics && calls <= 2), "a bug of the callback");
            async move { if calls <= 2 { Err("the disk is full".into()) } else { Ok(()) } }
        }));
        for _ in 0..5 {
            let _ = provider.refresh().await;
            clock.advance(HOUR);
        }
        assert_eq!(shown(&server), ["r1", "r2-s3cr3t", "r2-s3cr3t", "r2-s3cr3t", "r2-s3cr3t"], "panics: {panics}");
        assert_eq!(kept.all(), ["r2-s3cr3t"; 3], "until it was kept");
        let warnings: Vec<_> = logs.warnings().into_iter().filter(|line| line.contains("on_rotation")).collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(if panics { "it panicked" } else { "the disk is full" }), "{warnings:?}");
        assert!(!logs.text().contains("s3cr3t"), "{}", logs.text());
    }
}

#[tokio::test]
async fn a_callback_that_hangs_is_dropped_after_five_seconds_and_costs_no_token() {
    let (logs, _guard) = Logs::listen();
    let server = rotating().await;
    let (entered, mut entries) = mpsc::unbounded_channel();
    let gone = Arc::new(());
    let held = Arc::downgrade(&gone);
    let gone = Mutex::new(Some(gone));
    let (provider, clock) = provider(refreshing(&server).on_rotation(move |_| {
        entered.send(()).unwrap();
        let gone = gone.lock().unwrap().take();
        async move {
            if let Some(_gone) = gone {
                pending::<()>().await;
            }
            Ok(())
        }
    }));
    let waiting = tokio::spawn({
        let provider = provider.clone();
        async move { provider.token().await }
    });
    entries.recv().await.unwrap();
    // The answer is read: nothing waits for the socket while tokio's clock is moved by hand.
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(4999)).await;
    support::settle().await;
    assert!(!waiting.is_finished());
    tokio::time::advance(Duration::from_millis(2)).await;
    assert_eq!(waiting.await.unwrap().unwrap().expose_secret(), "t1");
    tokio::time::resume();
    assert_eq!(held.strong_count(), 0, "dropped");
    assert!(logs.text().contains("did not end within 5s"), "{}", logs.text());
    clock.advance(HOUR);
    provider.token().await.unwrap();
    assert_eq!(shown(&server), ["r1", "r2"]);
}

#[tokio::test]
async fn a_fetch_that_is_dropped_while_the_callback_runs_does_not_stop_it_and_the_next_waits_for_it() {
    let server = rotating().await;
    let (kept, permits) = (Kept::default(), Arc::new(Semaphore::new(0)));
    let (entered, mut entries) = mpsc::unbounded_channel();
    let (keeper, wait) = (kept.clone(), Arc::clone(&permits));
    let source = refreshing(&server).on_rotation(move |new| {
        entered.send(()).unwrap();
        let (keeper, wait, new) = (keeper.clone(), Arc::clone(&wait), new.to_owned());
        async move {
            wait.acquire().await?.forget();
            keeper.put(&new);
            Ok(())
        }
    });
    let mut source = source.build().unwrap();
    let fetch = tokio::spawn(source.ready().await.unwrap().call(request().await));
    entries.recv().await.unwrap();
    fetch.abort();
    assert!(fetch.await.unwrap_err().is_cancelled());
    let next = tokio::spawn(async move { provider_of(source).0.token().await.map(drop) });
    support::settle().await;
    assert_eq!(shown(&server), ["r1"], "the first callback has not ended");
    permits.add_permits(2);
    next.await.unwrap().unwrap();
    assert_eq!((shown(&server), kept.all()), (vec!["r1".into(), "r2".into()], vec!["r2".into(), "r3".into()]));
}

#[tokio::test]
async fn whoever_waits_too_long_for_the_refresh_token_is_told_so() {
    let server = rotating().await;
    let (entered, mut entries) = mpsc::unbounded_channel();
    let source = refreshing(&server).timeout(SECOND).on_rotation(move |_| {
        entered.send(()).unwrap();
        pending()
    });
    let source = source.build().unwrap();
    let fetch = || {
        let provider = provider_of(source.clone()).0;
        tokio::spawn(async move { provider.token().await.map(drop) })
    };
    let first = fetch();
    entries.recv().await.unwrap();
    let second = fetch();
    support::settle().await;
    tokio::time::pause();
    tokio::time::advance(SECOND / 2 + Duration::from_millis(1)).await; // the other half is the request's
    let error = second.await.unwrap().unwrap_err();
    let what = "another fetch with the same refresh token";
    assert!(matches!(oauth2_error(&error), OAuth2Error::Late { what: said, .. } if *said == what), "{error:?}");
    assert!(!first.is_finished(), "its callback has 5 s");
    tokio::time::resume();
    assert_eq!(shown(&server), ["r1"]);
}

#[tokio::test]
async fn what_the_callback_could_not_keep_is_given_to_it_again_before_it_is_shown() {
    let server = Server::new(|count| match count {
        0 => with_refresh_token("r2"),
        1 => answer("500 Internal Server Error", "", ""),
        _ => with_refresh_token("r3"),
    })
    .await;
    let kept = Kept::default();
    let (keeper, seen) = (kept.clone(), server.clone());
    let (provider, clock) = provider(refreshing(&server).on_rotation(move |new| {
        let calls = keeper.all().len();
        keeper.put(&format!("{new} after {}", seen.asked().len()));
        async move { if calls < 2 { Err("the disk is full".into()) } else { Ok(()) } }
    }));
    for _ in 0..3 {
        let _ = provider.refresh().await;
        clock.advance(HOUR);
    }
    assert_eq!(shown(&server), ["r1", "r2", "r2"]);
    assert_eq!(kept.all(), ["r2 after 1", "r2 after 1", "r2 after 2", "r3 after 3"]);
}
