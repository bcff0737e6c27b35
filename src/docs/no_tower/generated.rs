use http::HeaderMap;
use tower_jwt_refresh::{Placement, TokenError, TokenProvider};

/// The hook that a generated API client calls before each request.
pub async fn before_request(headers: &mut HeaderMap, provider: &TokenProvider) -> Result<(), TokenError> {
    provider.authorize(headers, &Placement::bearer()).await?;
    Ok(())
}
