//! The server: HTTP/1.1 and HTTP/2 over TLS. It can be killed and started again, shown out politely, and given another certificate.

use crate::{
    authority::Authority,
    door::Door,
    handler,
    ledger::NONE,
    world::{World, lock},
};
use fastrand::Rng;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;
use tower_jwt_refresh::BoxError;

const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

pub struct Api {
    world: Arc<World>,
    authority: Arc<Authority>,
    pub door: Door,
    acceptor: Mutex<TlsAcceptor>,
    accepting: Mutex<JoinSet<()>>,
    live: Mutex<HashMap<u64, Live>>,
    http: auto::Builder<TokioExecutor>,
    /// Nobody's token may come here.
    foreign: bool,
}

struct Live {
    number: u32,
    abort: AbortHandle,
    leave: watch::Sender<bool>,
}

impl Api {
    pub fn start(
        world: &Arc<World>,
        authority: &Arc<Authority>,
        mut rng: Rng,
        foreign: bool,
    ) -> Result<Arc<Self>, BoxError> {
        let (door, listener) = Door::new(&mut rng)?;
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new());
        // Callers that give up, and streams that the run itself resets, are no attack here.
        http.http2().max_concurrent_streams(2000).max_pending_accept_reset_streams(100_000);
        http.http2().max_local_error_reset_streams(None);
        let api = Arc::new(Self {
            world: Arc::clone(world),
            authority: Arc::clone(authority),
            door,
            acceptor: Mutex::new(authority.acceptor(&PROTOCOLS)?),
            accepting: Mutex::default(),
            live: Mutex::default(),
            http,
            foreign,
        });
        api.listen(listener);
        Ok(api)
    }

    /// Gone, with all that was under way.
    pub async fn kill(&self) {
        let mut accepting = std::mem::take(&mut *lock(&self.accepting));
        accepting.shutdown().await;
        self.drop_all("its server was killed");
    }

    pub async fn start_again(self: &Arc<Self>) {
        self.listen(self.door.open_again().await);
    }

    /// Connections are ended between two requests, HTTP/2's by GOAWAY: all, or every other.
    pub fn show_out(&self, all: bool) {
        for (key, live) in lock(&self.live).iter() {
            if all || key % 2 == 0 {
                self.world.befalls(live.number, "its server showed it out");
                live.leave.send_replace(true);
            }
        }
    }

    pub fn drop_all(&self, why: &'static str) {
        for live in lock(&self.live).values() {
            self.world.befalls(live.number, why);
            live.abort.abort();
        }
    }

    /// Another certificate by the same authority.
    pub fn renew(&self) -> Result<(), BoxError> {
        *lock(&self.acceptor) = self.authority.acceptor(&PROTOCOLS)?;
        Ok(())
    }

    fn listen(self: &Arc<Self>, listener: TcpListener) {
        let this = Arc::clone(self);
        lock(&self.accepting).spawn(async move {
            let mut key = 0;
            while let Ok((stream, _)) = listener.accept().await {
                key += 1;
                Arc::clone(&this).serve(key | u64::from(fastrand::u32(..)) << 32, stream);
            }
        });
    }

    fn serve(self: Arc<Self>, key: u64, stream: TcpStream) {
        // A small answer is not to wait for the next.
        let _ = stream.set_nodelay(true);
        let from = stream.peer_addr().ok().and_then(|from| self.world.connection_from(from.port()));
        let number = from.unwrap_or(NONE);
        let (leave, mut leaves) = watch::channel(false);
        let mut live = lock(&self.live);
        let this = Arc::clone(&self);
        let task = tokio::spawn(async move {
            let gone = Gone { api: this, key };
            let api = &gone.api;
            let acceptor = lock(&api.acceptor).clone();
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(|request| {
                let world = Arc::clone(&api.world);
                handler::answer(world, api.foreign, number, request)
            });
            let mut connection = pin!(api.http.serve_connection(TokioIo::new(stream), service));
            // How it ends is seen by its requests.
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = leaves.wait_for(|leave| *leave) => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
        live.insert(key, Live { number, abort: task.abort_handle(), leave });
    }
}

/// Takes a connection off the list of the living, however it ended.
struct Gone {
    api: Arc<Api>,
    key: u64,
}

impl Drop for Gone {
    fn drop(&mut self) {
        lock(&self.api.live).remove(&self.key);
    }
}
