//! A proxy on a real socket: it leads everybody to one place, whatever name they ask for, or answers as a test says.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

#[derive(Clone, Copy)]
pub enum Does {
    /// Opens a tunnel to this port of this machine.
    Tunnel(u16),
    /// Passes the request on to this port.
    Forward(u16),
    /// Says this, and closes.
    Says(&'static str),
    Hangs,
}

#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub async fn new(does: Does) -> Self {
        Self::listen(does, None).await
    }

    /// One that is spoken to in TLS.
    pub async fn with_tls(does: Does, acceptor: TlsAcceptor) -> Self {
        Self::listen(does, Some(acceptor)).await
    }

    async fn listen(does: Does, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self { port: listener.local_addr().unwrap().port(), heads: Arc::default() };
        let this = proxy.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            this.serve(stream, does).await;
                        }
                    }
                    None => this.serve(stream, does).await,
                }
            }
        });
        proxy
    }

    /// What it was asked: the heads of requests, as they came.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S, does: Does) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        self.heads.lock().unwrap().push(String::from_utf8(head.clone()).unwrap());
        match does {
            Does::Tunnel(port) => {
                stream.write_all(b"HTTP/1.1 200 Connection established\r\nvia: 1.1 test\r\n\r\n").await.unwrap();
                join(stream, port, &[]).await;
            }
            Does::Forward(port) => join(stream, port, &head).await,
            Does::Says(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
            Does::Hangs => drop(stream.read(&mut [0]).await),
        }
    }
}

async fn join<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, port: u16, first: &[u8]) {
    let mut other = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    other.write_all(first).await.unwrap();
    let _ = copy_bidirectional(&mut stream, &mut other).await;
}

/// A SOCKS 5 proxy (RFC 1928) that leads everybody to `port`; it wants this user and password (RFC 1929), if any. Gives its own port, and what it was asked for.
pub async fn socks(port: u16, login: Option<(&'static str, &'static str)>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (own, asked) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let targets = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Ok(target) = greet(&mut stream, login).await else { continue };
            targets.lock().unwrap().push(target);
            join(stream, port, &[]).await;
        }
    });
    (own, asked)
}

async fn greet(stream: &mut TcpStream, login: Option<(&str, &str)>) -> std::io::Result<String> {
    assert_eq!(stream.read_u8().await?, 5);
    let methods = text(stream).await?;
    let method = if login.is_some() { 2 } else { 0 };
    let known = methods.bytes().any(|known| known == method);
    stream.write_all(&[5, if known { method } else { 0xff }]).await?;
    if !known {
        return Err(std::io::ErrorKind::Unsupported.into());
    }
    if let Some((user, password)) = login {
        assert_eq!(stream.read_u8().await?, 1);
        let right = text(stream).await? == user && text(stream).await? == password;
        stream.write_all(&[1, u8::from(!right)]).await?;
        if !right {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    assert_eq!(head, [5, 1, 0, 3], "connect, to a name");
    let name = text(stream).await?;
    let port = stream.read_u16().await?;
    stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).await?;
    Ok(format!("{name}:{port}"))
}

async fn text(stream: &mut TcpStream) -> std::io::Result<String> {
    let length = stream.read_u8().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(String::from_utf8(bytes).unwrap())
}
