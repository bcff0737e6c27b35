use crate::support::request::secret;
use axum::{Router, http::header::CONTENT_TYPE};
use serde_json::json;
use std::io;
use tokio::net::TcpListener;

/// A token endpoint on this machine: the same token for an hour, whatever it is asked. Answers its URL.
pub async fn start() -> io::Result<String> {
    let answer = json!({"access_token": secret(), "expires_in": 3600, "token_type": "Bearer"}).to_string();
    let endpoint = Router::new().fallback(move || async move { ([(CONTENT_TYPE, "application/json")], answer) });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/token", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, endpoint).await });
    Ok(url)
}
