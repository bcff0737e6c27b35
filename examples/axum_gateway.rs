//! An axum gateway that forwards to an API and puts a fresh token on what it forwards. All handlers share one client in their state.
//!
//! `cargo run --example axum_gateway`. The API and its clients are on loopback too. The clock is moved by hand, so that hours take no time: a program of
//! your own leaves it out.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{future::join_all, stream};
use http::{Method, StatusCode, header::AUTHORIZATION};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Barrier;
use tower::{ServiceBuilder, ServiceExt};
use tower_jwt_refresh::{
    BoxError, JwtRefresh, ServiceBuilderExt, Token, TokenError, TokenProvider, TokenRequest, clock::ManualClock,
};

/// The gateway's state, cloned for each request: the client, its connections and the token are shared.
#[derive(Clone)]
struct Gateway {
    api: SocketAddr,
    client: JwtRefresh<Client<HttpConnector, Body>>,
}

/// Streams both ways. The caller's headers stay here, its credentials among them: forward what your API needs.
async fn forward(State(gateway): State<Gateway>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let uri = format!("http://{}{}", gateway.api, head.uri.path());
    let request = match Request::builder().method(head.method).uri(uri).body(body) {
        Ok(request) => request,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match gateway.client.oneshot(request).await {
        Ok(response) => response.into_response(),
        Err(error) if error.is::<TokenError>() => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let api = Api::default();
    let clock = ManualClock::new();
    let provider = TokenProvider::builder().clock(clock.clone()).build(tower::service_fn({
        let api = api.clone();
        move |_: TokenRequest| std::future::ready(api.mint())
    }))?;
    provider.init().await?;

    let client = Client::builder(TokioExecutor::new()).build_http();
    let client = ServiceBuilder::new().jwt_refresh(provider).service(client);
    let upstream = serve(Router::new().fallback(echo).with_state(api.clone())).await?;
    let gateway = serve(Router::new().fallback(forward).with_state(Gateway { api: upstream, client })).await?;

    // From here on: what those who call the gateway see. Over HTTP/2, so that many requests need one connection only.
    let caller = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let caller = Caller { client: caller, uri: format!("http://{gateway}/jobs") };
    println!("{:42} {:12} {:38} fetches", "what happens", "callers get", "the API sees");

    api.report("a fresh token", &[caller.post(100).await?]);
    clock.advance(Duration::from_secs(2 * 3600));
    api.report("the token expired two hours ago", &[caller.post(100).await?]);
    clock.advance(Duration::from_secs(60));
    api.revoke();
    api.report("it was revoked; a stream of 100 kB", &[caller.post(100_000).await?]);
    clock.advance(Duration::from_secs(60));
    api.revoke();
    api.lock().together = Some(Arc::new(Barrier::new(100)));
    let answers = join_all((0..100).map(|_| caller.post(1000))).await;
    api.report("it was revoked; 100 requests at once", &answers.into_iter().collect::<Result<Vec<_>, _>>()?);
    api.lock().together = None;
    clock.advance(Duration::from_secs(60));
    api.revoke();
    api.report("it was revoked; a stream of 200 kB", &[caller.post(200_000).await?]);
    api.report("and the next request", &[caller.post(100).await?]);
    api.lock().down = true;
    clock.advance(Duration::from_secs(3600 - 100));
    api.report("the endpoint is down, the token lives", &[caller.post(100).await?]);
    clock.advance(Duration::from_secs(3600));
    api.report("the endpoint is down, the token is dead", &[caller.post(100).await?]);
    api.lock().down = false;
    clock.advance(Duration::from_secs(60));
    api.report("the endpoint is back", &[caller.post(100).await?]);
    println!("\nOne kind of request got a 401: a stream above 128 KiB is not recorded, so it cannot be sent again.");
    Ok(())
}

struct Caller {
    client: Client<HttpConnector, Body>,
    uri: String,
}

impl Caller {
    /// Streams so many bytes, of a length that nobody is told before the end, and wants them back.
    async fn post(&self, size: usize) -> Result<StatusCode, BoxError> {
        let bytes = Bytes::from(vec![b'x'; size]);
        let frames: Vec<_> = bytes.chunks(8192).map(|frame| Ok::<_, Infallible>(bytes.slice_ref(frame))).collect();
        let request = Request::builder().method(Method::POST).uri(&self.uri);
        let response = self.client.request(request.body(Body::from_stream(stream::iter(frames)))?).await?;
        let status = response.status();
        let echo = response.into_body().collect().await?.to_bytes();
        if status.is_success() && echo != bytes {
            return Err("the echo differs".into());
        }
        Ok(status)
    }
}

async fn serve(router: Router) -> io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// The API with its token endpoint: the newest token alone is good.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    minted: u32,
    revoked: u32,
    down: bool,
    /// Refusals wait until so many are due.
    together: Option<Arc<Barrier>>,
    fetches: u32,
    /// The number of each request's token, and whether it was accepted.
    seen: Vec<(String, bool)>,
}

async fn echo(State(api): State<Api>, request: Request) -> Response {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = token.trim_start_matches("Bearer ").to_owned();
    let accepted = {
        let mut api = api.lock();
        let number = token.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let accepted = number > api.revoked;
        api.seen.push((token, accepted));
        accepted
    };
    if accepted {
        return request.into_body().into_response();
    }
    let together = api.lock().together.clone();
    if let Some(together) = together {
        together.wait().await;
    }
    // Reads to the end before it refuses: over HTTP/1.1 a refusal in the middle of a large upload may get lost.
    match request.into_body().collect().await {
        Ok(_) => (StatusCode::UNAUTHORIZED, "Invalid JWT").into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

impl Api {
    fn mint(&self) -> Result<Token, BoxError> {
        let mut api = self.lock();
        api.fetches += 1;
        if api.down {
            return Err("the endpoint is down".into());
        }
        api.minted += 1;
        Ok(Token::opaque(format!("token-{}", api.minted))?.with_expires_in(Duration::from_secs(3600)))
    }

    fn revoke(&self) {
        let mut api = self.lock();
        api.revoked = api.minted;
    }

    /// A line of the table.
    fn report(&self, what: &str, answers: &[StatusCode]) {
        let mut api = self.lock();
        let mut seen: Vec<(String, usize)> = Vec::new();
        for (token, accepted) in std::mem::take(&mut api.seen) {
            let name = format!("{token}{}", if accepted { "" } else { " refused" });
            match seen.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => seen.push((name, 1)),
            }
        }
        let times = |count| if count == 1 { String::new() } else { format!("{count} x ") };
        let seen: Vec<_> = seen.into_iter().map(|(name, count)| format!("{}{name}", times(count))).collect();
        let seen = if seen.is_empty() { "nothing".to_owned() } else { seen.join(", ") };
        let mut statuses: Vec<_> = answers.iter().map(StatusCode::as_u16).collect();
        statuses.sort_unstable();
        statuses.dedup();
        let statuses: Vec<_> = statuses.iter().map(ToString::to_string).collect();
        let answers = format!("{}{}", times(answers.len()), statuses.join(", "));
        println!("{what:42} {answers:12} {seen:38} {}", std::mem::take(&mut api.fetches));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
