//! The layer as a method of tower's service builder.

use crate::{JwtRefreshLayer, TokenProvider};
use tower::{ServiceBuilder, layer::util::Stack};

/// Adds [`jwt_refresh`](Self::jwt_refresh) to [`tower::ServiceBuilder`], as tower-http does it for its middleware.
///
/// It cannot be implemented for other types.
pub trait ServiceBuilderExt<L>: sealed::Sealed + Sized {
    /// A fresh token on every request, and a refused one answered by refresh and resend: a [`JwtRefreshLayer`] with its defaults.
    ///
    /// Where it stands among the other layers has a meaning: see [`docs::order`](crate::docs::order). For a layer with settings use
    /// [`ServiceBuilder::layer`].
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http_body_util::Full;
    /// use std::time::Duration;
    /// use tower::{Service, ServiceBuilder, ServiceExt};
    /// use tower_jwt_refresh::{BoxError, ServiceBuilderExt, Token, TokenProvider, TokenRequest};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("secret")?) }));
    /// # let client = tower::service_fn(|request: http::Request<Full<Bytes>>| async move {
    /// #     assert_eq!(request.headers()["authorization"], "Bearer secret");
    /// #     Ok::<_, BoxError>(http::Response::new(()))
    /// # });
    /// let mut client = ServiceBuilder::new()
    ///     .timeout(Duration::from_secs(60))
    ///     .jwt_refresh(provider)
    ///     .service(client);
    ///
    /// let request = http::Request::get("https://api.example.com/jobs/1").body(Full::<Bytes>::default())?;
    /// let response = client.ready().await?.call(request).await?;
    /// # assert!(response.status().is_success());
    /// # Ok(()) }
    /// ```
    fn jwt_refresh(self, provider: TokenProvider) -> ServiceBuilder<Stack<JwtRefreshLayer, L>>;
}

impl<L> ServiceBuilderExt<L> for ServiceBuilder<L> {
    fn jwt_refresh(self, provider: TokenProvider) -> ServiceBuilder<Stack<JwtRefreshLayer, L>> {
        self.layer(JwtRefreshLayer::new(provider))
    }
}

mod sealed {
    pub trait Sealed {}

    impl<L> Sealed for tower::ServiceBuilder<L> {}
}
