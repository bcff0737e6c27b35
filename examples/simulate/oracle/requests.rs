//! What a caller gets: "never withheld", "never sent dead", "per caller one wait before the first send and one per resend".

use super::{Oracle, SLACK};
use crate::clock::Moment;
use std::time::Duration;
use tower_jwt_refresh::OnUnavailable;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Through the layer, to this path; may it be sent again?
    Send { path: u64, resends: bool },
    /// Through the layer, out of its scope: another origin, or `NoToken`.
    Apart,
    /// `token()`.
    Token,
    /// `token_valid_for`.
    ValidFor,
    /// `refresh()`.
    Refresh,
}

/// How it ended for its caller.
#[derive(Clone, Debug)]
pub enum End {
    /// The server's answer, and whether that was a refusal of the token.
    Answer { refused: bool },
    /// A token, for who asked for one.
    Token(u32),
    /// No token could be had.
    NoToken(String),
    /// The network failed.
    Broken,
    /// The caller gave up.
    Cancelled,
}

#[derive(Debug)]
pub struct Request {
    pub(super) kind: Kind,
    /// For a token.
    pub(super) waits_since: Duration,
    /// How long it may wait, by what was held then.
    pub(super) may_wait: Duration,
    queue_began: Option<Duration>,
    /// It had to do without a token before it queued.
    may_lack: bool,
    pub(super) queued: bool,
    freezes: u32,
    pub(super) sends: u8,
    pub(super) sent: Option<Sent>,
    pub(super) refusal: Option<super::refusals::Refusal>,
}

/// What a request was sent with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) generation: u64,
    pub(super) at: Duration,
    /// Anything was remembered then.
    pub(super) watched: bool,
}

impl Oracle {
    /// A caller calls.
    pub fn called(&mut self, id: u32, kind: Kind) {
        let now = self.look();
        if kind == Kind::Refresh || kind == Kind::ValidFor {
            self.last_forced = Some((now.mono, self.freezes));
        }
        if self.is_undisturbed() && !self.is_good(now) {
            self.breaks("the loop keeps the token fresh", format!("a caller finds {:?}", self.held));
        }
        let request = Request {
            kind,
            waits_since: now.mono,
            may_wait: self.may_wait(now, kind),
            queue_began: None,
            may_lack: false,
            queued: false,
            freezes: self.freezes,
            sends: 0,
            sent: None,
            refusal: None,
        };
        self.requests.insert(id, request);
    }

    /// "What a caller gets": fresh, opaque and stale are sent at once, urgent after min(1 s, half the runway) at most.
    pub(super) fn may_wait(&self, now: Moment, kind: Kind) -> Duration {
        let Some(held) = self.held.as_ref().filter(|_| self.is_good(now)) else { return self.settings.longest_wait() };
        let left = held.runway(now);
        match kind {
            Kind::Refresh => self.settings.longest_wait(),
            Kind::ValidFor => self.settings.longest_wait().min(left / 2),
            _ if left > held.min_runway(&self.settings) || self.is_undisturbed() => Duration::ZERO,
            _ => Duration::from_secs(1).min(left / 2),
        }
    }

    /// The inner service is not ready for it, and then is: that wait is not the layer's.
    pub fn queues(&mut self, id: u32, ready: bool) {
        let now = self.look();
        let lacks = !self.lives(now);
        let (gate, failure) = (self.waits.hard.most, self.last_failure);
        let Some(request) = self.requests.get_mut(&id) else { return };
        if !ready {
            let waited = now.mono - request.waits_since;
            let none = now.mono < gate || failure == Some(now.mono) || waited + SLACK >= self.settings.longest_wait();
            request.may_lack |= lacks && none;
            request.queued = true;
            request.queue_began.get_or_insert(now.mono);
        } else if let Some(began) = request.queue_began.take() {
            request.waits_since += now.mono - began;
        }
    }

    /// The layer gives a request to the inner service.
    pub fn sends(&mut self, id: u32, token: Option<u32>) {
        let now = self.look();
        let Some(mut request) = self.requests.remove(&id) else { return };
        request.sends += 1;
        if request.sends > 2 {
            self.breaks("6 bounded", "a request was sent a third time");
        }
        if request.kind == Kind::Apart {
            if token.is_some() {
                self.breaks("9 scope", "a token went where it may not go");
            }
        } else if let Some(token) = token {
            self.carries(&request, now, token);
            let generation = self.generation_of.get(&token).copied().unwrap_or_default();
            if request.sent.is_some_and(|before| before.generation == generation) && !request.queued {
                self.breaks("resend", "a request was sent again with the very token that was refused");
            }
            self.report.sends += 1;
            request.sent = Some(Sent { generation, at: now.mono, watched: !self.resources.is_empty() });
        } else {
            request.sent = None;
            if self.settings.on_unavailable != OnUnavailable::SendWithout {
                self.breaks("scope", "a request went without a token");
            }
            self.has_none(&request, now);
        }
        self.requests.insert(id, request);
    }

    /// `token` is on its way to a server, or was given to a caller.
    fn carries(&mut self, request: &Request, now: Moment, token: u32) {
        let held = self.held.as_ref().map(|held| held.token);
        // Who queued for the inner service and went back once for a better token sends the one in hand: "this time the server decides".
        if held != Some(token) && !request.queued {
            self.breaks("3 never backwards", format!("t{token} is sent while {held:?} is held"));
        }
        if !self.lives(now) && !request.queued {
            if self.settings.on_unavailable == OnUnavailable::SendLast && matches!(request.kind, Kind::Send { .. }) {
                self.has_none(request, now);
            } else {
                self.breaks("5 never sent dead", format!("t{token} is sent: {:?}", self.held));
            }
        }
        self.waited(request, now);
    }

    fn waited(&mut self, request: &Request, now: Moment) {
        if request.freezes != self.freezes {
            return;
        }
        let waited = now.mono - request.waits_since;
        // One that goes back for a token after it queued waits a second time.
        let bound = self.settings.longest_wait() * if request.queued { 2 } else { 1 };
        if waited > bound + SLACK {
            self.breaks("6 bounded", format!("a caller waited {waited:?} for a token: {request:?}"));
        }
        if request.queued || request.kind == Kind::Refresh {
            return;
        }
        let mut ready = request.waits_since.max(self.good_since);
        if request.refusal.is_some() {
            ready = ready.max(self.held.as_ref().map_or(Duration::ZERO, |held| held.stored));
        }
        // What became good by a fetch or a push wakes all who wait; nothing wakes them when a clock is set.
        let may_wait = if ready == request.waits_since { request.may_wait } else { Duration::ZERO };
        let revived = self.revived && self.good_since > request.waits_since;
        if self.is_good(now) && !revived && now.mono > ready + may_wait + SLACK {
            let late = now.mono - ready;
            self.breaks("4 never withheld", format!("a good token came {late:?} late, {may_wait:?} is allowed"));
        }
    }

    /// A caller ends without a token: right only where none lives, and none could be had.
    fn has_none(&mut self, request: &Request, now: Moment) {
        let waited = now.mono - request.waits_since;
        if self.signed_out || request.freezes != self.freezes || request.may_lack {
            return;
        }
        if self.lives(now) {
            self.breaks("4 never withheld", format!("no token after {waited:?}, while one lives: {:?}", self.held));
        }
        let shut = now.mono < self.waits.hard.most;
        let failed = self.last_failure == Some(now.mono);
        if !shut && !failed && waited + SLACK < self.settings.longest_wait() {
            self.breaks("never turned away by a healthy endpoint", format!("no token after {waited:?}: {request:?}"));
        }
        if waited > self.settings.longest_wait() * 2 + SLACK {
            self.breaks("6 bounded", format!("a caller waited {waited:?} for nothing"));
        }
    }

    /// It is over for its caller.
    pub fn done(&mut self, id: u32, end: &End) {
        let now = self.look();
        let Some(request) = self.requests.remove(&id) else { return };
        match end {
            End::Answer { refused } => {
                if *refused && matches!(request.kind, Kind::Send { .. }) {
                    self.refusal_is_the_callers(&request, now);
                }
            }
            End::Token(token) => self.carries(&request, now, *token),
            End::NoToken(error) => {
                if request.kind == Kind::Refresh {
                    self.refresh_fails(&request, now, error);
                } else {
                    self.has_none(&request, now);
                    if self.settings.on_unavailable != OnUnavailable::Fail
                        && self.held.is_some()
                        && request.kind != Kind::Token
                        && request.kind != Kind::ValidFor
                    {
                        self.breaks("on unavailable", format!("a request failed that was to be sent: {error}"));
                    }
                }
            }
            End::Broken | End::Cancelled => {}
        }
        self.report.ended(request.kind, end);
    }

    /// `refresh` is told of a failed fetch even while a token lives, and of a `Retry-After`.
    fn refresh_fails(&mut self, request: &Request, now: Moment, error: &str) {
        let waited = now.mono - request.waits_since;
        let told = self.last_failure == Some(now.mono) || now.mono < self.waits.retry_after || self.signed_out;
        if !told && waited + SLACK < self.settings.longest_wait() && request.freezes == self.freezes {
            self.breaks("refresh", format!("failed after {waited:?}: {error}"));
        }
    }
}
