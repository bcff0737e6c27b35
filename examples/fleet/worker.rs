//! One process of the fleet: a few tasks that send requests through the layer, and lines that say how they fare.

use crate::options::Worker;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    io::{self, Read, Write},
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};
use tokio::time::{interval, sleep};
use tower::{Layer, Service, ServiceExt};
use tower_jwt_refresh::{
    BoxError, JwtRefresh, JwtRefreshLayer, TokenProvider,
    source::oauth2::{ClientAuth, OAuth2},
    store::{RedisStore, StoreLayer},
};

const TASKS: usize = 4;

#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    unauthorized: AtomicU64,
    failed: AtomicU64,
}

/// Until standard input ends, which it does with the fleet.
pub async fn work(worker: Worker) -> Result<(), BoxError> {
    // Not as an argument, which everybody on this machine can read.
    let mut refresh_token = String::new();
    io::stdin().read_line(&mut refresh_token)?;
    // The fleet holds the other end, and lets go of it however it ends.
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        process::exit(0);
    });

    let source = OAuth2::refresh_token(
        format!("{}/token", worker.server),
        ClientAuth::basic("fleet", "secret"),
        refresh_token.trim(),
    )
    .param("worker", worker.number.to_string())
    .no_proxy()
    .build()?;
    let builder = TokenProvider::builder().refresh_before(crate::REFRESH_BEFORE);
    let provider = match worker.store {
        None => builder.build(source)?,
        Some(url) => {
            let store = RedisStore::new(redis::Client::open(url)?, "token:fleet").with_lease(crate::LEASE);
            let shared = StoreLayer::new(store).layer(source);
            let provider = builder.build(shared.clone())?;
            // Else it would hold a token that others have replaced until its own turn comes.
            shared.follow(&provider);
            provider
        }
    };
    // An error is not the end: requests ask again.
    let _ = provider.init().await;

    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let client = JwtRefreshLayer::new(provider.clone()).layer(client);
    let seen = Arc::new(Seen::default());
    for _ in 0..TASKS {
        tokio::spawn(send(client.clone(), format!("{}/work", worker.server), Arc::clone(&seen)));
    }
    tell(&provider, &seen).await
}

async fn send(mut client: JwtRefresh<Client<HttpConnector, Full<Bytes>>>, url: String, seen: Arc<Seen>) {
    loop {
        let request = Request::get(&url).body(Full::default()).expect("a valid request");
        let answered = async {
            let answer = client.ready().await?.call(request).await?;
            let status = answer.status();
            answer.into_body().collect().await?;
            Ok::<_, BoxError>(status)
        };
        let count = match answered.await {
            Ok(StatusCode::UNAUTHORIZED) => &seen.unauthorized,
            Ok(_) => &seen.requests,
            Err(_) => &seen.failed,
        };
        count.fetch_add(1, Relaxed);
        sleep(Duration::from_millis(5)).await;
    }
}

/// A line for each change, ten a second.
async fn tell(provider: &TokenProvider, seen: &Seen) -> Result<(), BoxError> {
    let (mut tokens, mut held) = (0, None);
    let mut looks = interval(Duration::from_millis(100));
    loop {
        looks.tick().await;
        let now = provider.current().map(|token| token.generation());
        if now.is_some() && now != held {
            (tokens, held) = (tokens + 1, now);
        }
        let [good, refused, failed] =
            [&seen.requests, &seen.unauthorized, &seen.failed].map(|count| count.load(Relaxed));
        writeln!(io::stdout(), "{good} {refused} {failed} {tokens}")?;
    }
}
