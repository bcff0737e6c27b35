//! "One flight", "a flight belongs to no caller", "a bounded fetch rate in every failure": every time the source is asked, something in the design
//! must want it.

use super::{
    Oracle, SLACK,
    held::{Landed, Says, Standing, land},
};
use crate::clock::Moment;
use std::{collections::VecDeque, time::Duration};
use tower_jwt_refresh::source::Reason;

/// The source was asked, and has not answered.
#[derive(Debug)]
pub(super) struct Fetch {
    asked: Moment,
    /// It began then at the earliest: up to `min_interval` before it asked.
    began: Duration,
    reason: Reason,
    /// Begun before a `set` or `clear`.
    pub(super) void: bool,
}

/// When the source was asked in the last hour.
#[derive(Debug, Default)]
pub(super) struct Hour {
    asks: VecDeque<(Duration, Reason)>,
    pub(super) failing_since: Option<Duration>,
}

/// What the source answered.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Token(u32, Says),
    Failed { permanent: bool, retry_after: Option<Duration> },
}

impl Oracle {
    /// The source is asked.
    pub fn asked(&mut self, reason: Reason, healthy: bool) -> u32 {
        let now = self.look();
        if !healthy {
            self.disturbed = now.mono;
        }
        // Whoever starts a flight starts the loop anew as well.
        self.loop_lives |= self.settings.init && !self.frozen;
        self.counts(now, reason);
        if let Some(last) = self.last_ask
            && now.mono - last < self.settings.min_interval
        {
            self.breaks("6 bounded", format!("two fetches {:?} apart ({reason})", now.mono - last));
        }
        if let Some(other) = self.under_way.and_then(|number| self.fetches.get(&number)) {
            // "It is the one case in which two fetches may overlap". A flight is older than its asking by `min_interval` at most.
            let age = now.mono - other.began;
            if age + SLACK < self.settings.lost_after() {
                self.breaks("1 one flight", format!("asked while a flight of {age:?} is under way"));
            }
            self.lost(now);
        }
        if self.signed_out {
            self.breaks("told from outside", "asked while signed out");
        }
        if let Err(why) = self.is_wanted(now, reason) {
            self.breaks("6 bounded", format!("nobody wants a {reason} fetch: {why}; {:?}", self.held));
        }
        let pause = self.settings.min_interval + SLACK;
        let at_once = self.last_ask.is_none_or(|last| now.mono - last > pause);
        let began = match self.last_freeze {
            // It slept through that, and thawed before it was lost.
            Some(at) if at + pause >= now.mono => now.mono.saturating_sub(self.settings.lost_after()),
            _ if at_once => now.mono,
            _ => now.mono.saturating_sub(pause),
        };
        if reason == Reason::Rejected {
            self.storm_begins(now, began);
        }
        self.storm_let = false;
        self.asks += 1;
        self.last_ask = Some(now.mono);
        self.under_way = Some(self.asks);
        self.fetches.insert(self.asks, Fetch { asked: now, began, reason, void: false });
        self.report.fetched(reason);
        self.asks
    }

    fn is_wanted(&self, now: Moment, reason: Reason) -> Result<(), &'static str> {
        let soft = now.mono >= self.waits.soft.least;
        let hard = now.mono >= self.waits.hard.least;
        // What made the flight begin was true up to `min_interval` ago, and a clock may have been set since.
        let jumped = self.last_jump.is_some_and(|at| at + self.settings.min_interval + SLACK >= now.mono);
        let held = self.held.as_ref();
        let dead = held.is_none_or(|held| !held.lives(now));
        match reason {
            _ if jumped => Ok(()),
            Reason::Initial if held.is_some() => Err("there is a token"),
            Reason::Initial => hard.then_some(()).ok_or("it failed a moment ago"),
            Reason::Expiring if dead => hard.then_some(()).ok_or("it failed a moment ago"),
            Reason::Scheduled | Reason::Expiring => {
                let held = held.ok_or("there is no token")?;
                let before = match reason {
                    Reason::Expiring => held.min_runway(&self.settings),
                    _ => held.refresh_before(&self.settings),
                };
                let due = held.due.is_some_and(|due| now.mono >= due) && reason == Reason::Scheduled;
                (due || held.runway(now) <= before).then_some(()).ok_or("it lives for long enough")?;
                soft.then_some(()).ok_or("it failed, or brought nothing, a moment ago")
            }
            Reason::Rejected => {
                held.is_some_and(|held| held.standing > Standing::Good).then_some(()).ok_or("nobody refused it")?;
                hard.then_some(()).ok_or("it failed a moment ago")?;
                // It may have begun before the last refusal made the storm grow, and slept since.
                let slept = self.last_freeze.is_some_and(|at| at + self.settings.min_interval + SLACK >= now.mono);
                (self.storm_let || slept).then_some(()).ok_or("there is a storm")
            }
            Reason::Forced => {
                let wait = self.settings.longest_wait() + SLACK;
                let forced =
                    self.last_forced.is_some_and(|(at, freezes)| at + wait >= now.mono || freezes < self.freezes);
                forced.then_some(()).ok_or("nobody asked for it")?;
                (now.mono >= self.waits.retry_after).then_some(()).ok_or("the endpoint said not to")
            }
            _ => Err("unknown"),
        }
    }

    /// "Each flight begun on a hasty rejection adds 1", "the storm wait runs from the start of the last flight begun on a rejection". It began up to
    /// `min_interval` before it asks, but at once where that had passed.
    fn storm_begins(&mut self, now: Moment, began: Duration) {
        self.storm.begin(began, now.mono, &self.settings);
        let hasty = self.last_hasty.is_some_and(|at| at >= began);
        self.storm.add(u32::from(hasty && began == now.mono), u32::from(hasty), &self.settings);
    }

    /// "A bounded fetch rate": with all waits at their cap, an hour of failures has so many fetches, and a few more as a last token dies.
    fn counts(&mut self, now: Moment, reason: Reason) {
        let hour = Duration::from_secs(3600);
        let asks = &mut self.hour.asks;
        asks.push_back((now.mono, reason));
        while asks.front().is_some_and(|(at, _)| *at + hour < now.mono) {
            asks.pop_front();
        }
        let count = |which: Reason| asks.iter().filter(|(_, reason)| *reason == which).count();
        let (rejected, others) = (count(Reason::Rejected), asks.len() - count(Reason::Forced));
        self.report.rejected_in_an_hour = self.report.rejected_in_an_hour.max(rejected);
        if self.hour.failing_since.is_some_and(|since| since + hour <= now.mono) {
            self.report.failed_in_an_hour = self.report.failed_in_an_hour.max(others);
            // "Half the runway while one lives", which a refused token that is extended again and again has again and again.
            let left = self.held.as_ref().map_or(Duration::MAX, |held| held.life() / 2);
            let (_, cap) = self.settings.backoff;
            let least = (cap / 2).min(Duration::from_secs(60)).min(left).max(self.settings.min_interval);
            let most = hour.div_duration_f64(least) + 40.0;
            if others as f64 > most {
                self.breaks("6 bounded", format!("{others} fetches in an hour of failures, {most:.0} are allowed"));
            }
        }
    }

    /// The source answers. The provider hears of it right after.
    pub fn answered(&mut self, number: u32, answer: Answer) {
        let now = self.look();
        let Some(fetch) = self.fetches.remove(&number) else { return };
        if self.under_way != Some(number) {
            return;
        }
        self.under_way = None;
        if fetch.void {
            self.last_lost = Some(now.mono);
            return;
        }
        if !self.is_in_time(now, &fetch) {
            // It thawed. Whoever looks first finds it too old: its result is dropped.
            self.is_lost(now, fetch.reason);
            return;
        }
        match answer {
            Answer::Token(token, says) => self.brought(now, &fetch, token, says),
            Answer::Failed { permanent, retry_after } => self.failed(now, permanent, retry_after),
        }
        self.settle(now, false);
    }

    fn brought(&mut self, now: Moment, fetch: &Fetch, token: u32, says: Says) {
        let generation = self.generations + 1;
        let (held, waits) = (&mut self.held, &mut self.waits);
        let landed = land(held, waits, &self.settings, (fetch.asked, now), (token, says), generation);
        if landed == Landed::Stored {
            self.generations = generation;
            self.generation_of.insert(token, generation);
            self.last_hasty = None;
        }
        match landed {
            Landed::Failed => self.last_failure = Some(now.mono),
            _ => self.last_landing = Some(now.mono),
        }
        if landed != Landed::Stored {
            self.disturbed = now.mono;
        }
        if landed != Landed::Failed {
            self.hour.failing_since = None;
        }
        self.report.landed(landed);
    }

    fn failed(&mut self, now: Moment, permanent: bool, retry_after: Option<Duration>) {
        let left = self.held.as_ref().and_then(|held| held.shortens(now));
        self.waits.fail(now, left, (permanent, retry_after), &self.settings);
        (self.last_failure, self.disturbed) = (Some(now.mono), now.mono);
        self.hour.failing_since.get_or_insert(now.mono);
        self.report.failed += 1;
    }

    /// The source's future is dropped without an answer: it timed out, or its runtime is gone, or it belonged to somebody after all.
    pub fn dropped(&mut self, number: u32) {
        if !self.fetches.contains_key(&number) {
            return;
        }
        let now = self.look();
        let Some(fetch) = self.fetches.remove(&number) else { return };
        let mine = self.under_way == Some(number);
        if mine {
            self.under_way = None;
        }
        let age = now.mono - fetch.asked.mono;
        if self.dropping {
            if mine {
                self.is_lost(now, fetch.reason);
            }
        } else if age < self.settings.fetch_timeout {
            self.breaks("2 a flight belongs to no caller", format!("a fetch was given up after {age:?}"));
        } else if mine && !fetch.void && self.is_in_time(now, &fetch) {
            self.failed(now, false, None);
        } else if mine {
            self.is_lost(now, fetch.reason);
        }
        self.settle(now, false);
    }

    /// The flight under way is too old.
    fn lost(&mut self, now: Moment) {
        let fetch = self.under_way.take().and_then(|number| self.fetches.get(&number));
        if let Some(reason) = fetch.map(|fetch| fetch.reason) {
            self.is_lost(now, reason);
        }
    }

    /// "A lost flight is no failure: no wait follows".
    fn is_lost(&mut self, now: Moment, reason: Reason) {
        if reason == Reason::Rejected {
            self.storm.lost();
        }
        self.storm_let = true;
        self.last_lost = Some(now.mono);
        self.report.lost += 1;
    }

    /// Is it not so old that it counts as lost? Where it is not known to the moment when it began, neither is this.
    fn is_in_time(&mut self, now: Moment, fetch: &Fetch) -> bool {
        let limit = self.settings.lost_after();
        let (most, least) = (now.mono - fetch.began, now.mono - fetch.asked.mono);
        if least < limit && most >= limit {
            self.undecided = true;
        }
        most < limit
    }

    /// Is there a flight to join for sure?
    pub(super) fn flies(&self, now: Moment) -> bool {
        let fetch = self.under_way.and_then(|number| self.fetches.get(&number));
        fetch.is_some_and(|fetch| now.mono - fetch.began < self.settings.lost_after())
    }
}
