//! A token endpoint in memory, behind the layers of an exchange.

use crate::run;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tower::{Service, layer::layer_fn};
use tower_jwt_refresh::{
    Token, TokenError, TokenProvider, TokenStatus,
    clock::ManualClock,
    source::{Exchange, ExchangeBuilder},
};

/// Gives every exchange the answer that was set last.
#[derive(Clone, Default)]
struct Endpoint(Arc<Mutex<Response<Bytes>>>);

impl Service<Request<Full<Bytes>>> for Endpoint {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        let answer = self.0.lock().expect("no panic is survived").clone();
        ready(Ok(answer.map(Full::new)))
    }
}

/// An exchange with it, to be asked again and again.
pub struct Asked {
    endpoint: Endpoint,
    exchange: Exchange,
}

/// What a new provider made of an answer.
pub struct Outcome {
    pub token: Result<Token, TokenError>,
    pub status: TokenStatus,
}

impl Asked {
    pub fn new(set: impl FnOnce(ExchangeBuilder) -> ExchangeBuilder) -> Self {
        let endpoint = Endpoint::default();
        let stands_in = endpoint.clone();
        let exchange = Exchange::post("http://localhost/token").layer(layer_fn(move |_| stands_in.clone()));
        Self { endpoint, exchange: set(exchange).build().expect("legal settings") }
    }

    pub fn answering(&self, answer: Response<Bytes>) -> Outcome {
        *self.endpoint.0.lock().expect("no panic is survived") = answer;
        run(async {
            let clock = ManualClock::following_tokio();
            let tiny = Duration::from_millis(1);
            let builder = TokenProvider::builder().clock(clock).min_interval(tiny).backoff(tiny, tiny);
            let provider = builder.build(self.exchange.clone()).expect("legal settings");
            let token = provider.token().await;
            let status = provider.subscribe().borrow().clone();
            Outcome { token, status }
        })
    }
}
