//! The table: what every stack does with a token.

use super::{Server, Stack, http1, http2, seeded};
use crate::support::{Endpoint, HOUR, Reply};
use bytes::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use http::{Method, StatusCode, Version};
use reqwest::{Body, Request};
use std::convert::Infallible;
use tower_jwt_refresh::{JwtRefreshLayer, Placement, ScopeError, TokenError, TokenProvider};

/// One test a row, for the stack that is named.
#[macro_export]
macro_rules! reqwest_table {
    ($stack:ty: $($behaviour:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $behaviour() {
            reqwest_stack::table::$behaviour::<$stack>().await;
        })*
    };
    ($stack:ty) => {
        reqwest_table!($stack:
            a_fresh_token_goes_out_at_once,
            an_expired_token_is_replaced_first,
            a_refused_request_is_sent_again_with_the_next_token,
            a_request_refused_twice_gets_its_401,
            a_401_is_the_callers_when_the_source_is_down,
            without_a_living_token_the_error_says_why,
            a_stream_refused_half_read_is_sent_again_whole,
            a_stream_over_the_limit_gets_its_401_and_the_next_call_a_new_token,
            a_dropped_caller_does_not_stop_the_flight,
            two_hundred_refusals_of_one_token_cost_one_fetch,
            what_is_in_memory_is_sent_again_whatever_its_size,
            a_request_without_a_body_stays_one,
            a_header_that_redirects_carry_away_is_refused,
            clients_that_follow_no_redirects_may_use_any_header,
        );
    };
}

fn stack<T: Stack>(provider: &TokenProvider, client: reqwest::Client) -> T {
    T::new(JwtRefreshLayer::new(provider.clone()), client)
}

fn get(server: &Server) -> Request {
    Request::new(Method::GET, server.url("/").parse().unwrap())
}

fn post(server: &Server, body: impl Into<Body>) -> Request {
    let mut request = Request::new(Method::POST, server.url("/").parse().unwrap());
    *request.body_mut() = Some(body.into());
    request
}

fn ok() -> (StatusCode, String) {
    (StatusCode::OK, "ok".into())
}

fn refused() -> (StatusCode, String) {
    (StatusCode::UNAUTHORIZED, "refused".into())
}

pub async fn a_fresh_token_goes_out_at_once<T: Stack>() {
    let (server, endpoint) = (Server::new().await, Endpoint::hourly());
    let (provider, _) = seeded(&endpoint);
    assert_eq!(stack::<T>(&provider, http1()).send(get(&server)).await.unwrap(), ok());
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".into()], 0));
    assert_eq!(server.seen()[0].headers["authorization"], "Bearer old");
}

pub async fn an_expired_token_is_replaced_first<T: Stack>() {
    let (server, endpoint) = (Server::new().await, Endpoint::hourly());
    let (provider, clock) = seeded(&endpoint);
    clock.advance(2 * HOUR);
    assert_eq!(stack::<T>(&provider, http1()).send(get(&server)).await.unwrap(), ok());
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["t1".into()], 1));
}

pub async fn a_refused_request_is_sent_again_with_the_next_token<T: Stack>() {
    for (client, version) in [(http1(), Version::HTTP_11), (http2(), Version::HTTP_2)] {
        let (server, endpoint) = (Server::refusing().await, Endpoint::hourly());
        let (provider, _) = seeded(&endpoint);
        assert_eq!(stack::<T>(&provider, client).send(post(&server, "hello")).await.unwrap(), ok());
        assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".into(), "t1".into()], 1));
        for seen in server.seen() {
            assert_eq!((&seen.body[..], seen.version), (&b"hello"[..], version));
            assert_eq!((seen.method, &seen.headers["content-length"]), (Method::POST, &"5".parse().unwrap()));
        }
    }
}

pub async fn a_request_refused_twice_gets_its_401<T: Stack>() {
    let (server, endpoint) = (Server::new().await, Endpoint::hourly());
    let (provider, _) = seeded(&endpoint);
    server.refuse_all();
    assert_eq!(stack::<T>(&provider, http1()).send(post(&server, "hello")).await.unwrap(), refused());
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".into(), "t1".into()], 1));
}

pub async fn a_401_is_the_callers_when_the_source_is_down<T: Stack>() {
    let (server, endpoint) = (Server::refusing().await, Endpoint::new(Reply::Fail));
    let (provider, _) = seeded(&endpoint);
    assert_eq!(stack::<T>(&provider, http1()).send(get(&server)).await.unwrap(), refused());
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".into()], 1));
}

pub async fn without_a_living_token_the_error_says_why<T: Stack>() {
    let (server, endpoint) = (Server::new().await, Endpoint::new(Reply::Fail));
    let (provider, clock) = seeded(&endpoint);
    clock.advance(2 * HOUR);
    let error = stack::<T>(&provider, http1()).send(get(&server)).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(TokenError::Unavailable { .. })), "{error}");
    assert!(server.seen().is_empty());
}

// Scenarios 54 and 55. The rest of the body comes once the refusal was seen.
pub async fn a_stream_refused_half_read_is_sent_again_whole<T: Stack>() {
    for client in [http1(), http2()] {
        let (server, endpoint) = (Server::refusing().await, Endpoint::hourly());
        let (provider, _) = seeded(&endpoint);
        server.refuse_early();
        let rest = {
            let endpoint = endpoint.clone();
            async move {
                endpoint.asked_times(1).await;
                Ok::<_, Infallible>(Bytes::from_static(b" and the rest"))
            }
        };
        let first = stream::iter([Ok(Bytes::from_static(b"first"))]);
        let body = Body::wrap_stream(first.chain(stream::once(rest)));
        assert_eq!(stack::<T>(&provider, client).send(post(&server, body)).await.unwrap(), ok());
        let bodies: Vec<_> = server.seen().into_iter().map(|seen| (seen.token, seen.body)).collect();
        let both = [("old".into(), Bytes::from("first")), ("t1".into(), Bytes::from("first and the rest"))];
        assert_eq!((&bodies[..], endpoint.fetches()), (&both[..], 1));
    }
}

// Scenario 54.
pub async fn a_stream_over_the_limit_gets_its_401_and_the_next_call_a_new_token<T: Stack>() {
    let (server, endpoint) = (Server::refusing().await, Endpoint::hourly());
    let (provider, _) = seeded(&endpoint);
    let stack = stack::<T>(&provider, http1());
    let chunk = Bytes::from(vec![7; 16 * 1024]);
    let body = Body::wrap_stream(stream::iter(vec![Ok::<_, Infallible>(chunk); 9]));
    assert_eq!(stack.send(post(&server, body)).await.unwrap(), refused());
    assert_eq!(stack.send(post(&server, "next")).await.unwrap(), ok());
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".into(), "t1".into()], 1));
    assert_eq!(server.seen()[0].body.len(), 9 * 16 * 1024, "it was sent whole");
}

// Scenario 85.
pub async fn a_dropped_caller_does_not_stop_the_flight<T: Stack>() {
    let (server, endpoint) = (Server::refusing().await, Endpoint::hourly());
    let (provider, _) = seeded(&endpoint);
    let stack = stack::<T>(&provider, http1());
    endpoint.shut();
    let caller = tokio::spawn({
        let (stack, request) = (stack.clone(), get(&server));
        async move { stack.send(request).await }
    });
    endpoint.asked_times(1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    endpoint.open();
    assert_eq!(stack.send(get(&server)).await.unwrap(), ok());
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".into(), "t1".into()], 1));
}

// Scenario 17.
pub async fn two_hundred_refusals_of_one_token_cost_one_fetch<T: Stack>() {
    for client in [http1(), http2()] {
        let (server, endpoint) = (Server::refusing().await, Endpoint::hourly());
        let (provider, _) = seeded(&endpoint);
        let stack = stack::<T>(&provider, client);
        server.refuse_together(200);
        let answers = join_all((0..200).map(|_| stack.send(post(&server, "hello")))).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap() == ok()));
        let tokens = server.tokens();
        let count = |token| tokens.iter().filter(|one| *one == token).count();
        assert_eq!((count("old"), count("t1"), endpoint.fetches()), (200, 200, 1));
    }
}

pub async fn what_is_in_memory_is_sent_again_whatever_its_size<T: Stack>() {
    let (server, endpoint) = (Server::refusing().await, Endpoint::hourly());
    let (provider, _) = seeded(&endpoint);
    let large: Bytes = (0..1_000_000u32).map(|at| at.to_be_bytes()[3]).collect();
    assert_eq!(stack::<T>(&provider, http1()).send(post(&server, large.clone())).await.unwrap(), ok());
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.body == large && seen.headers["content-length"] == "1000000"));
}

pub async fn a_request_without_a_body_stays_one<T: Stack>() {
    let (server, endpoint) = (Server::refusing().await, Endpoint::hourly());
    let (provider, _) = seeded(&endpoint);
    assert_eq!(stack::<T>(&provider, http1()).send(get(&server)).await.unwrap(), ok());
    assert_eq!(server.tokens(), ["old", "t1"]);
    for seen in server.seen() {
        assert!(!seen.headers.contains_key("content-length") && !seen.headers.contains_key("transfer-encoding"));
    }
}

fn with_api_key(provider: &TokenProvider) -> JwtRefreshLayer {
    JwtRefreshLayer::new(provider.clone()).place(Placement::header(http::HeaderName::from_static("x-api-key")))
}

// Scenario 59; adobe/fetch#447, apify/crawlee#4134.
pub async fn a_header_that_redirects_carry_away_is_refused<T: Stack>() {
    let (server, endpoint) = (Server::new().await, Endpoint::hourly());
    let (provider, _) = seeded(&endpoint);
    let error = T::new(with_api_key(&provider), http1()).send(get(&server)).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(ScopeError::Redirects { header }) if header == "x-api-key"), "{error}");
    let text = error.to_string();
    assert!(text.contains("redirect::Policy::none()") && text.contains("redirects_handled"), "{text}");
    assert!(server.seen().is_empty(), "it was not sent at all");
}

// Scenario 59.
pub async fn clients_that_follow_no_redirects_may_use_any_header<T: Stack>() {
    let (server, other, endpoint) = (Server::refusing().await, Server::new().await, Endpoint::hourly());
    let (provider, _) = seeded(&endpoint);
    server.move_to(other.url("/"));
    let stays = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let stack = T::new(with_api_key(&provider).redirects_handled(), stays);
    let request = Request::new(Method::GET, server.url("/moved").parse().unwrap());
    let (status, _) = stack.send(request).await.unwrap();
    assert_eq!(status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(server.seen().iter().map(|seen| &seen.headers["x-api-key"]).collect::<Vec<_>>(), ["old", "t1"]);
    assert!(other.seen().is_empty());
}
