use crate::{
    inner::CHECKED,
    support::request::{Req, request},
};
use std::{
    pin::pin,
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tower::Service;

const REQUESTS: u32 = 500;

/// One way to send a request.
pub struct Variant {
    pub name: &'static str,
    round: Box<dyn FnMut() -> Duration>,
}

impl Variant {
    pub fn new<S>(name: &'static str, mut service: S) -> Self
    where
        S: Service<Req> + 'static,
        S::Error: std::fmt::Debug,
    {
        let round = move || {
            let mut cx = Context::from_waker(Waker::noop());
            let start = Instant::now();
            for _ in 0..REQUESTS {
                assert!(service.poll_ready(&mut cx).is_ready());
                // The token is there and the inner service does not wait, so no layer has a reason to.
                let answer = pin!(service.call(request())).poll(&mut cx);
                let Poll::Ready(answer) = answer else { panic!("{name} waits") };
                answer.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            }
            start.elapsed() / REQUESTS
        };
        Self { name, round: Box::new(round) }
    }

    /// Sends some requests, and answers the time that one took.
    pub fn round(&mut self) -> &mut dyn FnMut() -> Duration {
        &mut self.round
    }

    /// Makes sure that the token arrives.
    pub fn check(&mut self) {
        CHECKED.store(self.name != "no layer", Ordering::Relaxed);
        (self.round)();
        CHECKED.store(false, Ordering::Relaxed);
    }
}
