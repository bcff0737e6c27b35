//! The refresh token: its successor is shown next, no error drops it, and no two fetches show the same one.

#[path = "support/oauth2.rs"]
mod oauth2;
#[path = "support/exchange.rs"]
mod server;
mod support;

use oauth2::{
    Kept, once, provider, provider_of, refreshing, request, rotating, shown, token_requests, with_refresh_token,
};
use server::{Server, Step, answer, is_permanent, ok};
use std::sync::Arc;
use support::{HOUR, SECOND};
use tokio::sync::Semaphore;
use tower::{Service, ServiceExt};
use tower_jwt_refresh::{
    ConfigError,
    source::oauth2::{ClientAuth, OAuth2, TokenEndpoint},
};

// Scenario 66.
#[tokio::test]
async fn a_new_refresh_token_is_shown_next_and_without_one_the_old_stays() {
    let server = Server::new(|count| match count {
        0 => with_refresh_token("r2"),
        1 => ok(r#"{"access_token":"t","refresh_token":null}"#),
        2 => ok(r#"{"access_token":"t","refresh_token":""}"#),
        _ => ok(r#"{"access_token":"t"}"#),
    })
    .await;
    let kept = Kept::default();
    let keeper = kept.clone();
    let (provider, clock) = provider(refreshing(&server).on_rotation(move |new| {
        keeper.put(new);
        async { Ok(()) }
    }));
    for _ in 0..4 {
        let _ = provider.refresh().await;
        clock.advance(HOUR);
    }
    assert_eq!(shown(&server), ["r1", "r2", "r2", "r2"]);
    assert_eq!(kept.all(), ["r2"], "called for a new one alone");
}

#[tokio::test]
async fn the_same_refresh_token_again_is_no_new_one() {
    let server = Server::new(|_| with_refresh_token("r1")).await;
    let kept = Kept::default();
    let keeper = kept.clone();
    once(refreshing(&server).on_rotation(move |new| {
        keeper.put(new);
        async { Ok(()) }
    }))
    .await
    .unwrap();
    assert!(kept.all().is_empty());
}

// icerockdev/moko-network#24, DuendeArchive/Support#966.
#[tokio::test]
async fn two_providers_over_one_source_never_show_the_same_refresh_token() {
    let server = rotating().await;
    let source = refreshing(&server).build().unwrap();
    let providers: Vec<_> = (0..8).map(|_| provider_of(source.clone()).0).collect();
    let waiting: Vec<_> =
        providers.into_iter().map(|provider| tokio::spawn(async move { provider.token().await.map(drop) })).collect();
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    assert_eq!(shown(&server), ["r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8"]);
}

// AlexAegis/auth#382.
#[tokio::test]
async fn a_hundred_callers_show_the_one_use_refresh_token_once() {
    let server = rotating().await;
    let (provider, _) = provider(refreshing(&server));
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let provider = provider.clone();
            tokio::spawn(async move { provider.token().await.map(|token| token.expose_secret().to_owned()) })
        })
        .collect();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().unwrap(), "t1");
    }
    assert_eq!(shown(&server), ["r1"]);
}

#[tokio::test]
async fn a_timeout_and_a_transient_failure_show_the_same_refresh_token_again() {
    let server = Server::new(|count| match count {
        0 => vec![Step::Hang],
        1 => answer("503 Service Unavailable", "", ""),
        2 => vec![Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"acc".to_vec())],
        _ => with_refresh_token("r2"),
    })
    .await;
    let (provider, clock) = provider(refreshing(&server).timeout(SECOND / 10));
    for _ in 0..3 {
        assert!(!is_permanent(&provider.token().await.unwrap_err()));
        clock.advance(HOUR);
    }
    provider.token().await.unwrap();
    assert_eq!(shown(&server), ["r1"; 4]);
}

#[tokio::test]
async fn a_fetch_that_is_dropped_before_the_answer_shows_the_same_refresh_token_again_and_blocks_nobody() {
    let server = Server::new(|count| if count == 0 { vec![Step::Hang] } else { with_refresh_token("r2") }).await;
    let mut source = refreshing(&server).build().unwrap();
    let request = request().await;
    let fetch = tokio::spawn(source.ready().await.unwrap().call(request));
    while server.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    fetch.abort();
    assert!(fetch.await.unwrap_err().is_cancelled());
    provider_of(source).0.token().await.unwrap();
    assert_eq!(shown(&server), ["r1", "r1"]);
}

#[tokio::test]
async fn a_refresh_token_is_kept_though_the_access_token_beside_it_is_of_no_use() {
    for useless in [r#""access_token":7"#, r#""access_token":"t","token_type":"DPoP""#, r#""access_token":"a\nb""#] {
        let server = Server::new(move |count| {
            if count == 0 { ok(&format!(r#"{{{useless},"refresh_token":"r2"}}"#)) } else { with_refresh_token("r3") }
        })
        .await;
        let kept = Kept::default();
        let keeper = kept.clone();
        let (provider, clock) = provider(refreshing(&server).on_rotation(move |new| {
            keeper.put(new);
            async { Ok(()) }
        }));
        provider.token().await.unwrap_err();
        assert_eq!(kept.all(), ["r2"], "{useless}");
        clock.advance(HOUR);
        provider.token().await.unwrap();
        assert_eq!(shown(&server), ["r1", "r2"], "{useless}");
    }
}

// Scenario 65; zalando/tokens#10, camunda-community-hub/zeebe-client-node-js#244.
#[tokio::test]
async fn invalid_grant_is_permanent_and_not_hammered_and_drops_nothing() {
    let server = Server::new(|count| match count {
        0 => answer("400 Bad Request", "", r#"{"error":"invalid_grant","error_description":"r1 is revoked"}"#),
        _ => with_refresh_token("r2"),
    })
    .await;
    let (provider, clock) = provider(refreshing(&server));
    for _ in 0..100 {
        assert!(is_permanent(&provider.token().await.unwrap_err()));
    }
    assert_eq!(shown(&server), ["r1"]);
    clock.advance(SECOND * 60);
    provider.token().await.unwrap();
    assert_eq!(shown(&server), ["r1", "r1"], "it may have been the server's fault");
}

// Scenario 65.
#[tokio::test]
async fn after_a_login_its_refresh_token_goes_on_and_the_provider_heals_at_once() {
    let server = oauth2::judging(|asked| match asked.param("refresh_token").as_deref() {
        Some("login") => with_refresh_token("r2"),
        _ => answer("400 Bad Request", "", r#"{"error":"invalid_grant"}"#),
    })
    .await;
    let source = refreshing(&server).build().unwrap();
    let (provider, clock) = provider_of(source.clone());
    assert!(is_permanent(&provider.token().await.unwrap_err()));
    clock.advance(SECOND);
    assert!(matches!(source.set_refresh_token("login\n").await, Err(ConfigError::IllegalCredential { .. })));
    source.set_refresh_token("login").await.unwrap();
    assert_eq!(provider.refresh().await.unwrap().expose_secret(), "t");

    let other = OAuth2::client_credentials(server.url(), ClientAuth::none()).build().unwrap();
    let refused = other.set_refresh_token("login").await;
    assert!(matches!(refused, Err(ConfigError::NotOfThisGrant { setting: "set_refresh_token", .. })), "{refused:?}");
}

#[tokio::test]
async fn refresh_tokens_that_come_with_other_grants_are_not_used() {
    let server = Server::new(|_| with_refresh_token("r2")).await;
    let (provider, clock) = provider(oauth2::client_credentials(&server));
    for _ in 0..2 {
        provider.refresh().await.unwrap();
        clock.advance(HOUR);
    }
    for asked in token_requests(&server) {
        assert_eq!(asked.param("grant_type").as_deref(), Some("client_credentials"));
    }
}

#[tokio::test]
async fn a_refresh_token_is_not_shown_with_less_than_half_of_the_time_left() {
    let permits = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&permits);
    let server = oauth2::judging(move |asked| {
        if asked.is_token_request() {
            return with_refresh_token("r2");
        }
        [vec![Step::Wait(Arc::clone(&wait))], ok(&oauth2::metadata(asked, ""))].concat()
    })
    .await;
    let place = TokenEndpoint::discover(oauth2::issuer(&server));
    let mut source = OAuth2::refresh_token(place, ClientAuth::public("id"), "r1").timeout(HOUR).build().unwrap();
    let fetch = tokio::spawn(source.ready().await.unwrap().call(request().await));
    while server.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    tokio::time::advance(HOUR * 6 / 10).await;
    tokio::time::resume();
    permits.add_permits(2);
    fetch.await.unwrap().unwrap_err();
    assert!(token_requests(&server).is_empty());
}
