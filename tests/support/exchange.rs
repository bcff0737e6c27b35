//! A token endpoint on a real socket that answers byte by byte as a test says, well-formed or not.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

#[path = "whole_run.rs"]
#[allow(clippy::duplicate_mod, reason = "not every file that uses this one has the rest of the support")]
mod whole_run;

use std::{
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tower_jwt_refresh::{
    Token, TokenError, TokenProvider,
    clock::ManualClock,
    source::{EndpointError, Exchange, ExchangeBuilder},
};

/// What happens on a connection after the request was read; at the end it is closed.
#[derive(Clone)]
pub enum Step {
    Send(Vec<u8>),
    /// Sends this again and again, a little at a time, and for ever.
    Drip(&'static str),
    /// Sends this again and again, as fast as it is read.
    Flood(&'static str),
    /// Until the test gives a permit.
    Wait(Arc<Semaphore>),
    Hang,
    /// Closes it at once, by a reset.
    Reset,
    /// Closes it without TLS's word that this is the end.
    Vanish,
}

/// What a server speaks over.
pub trait Socket: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for tokio_rustls::server::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// A whole answer; the length is added.
pub fn answer(status: &str, headers: &str, body: &str) -> Vec<Step> {
    let length = body.len();
    vec![Step::Send(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into_bytes())]
}

pub fn ok(body: &str) -> Vec<Step> {
    answer("200 OK", "content-type: application/json\r\n", body)
}

/// `e30.<{"exp":…}>.c2ln`
pub fn jwt(exp: std::time::SystemTime) -> String {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let exp = exp.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
    format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#)))
}

/// Clones are the same server.
#[derive(Clone)]
pub struct Server {
    pub port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers the request that came as the `n`-th, from 0, with `steps(n)`.
    pub async fn new(steps: impl Fn(usize) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let (server, listener) = Self::listen().await;
        let asked = Arc::clone(&server.asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, &asked, &steps).await;
            }
        });
        server
    }

    /// Answers each request as `judge` says, who reads it, head and body.
    pub async fn judging(judge: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let (server, listener) = Self::listen().await;
        let asked = Arc::clone(&server.asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let steps = |count: usize| {
                    let request = asked.lock().unwrap()[count].clone();
                    judge(&request)
                };
                serve(stream, &asked, &steps).await;
            }
        });
        server
    }

    pub async fn listen() -> (Self, TcpListener) {
        whole_run::listen();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (Self { port, asked: Arc::default() }, listener)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api/v1/auth/token", self.port)
    }

    /// The requests, head and body as they came.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub async fn serve_one<S: Socket>(&self, stream: S, steps: &[Step]) {
        serve(stream, &self.asked, &|_| steps.to_vec()).await;
    }
}

async fn serve<S>(mut stream: S, asked: &Mutex<Vec<String>>, steps: &impl Fn(usize) -> Vec<Step>)
where
    S: Socket,
{
    let Some(request) = read_request(&mut stream).await else { return };
    whole_run::secrets_of(&request);
    let count = {
        let mut asked = asked.lock().unwrap();
        asked.push(request);
        asked.len() - 1
    };
    for step in steps(count) {
        let sent = match step {
            Step::Send(bytes) => {
                whole_run::secrets_of(&String::from_utf8_lossy(&bytes));
                stream.write_all(&bytes).await
            }
            Step::Drip(text) => loop {
                // Little by little is the point: a limit on the silence between two bytes would never end this.
                tokio::time::sleep(Duration::from_millis(2)).await;
                if let Err(error) = stream.write_all(text.as_bytes()).await {
                    break Err(error);
                }
            },
            Step::Flood(text) => loop {
                if let Err(error) = stream.write_all(text.as_bytes()).await {
                    break Err(error);
                }
            },
            Step::Wait(permits) => {
                permits.acquire().await.unwrap().forget();
                Ok(())
            }
            // Until the client is gone.
            Step::Hang => stream.read(&mut [0]).await.map(drop),
            Step::Vanish => return,
            Step::Reset => return stream.tcp().set_zero_linger().unwrap(),
        };
        if sent.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A closed port.
pub async fn nobody() -> String {
    let (server, listener) = Server::listen().await;
    drop(listener);
    server.url()
}

pub fn exchange(server: &Server) -> ExchangeBuilder {
    Exchange::post(server.url()).header(http::HeaderName::from_static("x-api-key"), "durable-s3cr3t")
}

/// A provider with clocks that stand still: time passes when the test says so.
pub fn provider(source: ExchangeBuilder) -> (TokenProvider, ManualClock) {
    let clock = ManualClock::new();
    (TokenProvider::builder().clock(clock.clone()).build(source.build().unwrap()).unwrap(), clock)
}

/// One exchange.
pub async fn once(source: ExchangeBuilder) -> Result<Token, TokenError> {
    provider(source).0.token().await
}

pub fn exchange_error(error: &TokenError) -> &EndpointError {
    chain(error).find_map(|error| error.downcast_ref()).expect("an error of the exchange")
}

pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// All that anybody could print of it.
pub fn printed(error: &(dyn Error + 'static)) -> String {
    let text: String = chain(error).map(|error| format!("{error}: {error:?}\n")).collect();
    whole_run::print(&text);
    text
}

pub fn is_permanent(error: &TokenError) -> bool {
    matches!(error, TokenError::NeedsCredential { .. })
}
