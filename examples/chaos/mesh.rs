//! A sidecar: takes plaintext from a client on this machine, and speaks TLS to the server for it.

use crate::{
    authority::Authority,
    world::{World, lock},
};
use rustls::pki_types::ServerName;
use std::{net::Ipv4Addr, sync::Arc};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use tower_jwt_refresh::BoxError;

/// Leads to this port, in HTTP/2. Gives its own.
pub async fn sidecar(world: &World, authority: &Authority, to: u16) -> Result<u16, BoxError> {
    let mut config = authority.client()?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    lock(&world.background).spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let connector = connector.clone();
            tokio::spawn(async move {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await?;
                // A small frame is not to wait for the next.
                client.set_nodelay(true)?;
                server.set_nodelay(true)?;
                let name = ServerName::try_from("localhost").expect("a name");
                let mut server = connector.connect(name, server).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    Ok(port)
}
