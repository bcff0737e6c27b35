//! An attack on the machine: whatever happens in whatever order, what it promises holds after every step.
//!
//! Every state that up to a number of events lead to, from ten starts, is looked at: at the moments at which some rule changes its mind, at once and a second later, with
//! whatever is random at its least and at its most. Four events in a debug build, six in release, or as `MACHINE_DEPTH` says. Random walks go
//! deeper: 3,000 of up to 100 events, in release 30,000. All of it is the same on each run, but for the names of things.

mod flight;
mod normal;
mod promises;
mod search;
mod world;

use search::Search;
use std::time::Duration;
use world::World;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Asked,
    ValidFor(Duration),
    Forced,
    Tick,
    /// The caller that waits longest has waited long enough.
    Bound,
    /// Of the token held.
    Rejected {
        resent: bool,
        resource: Option<u64>,
        accepted: bool,
    },
    RejectedOld,
    RejectedForeign,
    Accepted,
    /// The flight asks the source.
    Ask,
    Fetched(Brings),
    Failed {
        permanent: bool,
        retry_after: Option<Duration>,
    },
    Lost,
    Set(Brings),
    Clear,
    Pass(Duration),
    /// Time passes until the next moment at which some rule changes its mind.
    Edge,
    WallAhead,
    WallBack,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Brings {
    Living(Duration),
    BornDead,
    Opaque,
    /// The bytes held.
    Same,
    SameForLonger,
    SameWithHint,
}

use Brings::{BornDead, Living, Opaque, Same, SameForLonger, SameWithHint};
use Event::*;

const LONG: Event = Fetched(Living(HOUR));
const SHORT: Event = Fetched(Living(Duration::from_secs(20)));

const EVENTS: [Event; 32] = [
    Asked,
    ValidFor(Duration::from_secs(600)),
    ValidFor(HOUR),
    Forced,
    Tick,
    Bound,
    Rejected { resent: false, resource: None, accepted: false },
    Rejected { resent: true, resource: None, accepted: false },
    Rejected { resent: true, resource: Some(7), accepted: false },
    Rejected { resent: false, resource: Some(7), accepted: true },
    RejectedOld,
    RejectedForeign,
    Accepted,
    Ask,
    LONG,
    SHORT,
    Fetched(BornDead),
    Fetched(Opaque),
    Fetched(Same),
    Fetched(SameForLonger),
    Fetched(SameWithHint),
    Failed { permanent: false, retry_after: None },
    Failed { permanent: true, retry_after: None },
    Failed { permanent: false, retry_after: Some(Duration::from_secs(20)) },
    Lost,
    Set(Living(HOUR)),
    Set(BornDead),
    Clear,
    Pass(SECOND),
    Edge,
    WallAhead,
    WallBack,
];

/// Says what led to a broken promise.
struct Trail(Vec<Event>);

impl Drop for Trail {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("after {:?}", self.0);
        }
    }
}

const LOCKED_OUT: Event = Failed { permanent: true, retry_after: None };
const BUSY: Event = Failed { permanent: false, retry_after: Some(Duration::from_secs(20)) };
const REFUSED: Event = Rejected { resent: false, resource: None, accepted: false };
const FORBIDDEN: Event = Rejected { resent: false, resource: Some(7), accepted: false };
const FORBIDDEN_AGAIN: Event = Rejected { resent: true, resource: Some(7), accepted: false };

const STARTS: [&[Event]; 10] = [
    &[],
    &[Asked, LONG],
    &[Asked, SHORT, Pass(Duration::from_secs(19))],
    &[Asked, Fetched(BornDead), Asked, REFUSED],
    // Something is forbidden, and remembered: then a failure, a storm, a clock that was set back.
    &[Asked, LONG, Pass(MINUTE), FORBIDDEN, LONG, FORBIDDEN_AGAIN, Forced, BUSY],
    &[Asked, LONG, Pass(MINUTE), FORBIDDEN, LONG, FORBIDDEN_AGAIN, Edge, REFUSED, LONG, REFUSED],
    &[Asked, SHORT, FORBIDDEN, SHORT, FORBIDDEN_AGAIN, WallBack],
    // Somebody must repair something: with a token that lives and none that does; then told from outside.
    &[Asked, LONG, Forced, LOCKED_OUT, WallAhead],
    &[Asked, LOCKED_OUT, Set(Living(HOUR)), REFUSED, LONG, REFUSED],
    // Signed out while a flight is in the air, and an endpoint that asks for time.
    &[Asked, BUSY, Set(Living(HOUR)), WallBack, Edge, Edge, REFUSED, Ask, Clear],
];

/// Looks at all that can be reached while whatever is random falls as `roll`.
fn search(jitter: &str, roll: f64) {
    let usual = if cfg!(debug_assertions) { 4 } else { 6 };
    let depth = std::env::var("MACHINE_DEPTH").ok().map_or(usual, |depth| depth.parse().expect("a number"));
    let found = Search::of(&STARTS, &EVENTS, roll, depth);
    let (states, steps, compared) = (found.states, found.steps, found.compared);
    println!("machine: {states} states, {steps} steps, depth {depth}, the {jitter} jitter, {compared} compared");
    assert!(depth < 4 || states > 20_000 && compared > 100, "{found:?}: the attack has lost its teeth");
}

#[test]
fn no_state_that_can_be_reached_with_the_least_jitter_breaks_a_promise() {
    search("least", 0.0);
}

#[test]
fn no_state_that_can_be_reached_with_the_most_jitter_breaks_a_promise() {
    search("most", 1.0);
}

#[test]
fn no_long_walk_breaks_a_promise() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).expect("small")
    };
    let walks = if cfg!(debug_assertions) { 3_000 } else { 30_000 };
    for _ in 0..walks {
        let mut world = World::new();
        world.crowd = true;
        let mut trail = Trail(Vec::new());
        for _ in 0..100 {
            let event = EVENTS[next(EVENTS.len())];
            if world.allows(event) {
                trail.0.push(event);
                #[allow(clippy::cast_precision_loss, reason = "at most 100")]
                let roll = next(101) as f64 / 100.0;
                world.roll = roll;
                world.step(event);
            }
        }
    }
}
