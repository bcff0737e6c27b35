//! The interceptor, for clients that take one and no channel of yours: it attaches what lives, and never waits.

mod echo;
mod support;

use echo::{EchoClient, Server, soon, word};
use http::HeaderName;
use support::{Endpoint, HOUR, MINUTE, Reply, SECOND, settle};
use tonic::{
    Code, Request,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tower_jwt_refresh::{Placement, TokenProvider, TokenStatus, clients::TokenInterceptor, clock::ManualClock};

type Client = EchoClient<InterceptedService<Channel, TokenInterceptor>>;

struct Setting {
    server: Server,
    endpoint: Endpoint,
    provider: TokenProvider,
    clock: ManualClock,
    client: Client,
}

async fn start() -> Setting {
    let (server, endpoint) = (Server::start().await, Endpoint::hourly());
    let (provider, clock) = echo::provider(&endpoint);
    let interceptor = TokenInterceptor::new(provider.clone());
    let client = EchoClient::with_interceptor(server.endpoint().connect_lazy(), interceptor);
    Setting { server, endpoint, provider, clock, client }
}

#[tokio::test]
async fn a_fresh_token_goes_into_the_metadata_of_each_call() {
    let Setting { server, endpoint, mut client, .. } = start().await;
    client.say(word("a")).await.unwrap();
    client.split(word("b c")).await.unwrap();
    assert_eq!(server.tokens(), ["old", "old"]);
    assert_eq!(server.seen()[0].headers["authorization"], "Bearer old");
    assert_eq!(endpoint.fetches(), 0);
}

#[tokio::test]
async fn a_stale_token_is_sent_at_once_and_wakes_the_refresh_for_the_next_call() {
    // Stale, and so close to its end that the layer would wait a moment.
    for age in [56 * MINUTE, HOUR - 30 * SECOND] {
        let Setting { server, endpoint, provider, clock, mut client } = start().await;
        let mut status = provider.subscribe();
        clock.advance(age);
        endpoint.shut();
        client.say(word("a")).await.unwrap();
        soon(endpoint.asked_times(1)).await;
        client.say(word("b")).await.unwrap();
        endpoint.open();
        soon(status.wait_for(|status| *status == TokenStatus::Fresh)).await.unwrap();
        client.say(word("c")).await.unwrap();
        assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "old".into(), "t1".into()], 1));
    }
}

#[tokio::test]
async fn without_a_living_token_a_call_fails_unsent_and_wakes_the_refresh() {
    let Setting { server, endpoint, provider, clock, mut client } = start().await;
    let mut status = provider.subscribe();
    clock.advance(2 * HOUR);
    let refused = client.say(word("a")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("TokenProvider::init"), "it says what to do: {refused}");
    assert!(server.tokens().is_empty());
    soon(endpoint.asked_times(1)).await;
    soon(status.wait_for(|status| *status == TokenStatus::Fresh)).await.unwrap();
    client.say(word("b")).await.unwrap();
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["t1".to_owned()], 1));
}

#[tokio::test]
async fn a_failing_endpoint_takes_no_living_token_away() {
    let Setting { server, endpoint, clock, mut client, .. } = start().await;
    endpoint.usually(Reply::Fail);
    clock.advance(HOUR - 30 * SECOND);
    for _ in 0..3 {
        client.say(word("a")).await.unwrap();
        settle().await;
    }
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(); 3], 1));
}

#[tokio::test]
async fn who_signed_out_sends_nothing_until_signed_in_again() {
    let Setting { server, provider, mut client, .. } = start().await;
    provider.clear();
    assert_eq!(client.say(word("a")).await.unwrap_err().code(), Code::Unauthenticated);
    provider.set(tower_jwt_refresh::Token::opaque("mine").unwrap());
    client.say(word("b")).await.unwrap();
    assert_eq!(server.tokens(), ["mine"]);
}

#[tokio::test]
async fn a_refused_token_is_the_callers_to_report() {
    let Setting { server, endpoint, provider, mut client, .. } = start().await;
    server.revoke("old");
    assert_eq!(client.say(word("a")).await.unwrap_err().code(), Code::Unauthenticated);
    settle().await;
    assert_eq!(endpoint.fetches(), 0, "an interceptor sees no answers");
    provider.replace(&provider.current().unwrap()).await.unwrap();
    client.say(word("b")).await.unwrap();
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "t1".into()], 1));
}

#[tokio::test]
async fn what_the_caller_set_itself_is_the_callers() {
    let Setting { server, endpoint, provider, mut client, .. } = start().await;
    provider.clear();
    let mut request = Request::new(word("a"));
    request.metadata_mut().insert("authorization", "Bearer mine".parse().unwrap());
    client.say(request).await.unwrap();
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["mine".to_owned()], 0));
}

#[tokio::test]
async fn the_token_goes_where_the_placement_says_and_is_marked_sensitive() {
    let Setting { server, provider, .. } = start().await;
    let placement = Placement::header(HeaderName::from_static("x-api-key"));
    let mut interceptor = TokenInterceptor::new(provider).place(placement);
    let metadata = interceptor.call(Request::new(())).unwrap().metadata().clone().into_headers();
    assert!(metadata["x-api-key"].is_sensitive());
    let mut client = EchoClient::with_interceptor(server.endpoint().connect_lazy(), interceptor);
    client.say(word("a")).await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!(seen.headers["x-api-key"], "old");
    assert!(!seen.headers.contains_key("authorization"));
}

// An exporter may call from a thread of its own.
#[test]
fn it_needs_no_runtime() {
    let (provider, clock) = echo::provider(&Endpoint::hourly());
    let mut interceptor = TokenInterceptor::new(provider);
    let mut attached =
        || interceptor.call(Request::new(())).map(|request| request.metadata().contains_key("authorization"));
    assert!(attached().unwrap());
    clock.advance(56 * MINUTE);
    assert!(attached().unwrap(), "stale, and alive");
    clock.advance(HOUR);
    assert_eq!(attached().unwrap_err().code(), Code::Unauthenticated);
}
