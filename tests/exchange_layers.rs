//! Layers around an exchange's client: an endpoint that wants a token of its own, a signature, a limit.

#[path = "support/exchange.rs"]
mod server;

use bytes::Bytes;
use http::HeaderName;
use http_body_util::Full;
use server::{Server, Step, answer, chain, exchange_error, is_permanent, nobody, ok, once, printed, provider};
use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tower::{
    Layer, ServiceBuilder,
    buffer::BufferLayer,
    layer::layer_fn,
    limit::ConcurrencyLimitLayer,
    util::{MapErrLayer, MapRequestLayer},
};
use tower_jwt_refresh::{
    BoxError, JwtRefreshLayer, TokenError, TokenProvider,
    source::{EndpointClient, EndpointError, Exchange, ExchangeBuilder},
};

type Request = http::Request<Full<Bytes>>;

const TINY: Duration = Duration::from_millis(50);

/// Hands out `{prefix}1`, `{prefix}2`, ... to those who show one of the tokens it takes.
async fn stage(prefix: &'static str, takes: &'static [&'static str]) -> Server {
    let count = AtomicUsize::new(1);
    Server::judging(move |request| {
        let shown = takes.iter().any(|token| request.contains(&format!("\r\nauthorization: Bearer {token}\r\n")));
        if !shown {
            return answer("401 Unauthorized", "", "");
        }
        let count = count.fetch_add(1, Ordering::Relaxed);
        ok(&format!(r#"{{"token":"{prefix}{count}","expires_in":3600}}"#))
    })
    .await
}

fn behind(server: &Server, first: TokenProvider) -> ExchangeBuilder {
    Exchange::post(server.url()).layer(JwtRefreshLayer::new(first))
}

fn first(server: &Server) -> TokenProvider {
    provider(Exchange::post(server.url()).bearer("durable-s3cr3t")).0
}

// Scenario 1, in two stages: a GitHub App's JWT gets the token of an installation.
#[tokio::test]
async fn a_hundred_callers_cost_one_fetch_of_each_of_two_stages() {
    let (app, installation) = (stage("app", &["durable-s3cr3t"]).await, stage("installation", &["app1"]).await);
    let (provider, _) = provider(behind(&installation, first(&app)));
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let provider = provider.clone();
            tokio::spawn(async move { provider.token().await.unwrap().expose_secret().to_owned() })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), "installation1");
    }
    assert_eq!((app.asked().len(), installation.asked().len()), (1, 1));
}

#[tokio::test]
async fn a_first_token_that_the_endpoint_refuses_is_replaced_within_the_exchange() {
    let (app, installation) = (stage("app", &["durable-s3cr3t"]).await, stage("installation", &["app2"]).await);
    let source = Exchange::post(app.url()).bearer("durable-s3cr3t").build().unwrap();
    let first = TokenProvider::builder().min_interval(Duration::from_millis(1)).build(source).unwrap();
    assert_eq!(once(behind(&installation, first)).await.unwrap().expose_secret(), "installation1");
    assert_eq!((app.asked().len(), installation.asked().len()), (2, 2));
}

// Scenario 39; Alamofire/Alamofire#3509.
#[tokio::test]
async fn a_source_behind_the_provider_that_it_feeds_is_told_so_at_once() {
    let server = stage("t", &[]).await;
    let own = Arc::new(OnceLock::<TokenProvider>::new());
    let late = Arc::clone(&own);
    let layer = layer_fn(move |client: EndpointClient| {
        let late = Arc::clone(&late);
        tower::service_fn(move |request: Request| {
            let own = late.get().expect("the provider is built by now").clone();
            let client = JwtRefreshLayer::new(own).layer(client.clone());
            tower::ServiceExt::oneshot(client, request)
        })
    });
    let (provider, _) = provider(Exchange::post(server.url()).layer(layer));
    own.set(provider.clone()).unwrap();
    let error = provider.token().await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Layer { .. }), "{error:?}");
    let text = printed(&error);
    assert!(chain(&error).any(|error| matches!(error.downcast_ref(), Some(TokenError::Recursive))), "{text}");
    assert!(text.contains("give it a client without this layer"), "{text}");
    assert!(!is_permanent(&error) && server.asked().is_empty());
}

#[tokio::test]
async fn whoever_needs_a_first_token_fares_as_its_provider_does() {
    let second = stage("t", &["app1"]).await;
    let refused = stage("app", &[]).await;
    let error = once(behind(&second, first(&refused))).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Layer { .. }), "{error:?}");
    assert!(is_permanent(&error), "somebody must act: {error:?}");
    let text = printed(&error);
    assert!(text.contains(&second.url()) && text.contains(&refused.url()), "both are named: {text}");
    assert!(!text.contains("s3cr3t"), "{text}");

    let busy = Server::new(|_| answer("503 Service Unavailable", "retry-after: 200\r\n", "")).await;
    let first = first(&busy);
    let error = once(behind(&second, first.clone())).await.unwrap_err();
    let TokenError::Unavailable { retry_in, .. } = error else { panic!("{error:?}") };
    assert_eq!(retry_in, Duration::from_secs(200), "before that the first has nothing to give");

    let down = provider(Exchange::post(nobody().await)).0;
    let error = once(behind(&second, down)).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Layer { .. }), "the other one is down: {error:?}");

    first.clear();
    assert!(is_permanent(&once(behind(&second, first)).await.unwrap_err()), "signed out");
    assert!(second.asked().is_empty());
}

#[tokio::test]
async fn what_a_layer_waits_for_ends_at_the_exchanges_timeout() {
    let hanging = Server::new(|_| vec![Step::Hang]).await;
    let second = stage("t", &["app1"]).await;
    let error = once(behind(&second, first(&hanging)).timeout(TINY)).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::TimedOut { after: TINY, .. }), "{error:?}");

    // A limit of none: never ready.
    let error =
        once(Exchange::post(second.url()).layer(ConcurrencyLimitLayer::new(0)).timeout(TINY)).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::TimedOut { after: TINY, .. }), "{error:?}");
    assert!(second.asked().is_empty());
}

// tower's limit panics if it is called unready.
#[tokio::test]
async fn a_layer_is_asked_whether_it_is_ready_before_each_exchange() {
    let server = Server::new(|_| ok(r#"{"jwt":"t"}"#)).await;
    let stack = ServiceBuilder::new().layer(BufferLayer::new(1)).layer(ConcurrencyLimitLayer::new(1));
    let source = Exchange::post(server.url()).layer(stack.into_inner()).build().unwrap();
    for count in 1..=3 {
        TokenProvider::new(source.clone()).token().await.unwrap();
        assert_eq!(server.asked().len(), count);
    }
}

#[tokio::test]
async fn the_first_layer_is_the_outermost() {
    let server = Server::new(|_| ok(r#"{"jwt":"t"}"#)).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = |name: &'static str| {
        let seen = Arc::clone(&seen);
        MapRequestLayer::new(move |request: Request| {
            seen.lock().unwrap().push(name);
            request
        })
    };
    once(Exchange::post(server.url()).layer(log("first")).layer(log("second"))).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["first", "second"]);
}

// Scenario 102; govuk-one-login/authentication-api#8427.
#[tokio::test]
async fn every_exchange_carries_an_assertion_of_its_own() {
    let server = Server::new(|count| match count {
        0 => answer("503 Service Unavailable", "", ""),
        _ => ok(&format!(r#"{{"jwt":"t{count}","expires_in":3600}}"#)),
    })
    .await;
    let minted = Arc::new(AtomicUsize::new(0));
    let layer = MapRequestLayer::new(move |mut request: Request| {
        let assertion = format!("assertion-{}", minted.fetch_add(1, Ordering::Relaxed));
        request.headers_mut().insert(HeaderName::from_static("x-assertion"), assertion.parse().unwrap());
        request
    });
    let (provider, clock) = provider(Exchange::post(server.url()).layer(layer));
    provider.token().await.unwrap_err();
    for lifetime_and_backoff in [60, 3600] {
        clock.advance(Duration::from_secs(lifetime_and_backoff));
        provider.token().await.unwrap();
    }
    for (count, request) in server.asked().iter().enumerate() {
        assert!(request.contains(&format!("\r\nx-assertion: assertion-{count}\r\n")), "{request}");
    }
    assert_eq!(server.asked().len(), 3);
}

// A layer may wrap the client's error, and change the answer's body.
#[tokio::test]
async fn behind_layers_a_failure_is_still_told_apart_and_an_answer_still_read() {
    let layers = |url: String| {
        Exchange::post(url)
            .layer(tower_http::trace::TraceLayer::new_for_http())
            .layer(BufferLayer::new(1))
            .layer(MapErrLayer::new(|error: BoxError| std::io::Error::other(error)))
    };
    let error = once(layers(nobody().await)).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Connect { .. }), "{error:?}");
    let torn = Server::new(|_| vec![Step::Send(b"HTTP/1.1 20".to_vec())]).await;
    let error = once(layers(torn.url())).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Broken { .. }), "{error:?}");
    let server = Server::new(|_| ok(r#"{"jwt":"t"}"#)).await;
    assert_eq!(once(layers(server.url())).await.unwrap().expose_secret(), "t");
}
