//! An attack on the machine: whatever happens in whatever order, what it promises holds after every step.
//!
//! All sequences of up to four events from six starts are 2.5 million steps; 10,000 random walks of up to 100 events go deeper. Both
//! are the same on each run.

mod rules;
mod world;

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
    /// The task of a flight that was lost comes back to life.
    Orphan,
    Set(Brings),
    Clear,
    Pass(Duration),
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

const EVENTS: [Event; 33] = [
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
    Orphan,
    Set(Living(HOUR)),
    Set(BornDead),
    Clear,
    Pass(SECOND),
    Pass(Duration::from_secs(33)),
    WallAhead,
    WallBack,
];

/// All sequences of up to `depth` events; `after` is what led here. Returns how many steps that were.
fn all(world: &World, depth: u32, after: &mut Vec<Event>) -> usize {
    if depth == 0 {
        return 0;
    }
    let mut steps = 0;
    for event in EVENTS.into_iter().filter(|event| world.allows(*event)) {
        after.push(event);
        let mut next = world.clone();
        next.roll = [0.0, 1.0][after.len() % 2];
        next.step(event);
        steps += 1 + all(&next, depth - 1, after);
        after.pop();
    }
    steps
}

/// Says what led to a broken promise.
struct Trail(Vec<Event>);

impl Drop for Trail {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("after {:?}", self.0);
        }
    }
}

#[test]
fn no_sequence_of_events_breaks_a_promise() {
    let refused = Rejected { resent: false, resource: None, accepted: false };
    let starts: [(&[Event], u32); 6] = [
        (&[], 4),
        (&[Asked, LONG], 4),
        (&[Asked, SHORT, Pass(19 * SECOND)], 4),
        (&[Asked, LONG, Pass(MINUTE), refused], 4),
        (&[Asked, Failed { permanent: true, retry_after: None }, Set(Living(HOUR)), refused, LONG, refused], 4),
        (&[Asked, Fetched(BornDead), Asked, refused], 4),
    ];
    let mut steps = 0;
    for (start, depth) in starts {
        let mut world = World::new();
        let mut trail = Trail(Vec::new());
        for event in start {
            trail.0.push(*event);
            world.step(*event);
        }
        steps += all(&world, depth, &mut trail.0);
    }
    assert!(steps > 2_000_000, "{steps}: the attack has lost its teeth");
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
    for _ in 0..10_000 {
        let mut world = World::new();
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
