//! Who calls: through the layer, with and without a copy to resend, out of its scope, or by hand; and many give up.

use crate::{
    oracle::{Kind, RequestEnd, number},
    plan::log,
    server::{Probe, Server},
    sim::Sim,
};
use bytes::Bytes;
use fastrand::Rng;
use http::{Request, StatusCode, header::WWW_AUTHENTICATE};
use http_body_util::Full;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};
use tower::{BoxError, Layer, Service, ServiceExt, limit::ConcurrencyLimit};
use tower_jwt_refresh::{JwtRefreshLayer, NoToken, Origin, RetryPolicy, Token, TokenError, TokenProvider};

pub const HOST: &str = "api.example.com";
/// A path that wants no token.
pub const PUBLIC: u64 = 1000;
/// How many others there are.
const PATHS: u64 = 12;

/// What all callers share.
#[derive(Clone)]
pub struct Client {
    sim: Arc<Sim>,
    provider: TokenProvider,
    resends: JwtRefreshLayer,
    sends_once: JwtRefreshLayer,
    permits: Arc<Semaphore>,
}

/// One call that is to come.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    kind: Kind,
    /// After how long.
    delay: Duration,
    /// When its caller gives up.
    patience: Option<Duration>,
}

impl Call {
    /// One of a burst that takes `spread`.
    pub fn draw(rng: &mut Rng, spread: Duration) -> Self {
        let kind = match rng.u32(..100) {
            0..76 => Kind::Send { path: rng.u64(..PATHS), resends: true },
            76..84 => Kind::Send { path: rng.u64(..PATHS), resends: false },
            84..91 => Kind::Apart,
            91..98 => Kind::Token,
            _ => Kind::ValidFor,
        };
        let most = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        let delay = Duration::from_millis(if most == 0 { 0 } else { rng.u64(..most) });
        let patience = match rng.u32(..8) {
            0 => Some(Duration::from_millis(rng.u64(..500))),
            1 => Some(log(rng, Duration::from_millis(100), Duration::from_secs(100))),
            _ => None,
        };
        Self { kind, delay, patience }
    }

    pub fn refresh() -> Self {
        Self { kind: Kind::Refresh, delay: Duration::ZERO, patience: None }
    }
}

impl Client {
    pub fn new(sim: &Arc<Sim>, provider: TokenProvider) -> Result<Self, BoxError> {
        let layer = JwtRefreshLayer::new(provider.clone())
            .allow_origin(Origin::parse(&format!("https://{HOST}"))?)
            .on_unavailable(sim.settings.on_unavailable);
        Ok(Self {
            sim: Arc::clone(sim),
            provider,
            sends_once: layer.clone().retry(RetryPolicy::none()),
            resends: layer,
            permits: Arc::new(Semaphore::new(sim.settings.permits)),
        })
    }

    pub fn permits_out(&self) -> usize {
        self.sim.settings.permits - self.permits.available_permits()
    }

    /// Starts a caller on this runtime.
    pub fn start(&self, id: u32, call: Call) {
        let client = self.clone();
        drop(tokio::spawn(async move { client.calls(id, call).await }));
    }

    async fn calls(self, id: u32, call: Call) {
        if !call.delay.is_zero() {
            tokio::time::sleep(call.delay).await;
        }
        let sim = Arc::clone(&self.sim);
        let mut calling = Calling { sim: Arc::clone(&sim), id, over: false };
        let work = self.call(id, call.kind);
        let end = match call.patience {
            Some(patience) => timeout(patience, work).await.unwrap_or(RequestEnd::Cancelled),
            None => work.await,
        };
        calling.over = true;
        sim.state().oracle.done(id, &end);
        sim.trace(format_args!("#{id} ends: {end:?}"));
    }

    async fn call(self, id: u32, kind: Kind) -> RequestEnd {
        let called = || {
            self.sim.state().oracle.called(id, kind);
            self.sim.trace(format_args!("#{id} {kind:?}"));
        };
        let token = match kind {
            Kind::Send { resends: true, .. } => return self.through(&self.resends, id, kind).await,
            Kind::Send { .. } | Kind::Apart => return self.through(&self.sends_once, id, kind).await,
            Kind::Token => {
                called();
                self.provider.token().await
            }
            Kind::ValidFor => {
                called();
                self.provider.token_valid_for(Duration::from_secs(u64::from(id % 2000))).await
            }
            Kind::Refresh => {
                called();
                self.provider.refresh().await
            }
        };
        named(token)
    }

    async fn through(&self, layer: &JwtRefreshLayer, id: u32, kind: Kind) -> RequestEnd {
        let limited = ConcurrencyLimit::with_semaphore(Server::new(&self.sim, id), Arc::clone(&self.permits));
        let mut service = layer.layer(Probe::new(limited, &self.sim, id));
        let Ok(service) = service.ready().await else { return RequestEnd::Broken };
        self.sim.state().oracle.called(id, kind);
        self.sim.trace(format_args!("#{id} {kind:?}"));
        match service.call(request(id, kind)).await {
            Ok(answer) => {
                let blamed = answer.headers().get(WWW_AUTHENTICATE).is_some_and(|it| it == BLAMED);
                RequestEnd::Answer { refused: answer.status() == StatusCode::UNAUTHORIZED && !blamed }
            }
            Err(error) => match error.downcast_ref::<TokenError>() {
                Some(error) => RequestEnd::NoToken(error.to_string()),
                None => RequestEnd::Broken,
            },
        }
    }
}

/// A 401 that says the request is at fault, not the token (RFC 6750 section 3.1).
pub const BLAMED: &str = r#"Bearer error="insufficient_scope""#;

fn request(id: u32, kind: Kind) -> Request<Full<Bytes>> {
    let request = Request::post(match kind {
        Kind::Send { path, .. } => format!("https://{HOST}/{path}"),
        _ if id.is_multiple_of(2) => format!("https://{HOST}/{PUBLIC}"),
        _ => "https://elsewhere.example.com/1".to_owned(),
    });
    let request = if kind == Kind::Apart && id.is_multiple_of(2) { request.extension(NoToken) } else { request };
    request.body(Full::from("body")).expect("a valid request")
}

fn named(token: Result<Token, TokenError>) -> RequestEnd {
    match token {
        Ok(token) => RequestEnd::Token(number(token.expose_secret())),
        Err(error) => RequestEnd::NoToken(error.to_string()),
    }
}

/// Tells the oracle of a caller that is dropped, with its runtime.
struct Calling {
    sim: Arc<Sim>,
    id: u32,
    over: bool,
}

impl Drop for Calling {
    fn drop(&mut self) {
        if !self.over {
            self.sim.state().oracle.done(self.id, &RequestEnd::Cancelled);
        }
    }
}
