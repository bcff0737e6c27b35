//! The task of one flight: sleep out `min_interval`, ask the source, bring what it says to the machine.
//!
//! It asks the machine for leave each time before it looks whether the source is ready, and again at the very moment of the call. In
//! between it may have been frozen, and its successor may have asked; then it does nothing more.

use super::{
    backoff::Failure,
    primitives::time,
    shell::Core,
    state::{Landed, Over},
};
use crate::{BoxError, FetchError, Token, TokenRequest, source::SourceError};
use pin_project_lite::pin_project;
use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
};
use tower::Service;
use tracing::{Instrument, debug, info_span};

pub(crate) fn fly(core: Arc<Core>, number: u64) -> impl Future<Output = ()> + Send {
    // Made here, not at the first poll: a task that is never polled is lost as well.
    let guard = Guard { core, number };
    async move {
        let request = guard.core.flying(number);
        let span = info_span!("flight", flight = number, reason = request.reason().as_str());
        guard.run(request).instrument(span).await;
    }
}

/// Reports the flight lost if its task is dropped.
struct Guard {
    core: Arc<Core>,
    number: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Nothing to report after a landing: the number is no longer under way.
        self.core.event(|machine, _, _| machine.lost(self.number));
    }
}

impl Guard {
    async fn run(self, request: TokenRequest) {
        let (core, number) = (&self.core, self.number);
        let Some(sleep) = core.event(|machine, now, _| machine.leave(now, number)) else { return };
        if !sleep.is_zero() {
            time::sleep(sleep).await;
        }
        let after = core.settings.fetch_timeout;
        let asked = time::timeout(after, CatchPanic { future: self.ask(request) }).await;
        let result = match asked {
            Ok(Ok(Asked::Answer(result))) => result.map_err(FetchError::Source),
            Ok(Ok(Asked::Lost)) => return,
            Ok(Err(Panicked)) => Err(FetchError::Panicked),
            Err(_) => Err(FetchError::TimedOut { after }),
        };
        let (landed, _) = core.event_with(
            |machine, now, jitter| match result {
                Ok(token) => machine.fetched(now, number, token, jitter.roll()),
                Err(error) => {
                    let failure = failure(&error);
                    machine.failed(now, number, error, failure, jitter.roll())
                }
            },
            |landed| match landed {
                Landed::Stored | Landed::Extended | Landed::Unchanged | Landed::NoProgress => Some(Over::Landed),
                Landed::Failed => Some(Over::Failed),
                Landed::Dropped => None,
            },
        );
        debug!(?landed, "flight over");
    }

    async fn ask(&self, request: TokenRequest) -> Asked {
        let mut request = Some(request);
        let called = std::future::poll_fn(|cx| {
            // One that is lost must not make the source ready: a limit around it gives a permit for that, which nobody would use.
            if self.core.event(|machine, now, _| machine.leave(now, self.number)).is_none() {
                return Poll::Ready(None);
            }
            let mut source = self.core.source.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = std::task::ready!(source.poll_ready(cx)) {
                return Poll::Ready(Some(Err(error)));
            }
            if !self.core.event(|machine, now, _| machine.ask(now, self.number)) {
                return Poll::Ready(None);
            }
            let request = request.take().expect("called once");
            Poll::Ready(Some(Ok(source.call(request))))
        })
        .await;
        match called {
            None => Asked::Lost,
            Some(Err(error)) => Asked::Answer(Err(error)),
            Some(Ok(answer)) => Asked::Answer(answer.await),
        }
    }
}

enum Asked {
    Answer(Result<Token, BoxError>),
    /// Another flight is under way.
    Lost,
}

fn failure(error: &FetchError) -> Failure {
    match error {
        FetchError::Source(error) => SourceError::find(&**error).map_or_else(Failure::default, |error| Failure {
            permanent: error.is_permanent(),
            retry_after: error.wait(),
        }),
        _ => Failure::default(),
    }
}

pin_project! {
    /// Turns a source's panic into an error for those who wait.
    struct CatchPanic<F> {
        #[pin]
        future: F,
    }
}

struct Panicked;

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.project().future;
        // Unwind safe: after a panic neither the future nor anything it borrowed is looked at again but the source, which
        // is the user's to keep whole, and is asked anew only by the next flight.
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}
