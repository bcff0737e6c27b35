//! The layer as a middleware of `reqwest-middleware`.

mod reqwest_stack;
mod support;

use async_trait::async_trait;
use http::{Extensions, StatusCode};
use reqwest::{Client, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, Next};
use reqwest_stack::{Server, Stack, http1, seeded};
use support::Endpoint;
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, NoToken, RetryPolicy, ScopeError, TokenError, UseToken};

impl Stack for ClientWithMiddleware {
    fn new(layer: JwtRefreshLayer, client: Client) -> Self {
        ClientBuilder::new(client).with(layer).build()
    }

    async fn send(&self, request: Request) -> Result<(StatusCode, String), BoxError> {
        let response = self.execute(request).await.map_err(|error| -> BoxError {
            match error {
                Error::Reqwest(error) => error.into(),
                Error::Middleware(error) => match error.downcast::<TokenError>() {
                    Ok(error) => error.into(),
                    Err(error) => error.downcast::<ScopeError>().expect("nothing else comes this way").into(),
                },
            }
        })?;
        Ok((response.status(), response.text().await?))
    }
}

reqwest_table!(ClientWithMiddleware);

/// What passed a middleware that counts.
#[derive(Clone, Debug, Default, PartialEq)]
struct Passed(Vec<&'static str>);

/// Notes in the request's extensions that it was here.
struct Mark(&'static str);

#[async_trait]
impl Middleware for Mark {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response, Error> {
        extensions.get_or_insert_default::<Passed>().0.push(self.0);
        let mut response = next.run(request, extensions).await?;
        response.extensions_mut().insert(extensions.get::<Passed>().cloned().unwrap());
        Ok(response)
    }
}

/// Sends again what was answered 503, once.
struct Again;

#[async_trait]
impl Middleware for Again {
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response, Error> {
        let copy = request.try_clone().expect("a body in memory");
        let response = next.clone().run(request, extensions).await?;
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            next.run(copy, extensions).await
        } else {
            Ok(response)
        }
    }
}

#[tokio::test]
async fn a_request_takes_the_token_of_the_provider_it_names() {
    let (server, endpoint, tenants) = (Server::refusing().await, Endpoint::hourly(), Endpoint::hourly());
    let (provider, _) = seeded(&endpoint);
    let (tenant, _) = seeded(&tenants);
    let client = ClientBuilder::new(http1()).with(JwtRefreshLayer::new(provider.clone())).build();
    let response = client.get(server.url("/")).with_extension(UseToken(tenant)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(server.tokens(), ["old", "t1"]);
    assert_eq!((tenants.fetches(), endpoint.fetches()), (1, 0), "the tenant's token was refused, and no other");
    assert_eq!(provider.current().unwrap().expose_secret(), "old");
}

#[tokio::test]
async fn a_request_that_wants_no_token_goes_as_it_is_and_refuses_none() {
    let (server, endpoint) = (Server::new().await, Endpoint::hourly());
    let (provider, _) = seeded(&endpoint);
    server.refuse_all();
    let client = ClientBuilder::new(http1()).with(JwtRefreshLayer::new(provider)).build();
    let response = client.get(server.url("/")).with_extension(NoToken).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["-".into()], 0));
}

#[tokio::test]
async fn reqwests_own_error_stays_reqwests() {
    let (provider, _) = seeded(&Endpoint::hourly());
    let client = ClientBuilder::new(http1()).with(JwtRefreshLayer::new(provider)).build();
    let error = client.get("http://127.0.0.1:1/").send().await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
}

#[tokio::test]
async fn middlewares_above_see_one_request_those_below_each_sending_and_extensions_reach_all() {
    let (server, endpoint) = (Server::refusing().await, Endpoint::hourly());
    let (provider, _) = seeded(&endpoint);
    let client = ClientBuilder::new(http1())
        .with(Mark("above"))
        .with(JwtRefreshLayer::new(provider))
        .with(Mark("below"))
        .build();
    let request = client.get(server.url("/")).with_extension(Passed(vec!["caller"]));
    let response = request.send().await.unwrap();
    let passed = response.extensions().get::<Passed>();
    assert_eq!(passed, Some(&Passed(vec!["caller", "above", "below", "below"])));
}

// Scenario 80.
#[tokio::test]
async fn a_retry_above_or_below_multiplies_no_fetches() {
    for above in [true, false] {
        let (server, endpoint) = (Server::refusing().await, Endpoint::hourly());
        let (provider, _) = seeded(&endpoint);
        server.answer_next(503);
        let layer = JwtRefreshLayer::new(provider);
        let client = ClientBuilder::new(http1());
        let client = if above { client.with(Again).with(layer) } else { client.with(layer).with(Again) };
        let response = client.build().post(server.url("/")).body("hello").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".into(), "t1".into(), "t1".into()], 1));
        assert!(server.seen().iter().all(|seen| seen.body == "hello"));
    }
}

#[tokio::test]
async fn the_policy_and_the_body_strategy_of_the_layer_hold_here_too() {
    let (server, endpoint) = (Server::refusing().await, Endpoint::hourly());
    let (provider, _) = seeded(&endpoint);
    let never = JwtRefreshLayer::new(provider.clone()).retry(RetryPolicy::none());
    let response = ClientBuilder::new(http1()).with(never).build().get(server.url("/")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t1", "not resent, and still refused");
    let kept = JwtRefreshLayer::new(provider).replay_none();
    let response = ClientBuilder::new(http1()).with(kept).build().post(server.url("/")).body("x").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(server.tokens(), ["old", "t1"]);
}
