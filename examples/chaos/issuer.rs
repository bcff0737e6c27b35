//! The token endpoint, over TLS, which is not always well.

use crate::{
    authority::Authority,
    door::Door,
    report::ISSUER,
    world::{World, lock},
};
use bytes::Bytes;
use fastrand::Rng;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, runtime::Handle, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tower_jwt_refresh::BoxError;

pub const CREDENTIAL: &str = "chaos-credential";

/// Long enough to be refreshed in peace, if the clock does not jump.
const LIFE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Well,
    /// Nobody listens.
    Down,
    Slow,
    Hangs,
    /// 401: the credential is not good any more.
    Refuses,
    /// 503, and when to come again.
    Busy,
}

pub struct Issuer {
    world: Arc<World>,
    door: Door,
    acceptor: TlsAcceptor,
    state: Mutex<State>,
    runtime: Handle,
}

struct State {
    mode: Mode,
    life: Duration,
    rng: Rng,
    /// Accepts and serves; dropped with all its connections while nobody listens.
    serving: JoinSet<()>,
}

impl Issuer {
    pub fn start(
        world: &Arc<World>,
        authority: &Authority,
        mut rng: Rng,
        runtime: &Handle,
    ) -> Result<Arc<Self>, BoxError> {
        let entered = runtime.enter();
        let (door, listener) = Door::new(&mut rng)?;
        drop(entered);
        let state = State { mode: Mode::Well, life: LIFE, rng, serving: JoinSet::new() };
        let issuer = Arc::new(Self {
            world: Arc::clone(world),
            door,
            acceptor: authority.acceptor(&[])?,
            state: Mutex::new(state),
            runtime: runtime.clone(),
        });
        issuer.listen(listener);
        Ok(issuer)
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/token", self.door.port)
    }

    pub async fn enter(self: &Arc<Self>, mode: Mode) {
        let was = std::mem::replace(&mut lock(&self.state).mode, mode);
        if mode == Mode::Down {
            self.stop().await;
        } else if was == Mode::Down {
            let opened = self.runtime.spawn(self.door.open_again()).await;
            self.listen(opened.expect("it is neither aborted nor does it panic"));
        }
    }

    /// The tokens from now on live for so long; none: as usual.
    pub fn lives(&self, life: Option<Duration>) {
        lock(&self.state).life = life.unwrap_or(LIFE);
    }

    pub async fn stop(&self) {
        let mut serving = std::mem::take(&mut lock(&self.state).serving);
        serving.shutdown().await;
    }

    fn listen(self: &Arc<Self>, listener: TcpListener) {
        let this = Arc::clone(self);
        let serve = async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let this = Arc::clone(&this);
                connections.spawn(async move {
                    let Ok(stream) = this.acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(|request| this.answer(request));
                    let http = hyper::server::conn::http1::Builder::new();
                    // Who gave the connection up need not be told.
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        };
        lock(&self.state).serving.spawn_on(serve, &self.runtime);
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        self.world.report.count(ISSUER, "requests at the endpoint");
        let known = request.headers().get("x-api-key").is_some_and(|key| key == CREDENTIAL);
        if !known {
            self.world.breaks("the credential reaches the issuer", "it did not");
        }
        let (mode, pause) = {
            let state = &mut *lock(&self.state);
            let pause = match state.mode {
                Mode::Slow => state.rng.u64(200..1200),
                Mode::Hangs => 3_600_000,
                _ => state.rng.u64(0..20),
            };
            (state.mode, Duration::from_millis(pause))
        };
        tokio::time::sleep(pause).await;
        let answer = Response::builder();
        Ok(match mode {
            Mode::Refuses => answer.status(StatusCode::UNAUTHORIZED).body(Full::default()),
            Mode::Busy => {
                answer.status(StatusCode::SERVICE_UNAVAILABLE).header("retry-after", "1").body(Full::default())
            }
            _ => {
                let life = lock(&self.state).life;
                let token = self.world.book.mint(self.world.now(), life);
                answer.body(format!(r#"{{"access_token":"{token}","expires_in":{}}}"#, life.as_secs()).into())
            }
        }
        .expect("a legal answer"))
    }
}
