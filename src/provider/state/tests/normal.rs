//! When two worlds are the same: whatever happens next, both answer alike and keep their promises alike.
//!
//! The machine compares moments, and takes the difference of two; it never asks what time it is. So a moment is told by how far it is from now.
//! What can make no difference any more is left out:
//! - a moment on the monotonic clock that has passed is as good as now: that clock never goes back ([`Machine`] sees to it), and moments
//!   are only ever compared with now or later ones. The wall clock does go back, so its moments are kept to the nanosecond;
//! - an age beyond the one limit it is compared with is as good as the limit;
//! - a streak or a storm's count is as good as seven, from where on every wait is at its cap;
//! - of names (generations, flights, bytes of tokens) counts which are equal, and each is only ever compared with the current one;
//! - what was noted for the log, the text of errors, and since when there is trouble decide nothing.
//!
//! Every field is named here, so that a new one does not compile until somebody has said what it is; and the search compares what becomes of worlds
//! that are the same by this account.

use super::world::World;
use crate::{
    clock::Now,
    provider::{
        backoff::Backoff,
        schedule::Held,
        state::{Flight, Machine, Trouble},
        storm::{Resource, Resources, Storm},
    },
};
use std::{
    hash::{DefaultHasher, Hasher},
    time::Duration,
};

/// Beyond it every wait is at its cap, with the default settings: 2^6 s are over a minute.
const CAPPED: u32 = 7;
/// A storm's wait is not longer.
const LONGEST_STORM: Duration = Duration::from_secs(60);
const HASTY: Duration = Duration::from_secs(10);

/// 128 bits of a world's normal form.
pub(super) fn form(world: &World) -> u128 {
    let mut form = Form { now: world.now, parts: Vec::with_capacity(64) };
    form.world(world);
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(salt);
        for part in &form.parts {
            hasher.write_i64(*part);
        }
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

struct Form {
    now: Now,
    parts: Vec<i64>,
}

impl Form {
    fn number(&mut self, number: impl Into<i64>) {
        self.parts.push(number.into());
    }

    fn span(&mut self, span: Duration) {
        self.number(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX));
    }

    /// A moment at which something ends.
    fn ahead(&mut self, at: Duration) {
        self.span(at.saturating_sub(self.now.mono));
    }

    /// A moment since which something is; `limit` is when nobody asks any more. One that never was is as old as can be.
    fn age(&mut self, at: Option<Duration>, limit: Duration) {
        self.span(at.map_or(limit, |at| (self.now.mono - at).min(limit)));
    }

    fn optional<T>(&mut self, it: Option<T>, form: impl FnOnce(&mut Self, T)) {
        self.number(it.is_some());
        if let Some(it) = it {
            form(self, it);
        }
    }

    /// A moment of the wall clock, which may come again.
    fn wall(&mut self, at: Duration) {
        let (at, now) = (at.as_nanos(), self.now.wall.as_nanos());
        self.number(i64::try_from(at.abs_diff(now)).unwrap_or(i64::MAX));
        self.number(at < now);
    }

    fn world(&mut self, world: &World) {
        let World {
            machine,
            now: _,
            flight,
            lost: _, // a name: that of any flight that is gone
            waiters,
            crowd: _, // the same in all
            last_ask,
            oldest: _, // a name that is never the current one
            newest,
            refused,
            closed,
            retry_after,
            failed,
            refetched,
            minted: _,  // makes names
            roll: _,    // the same in all
            answers: _, // of the last step
        } = world;
        self.machine(machine);
        self.optional(*flight, |form, task| {
            form.ahead(task.started.saturating_add(super::flight::LOST));
            form.optional(task.asked, Self::asked);
            form.number(task.void);
        });
        let current = machine.held.as_ref().map(|held| held.token.generation());
        self.number(i64::try_from(waiters.len()).unwrap_or(i64::MAX));
        for purpose in waiters {
            self.number(world.class(*purpose));
        }
        self.age(*last_ask, super::SECOND);
        self.number(*newest == machine.generation);
        self.number(current.is_some_and(|current| refused.contains(&current)));
        self.ahead(*closed);
        self.ahead(*retry_after);
        self.age(*failed, super::MINUTE);
        self.age(*refetched, super::MINUTE);
    }

    fn asked(&mut self, asked: Now) {
        self.wall(asked.wall);
        // A flight that asked longer ago is lost.
        self.age(Some(asked.mono), super::flight::LOST);
    }

    fn machine(&mut self, machine: &Machine) {
        let Machine {
            settings: _, // the same in all
            held,
            flight,
            backoff,
            storm,
            resources,
            ended,
            trouble,
            last_ask,
            flights: _, // makes names
            generation,
            seen: _, // only ever raised to now, by each event before it does anything else
            version: _,
            notes: _,
            warned_absurd: _,
            warned_skew: _,
            warned_early: _,
        } = machine;
        self.optional(held.as_ref(), Self::held);
        self.optional(flight.as_ref(), |form, flight| {
            let Flight { number: _, reason, challenge, started, asked, void, warned_slow: _ } = flight;
            assert!(challenge.is_none(), "no event brings one");
            form.number(*reason as i64);
            form.ahead(started.saturating_add(super::flight::LOST));
            form.optional(*asked, Self::asked);
            form.number(*void);
        });
        let Backoff { streak, hard, soft, retry_after } = backoff;
        self.number(*streak.min(&CAPPED));
        self.ahead(*hard);
        self.ahead(*soft);
        self.ahead(*retry_after);
        let Storm { count, began, roll, until } = storm;
        self.number(*count.min(&CAPPED));
        self.age(*began, LONGEST_STORM);
        // Drawn anew as soon as there is something to count.
        self.number(i64::from_ne_bytes(if *count == 0 { 0.0 } else { *roll }.to_ne_bytes()));
        self.ahead(*until);
        let Resources(all) = resources;
        self.number(i64::try_from(all.len()).unwrap_or(i64::MAX));
        for Resource { key: _, refused, wait, until } in all {
            self.number(refused == generation);
            self.span(*wait);
            self.ahead(*until);
        }
        self.optional(*ended, |form, ended| form.number(ended as i64));
        self.optional(trouble.as_ref(), |form, trouble| {
            let Trouble { error: _, permanent, since: _, next_try: _ } = trouble;
            form.number(*permanent);
        });
        self.age(*last_ask, machine.settings.min_interval);
    }

    fn held(&mut self, held: &Held) {
        let Held { token, dies, life, refresh_before, min_runway, due, stored, standing, refused, counted } = held;
        // What it says of its end is what `dies` says.
        assert!(token.refresh_after.is_none() && token.not_before.is_none(), "no event brings one that is stored");
        self.optional(*dies, |form, dies| {
            form.wall(dies.wall);
            form.ahead(dies.mono);
        });
        self.optional(*life, Self::span);
        self.span(*refresh_before);
        self.span(*min_runway);
        self.optional(*due, Self::ahead);
        self.age(Some(*stored), HASTY);
        self.number(*standing as i64);
        self.number(*refused);
        self.number(*counted);
    }
}
