//! Redirects that reqwest follows below the layer, to another origin.

mod reqwest_stack;
mod support;

use reqwest::{Client, Request, Response};
use reqwest_middleware::ClientBuilder;
use reqwest_stack::{Server, http1, seeded};
use support::{Endpoint, settle};
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, Placement, TokenProvider};

async fn plain(provider: &TokenProvider, request: Request) -> Result<Response, BoxError> {
    JwtRefreshLayer::new(provider.clone()).layer(http1()).oneshot(request).await
}

async fn middleware(provider: &TokenProvider, request: Request) -> Result<Response, BoxError> {
    let client = ClientBuilder::new(http1()).with(JwtRefreshLayer::new(provider.clone())).build();
    Ok(client.execute(request).await?)
}

/// A GET for what was moved from the one to the other; the same address by another name if so wished.
fn moved(from: &Server, to: &Server, name: &str) -> Request {
    from.move_to(format!("http://{name}:{}/there", to.address.port()));
    Client::new().get(from.url("/moved")).build().unwrap()
}

// Scenarios 59 and 99; Azure/azure-sdk-for-net#59606, golang/oauth2#805.
#[tokio::test]
async fn another_origin_gets_no_token_and_its_401_rejects_nothing() {
    for name in ["127.0.0.1", "localhost"] {
        let (api, other, endpoint) = (Server::new().await, Server::new().await, Endpoint::hourly());
        let (provider, _) = seeded(&endpoint);
        other.refuse_all();
        let response = plain(&provider, moved(&api, &other, name)).await.unwrap();
        assert_eq!((response.status().as_u16(), response.url().path()), (401, "/there"));
        let response = middleware(&provider, moved(&api, &other, name)).await.unwrap();
        assert_eq!((response.status().as_u16(), response.url().path()), (401, "/there"));
        settle().await;
        assert_eq!((api.tokens(), other.tokens()), (vec!["old".to_owned(); 2], vec!["-".to_owned(); 2]));
        assert_eq!((endpoint.fetches(), provider.current().unwrap().expose_secret()), (0, "old"));
    }
}

#[tokio::test]
async fn a_redirect_within_the_origin_keeps_the_token_and_its_401_counts() {
    let (api, endpoint) = (Server::new().await, Endpoint::hourly());
    let (provider, _) = seeded(&endpoint);
    let request = moved(&api, &api, "127.0.0.1");
    assert_eq!(plain(&provider, request).await.unwrap().status(), 200);
    assert_eq!(api.tokens(), ["old", "old"]);
    api.refuse_path("/there");
    let request = moved(&api, &api, "127.0.0.1");
    assert_eq!(plain(&provider, request).await.unwrap().status(), 401);
    assert_eq!((&api.tokens()[2..], endpoint.fetches()), (&["old", "old", "t1", "t1"].map(String::from)[..], 1));
}

// Why any other header is refused: reqwest takes it along.
#[tokio::test]
async fn reqwest_itself_strips_no_header_but_authorization() {
    let (api, other) = (Server::new().await, Server::new().await);
    let (provider, _) = seeded(&Endpoint::hourly());
    let request = moved(&api, &other, "127.0.0.1");
    let place = Placement::header(http::HeaderName::from_static("x-api-key"));
    let layer = JwtRefreshLayer::new(provider).place(place).redirects_handled();
    layer.layer(http1()).oneshot(request).await.unwrap();
    assert_eq!(other.tokens(), ["old"], "said to be handled, and not so: if this fails, the refusal is needed no more");
}
