//! The way of one request: acquire, send, replace, resend.
//!
//! Dropping the future at any point is safe: it holds a request, a copy of it and perhaps a permit of the inner service, all of
//! which are dropped with it. What it started at the provider belongs to no caller and goes on.

use crate::{
    BoxError, OnUnavailable, Token, TokenError, TokenProvider,
    body::KeepBody,
    clock::Now,
    policy::{Attempt, Refused},
    provider::{Outcome, Verdict, Waiter},
    request::ReplayRequest,
};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tower::{Service, retry::Policy};

pin_project! {
    /// The future of [`JwtRefresh`](crate::JwtRefresh). No box, and no allocation while the token is fresh but for the request's copy.
    ///
    /// # Cancel safety
    /// Dropping it drops the request, wherever it is; a fetch that it started or joined goes on, and the token it brings serves the next
    /// request.
    pub struct ResponseFuture<S, P, K, R>
    where
        S: Service<R>,
        R: ReplayRequest,
        P: Policy<Attempt<R>, S::Response, BoxError>,
    {
        // None: the request is passed on untouched, and its answer is not judged.
        sender: Option<Sender<S, P, K, R>>,
        // The answer that is returned if no better one can be had. Boxed, as waits are: both are rare, and cost a trip to the server anyway.
        answer: Option<Box<Result<S::Response, BoxError>>>,
        #[pin]
        state: State<S::Future, P::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, D> {
        // Waiting for a token, before a first send or after a refusal.
        Wait { wait: Pin<Box<Waiter>> },
        // Polling the inner service ready, the token in hand; none: it goes without.
        Ready { token: Option<Token> },
        // Polling the inner service's answer.
        Send { #[pin] future: F },
        // Polling the policy's own pause before a resend.
        Pause { #[pin] pause: D, next: Option<Next> },
        // There is nothing to poll: an error that was found in `call`, or none: the answer was given.
        Over { error: Option<BoxError> },
    }
}

/// What comes after the policy's pause.
enum Next {
    Token(Token),
    Wait(Pin<Box<Waiter>>),
    /// The policy said "again" without a refusal: with whatever token is current.
    Ask,
}

/// What it takes to send the request, and to send it again.
pub(crate) struct Sender<S, P, K, R: ReplayRequest> {
    service: S,
    policy: P,
    keep: K,
    attempt: Attempt<R>,
    /// A wait is over this moment: what it gave is sent, and no second wait follows.
    just_waited: bool,
    /// The token died while the inner service kept us waiting, and we went back for another.
    went_back: bool,
}

impl<S, P, K, R> Sender<S, P, K, R>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    R: ReplayRequest,
    P: Policy<Attempt<R>, S::Response, BoxError>,
    K: KeepBody<R::Body>,
{
    pub(crate) fn new(service: S, policy: P, keep: K, attempt: Attempt<R>) -> Self {
        Self { service, policy, keep, attempt, just_waited: false, went_back: false }
    }

    fn provider(&self) -> &TokenProvider {
        self.attempt.route().provider()
    }

    /// The inner service is ready, and may have taken its time: the token to send now, or a wait for one.
    fn recheck(&mut self, token: Token) -> Verdict {
        if std::mem::take(&mut self.just_waited) {
            return Verdict::Send(token);
        }
        if let Some(newest) = self.provider().fresh().and_then(|snapshot| snapshot.token.clone()) {
            return Verdict::Send(newest);
        }
        if let Some(living) = self.provider().unmarked() {
            return Verdict::Send(living);
        }
        match self.provider().acquire() {
            Verdict::Wait(wait) if !std::mem::replace(&mut self.went_back, true) => {
                self.service = self.service.clone();
                Verdict::Wait(wait)
            }
            // Going back again could go on for ever: this time the server decides.
            Verdict::Wait(_) | Verdict::Pass => Verdict::Send(token),
            verdict => verdict,
        }
    }

    /// Splits, attaches, calls. The service is ready. `watch` is the moment, if the answer is to be remembered.
    fn send(&mut self, token: Option<&Token>, watch: Option<Now>) -> S::Future {
        let wish = self.policy.clone_request(&self.attempt).and_then(|copy| copy.wish());
        let mut request = self.attempt.take_request().expect("a request is sent once");
        let keeper = self.attempt.take_keeper();
        // The copy is taken before the token goes in: it never holds one.
        if let Some((limit, head)) = wish.and_then(|limit| Some((limit, request.copy_head()?))) {
            let (keep, mut kept) = (&self.keep, keeper);
            if kept.is_none() {
                request = request.map_body(|body| {
                    let split = keep.split(body, limit);
                    kept = split.keep;
                    split.send
                });
            }
            if let Some(body) = kept {
                self.attempt.keeps(head, body);
            }
        }
        if let Some(token) = token {
            self.attempt.sends(token.generation(), &request, watch);
            self.attempt.route().way.placement.attach(request.headers_mut(), token);
        }
        self.service.call(request)
    }

    /// An answer came: what next? None: it is the caller's.
    fn judge(&mut self, result: &mut Result<S::Response, BoxError>) -> Option<(P::Future, Next)> {
        let sent = self.attempt.sent()?;
        let pause = self.policy.retry(&mut self.attempt, result);
        let pause = pause.filter(|_| self.attempt.can_resend());
        let Some(Refused { challenge }) = self.attempt.take_refused() else {
            if let (Some(at), Ok(_)) = (sent.watched, &result) {
                self.provider().accepted(sent.generation, at, sent.resource);
            }
            return Some((pause?, Next::Ask));
        };
        let rejection = self.attempt.rejection(challenge);
        let next = match self.provider().rejected(sent.generation, rejection) {
            Verdict::Send(token) => Next::Token(token),
            Verdict::Wait(wait) => Next::Wait(Box::pin(wait)),
            Verdict::Fail(_) | Verdict::Pass => return None,
        };
        let pause = pause?;
        self.attempt.replaced += 1;
        Some((pause, next))
    }

    /// No token can be had: the token to send instead, none to send without, or the error.
    fn without(&self, error: TokenError) -> Result<Option<Token>, BoxError> {
        match self.attempt.route().way.on_unavailable {
            OnUnavailable::Fail => Err(error.into()),
            OnUnavailable::SendLast => self.provider().current().map(Some).ok_or_else(|| error.into()),
            OnUnavailable::SendWithout => Ok(None),
        }
    }
}

impl<S, P, K, R> ResponseFuture<S, P, K, R>
where
    S: Service<R>,
    R: ReplayRequest,
    P: Policy<Attempt<R>, S::Response, BoxError>,
{
    pub(crate) fn pass(future: S::Future) -> Self {
        Self { sender: None, answer: None, state: State::Send { future } }
    }

    pub(crate) fn fail(error: BoxError) -> Self {
        Self { sender: None, answer: None, state: State::Over { error: Some(error) } }
    }

    /// With a ready service in `sender`. `spare` is one that is not: who has to wait goes on with a clone of it.
    pub(crate) fn new(mut sender: Sender<S, P, K, R>, spare: &S) -> Self
    where
        S: Clone,
        S::Error: Into<BoxError>,
        K: KeepBody<R::Body>,
    {
        let fresh = sender.provider().fresh();
        if let Some((snapshot, token)) = fresh.as_ref().and_then(|snapshot| Some((snapshot, snapshot.token.as_ref()?)))
        {
            let watch = if snapshot.remembered.is_empty() { None } else { sender.provider().watch() };
            let future = sender.send(Some(token), watch);
            return Self { sender: Some(sender), answer: None, state: State::Send { future } };
        }
        drop(fresh);
        let verdict = sender.provider().acquire();
        let watch = sender.provider().watch();
        let state = match verdict {
            Verdict::Send(token) => State::Send { future: sender.send(Some(&token), watch) },
            Verdict::Wait(wait) => {
                sender.service = spare.clone();
                State::Wait { wait: Box::pin(wait) }
            }
            Verdict::Pass => State::Send { future: sender.send(None, None) },
            Verdict::Fail(error) => match sender.without(error) {
                Ok(token) => State::Send { future: sender.send(token.as_ref(), watch) },
                Err(error) => return Self::fail(error),
            },
        };
        Self { sender: Some(sender), answer: None, state }
    }
}

impl<S, P, K, R> ResponseFuture<S, P, K, R>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    R: ReplayRequest,
    P: Policy<Attempt<R>, S::Response, BoxError>,
    K: KeepBody<R::Body>,
{
    fn poll_answer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<S::Response, BoxError>> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Over { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after its end")));
                }
                StateProj::Wait { wait } => {
                    let sender = this.sender.as_mut().expect("a sender waits");
                    let outcome = ready!(wait.as_mut().poll(cx));
                    sender.just_waited = true;
                    match (outcome, this.answer.take()) {
                        (Outcome::Send(token), answer) => {
                            *this.answer = answer;
                            State::Ready { token: Some(token) }
                        }
                        // After a refusal, the server's answer says more than our error.
                        (_, Some(answer)) => return Poll::Ready(*answer),
                        (Outcome::Pass, None) => State::Ready { token: None },
                        (Outcome::Fail(error), None) => match sender.without(error) {
                            Ok(token) => State::Ready { token },
                            Err(error) => return Poll::Ready(Err(error)),
                        },
                    }
                }
                StateProj::Ready { token } => {
                    let sender = this.sender.as_mut().expect("a sender sends");
                    match sender.service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => {
                            return Poll::Ready(this.answer.take().map_or_else(|| Err(error.into()), |answer| *answer));
                        }
                        Poll::Pending => {
                            sender.just_waited = false;
                            return Poll::Pending;
                        }
                    }
                    let token = match token.take().map(|token| sender.recheck(token)) {
                        Some(Verdict::Wait(wait)) => {
                            this.state.set(State::Wait { wait: Box::pin(wait) });
                            continue;
                        }
                        Some(Verdict::Fail(error)) => match (this.answer.take(), sender.without(error)) {
                            (Some(answer), _) => return Poll::Ready(*answer),
                            (None, Ok(token)) => token,
                            (None, Err(error)) => return Poll::Ready(Err(error)),
                        },
                        Some(Verdict::Send(token)) => Some(token),
                        Some(Verdict::Pass) | None => None,
                    };
                    // Only now, when the resend is really made, is the old answer gone.
                    if let Some(answer) = this.answer.take()
                        && !sender.attempt.again()
                    {
                        // The server went on reading until the record was full.
                        return Poll::Ready(*answer);
                    }
                    State::Send { future: sender.send(token.as_ref(), sender.provider().watch()) }
                }
                StateProj::Send { future } => {
                    let mut result = ready!(future.poll(cx)).map_err(Into::into);
                    let next = this.sender.as_mut().and_then(|sender| sender.judge(&mut result));
                    let Some((pause, next)) = next else { return Poll::Ready(result) };
                    *this.answer = Some(Box::new(result));
                    State::Pause { pause, next: Some(next) }
                }
                StateProj::Pause { pause, next } => {
                    ready!(pause.poll(cx));
                    let sender = this.sender.as_ref().expect("a sender pauses");
                    match next.take().expect("polled after its end") {
                        Next::Token(token) => State::Ready { token: Some(token) },
                        Next::Wait(wait) => State::Wait { wait },
                        Next::Ask => match sender.provider().acquire() {
                            Verdict::Send(token) => State::Ready { token: Some(token) },
                            Verdict::Wait(wait) => State::Wait { wait: Box::pin(wait) },
                            Verdict::Fail(_) | Verdict::Pass => {
                                return Poll::Ready(*this.answer.take().expect("an answer was judged"));
                            }
                        },
                    }
                }
            };
            this.state.set(next);
        }
    }
}

impl<S, P, K, R> Future for ResponseFuture<S, P, K, R>
where
    S: Service<R> + Clone,
    S::Error: Into<BoxError>,
    R: ReplayRequest,
    P: Policy<Attempt<R>, S::Response, BoxError>,
    K: KeepBody<R::Body>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.as_mut().poll_answer(cx));
        // Whoever holds this future on: the copy and the inner service's permit are of no more use.
        let mut this = self.project();
        *this.sender = None;
        this.state.set(State::Over { error: None });
        Poll::Ready(answer)
    }
}

impl<S, P, K, R> fmt::Debug for ResponseFuture<S, P, K, R>
where
    S: Service<R>,
    R: ReplayRequest,
    P: Policy<Attempt<R>, S::Response, BoxError>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
