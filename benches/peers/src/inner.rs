use crate::support::request::{Req, secret};
use http::{Response, header::AUTHORIZATION};
use std::{
    future::{Ready, ready},
    hint::black_box,
    marker::PhantomData,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
};
use tower::{BoxError, Service};

/// Whether the inner service looks at what it gets.
pub static CHECKED: AtomicBool = AtomicBool::new(false);

/// Answers at once, so that nothing but the layers is measured. The peers do not agree on its error.
#[derive(Debug)]
pub struct Inner<E = BoxError>(PhantomData<fn() -> E>);

// Derived, they would ask the error for the same.
impl<E> Clone for Inner<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Inner<E> {}

impl<E> Inner<E> {
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<E> Service<Req> for Inner<E> {
    type Response = Response<()>;
    type Error = E;
    type Future = Ready<Result<Response<()>, E>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        if CHECKED.load(Ordering::Relaxed) {
            let value = request.headers().get(AUTHORIZATION).expect("a token");
            assert_eq!(value, format!("Bearer {}", secret()).as_str());
            assert!(value.is_sensitive());
        }
        black_box(&request);
        ready(Ok(Response::new(())))
    }
}
