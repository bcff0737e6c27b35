//! What a generated client reports when there is no token, and what is to be found in that status.

mod echo;
mod support;

use echo::{EchoClient, Server, word};
use http::Uri;
use hyper_util::rt::TokioIo;
use std::{error::Error, io};
use support::{Endpoint, HOUR, Reply, settle};
use tokio::net::TcpStream;
use tonic::{Code, Status, transport::Channel};
use tower::Layer;
use tower_jwt_refresh::{FetchError, JwtRefreshLayer, Origin, ScopeError, TokenError, TokenProvider};

/// A channel that fails the test if anything is sent.
fn nowhere() -> Channel {
    Channel::from_static("http://127.0.0.1:1").connect_with_connector_lazy(tower::service_fn(connect_nowhere))
}

async fn connect_nowhere(_: Uri) -> Result<TokioIo<TcpStream>, io::Error> {
    panic!("nothing is sent")
}

async fn say(provider: &TokenProvider) -> Result<(), Status> {
    let origin = Origin::parse("http://127.0.0.1:1").unwrap();
    let channel = JwtRefreshLayer::new(provider.clone()).assume_origin(origin).layer(nowhere());
    EchoClient::new(channel).say(word("hello")).await.map(drop)
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    chain(error).find_map(|error| error.downcast_ref())
}

// Scenario 23: try again.
#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_unavailable_with_its_own_error_at_the_end_of_the_chain() {
    let (provider, _) = support::provider(&Endpoint::new(Reply::Fail));
    let status = say(&provider).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("no token: its source has been failing"), "{}", status.message());
    assert!(matches!(find(&status), Some(TokenError::Unavailable { .. })));
    assert!(matches!(find(&status), Some(FetchError::Source(_))));
    assert_eq!(chain(&status).last().unwrap().to_string(), "the endpoint is down");
}

// Somebody must act.
#[tokio::test(start_paused = true)]
async fn a_refused_credential_is_unauthenticated_with_its_own_error_at_the_end_of_the_chain() {
    let (provider, _) = support::provider(&Endpoint::new(Reply::Refuse));
    let status = say(&provider).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("repair the credential"), "{}", status.message());
    assert!(matches!(find(&status), Some(TokenError::NeedsCredential { .. })));
    assert!(matches!(find(&status), Some(FetchError::Source(_))));
    assert_eq!(chain(&status).last().unwrap().to_string(), "the credential was revoked");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_answers_is_unavailable() {
    let (provider, _) = support::provider(&Endpoint::new(Reply::Hang));
    let status = say(&provider).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(find::<TokenError>(&status).is_some());
    assert!(matches!(find(&status), Some(FetchError::TimedOut { .. })));
}

#[tokio::test(start_paused = true)]
async fn who_signed_out_or_shut_down_is_unauthenticated() {
    let (provider, _) = support::provider(&Endpoint::hourly());
    provider.clear();
    let status = say(&provider).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("signed out"), "{}", status.message());
    assert!(matches!(find(&status), Some(TokenError::SignedOut)));
    provider.shutdown().await;
    let status = say(&provider).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(matches!(find(&status), Some(TokenError::ShutDown)));
}

#[tokio::test(start_paused = true)]
async fn all_who_waited_for_one_fetch_get_the_same_error() {
    let endpoint = Endpoint::new(Reply::Fail);
    let (provider, _) = support::provider(&endpoint);
    let (one, other) = tokio::join!(say(&provider), say(&provider));
    let (one, other) = (one.unwrap_err(), other.unwrap_err());
    let cause = |status| std::ptr::from_ref(find::<FetchError>(status).unwrap());
    assert_eq!(cause(&one), cause(&other));
    assert_eq!(endpoint.fetches(), 1);
}

// Scenario 58: inside a channel the URI is a path alone.
#[tokio::test(start_paused = true)]
async fn without_an_origin_the_call_fails_and_says_what_to_call() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = support::provider(&endpoint);
    let channel = JwtRefreshLayer::new(provider).layer(nowhere());
    let status = EchoClient::new(channel).say(word("hello")).await.unwrap_err();
    assert!(matches!(find(&status), Some(ScopeError::NoOrigin)), "{status:?}");
    assert!(status.message().contains("assume_origin"), "{}", status.message());
    assert_eq!(endpoint.fetches(), 0);
}

// Scenario 58.
#[tokio::test(start_paused = true)]
async fn a_channel_to_another_machine_in_plaintext_gets_no_token() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = support::provider(&endpoint);
    let assumed = JwtRefreshLayer::new(provider.clone()).assume_origin(Origin::parse("http://example.com").unwrap());
    let assumed = EchoClient::new(assumed.layer(nowhere()));
    let named = JwtRefreshLayer::new(provider).layer(nowhere());
    let named = EchoClient::with_origin(named, Uri::from_static("http://example.com"));
    for mut client in [assumed, named] {
        let status = client.say(word("hello")).await.unwrap_err();
        assert!(matches!(find(&status), Some(ScopeError::Plaintext { .. })), "{status:?}");
        assert!(status.message().contains("allow_plaintext"), "{}", status.message());
    }
    assert_eq!(endpoint.fetches(), 0);
}

// Scenario 59.
#[tokio::test]
async fn a_client_that_is_told_its_origin_needs_none_assumed_and_others_get_no_token() {
    let (server, endpoint) = (Server::start().await, Endpoint::hourly());
    let (provider, clock) = echo::provider(&endpoint);
    let origin: Uri = server.url().parse().unwrap();
    let layer = JwtRefreshLayer::new(provider.clone());
    let mut client = EchoClient::with_origin(layer.layer(server.endpoint().connect_lazy()), origin.clone());
    client.say(word("a")).await.unwrap();
    let elsewhere = layer.allow_origin(Origin::parse("https://api.example.com").unwrap());
    let mut client = EchoClient::with_origin(elsewhere.layer(server.endpoint().connect_lazy()), origin);
    clock.advance(2 * HOUR);
    assert_eq!(client.say(word("b")).await.unwrap_err().code(), Code::Unauthenticated);
    settle().await;
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "-".into()], 0));
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_the_channels_own_error_and_no_refusal() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = echo::provider(&endpoint);
    let no_route = |_: Uri| async { Err::<TokioIo<TcpStream>, _>(io::Error::other("no route")) };
    let channel = Channel::from_static("http://127.0.0.1:1").connect_with_connector_lazy(tower::service_fn(no_route));
    let layer = JwtRefreshLayer::new(provider).assume_origin(Origin::parse("http://127.0.0.1:1").unwrap());
    let status = EchoClient::new(layer.layer(channel)).say(word("hello")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(find::<io::Error>(&status).unwrap().to_string(), "no route");
    assert!(find::<TokenError>(&status).is_none());
    settle().await;
    assert_eq!(endpoint.fetches(), 0);
}
