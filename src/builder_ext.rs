//! `ServiceBuilder::new().jwt_refresh(provider)`.

use crate::{JwtRefreshLayer, TokenProvider};
use tower::{ServiceBuilder, layer::util::Stack};

/// Adds this crate's layer to [`tower::ServiceBuilder`], as tower-http does it for its own.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_jwt_refresh::{BoxError, ServiceBuilderExt, Token, TokenProvider, TokenRequest};
///
/// # let provider = TokenProvider::new(tower::service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("secret")?) }));
/// # let client = tower::service_fn(|_: http::Request<String>| async { Ok::<_, BoxError>(http::Response::new(())) });
/// let client = ServiceBuilder::new().jwt_refresh(provider).service(client);
/// ```
pub trait ServiceBuilderExt<L>: sealed::Sealed + Sized {
    /// [`JwtRefreshLayer::new`] at this place of the stack. With settings of its own, use [`ServiceBuilder::layer`]. Which place means what is on a
    /// [page](crate::docs::order).
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
