//! No token and no credential in a log line, a `Debug` or an error, in a life full of trouble.

mod support;

use bytes::Bytes;
use http::{HeaderName, Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use std::{
    collections::VecDeque,
    error::Error,
    fmt::{Debug, Write},
    future::Ready,
    sync::{Arc, Mutex},
    time::SystemTime,
};
use support::{Api, HOUR, Logs, MINUTE, SECOND, builder, get, pass, post};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, buffer::Buffer, retry::Policy, service_fn};
use tower_jwt_refresh::{
    Attempt, JwtRefreshLayer, OnUnavailable, Placement, RetryPolicy, SourceError, Token, TokenProvider, TokenRequest,
    UseToken, clock::ManualClock,
};

const URI: &str = "https://api.example.com/jobs/1?key=cr3dential";
/// In every token; the source's credential holds `cr3dential`.
const SECRETS: [&str; 4] = ["s3cr3t", "cr3dential", "czNjcjN0", "c2VjcmV0"];

fn holds_none(text: &str, what: &str) {
    for secret in SECRETS {
        for line in text.lines() {
            assert!(!line.contains(secret), "`{secret}` in {what}: {line}");
        }
    }
}

/// An error in all its forms, with its causes.
fn all_of(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| (*error).source()).fold(String::new(), |mut text, error| {
        write!(text, "{error}\n{error:?}\n{error:#?}\n").unwrap();
        text
    })
}

/// What the source does next; else it mints a token that lives for an hour.
#[derive(Clone, Copy)]
enum Next {
    Fail,
    Refuse,
    Busy,
    Panic,
    Hang,
    /// Bytes that no header can hold.
    Illegal,
    NoJwt,
    /// A token that says something absurd of its end.
    Absurd,
    BornDead,
    NotYetValid,
    Same,
}

struct World {
    api: Api,
    clock: ManualClock,
    provider: TokenProvider,
    next: Arc<Mutex<VecDeque<Next>>>,
    debugs: Arc<Mutex<String>>,
}

impl World {
    fn new() -> Self {
        let (builder, clock) = builder();
        let (next, debugs) = (Arc::new(Mutex::new(VecDeque::new())), Arc::new(Mutex::new(String::new())));
        let credential = Arc::new("cr3dential".to_owned());
        let (mut minted, queue, debug) = (0, Arc::clone(&next), Arc::clone(&debugs));
        let source = service_fn(move |request: TokenRequest| {
            write!(debug.lock().unwrap(), "{request:#?} {}", request.reason()).unwrap();
            minted += 1;
            let next = queue.lock().unwrap().pop_front();
            let credential = Arc::clone(&credential);
            let token = format!("s3cr3t{minted}");
            async move {
                assert!(!credential.is_empty());
                let fresh = || Ok::<_, BoxError>(Token::opaque(token.as_str())?.with_expires_in(HOUR));
                match next {
                    None => fresh(),
                    Some(Next::Fail) => Err("the endpoint is down".into()),
                    Some(Next::Refuse) => Err(SourceError::permanent("revoked").into()),
                    Some(Next::Busy) => Err(SourceError::transient("busy").retry_after(SECOND).into()),
                    Some(Next::Panic) => panic!("a bug"),
                    Some(Next::Hang) => std::future::pending().await,
                    Some(Next::Illegal) => Ok(Token::opaque(format!("{token}\n"))?),
                    Some(Next::NoJwt) => Ok(Token::from_jwt(format!("{token}.{token}.{token}"))?),
                    Some(Next::Absurd) => Ok(fresh()?.with_expires_in(HOUR * 1_000_000)),
                    Some(Next::BornDead) => Ok(fresh()?.with_expires_at(SystemTime::UNIX_EPOCH)),
                    Some(Next::NotYetValid) => Ok(Token::from_jwt(format!("x.{}.s3cr3t", claims()))?),
                    Some(Next::Same) => Ok(request.previous().cloned().unwrap()),
                }
            }
        });
        let provider = builder.seed(Token::opaque("s3cr3tseed").unwrap().with_expires_in(HOUR)).build(source).unwrap();
        Self { api: Api::new(), clock, provider, next, debugs }
    }

    fn note(&self, what: &dyn Debug) {
        write!(self.debugs.lock().unwrap(), "{what:?}\n{what:#?}\n").unwrap();
    }

    fn error(&self, error: &(dyn Error + 'static)) {
        self.debugs.lock().unwrap().push_str(&all_of(error));
    }

    async fn refresh(&self, next: Next) {
        self.next.lock().unwrap().push_back(next);
        match self.provider.refresh().await {
            Ok(token) => self.note(&token),
            Err(error) => self.error(&error),
        }
        self.note(&self.provider);
        self.note(&self.provider.subscribe());
        pass(MINUTE).await;
    }

    async fn send(
        &self,
        layer: JwtRefreshLayer<impl Policy<Try, Answer, BoxError, Future: Send> + Clone + Send + 'static>,
        request: Request<Full<Bytes>>,
    ) {
        let service = layer.layer(self.api.clone());
        self.note(&layer);
        self.note(&service);
        let call = service.oneshot(request);
        match call.await {
            Ok(answer) => self.note(&answer),
            Err(error) => self.error(&*error),
        }
        for seen in self.api.seen() {
            self.note(&seen.headers);
        }
        self.api.forget_seen();
    }
}

/// `{"nbf":4102444800,"sub":"secret"}`
fn claims() -> &'static str {
    "eyJuYmYiOjQxMDI0NDQ4MDAsInN1YiI6InNlY3JldCJ9"
}

type Try = Attempt<Request<Full<Bytes>>>;
type Answer = Response<Full<Bytes>>;

/// The default policy, that shows what a policy sees.
#[derive(Clone)]
struct Shows(Arc<Mutex<String>>);

impl Policy<Try, Answer, BoxError> for Shows {
    type Future = Ready<()>;

    fn retry(&mut self, attempt: &mut Try, result: &mut Result<Answer, BoxError>) -> Option<Ready<()>> {
        write!(self.0.lock().unwrap(), "{attempt:?}").unwrap();
        RetryPolicy::default().retry(attempt, result)
    }

    fn clone_request(&mut self, attempt: &Try) -> Option<Try> {
        write!(self.0.lock().unwrap(), "{attempt:?}").unwrap();
        Some(attempt.keep(10))
    }
}

/// All that can happen to a token, requests and answers.
async fn a_lot_happens(world: &World) {
    let provider = &world.provider;
    let layer = || JwtRefreshLayer::new(provider.clone());
    provider.init().await.unwrap();
    world.send(layer(), get(URI)).await;
    for next in [
        Next::Fail,
        Next::Refuse,
        Next::Busy,
        Next::Panic,
        Next::Hang,
        Next::Illegal,
        Next::NoJwt,
        Next::Absurd,
        Next::BornDead,
        Next::NotYetValid,
        Next::Same,
    ] {
        world.refresh(next).await;
        world.send(layer(), get(URI)).await;
    }

    // Rejections, healed and not, with all that a policy sees.
    let shown = Shows(Arc::clone(&world.debugs));
    let debugs = Arc::clone(&world.debugs);
    let judged = RetryPolicy::default().reject_when(move |answer| {
        write!(debugs.lock().unwrap(), "{answer:?}").unwrap();
        false
    });
    world.note(&judged);
    world.send(layer().retry(judged.clone()), get(URI)).await;
    for _ in 0..2 {
        world.api.revoke(provider.current().unwrap().expose_secret());
        world.send(layer().retry(shown.clone()), post(URI, "hello")).await;
        pass(MINUTE).await;
    }
    world.api.refuse_all(true);
    for _ in 0..3 {
        world.send(layer().retry(shown.clone()), post(URI, "hello")).await;
        pass(SECOND * 3).await;
    }
    world.api.refuse_all(false);
    world.next.lock().unwrap().extend([Next::Fail, Next::Same]);
    world.api.revoke(provider.current().unwrap().expose_secret());
    world.send(layer(), get(URI)).await;
    pass(MINUTE).await;

    // Every placement, another tenant, out of scope, a buffer in between.
    let other = World::new();
    for placement in
        [Placement::header(HeaderName::from_static("x-api-key")), Placement::prefixed(AUTHORIZATION, "Token").unwrap()]
    {
        world.note(&placement);
        let mut tenant = get(URI);
        tenant.extensions_mut().insert(UseToken(other.provider.clone()));
        world.send(layer().place(placement), tenant).await;
    }
    world.note(&UseToken(other.provider.clone()));
    world.send(layer(), get("http://cr3dential@example.com/?s3cr3t")).await;
    world.send(layer(), get("/?s3cr3t")).await;
    let buffered = ServiceBuilder::new().layer(layer()).service(Buffer::new(world.api.clone(), 1));
    buffered.oneshot(get(URI)).await.unwrap();
    world.api.forget_seen();

    // The end: dead by the wall clock with a source that is down, signed out, signed in, shut down.
    for choice in [OnUnavailable::Fail, OnUnavailable::SendLast, OnUnavailable::SendWithout] {
        world.next.lock().unwrap().push_back(Next::Fail);
        world.clock.jump_wall_ahead(HOUR * 100_000);
        world.send(layer().on_unavailable(choice), get(URI)).await;
        pass(MINUTE).await;
    }
    provider.clear();
    world.send(layer(), get(URI)).await;
    provider.set(Token::opaque("s3cr3tset").unwrap());
    provider.reject(&provider.current().unwrap());
    world.send(layer(), get(URI)).await;
    provider.shutdown().await;
    world.send(layer(), get(URI)).await;
    let (unread, _) = builder();
    drop(unread.seed_jwt("s3cr3t.not.a.jwt").seed_jwt("x.czNjcjN0.y"));
}

// Scenario 61; matrix-org/matrix-rust-sdk#1110, abraunegg/onedrive#3838, PelicanPlatform/pelican#2758, okpy/ok-client#191.
#[tokio::test(start_paused = true)]
async fn no_secret_is_in_any_log_line_debug_or_error_of_a_life_full_of_trouble() {
    let (logs, _guard) = Logs::listen();
    let world = World::new();
    a_lot_happens(&world).await;

    let text = logs.text();
    holds_none(&text, "the log");
    for said in [
        "flight",
        "clock skew",
        "the token source fails",
        "refuses its credential",
        "signed out",
        "shut down",
        "the seed is not",
    ] {
        assert!(text.contains(said), "the log was listened to: no `{said}` in\n{text}");
    }
    let debugs = world.debugs.lock().unwrap();
    support::whole_run::print(&debugs);
    holds_none(&debugs, "a Debug or an error");
    for said in [
        "TokenRequest",
        "Attempt",
        "Answer",
        "TokenProvider",
        "JwtRefresh ",
        "Sensitive",
        "Unavailable",
        "NeedsCredential",
        "SignedOut",
        "ShutDown",
        "IllegalCharacter",
        "NotJson",
        "Panicked",
        "Plaintext",
        "NoOrigin",
    ] {
        assert!(debugs.contains(said), "`{said}` was never shown");
    }
}
