//! The way of one request: through the gate, cleaned, to the upstream with the token, and back.

use crate::{
    Body, answer, client::Client, drain::Drain, fields::Fields, gate::Gate, health, upgrade, upstream::Upstream,
};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::{pin::Pin, sync::Arc};
use tower::ServiceExt;
use tower_jwt_refresh::{BoxError, TokenProvider};

pub(crate) struct Proxy {
    pub(crate) gate: Gate,
    pub(crate) fields: Fields,
    pub(crate) upstream: Upstream,
    pub(crate) client: Client,
    pub(crate) provider: TokenProvider,
    pub(crate) drain: Arc<Drain>,
}

impl Proxy {
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let host = match self.gate.admit(&request) {
            Ok(host) => host,
            Err(refusal) => return answer::refused(&refusal),
        };
        if request.uri().path().starts_with(health::OURS) {
            return health::answer(request.method(), request.uri().path(), &self.provider);
        }
        match self.forward(&host, request).await {
            Ok(response) => response,
            Err(error) => answer::failed(&error),
        }
    }

    async fn forward(&self, host: &str, mut request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
        let Some(uri) = self.upstream.uri(request.uri().path_and_query()) else {
            return Ok(answer::text(StatusCode::BAD_REQUEST, "the request's target has no path"));
        };
        let client_side = upgrade::is_wanted(&request).then(|| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        self.fields.clean_request(&mut head.headers, client_side.is_some());
        // Boxed, so that the layer records the first 128 KiB and can send them again after a 401.
        let mut request = Request::new(body.map_err(BoxError::from).boxed());
        *request.method_mut() = head.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = head.headers;

        let mut response = self.send(request).await?;
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switched {
            let Some(client_side) = client_side.filter(|_| upgrade::is_websocket(response.headers())) else {
                return Err("it switched to a protocol that nobody asked for".into());
            };
            let upstream_side = hyper::upgrade::on(&mut response);
            tokio::spawn(upgrade::copy(client_side, upstream_side, self.drain.begin()));
        }
        let (mut head, body) = response.into_parts();
        self.fields.clean_response(&mut head.headers, switched);
        self.upstream.redirect_to_us(&mut head.headers, host);
        let mut response = Response::new(body.map_err(BoxError::from).boxed());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Ok(response)
    }

    /// Boxed, since the compiler does not see through the client's types that the whole is `Send` (rust-lang/rust#110338).
    fn send(
        &self,
        request: Request<Body>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Incoming>, BoxError>> + Send>> {
        Box::pin(self.client.clone().oneshot(request))
    }
}
