//! A token in a file that somebody else replaces.

#[path = "support/files.rs"]
mod files;
mod support;

use files::{Folder, jwt, looked};
use http::StatusCode;
use support::{Api, MINUTE, SECOND, get};
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, TokenProvider, TokenStatus, clock::Clock, source::TokenFile};

async fn send(provider: &TokenProvider, api: &Api) -> StatusCode {
    let client = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
    client.oneshot(get("https://api.example.com/")).await.unwrap().status()
}

// Scenario 64; kube-rs/kube#572 and #224, pomerium/pomerium#2722, jgroups-extras/jgroups-kubernetes#239, gardener/dashboard#1331.
#[tokio::test]
async fn a_token_that_is_replaced_is_sent_within_a_minute_however_it_is_replaced() {
    let ways: [fn(&Folder, &str); 3] = [Folder::rename, Folder::swap, |folder, token| folder.write(token)];
    for replace in ways {
        let (folder, api) = (Folder::new(), Api::new());
        let (provider, clock) = folder.provider();
        let tokens = [1, 2, 3].map(|number| jwt(&clock, number));
        replace(&folder, &tokens[0]);
        assert_eq!(send(&provider, &api).await, 200);
        for token in &tokens[1..] {
            replace(&folder, token);
            clock.advance(MINUTE - SECOND);
            assert_eq!(send(&provider, &api).await, 200);
            assert_eq!(*provider.subscribe().borrow(), TokenStatus::Fresh, "no look is due yet");
            assert_eq!(looked(&provider, &clock, SECOND).await, TokenStatus::Fresh);
            assert_eq!(send(&provider, &api).await, 200);
        }
        assert_eq!(api.tokens(), [&tokens[0], &tokens[0], &tokens[1], &tokens[1], &tokens[2]].map(String::clone));
        assert_eq!(folder.reads(), 3, "no sooner than each minute");
    }
}

// Scenario 136.
#[tokio::test]
async fn a_file_that_does_not_change_is_read_once_a_minute_and_is_no_news() {
    for token in ["opaque".to_owned(), jwt(&support::builder().1, 1)] {
        let folder = Folder::new();
        folder.write(&token);
        let (provider, clock) = folder.provider();
        let first = provider.token().await.unwrap();
        for minute in 1..=54 {
            assert_eq!(looked(&provider, &clock, MINUTE).await, TokenStatus::Fresh, "minute {minute}");
            assert_eq!(provider.token().await.unwrap().generation(), first.generation());
            assert_eq!(folder.reads(), 1 + minute);
        }
    }
}

#[tokio::test]
async fn how_often_it_is_read_is_the_users_to_say() {
    let folder = Folder::new();
    folder.write("t1");
    let (provider, clock) = folder.provider_of(TokenFile::new(folder.path()).refresh_after(10 * MINUTE));
    provider.token().await.unwrap();
    folder.write("t2");
    clock.advance(10 * MINUTE - SECOND);
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t1");
    assert_eq!(*provider.subscribe().borrow(), TokenStatus::Fresh, "no look is due yet");
    looked(&provider, &clock, SECOND).await;
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t2");
    assert_eq!(folder.reads(), 2);
}

// Scenarios 16 and 64.
#[tokio::test]
async fn a_refused_token_has_the_file_read_at_once_and_the_request_sent_again() {
    let (folder, api) = (Folder::new(), Api::new());
    folder.rename("t1");
    let (provider, clock) = folder.provider();
    assert_eq!(send(&provider, &api).await, 200);
    clock.advance(30 * SECOND);
    folder.rename("t2");
    api.revoke("t1");
    assert_eq!(send(&provider, &api).await, 200);
    assert_eq!(api.tokens(), ["t1", "t1", "t2"]);
    assert_eq!(folder.reads(), 2);
}

#[tokio::test]
async fn a_refused_token_that_is_still_in_the_file_is_not_sent_again_until_the_file_changes() {
    let (folder, api) = (Folder::new(), Api::new());
    folder.rename("t1");
    let (provider, clock) = folder.provider();
    assert_eq!(send(&provider, &api).await, 200);
    clock.advance(30 * SECOND);
    api.revoke("t1");
    assert_eq!(send(&provider, &api).await, 401);
    assert_eq!(api.tokens(), ["t1", "t1"]);
    folder.rename("t2");
    clock.advance(MINUTE);
    assert_eq!(send(&provider, &api).await, 200);
    assert_eq!(api.tokens()[2..], ["t2"]);
    assert_eq!(folder.reads(), 3);
}

#[tokio::test]
async fn a_jwt_in_the_file_is_heeded_to_its_end() {
    let folder = Folder::new();
    let (provider, clock) = folder.provider();
    folder.write(jwt(&clock, 1) + "\n");
    let token = provider.token().await.unwrap();
    let left = token.expires_at().unwrap().duration_since(clock.wall()).unwrap();
    assert_eq!(left, 60 * MINUTE);
    // The writer is late; the request that finds the token dead has the file read first.
    clock.advance(61 * MINUTE);
    let next = jwt(&clock, 2);
    folder.write(&next);
    assert_eq!(provider.token().await.unwrap().expose_secret(), next);
}

#[test]
fn a_token_file_shows_its_path_and_nothing_that_is_in_it() {
    let folder = Folder::new();
    folder.write("s3cr3t");
    let shown = format!("{:?}", TokenFile::new(folder.path()));
    assert!(shown.contains("token") && !shown.contains("s3cr3t"), "{shown}");
}
