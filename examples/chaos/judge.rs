//! What a caller saw, held against what the servers did: is it promised, allowed, or broken?

use crate::{
    fetches::LONGEST_WAIT,
    ledger::Entry,
    stacks::{Answer, Call, Path},
    world::{Phase, Stack, World, lock},
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tower_jwt_refresh::BoxError;

/// What was done before a trouble may show only when the connection is used again. Longer where the machine is so busy that calls take longer.
const AFTERMATH: Duration = Duration::from_secs(1);

/// What a revocation does to what had begun, with nothing else wrong.
const IN_CALM: [&str; 2] = [TOO_LONG, AT_THE_END];
const TOO_LONG: &str = "401 to a body that is too long to keep";
const AT_THE_END: &str = "401 at a stream's end";

/// How a call ended.
pub enum End {
    Answered(Result<Answer, BoxError>),
    GivenUp,
    /// It never ended.
    Hung,
}

/// Things that were refused twice in a row, which the layer remembers until one is accepted.
#[derive(Default)]
pub struct Judge(Mutex<HashMap<(Stack, u8), Remembered>>);

#[derive(Default)]
struct Remembered {
    since: Option<Duration>,
    forgotten: Duration,
}

impl Judge {
    /// True: it succeeded, as far as it could.
    pub fn judge(&self, world: &World, call: &Call, phase: Phase, began: Duration, end: &End) -> bool {
        let entry = world.ledger.entry(call.id, |entry| entry.clone());
        let (report, section) = (&world.report, call.stack.as_str());
        let why = match end {
            End::Answered(Ok(Answer::Done(send))) => {
                report.count(section, "succeeded");
                if call.path == Path::Foreign || call.path == Path::Forbidden {
                    world.breaks("what is forbidden stays so", call.id);
                }
                if (entry.executed, entry.executed_send, entry.sends) != (1, *send, *send) {
                    world.breaks("what succeeded was carried out once", format!("{call:?} {send} {entry:?}"));
                }
                self.accepted(world, call, began);
                return true;
            }
            End::Answered(Ok(Answer::Refused)) if call.path == Path::Foreign => {
                report.count(section, "401 of a foreign origin");
                return true;
            }
            End::Answered(Ok(Answer::Refused)) if call.path == Path::Forbidden && entry.refused > 0 => {
                report.count(section, "401 for what is forbidden");
                return true;
            }
            // gRPC says it with the same code.
            End::Answered(Ok(Answer::Refused)) if entry.sends == 0 => self.no_token(world, began),
            End::Answered(Ok(Answer::Refused | Answer::RefusedLate)) => self.refused(world, call, &entry, began, end),
            End::Answered(Err(_)) if entry.sends == 0 && !never_ready(end) => self.no_token(world, began),
            End::Answered(Err(_) | Ok(Answer::Other)) => transport(world, call.stack, &entry, began),
            End::GivenUp => Some("given up by its caller"),
            End::Hung => None,
        };
        report.count(section, why.unwrap_or("UNEXPLAINED"));
        if why.is_none_or(|why| phase == Phase::Calm && !IN_CALM.contains(&why)) {
            let promise = match (why, end) {
                (Some(_), _) => "once it is calm, every call succeeds",
                (None, End::Hung) => "every call ends",
                (None, End::Answered(Ok(_))) => "a 401 reaches a caller only where it may",
                (None, _) => "each error has its cause",
            };
            let what = match end {
                End::Answered(Ok(answer)) => format!("{answer:?}"),
                End::Answered(Err(error)) => chain(error),
                End::GivenUp | End::Hung => String::new(),
            };
            let took = world.real() - began;
            world.breaks(promise, format!("{call:?} took {took:.2?}, {}: {what} {entry:?}", why.unwrap_or("no cause")));
        }
        false
    }

    fn no_token(&self, world: &World, began: Duration) -> Option<&'static str> {
        let now = world.real();
        if world.fetches.failing(began, now) {
            return Some("no token could be had");
        }
        (now - began >= LONGEST_WAIT).then_some("waited for a token as long as it may")
    }

    fn refused(&self, world: &World, call: &Call, entry: &Entry, began: Duration, end: &End) -> Option<&'static str> {
        let now = world.real();
        if entry.refused == 0 {
            return None;
        }
        if matches!(end, End::Answered(Ok(Answer::RefusedLate))) {
            return Some(AT_THE_END);
        }
        if entry.sends == 2 {
            if entry.refused < 2 {
                return None;
            }
            self.remember(call, now);
            return Some("401 twice in a row");
        }
        if !call.can_be_resent() {
            return Some(TOO_LONG);
        }
        let minted = world.book.minted_at(entry.tokens[0]);
        if minted.is_some_and(|minted| world.fetches.storm(minted, entry.refused_at)) {
            return Some("401 while the storm brake was on");
        }
        if self.remembered(call, began) {
            return Some("401 where the resend was refused before");
        }
        match self.no_token(world, began) {
            Some("no token could be had") => Some("401, and no token could be had"),
            other => other,
        }
    }

    fn remember(&self, call: &Call, now: Duration) {
        if let Some(key) = key(call) {
            lock(&self.0).entry(key).or_default().since = Some(now);
        }
    }

    fn accepted(&self, world: &World, call: &Call, began: Duration) {
        let Some(key) = key(call) else { return };
        if let Some(remembered) = lock(&self.0).get_mut(&key)
            && remembered.since.is_some_and(|since| since < began)
        {
            *remembered = Remembered { since: None, forgotten: world.real() };
        }
    }

    fn remembered(&self, call: &Call, began: Duration) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = key(call).and_then(|key| all.get(&key));
        remembered.is_some_and(|remembered| remembered.since.is_some() || remembered.forgotten >= began)
    }
}

/// What the layer takes for one thing.
fn key(call: &Call) -> Option<(Stack, u8)> {
    match call.path {
        Path::Job(number) => Some((call.stack, number)),
        Path::Say => Some((call.stack, 0)),
        Path::Gather => Some((call.stack, 1)),
        Path::Talk => Some((call.stack, 2)),
        Path::Forbidden | Path::Foreign => None,
    }
}

/// tonic's channel itself said no, before there was anything to send.
fn never_ready(end: &End) -> bool {
    matches!(end, End::Answered(Err(error)) if error.to_string().contains("Service was not ready"))
}

/// An error of the network, or an answer that was no answer.
fn transport(world: &World, stack: Stack, entry: &Entry, began: Duration) -> Option<&'static str> {
    let last = entry.sends.clamp(1, 2) - 1;
    if entry.broken {
        return Some("error: its stream was reset");
    }
    if entry.nacks > 0 {
        return Some("error: its stream was refused unread");
    }
    if world.fate(entry.connections[last]).is_some() {
        return Some("error: its connection was cut or closed");
    }
    // HTTP/2 tells the refusal in any case, HTTP/1.1 only to who is not writing just then.
    if entry.early && entry.refused as usize == entry.sends && stack == Stack::Hyper1 {
        return Some("error: refused before its body's end");
    }
    if entry.arrivals[last] > 0 {
        return None;
    }
    let aftermath = AFTERMATH.max(world.report.longest(stack));
    let troubled = world.troubled(stack, began.saturating_sub(aftermath), world.real());
    troubled.map(|_| "error: never arrived, in a time of trouble")
}

/// An error with its causes.
fn chain(error: &BoxError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
