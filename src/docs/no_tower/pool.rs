use deadpool::managed::{Manager, Metrics, RecycleResult};
use std::time::Duration;
use tokio_postgres::{Client, Config, NoTls};
use tower_jwt_refresh::{BoxError, TokenProvider};

/// Opens connections with the token as the password, as cloud databases want it.
pub struct Connections {
    pub config: Config,
    pub provider: TokenProvider,
}

impl Manager for Connections {
    type Type = Client;
    type Error = BoxError;

    async fn create(&self) -> Result<Client, BoxError> {
        // It must outlive the handshake, no more: a connection that is open stays open.
        let token = self.provider.token_valid_for(Duration::from_secs(60)).await?;
        let (client, connection) = self.config.clone().password(token.expose_secret()).connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn recycle(&self, client: &mut Client, _: &Metrics) -> RecycleResult<BoxError> {
        if client.is_closed() { Err(deadpool::managed::RecycleError::message("closed")) } else { Ok(()) }
    }
}
