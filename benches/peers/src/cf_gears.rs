//! Its README's quick start, with a token endpoint in plaintext on this machine.

use toolkit_auth::{BearerAuthAutoRefreshLayer, BearerAuthLayer, OAuthClientConfig, SecretString, TokenProvider};
use toolkit_http::HttpClientConfig;
use tower::BoxError;

pub fn config(url: &str) -> Result<OAuthClientConfig, BoxError> {
    Ok(OAuthClientConfig {
        token_endpoint: Some(url.parse()?),
        client_id: "bench".into(),
        client_secret: SecretString::new("secret"),
        http_config: Some(HttpClientConfig::for_testing()),
        ..Default::default()
    })
}

async fn provider(url: &str) -> Result<TokenProvider, BoxError> {
    let provider = TokenProvider::new(config(url)?)?;
    provider.get().await?;
    Ok(provider)
}

/// What `with_bearer_auth` puts around the client.
pub async fn attaches(url: &str) -> Result<BearerAuthLayer, BoxError> {
    Ok(BearerAuthLayer::new(provider(url).await?))
}

/// What `with_bearer_auth_auto_refresh` puts around it.
pub async fn resends(url: &str) -> Result<BearerAuthAutoRefreshLayer, BoxError> {
    Ok(BearerAuthAutoRefreshLayer::new(provider(url).await?))
}
