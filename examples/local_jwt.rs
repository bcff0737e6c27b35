//! Tokens that the program signs itself, with a key that is replaced while it runs.
//!
//! `cargo run --example local_jwt`. Its service is on loopback, knows the public keys, and verifies each request: signature, `exp`, `iat`, `iss` and
//! `aud`. Tokens live for 1 to 2 s. Fails unless every request was accepted, the one with a key just withdrawn too.

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use rcgen::KeyPair;
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_jwt_refresh::{
    BoxError, JwtRefreshLayer, TokenProvider, TokenRequest,
    source::{SignedJwt, SigningKey},
};

const ISSUER: &str = "the-program";
const AUDIENCE: &str = "the-service";

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let service = Server::serve().await?;
    let (first, second) = (KeyPair::generate()?, KeyPair::generate()?);
    service.replace_key("k1", &first)?;

    // Whichever source stands here signs the next token. A program whose key never changes hands its `SignedJwt` to the provider as it is.
    let current = Arc::new(Mutex::new(signed("k1", &first)?));
    let source = {
        let current = Arc::clone(&current);
        service_fn(move |request: TokenRequest| lock(&current).clone().oneshot(request))
    };
    let provider = TokenProvider::new(source);
    provider.init().await?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut client = ServiceBuilder::new().layer(JwtRefreshLayer::new(provider.clone())).service(client);

    let begin = Instant::now();
    let mut accepted = 0;
    for step in 0..12 {
        if step == 6 {
            // A token of the old key is in hand for sure, with time to live.
            provider.refresh().await?;
            service.replace_key("k2", &second)?;
            *lock(&current) = signed("k2", &second)?;
            println!("the key is replaced");
        }
        let request = Request::get(&service.url).body(Full::default())?;
        let response = client.ready().await?.call(request).await?;
        let (status, body) = (response.status(), response.into_body().collect().await?.to_bytes());
        accepted += u32::from(status.is_success());
        println!("after {:.1} s: {status}, {}", begin.elapsed().as_secs_f64(), String::from_utf8_lossy(&body));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    let seen = lock(&service.seen);
    let (tokens, refused) = (seen.tokens.len(), seen.refused);
    println!(
        "{accepted} of 12 accepted; the service verified {tokens} tokens, and refused {refused} signed with the old key"
    );
    if accepted != 12 || tokens < 4 || refused != 1 {
        return Err("not every request was accepted as it should be".into());
    }
    Ok(())
}

fn signed(kid: &str, key: &KeyPair) -> Result<SignedJwt, BoxError> {
    let key = SigningKey::from_pem(key.serialize_pem())?.key_id(kid);
    Ok(SignedJwt::new(key).issuer(ISSUER).audience(AUDIENCE).lifetime(Duration::from_secs(2))?)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stands in for your service.
#[derive(Clone)]
struct Server {
    url: String,
    /// By `kid`.
    keys: Arc<Mutex<HashMap<String, DecodingKey>>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// The `jti` of each.
    tokens: HashSet<String>,
    refused: u32,
}

impl Server {
    async fn serve() -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let server = Self { url, keys: Arc::default(), seen: Arc::default() };
        let router = Router::new().route("/", get(hello)).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(server)
    }

    /// Takes what this key signs, and nothing else.
    fn replace_key(&self, kid: &str, key: &KeyPair) -> Result<(), BoxError> {
        let public = DecodingKey::from_ec_pem(key.public_key_pem().as_bytes())?;
        *lock(&self.keys) = HashMap::from([(kid.to_owned(), public)]);
        Ok(())
    }

    /// Whose key signed it, its `jti`, and the seconds it has left.
    fn verify(&self, headers: &HeaderMap) -> Option<(String, String, f64)> {
        let jwt = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        let kid = decode_header(jwt).ok()?.kid?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.leeway = 0;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let claims = decode::<Value>(jwt, lock(&self.keys).get(&kid)?, &validation).ok()?.claims;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
        let left = claims["exp"].as_f64()? - now;
        let issued = claims["iat"].as_f64()? <= now;
        (issued && left > 0.0).then_some(())?;
        Some((kid, claims["jti"].as_str()?.to_owned(), left))
    }
}

async fn hello(State(server): State<Server>, headers: HeaderMap) -> Response {
    let verified = server.verify(&headers);
    let mut seen = lock(&server.seen);
    match verified {
        Some((kid, jti, left)) => {
            let text = format!("signed with {kid}, {left:.1} s left, jti {jti}");
            seen.tokens.insert(jti);
            text.into_response()
        }
        None => {
            seen.refused += 1;
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#)]).into_response()
        }
    }
}
