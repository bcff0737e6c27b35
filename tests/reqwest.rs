//! `reqwest::Client` itself under the layer, as the tower service that it is.

mod reqwest_stack;
mod support;

use bytes::Bytes;
use http::{Method, StatusCode};
use reqwest::{Client, Request, Version};
use reqwest_stack::{Server, Stack, http1, seeded};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use support::Endpoint;
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit};
use tower_jwt_refresh::{BoxError, JwtRefresh, JwtRefreshLayer, Placement};

#[derive(Clone)]
struct Plain(JwtRefresh<Client>);

impl Stack for Plain {
    fn new(layer: JwtRefreshLayer, client: Client) -> Self {
        Self(layer.layer(client))
    }

    async fn send(&self, request: Request) -> Result<(StatusCode, String), BoxError> {
        let response = self.0.clone().oneshot(request).await?;
        Ok((response.status(), response.text().await?))
    }
}

reqwest_table!(Plain);

/// A refused request as reqwest was given it, twice; it is sent nowhere.
async fn both_sends(request: Request) -> Vec<Request> {
    let sends = Arc::new(Mutex::new(Vec::new()));
    let client = tower::service_fn({
        let sends = Arc::clone(&sends);
        move |request: Request| {
            let mut sends = sends.lock().unwrap();
            sends.push(request);
            let status = if sends.len() == 1 { 401 } else { 200 };
            let answer = http::Response::builder().status(status).body("").unwrap();
            async move { Ok::<_, BoxError>(tower_answer(answer)) }
        }
    });
    let (provider, _) = seeded(&Endpoint::hourly());
    let answer = JwtRefreshLayer::new(provider).layer(client).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    std::mem::take(&mut sends.lock().unwrap())
}

/// As if it came from where the request went.
fn tower_answer(mut answer: http::Response<&'static str>) -> reqwest::Response {
    use reqwest::ResponseBuilderExt;
    let url = http::Response::builder().url("http://127.0.0.1/".parse().unwrap()).body(()).unwrap();
    *answer.extensions_mut() = url.into_parts().0.extensions;
    answer.into()
}

#[tokio::test]
async fn timeout_version_headers_and_url_are_kept_on_the_resend() {
    let mut request = Request::new(Method::PUT, "http://127.0.0.1/x?y=1".parse().unwrap());
    *request.timeout_mut() = Some(Duration::from_secs(7));
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().append("x-page", "1".parse().unwrap());
    request.headers_mut().append("x-page", "2".parse().unwrap());
    let sends = both_sends(request).await;
    let tokens: Vec<_> = sends.iter().map(|sent| &sent.headers()["authorization"]).collect();
    assert_eq!(tokens, ["Bearer old", "Bearer t1"]);
    for sent in &sends {
        assert_eq!((sent.timeout(), sent.version()), (Some(&Duration::from_secs(7)), Version::HTTP_2));
        assert_eq!((sent.method(), sent.url().as_str()), (&Method::PUT, "http://127.0.0.1/x?y=1"));
        assert_eq!(sent.headers().get_all("x-page").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert!(sent.body().is_none());
    }
}

#[tokio::test]
async fn a_body_in_memory_is_shared_and_not_copied() {
    let mut request = Request::new(Method::POST, "http://127.0.0.1/".parse().unwrap());
    let body = Bytes::from(vec![7; 1 << 20]);
    *request.body_mut() = Some(body.clone().into());
    let sends = both_sends(request).await;
    assert_eq!(sends.len(), 2);
    for sent in &sends {
        assert_eq!(sent.body().and_then(|body| body.as_bytes()).map(<[u8]>::as_ptr), Some(body.as_ptr()));
    }
}

// Scenario 85: a refused request gives its place back at once.
#[tokio::test]
async fn a_request_refused_for_its_header_holds_no_permit() {
    let (provider, _) = seeded(&Endpoint::hourly());
    let layer = JwtRefreshLayer::new(provider).place(Placement::header(http::HeaderName::from_static("x-api-key")));
    let limited = ConcurrencyLimit::new(http1(), 1);
    let mut service = layer.layer(limited.clone());
    let request = Request::new(Method::GET, "http://127.0.0.1/".parse().unwrap());
    service.ready().await.unwrap().call(request).await.unwrap_err();
    let mut limited = limited;
    assert!(tokio_test::task::spawn(limited.ready()).poll().is_ready(), "nobody uses it");
}

#[tokio::test]
async fn reqwests_own_error_comes_as_it_is() {
    let server = Server::new().await;
    let (provider, _) = seeded(&Endpoint::hourly());
    let request = Request::new(Method::GET, "http://127.0.0.1:1/".parse().unwrap());
    let error = Plain::new(JwtRefreshLayer::new(provider), http1()).send(request).await.unwrap_err();
    assert!(error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect), "{error}");
    assert!(server.seen().is_empty());
}
