//! A gateway with a tenant per request: each has its own credential at its own issuer, and a token that no other request ever carries.
//!
//! `cargo run --all-features --example tenants`. One tenant's issuer hangs, another's refuses the credential, a token is revoked, a name is unknown; the others
//! notice nothing. All servers are on loopback. Fails if what the table says is not so.

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::future::try_join_all;
use http::{StatusCode, header::AUTHORIZATION};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle, time::timeout};
use tower::{ServiceBuilder, ServiceExt};
use tower_jwt_refresh::{
    BoxError, JwtRefresh, ServiceBuilderExt, SourceError, Token, TokenError, TokenProvider, TokenProviders,
    TokenRequest, UseToken, source::Exchange,
};

/// Requests of each tenant, all at once.
const REQUESTS: usize = 40;

// The gateway.

/// Its state, cloned for each request: client and providers are shared.
#[derive(Clone)]
struct Gateway {
    api: SocketAddr,
    client: JwtRefresh<Client<HttpConnector, Body>>,
    tenants: TokenProviders<String>,
}

async fn forward(State(gateway): State<Gateway>, request: Request) -> Response {
    let tenant = request.headers().get("x-tenant").and_then(|name| name.to_str().ok()).unwrap_or_default();
    let provider = match gateway.tenants.get(tenant) {
        Ok(provider) => provider,
        Err(error) => return (StatusCode::NOT_FOUND, error.to_string()).into_response(),
    };
    let uri = format!("http://{}{}", gateway.api, request.uri().path());
    let request = Request::get(uri).header("x-tenant", tenant).extension(UseToken(provider)).body(Body::empty());
    match gateway.client.oneshot(request.expect("made of parts of a request")).await {
        Ok(response) => response.into_response(),
        Err(error) if error.is::<TokenError>() => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// The tenants' API keys: yours are in a database, a vault, a file.
type Credentials = Arc<Mutex<HashMap<String, String>>>;

fn providers(issuers: SocketAddr, credentials: &Credentials) -> TokenProviders<String> {
    let credentials = Arc::clone(credentials);
    TokenProviders::new(move |tenant: &String| {
        let key = lock(&credentials).get(tenant).cloned().ok_or("no such tenant")?;
        let source = Exchange::post(format!("http://{issuers}/{tenant}/token"))
            .header(HeaderName::from_static("x-api-key"), key)
            .build()?;
        Ok(TokenProvider::new(source))
    })
}

/// For requests that name no tenant: they fail, instead of taking somebody's token.
fn nobody() -> TokenProvider {
    TokenProvider::new(tower::service_fn(|_: TokenRequest| async {
        Err::<Token, _>(SourceError::permanent("the request names no tenant"))
    }))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let world = World::default();
    let servers =
        Router::new().route("/{tenant}/token", post(issue)).route("/jobs", get(jobs)).with_state(world.clone());
    let servers = serve(servers).await?;

    let known = ["acme", "globex", "hooli", "initech", "umbrella"];
    let credentials: Credentials = Arc::default();
    for tenant in known {
        lock(&credentials).insert(tenant.into(), key_of(tenant));
    }
    lock(&credentials).insert("umbrella".into(), "my-api-key-of-last-year".into());
    let tenants = providers(servers, &credentials);
    let client = Client::builder(TokioExecutor::new()).build_http();
    let client = ServiceBuilder::new().jwt_refresh(nobody()).service(client);
    let gateway = Gateway { api: servers, client, tenants: tenants.clone() };
    let callers = Callers(serve(Router::new().fallback(forward).with_state(gateway)).await?);

    println!("{:50} {:10} {:>4} {:>4} {:>4} {:>8}", "what happens", "tenant", "200", "503", "404", "fetches");
    let mut table = Table { world: world.clone(), holds: true };

    let waiting = callers.send("hooli");
    timeout(Duration::from_secs(30), world.asked.notified()).await?;
    for tenant in ["acme", "globex", "initech"] {
        table.row("one issuer hangs: the others", tenant, &join(callers.send(tenant)).await?, (REQUESTS, 0, 0), 1);
    }
    table.claim("the requests of hooli still wait", waiting.iter().all(|request| !request.is_finished()));
    world.healed.notify_one();
    table.row("its issuer answers", "hooli", &join(waiting).await?, (REQUESTS, 0, 0), 1);

    table.row("an issuer refuses the key", "umbrella", &join(callers.send("umbrella")).await?, (0, REQUESTS, 0), 1);
    lock(&credentials).insert("umbrella".into(), key_of("umbrella"));
    tenants.remove("umbrella");
    table.row("a new key", "umbrella", &join(callers.send("umbrella")).await?, (REQUESTS, 0, 0), 1);

    lock(&world.tenants).of("acme").good = None;
    for (tenant, fetches) in [("acme", 1), ("globex", 0)] {
        table.row(
            "the token of acme is revoked",
            tenant,
            &join(callers.send(tenant)).await?,
            (REQUESTS, 0, 0),
            fetches,
        );
    }
    table.row("a name that nobody knows", "mallory", &join(callers.send("mallory")).await?, (0, 0, REQUESTS), 0);
    table.claim("five providers are kept", tenants.len() == known.len());
    table.claim("no request ever carried another tenant's token", !lock(&world.tenants).mixed_up);
    tenants.shutdown().await;
    if table.holds { Ok(()) } else { Err("not all of it is as it should be".into()) }
}

/// Those who call the gateway. Each request is answered with the name of the tenant that the API took it for.
struct Callers(SocketAddr);

impl Callers {
    fn send(&self, tenant: &'static str) -> Vec<JoinHandle<Result<StatusCode, BoxError>>> {
        let uri = format!("http://{}/jobs", self.0);
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let send = move |client: Client<HttpConnector, Body>, uri: String| async move {
            let response = client.request(Request::get(uri).header("x-tenant", tenant).body(Body::empty())?).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            if status == StatusCode::OK && body != tenant {
                return Err("the answer is another tenant's".into());
            }
            Ok(status)
        };
        (0..REQUESTS).map(|_| tokio::spawn(send(client.clone(), uri.clone()))).collect()
    }
}

async fn join(requests: Vec<JoinHandle<Result<StatusCode, BoxError>>>) -> Result<Vec<StatusCode>, BoxError> {
    try_join_all(requests).await?.into_iter().collect()
}

struct Table {
    world: World,
    holds: bool,
}

impl Table {
    fn row(&mut self, what: &str, tenant: &str, seen: &[StatusCode], expected: (usize, usize, usize), fetches: u32) {
        let count = |status| seen.iter().filter(|seen| **seen == status).count();
        let counts = [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE, StatusCode::NOT_FOUND].map(count);
        let [ok, unavailable, unknown] = counts;
        let fetched = std::mem::take(&mut lock(&self.world.tenants).of(tenant).fetches);
        let holds = (ok, unavailable, unknown) == expected && fetched == fetches;
        let mark = if holds { "" } else { "  <- wrong" };
        println!("{what:50} {tenant:10} {ok:4} {unavailable:4} {unknown:4} {fetched:8}{mark}");
        self.holds &= holds;
    }

    fn claim(&mut self, what: &str, holds: bool) {
        println!("{what:50} {}", if holds { "yes" } else { "no  <- wrong" });
        self.holds &= holds;
    }
}

// What stands in for the issuers and for the API that trusts them.

#[derive(Clone, Default)]
struct World {
    tenants: Arc<Mutex<Tenants>>,
    /// The issuer of hooli was asked, and it may answer.
    asked: Arc<Notify>,
    healed: Arc<Notify>,
}

#[derive(Default)]
struct Tenants {
    by_name: HashMap<String, Tenant>,
    mixed_up: bool,
}

#[derive(Default)]
struct Tenant {
    fetches: u32,
    minted: u32,
    /// The one token that is good.
    good: Option<String>,
}

impl Tenants {
    fn of(&mut self, name: &str) -> &mut Tenant {
        self.by_name.entry(name.into()).or_default()
    }
}

/// `POST /{tenant}/token`: a token for an API key.
async fn issue(State(world): State<World>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    lock(&world.tenants).of(&name).fetches += 1;
    if name == "hooli" {
        world.asked.notify_one();
        world.healed.notified().await;
    }
    if headers.get("x-api-key").is_none_or(|key| *key != key_of(&name)) {
        return (StatusCode::UNAUTHORIZED, "unknown API key").into_response();
    }
    let mut tenants = lock(&world.tenants);
    let tenant = tenants.of(&name);
    tenant.minted += 1;
    let token = format!("{name}.{}", tenant.minted);
    tenant.good = Some(token.clone());
    Json(json!({"access_token": token, "expires_in": 3600})).into_response()
}

/// `GET /jobs`: says whose token it was sent.
async fn jobs(State(world): State<World>, headers: HeaderMap) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = text(AUTHORIZATION.as_str()).trim_start_matches("Bearer ");
    let owner = token.split('.').next().unwrap_or_default();
    let mut tenants = lock(&world.tenants);
    tenants.mixed_up |= owner != text("x-tenant");
    match tenants.of(owner).good.as_deref() {
        Some(good) if good == token => owner.to_owned().into_response(),
        _ => (StatusCode::UNAUTHORIZED, "Invalid JWT").into_response(),
    }
}

fn key_of(tenant: &str) -> String {
    format!("my-api-key-of-{tenant}")
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(router: Router) -> io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}
