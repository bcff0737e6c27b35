use tower_jwt_refresh::{Token, TokenError, TokenProvider};

/// Any call that takes a token and tells whether the server refused it.
pub async fn job_status<F>(provider: &TokenProvider, get: impl Fn(Token) -> F) -> Result<u16, TokenError>
where
    F: Future<Output = u16>,
{
    // At most twice: with the current token, and, if that is refused, with the next.
    provider.run(get, |status| *status == 401).await
}
