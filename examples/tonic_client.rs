//! A generated gRPC client whose tokens expire, are revoked and die under a stream, and no call fails for it.
//!
//! `cargo run --example tonic_client`. Its server is on loopback and takes tokens that live for 2 s.

#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, dead_code, missing_debug_implementations, rust_2018_idioms, unreachable_pub, reason = "generated")]
#[path = "../tests/echo/generated.rs"]
mod echo;

use echo::{
    Word,
    echo_client::EchoClient,
    echo_server::{Echo, EchoServer},
};
use futures_util::{Stream, StreamExt};
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, time::sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Server},
};
use tower::{Layer, service_fn};
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, Origin, Token, TokenProvider, TokenRequest};

const LIFE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (url, issuer) = serve().await?;

    // Where tokens come from: an exchange of your credential, in practice.
    let source = service_fn({
        let issuer = issuer.clone();
        move |request: TokenRequest| {
            let token = issuer.mint();
            println!("    the source mints {token}: {}", request.reason());
            async move { Ok::<_, BoxError>(Token::opaque(token)?.with_expires_in(LIFE)) }
        }
    });
    let provider = TokenProvider::new(source);
    provider.init().await?;

    // A channel's requests have no host yet, so the layer is told where they go.
    let layer = JwtRefreshLayer::new(provider).assume_origin(Origin::parse(&url)?);
    let channel = Channel::from_shared(url)?.connect().await?;
    let mut client = EchoClient::new(layer.layer(channel));

    println!("calls for 5 s, with tokens that live for {LIFE:?}:");
    let began = Instant::now();
    for number in 1..=10 {
        if number == 6 {
            issuer.revoke_all();
            println!("    all tokens are revoked, and nobody tells the client");
        }
        let said = client.say(word(&format!("call {number}"))).await?.into_inner().text;
        println!("{:>4.1} s  {said}", began.elapsed().as_secs_f64());
        sleep(Duration::from_millis(500)).await;
    }

    println!("an upload that is refused before it is read:");
    issuer.revoke_all();
    let words = tokio_stream::iter(["one", "two", "three"].map(word));
    println!("        {}", client.gather(words).await?.into_inner().text);

    println!("a stream that outlives its token:");
    let mut words = client.split(word("a b c d e f g h i j")).await?.into_inner();
    while let Some(said) = words.next().await {
        match said {
            Ok(said) => println!("        {}", said.text),
            // What has begun cannot be sent again: the caller knows where it was.
            Err(end) => println!("        {:?}, in the trailers; and at once:", end.code()),
        }
    }
    println!("        {}", client.say(word("a new call")).await?.into_inner().text);

    println!(
        "{} tokens were minted, {} times one was refused, and only what had begun was lost",
        issuer.minted(),
        issuer.refused()
    );
    Ok(())
}

fn word(text: &str) -> Word {
    Word { text: text.to_owned() }
}

/// Mints tokens, and serves who shows a living one.
#[derive(Clone, Default)]
struct Issuer(Arc<Mutex<Tokens>>);

#[derive(Default)]
struct Tokens {
    alive: HashMap<String, Instant>,
    minted: u32,
    refused: u32,
}

impl Issuer {
    fn with<T>(&self, act: impl FnOnce(&mut Tokens) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn mint(&self) -> String {
        self.with(|tokens| {
            tokens.minted += 1;
            let token = format!("token-{}", tokens.minted);
            tokens.alive.insert(token.clone(), Instant::now() + LIFE);
            token
        })
    }

    fn revoke_all(&self) {
        self.with(|tokens| tokens.alive.clear());
    }

    fn minted(&self) -> u32 {
        self.with(|tokens| tokens.minted)
    }

    fn refused(&self) -> u32 {
        self.with(|tokens| tokens.refused)
    }

    fn is_alive(&self, token: &str) -> bool {
        self.with(|tokens| tokens.alive.get(token).is_some_and(|dies| Instant::now() < *dies))
    }

    fn check<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let value = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        self.still(token).map(|()| token.to_owned())
    }

    fn still(&self, token: &str) -> Result<(), Status> {
        if self.is_alive(token) {
            return Ok(());
        }
        self.with(|tokens| tokens.refused += 1);
        println!("    the server refuses {token}");
        Err(Status::unauthenticated("invalid token"))
    }
}

async fn serve() -> Result<(String, Issuer), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let issuer = Issuer::default();
    let echo = EchoServer::new(issuer.clone());
    tokio::spawn(Server::builder().add_service(echo).serve_with_incoming(TcpListenerStream::new(listener)));
    Ok((url, issuer))
}

type Words = Pin<Box<dyn Stream<Item = Result<Word, Status>> + Send>>;

#[tonic::async_trait]
impl Echo for Issuer {
    type SplitStream = Words;
    type TalkStream = Words;

    async fn say(&self, request: Request<Word>) -> Result<Response<Word>, Status> {
        let token = self.check(&request)?;
        Ok(Response::new(word(&format!("{}, with {token}", request.into_inner().text))))
    }

    async fn gather(&self, request: Request<Streaming<Word>>) -> Result<Response<Word>, Status> {
        let token = self.check(&request)?;
        let mut words = request.into_inner();
        let mut heard = Vec::new();
        while let Some(word) = words.message().await? {
            heard.push(word.text);
        }
        Ok(Response::new(word(&format!("{}, with {token}", heard.join(" ")))))
    }

    /// Looks at the token again before each word.
    async fn split(&self, request: Request<Word>) -> Result<Response<Words>, Status> {
        let token = self.check(&request)?;
        let words: Vec<_> = request.into_inner().text.split(' ').map(str::to_owned).collect();
        let issuer = self.clone();
        let words = tokio_stream::iter(words).enumerate().then(move |(number, text)| {
            let (issuer, token) = (issuer.clone(), token.clone());
            async move {
                if number > 0 {
                    sleep(LIFE / 5).await;
                }
                issuer.still(&token)?;
                Ok(word(&format!("{text}, with {token}")))
            }
        });
        Ok(Response::new(Box::pin(words)))
    }

    async fn talk(&self, request: Request<Streaming<Word>>) -> Result<Response<Words>, Status> {
        self.check(&request)?;
        Ok(Response::new(Box::pin(request.into_inner())))
    }
}
