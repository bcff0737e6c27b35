//! One fetch for all who wait: this crate's, and what is written by hand instead.
//!
//! Each of the latter does no more than it must: no expiry, no failure, no caller that gives up.

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use std::{
    future::Future,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::watch;
use tower::{BoxError, service_fn};
use tower_jwt_refresh::{Token, TokenProvider, TokenRequest};

/// Makes a fetch. Shared by all designs.
pub type Fetch = Arc<dyn Fn() -> BoxFuture<'static, Result<Token, BoxError>> + Send + Sync>;

pub fn fetch<F: Future<Output = Result<Token, BoxError>> + Send + 'static>(
    make: impl Fn() -> F + Send + Sync + 'static,
) -> Fetch {
    Arc::new(move || make().boxed())
}

pub trait Flight: Clone + Send + 'static {
    const NAME: &'static str;

    fn new(fetch: Fetch) -> Self;
    /// Whether a token came.
    fn token(&self) -> impl Future<Output = Option<Token>> + Send;
}

#[derive(Clone)]
pub struct Ours(TokenProvider);

impl Flight for Ours {
    const NAME: &'static str = "this crate";

    fn new(fetch: Fetch) -> Self {
        Self(TokenProvider::new(service_fn(move |_: TokenRequest| fetch())))
    }

    async fn token(&self) -> Option<Token> {
        self.0.token().await.ok()
    }
}

type Landing = Shared<BoxFuture<'static, Option<Token>>>;

/// A future that all clone and whoever comes polls.
#[derive(Clone)]
pub struct SharedFuture {
    flight: Arc<Mutex<Option<Landing>>>,
    fetch: Fetch,
}

impl Flight for SharedFuture {
    const NAME: &'static str = "shared future";

    fn new(fetch: Fetch) -> Self {
        Self { flight: Arc::default(), fetch }
    }

    async fn token(&self) -> Option<Token> {
        let flight = {
            let mut flight = self.flight.lock().expect("nobody panics");
            flight.get_or_insert_with(|| (self.fetch)().map(Result::ok).boxed().shared()).clone()
        };
        flight.await
    }
}

/// Whoever has the lock fetches, and all others look again when they get it.
#[derive(Clone)]
pub struct DoubleChecked {
    held: Arc<RwLock<Option<Token>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
    fetch: Fetch,
}

impl DoubleChecked {
    fn held(&self) -> Option<Token> {
        self.held.read().expect("nobody panics").clone()
    }
}

impl Flight for DoubleChecked {
    const NAME: &'static str = "mutex, checked twice";

    fn new(fetch: Fetch) -> Self {
        Self { held: Arc::default(), turn: Arc::default(), fetch }
    }

    async fn token(&self) -> Option<Token> {
        if let Some(token) = self.held() {
            return Some(token);
        }
        let _turn = self.turn.lock().await;
        if let Some(token) = self.held() {
            return Some(token);
        }
        let token = (self.fetch)().await.ok();
        self.held.write().expect("nobody panics").clone_from(&token);
        token
    }
}

/// The first spawns the fetch, and all watch for what it brings.
#[derive(Clone)]
pub struct Watch {
    held: Arc<watch::Sender<Option<Token>>>,
    flying: Arc<AtomicBool>,
    fetch: Fetch,
}

impl Flight for Watch {
    const NAME: &'static str = "watch";

    fn new(fetch: Fetch) -> Self {
        Self { held: Arc::new(watch::Sender::new(None)), flying: Arc::default(), fetch }
    }

    async fn token(&self) -> Option<Token> {
        let mut held = self.held.subscribe();
        if let Some(token) = &*held.borrow() {
            return Some(token.clone());
        }
        if !self.flying.swap(true, Ordering::Relaxed) {
            let (fetched, sender) = ((self.fetch)(), Arc::clone(&self.held));
            tokio::spawn(async move { sender.send_replace(fetched.await.ok()) });
        }
        held.wait_for(Option::is_some).await.ok()?.clone()
    }
}
