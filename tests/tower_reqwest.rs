//! reqwest through `tower_reqwest::HttpClientLayer`: requests and answers are the `http` crate's, bodies are reqwest's.

mod reqwest_stack;
mod support;

use http::StatusCode;
use http_body_util::BodyExt;
use reqwest::{Client, Request};
use reqwest_stack::Stack;
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{BoxError, JwtRefresh, JwtRefreshLayer};
use tower_reqwest::{HttpClientLayer, HttpClientService};

#[derive(Clone)]
struct Adapted(JwtRefresh<HttpClientService<Client>>);

impl Stack for Adapted {
    fn new(layer: JwtRefreshLayer, client: Client) -> Self {
        Self(layer.layer(HttpClientLayer.layer(client)))
    }

    async fn send(&self, request: Request) -> Result<(StatusCode, String), BoxError> {
        let request = http::Request::<reqwest::Body>::try_from(request)?;
        let response = self.0.clone().oneshot(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8(body.to_vec())?))
    }
}

reqwest_table!(Adapted);
