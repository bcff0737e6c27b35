//! Right under the layer: counts what it sends, and writes on each send which it is and when it went.

use crate::{
    book::number,
    handler::{ID, SEND, SENT},
    ledger::{MOST_SENDS, NONE},
    world::World,
};
use http::{HeaderValue, header};
use std::{
    sync::Arc,
    task::{Context, Poll},
};
use tower::Service;
use tower_jwt_refresh::ReplayRequest;

#[derive(Clone)]
pub struct Wire<S> {
    pub inner: S,
    pub world: Arc<World>,
}

impl<S: Service<R>, R: ReplayRequest> Service<R> for Wire<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: R) -> S::Future {
        let headers = request.headers_mut();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let id = text(ID).and_then(|id| id.parse().ok()).expect("each call has a number");
        let token = text(header::AUTHORIZATION.as_str()).and_then(|token| number(token.strip_prefix("Bearer ")?));
        let send = self.sends(id, token.unwrap_or(NONE));
        headers.insert(SEND, HeaderValue::from(send));
        headers.insert(SENT, HeaderValue::from_str(&self.world.now().as_micros().to_string()).expect("a number"));
        self.inner.call(request)
    }
}

impl<S> Wire<S> {
    fn sends(&self, id: u64, token: u32) -> usize {
        let (send, refused, same) = self.world.ledger.entry(id, |entry| {
            let same = entry.tokens[..entry.sends.min(MOST_SENDS)].contains(&token);
            if let Some(slot) = entry.tokens.get_mut(entry.sends) {
                *slot = token;
            }
            entry.sends += 1;
            (entry.sends, usize::from(entry.refused), same)
        });
        if send > MOST_SENDS {
            self.world.breaks("no request is sent more than twice", format!("{id}, {send} times"));
        }
        if send > refused + 1 {
            self.world.breaks("nothing but a refusal leads to a resend", format!("{id} was resent without"));
        }
        if same {
            self.world.breaks("a resend carries another token", format!("{id} carried {token} again"));
        }
        send
    }
}
