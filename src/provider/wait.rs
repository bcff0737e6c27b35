//! Waiting for a flight, each caller with its own deadline on its own runtime.

use super::{
    primitives::{Instant, OwnedNotified, Sleep, time},
    shell::{Core, Landing, Verdict},
    state::{Over, Purpose},
};
use crate::{Token, TokenError};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

pin_project! {
    /// Resolves to what the caller does now: never to another wait.
    pub(crate) struct Waiter {
        core: Arc<Core>,
        landing: Arc<Landing>,
        purpose: Purpose,
        // Of the caller, over however many flights.
        deadline: Instant,
        // Of this wait.
        bound: Instant,
        #[pin]
        landed: OwnedNotified,
        #[pin]
        sleep: Sleep,
    }
}

/// What a caller does after its wait.
#[derive(Debug)]
pub(crate) enum Outcome {
    Send(Token),
    Fail(TokenError),
    Pass,
}

impl Waiter {
    pub(super) fn new(
        core: Arc<Core>,
        landing: Arc<Landing>,
        purpose: Purpose,
        deadline: Instant,
        bound: Instant,
        lost: Instant,
    ) -> Self {
        // Before `over` is looked at, so that one of the two tells (see the shell).
        let landed = Arc::clone(&landing.landed).notified_owned();
        Self { landed, sleep: time::sleep_until(bound.min(lost)), core, landing, purpose, deadline, bound }
    }

    #[cfg(test)]
    pub(super) fn flight(&self) -> u64 {
        self.landing.number
    }

    /// How the wait ended, if it has.
    fn poll_over(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Over> {
        let mut this = self.project();
        loop {
            if let Some(over) = this.landing.over() {
                return Poll::Ready(over);
            }
            if this.landed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(this.landing.over().unwrap_or(Over::Lost));
            }
            ready!(this.sleep.as_mut().poll(cx));
            if Instant::now() >= *this.bound {
                return Poll::Ready(if this.bound < this.deadline { Over::Patience } else { Over::Bound });
            }
            // The moment has come at which the flight, if it still is, would be lost. Whoever takes it from the machine says on the
            // landing how it ended: if the machine has it no more, the word is there now, or on its way.
            this.core.event(|machine, now, _| machine.look(now));
            this.sleep.as_mut().reset(*this.bound);
        }
    }
}

impl Future for Waiter {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            let mut over = ready!(self.as_mut().poll_over(cx));
            if matches!(over, Over::Lost | Over::Patience) && Instant::now() >= self.deadline {
                over = Over::Bound;
            }
            let (purpose, deadline) = (self.purpose, self.deadline);
            // Nearly all waits end so, all at a time, and none of them needs the lock: a fresh token lives and is not marked.
            if over == Over::Landed
                && let Some(token) = self.core.fresh().and_then(|snapshot| snapshot.token.clone())
                && purpose != Purpose::Replace(token.generation())
            {
                return Poll::Ready(Outcome::Send(token));
            }
            let core = Arc::clone(&self.core);
            match core.decide(purpose, Some(deadline), |machine, now, _| machine.woken(now, over, purpose)) {
                Verdict::Send(token) => return Poll::Ready(Outcome::Send(token)),
                Verdict::Fail(error) => return Poll::Ready(Outcome::Fail(error)),
                Verdict::Pass => return Poll::Ready(Outcome::Pass),
                Verdict::Wait(next) => self.set(next),
            }
        }
    }
}

pin_project! {
    /// What a verdict comes to. By hand, since an `async fn` that is given a wait holds it twice.
    #[project = FinishProj]
    pub(super) enum Finish {
        Known { result: Option<Result<Token, TokenError>> },
        Wait { #[pin] waiter: Waiter },
    }
}

impl Finish {
    pub(super) fn known(result: Result<Token, TokenError>) -> Self {
        Self::Known { result: Some(result) }
    }
}

impl Future for Finish {
    type Output = Result<Token, TokenError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            FinishProj::Known { result } => Poll::Ready(result.take().expect("polled after its end")),
            FinishProj::Wait { mut waiter } => Poll::Ready(match ready!(waiter.as_mut().poll(cx)) {
                Outcome::Send(token) => Ok(token),
                Outcome::Fail(error) => Err(error),
                Outcome::Pass => Err(waiter.core.event(|machine, now, _| machine.why_not(now))),
            }),
        }
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("flight", &self.landing.number).finish_non_exhaustive()
    }
}
