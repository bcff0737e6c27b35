use futures_util::StreamExt;
use std::time::{Duration, SystemTime};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};
use tower_jwt_refresh::{BoxError, Placement, TokenProvider};

/// Reads messages for as long as the server has any, over one connection after the other: each is left a little before the token that it was opened
/// with dies.
pub async fn read(url: &str, provider: &TokenProvider, mut seen: impl FnMut(Message)) -> Result<(), BoxError> {
    loop {
        // Worth a connection; the same token goes on the request.
        provider.token_valid_for(Duration::from_secs(120)).await?;
        let mut request = url.into_client_request()?;
        let token = provider.authorize(request.headers_mut(), &Placement::bearer()).await?;
        let (mut socket, _) = connect_async(request).await?;

        let left = token.expires_at().map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
        // Half a minute early, or half of what a short one has left: never at once, or this would spin.
        let stay = left.map_or(Duration::MAX / 4, |left| left - (left / 2).min(Duration::from_secs(30)));
        let leave = tokio::time::sleep(stay);
        tokio::pin!(leave);
        loop {
            tokio::select! {
                message = socket.next() => match message {
                    Some(message) => seen(message?),
                    None => return Ok(()),
                },
                () = &mut leave => break,
            }
        }
        socket.close(None).await?;
    }
}
