//! A kube client whose token stays fresh.

use axum::http::Request;
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tower::buffer::BufferLayer;
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, Origin, TokenProvider};

/// kube's own stack (TLS, timeouts, retries of a busy server) with the layer around it.
pub fn client(config: Config, provider: TokenProvider) -> Result<Client, BoxError> {
    // Above kube's base URI layer requests have no host yet: this is where they go.
    let uri = &config.cluster_url;
    let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
    let origin = format!("{}://{}{port}", uri.scheme_str().unwrap_or("https"), uri.host().unwrap_or_default());
    let layer = JwtRefreshLayer::new(provider)
        .assume_origin(Origin::parse(&origin)?)
        // The body type is kube's, so nobody else can say how it is copied. kube itself says: one in memory is, a stream is not,
        // and is then sent once. With `replay_none` no request is ever sent twice; a refused token is replaced all the same.
        .replay_with(Body::try_clone);
    Ok(ClientBuilder::try_from(config)?
        // kube's stack is a box that cannot be cloned; a buffer lends it to the request and to its resend.
        .with_layer(&BufferLayer::<Request<Body>>::new(64))
        .with_layer(&layer)
        .build())
}
