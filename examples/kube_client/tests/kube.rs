//! A kube client under the layer: the behaviours that every client stack is held to.

#[path = "../src/client.rs"]
mod client;
#[path = "../src/server.rs"]
mod server;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Config, Error,
    api::{ListParams, ObjectMeta, PostParams},
};
use server::Server;
use tower_jwt_refresh::{TokenProvider, TokenRequest};

async fn start() -> (Server, Api<ConfigMap>, TokenProvider) {
    let server = Server::default();
    let url = server.start().await.unwrap();
    let issuer = server.clone();
    let provider = TokenProvider::new(tower::service_fn(move |_: TokenRequest| {
        let token = issuer.issue();
        async { token }
    }));
    let client = client::client(Config::new(url.parse().unwrap()), provider.clone()).unwrap();
    (server, Api::default_namespaced(client), provider)
}

fn map(name: &str) -> ConfigMap {
    ConfigMap { metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }, ..ConfigMap::default() }
}

/// Fetches, requests, refusals.
fn counts(server: &Server) -> (usize, usize, usize) {
    let inner = server.inner();
    (inner.fetches, inner.requests, inner.refused)
}

fn code(error: &Error) -> u16 {
    match error {
        Error::Api(status) => status.code,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_fresh_token_is_on_every_request_and_is_fetched_once() {
    let (server, maps, _) = start().await;
    for _ in 0..3 {
        maps.list(&ListParams::default()).await.unwrap();
    }
    assert_eq!(counts(&server), (1, 3, 0));
}

#[tokio::test]
async fn a_revoked_token_is_replaced_and_the_request_sent_again_with_its_body() {
    let (server, maps, _) = start().await;
    maps.list(&ListParams::default()).await.unwrap();
    server.revoke_all();
    let created = maps.create(&PostParams::default(), &map("a")).await.unwrap();
    assert_eq!(created.metadata.name.as_deref(), Some("a"));
    assert_eq!(server.inner().created.len(), 1);
    assert_eq!(counts(&server), (2, 3, 1));
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_second_refusal_is_kubes_own_error() {
    let (server, maps, _) = start().await;
    server.inner().refuse_all = true;
    let error = maps.list(&ListParams::default()).await.unwrap_err();
    assert_eq!(code(&error), 401);
    assert_eq!(counts(&server), (2, 2, 2));
}

#[tokio::test]
async fn while_the_issuer_is_down_a_refusal_is_the_callers_and_a_living_token_goes_on() {
    let (server, maps, _) = start().await;
    maps.list(&ListParams::default()).await.unwrap();
    server.inner().issuer_down = true;
    maps.list(&ListParams::default()).await.unwrap();
    server.revoke_all();
    assert_eq!(code(&maps.list(&ListParams::default()).await.unwrap_err()), 401);
}

#[tokio::test]
async fn two_hundred_requests_that_are_refused_at_once_cost_one_fetch() {
    let (server, maps, provider) = start().await;
    provider.init().await.unwrap();
    server.revoke_all();
    let params = ListParams::default();
    for answer in join_all((0..200).map(|_| maps.list(&params))).await {
        answer.unwrap();
    }
    assert_eq!(server.inner().fetches, 2);
}
