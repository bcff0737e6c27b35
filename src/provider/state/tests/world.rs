//! What surrounds a machine, and what must hold at any time.

use super::{
    super::*,
    Brings::{self, BornDead, Living, Opaque, Same, SameForLonger, SameWithHint},
    Event::{self, *},
    HOUR, MINUTE, SECOND,
};
use crate::provider::{
    backoff::Failure,
    schedule::{self, Standing},
};

/// A flight older than this is lost, with the default settings.
const LOST: Duration = Duration::from_secs(32);

#[derive(Clone, Debug)]
pub(super) struct World {
    machine: Machine,
    now: Now,
    flight: Option<Task>,
    orphans: Vec<u64>,
    waiters: Vec<Purpose>,
    last_ask: Option<Duration>,
    /// Before the first token.
    oldest: Generation,
    /// The newest generation ever held.
    newest: Generation,
    /// Generations that somebody saw refused.
    refused: Vec<Generation>,
    /// Nobody but `refresh` starts a flight before.
    closed: Duration,
    /// Nobody at all.
    retry_after: Duration,
    minted: u32,
    pub(super) roll: f64,
}

#[derive(Clone, Copy, Debug)]
struct Task {
    number: u64,
    started: Duration,
    asked: Option<Now>,
    void: bool,
}

impl World {
    pub(super) fn new() -> Self {
        let oldest = Generation::new_provider();
        Self {
            machine: Machine::new(Settings::default(), oldest),
            now: Now { wall: HOUR * 24 * 365 * 50, mono: MINUTE },
            flight: None,
            orphans: Vec::new(),
            waiters: Vec::new(),
            last_ask: None,
            oldest,
            newest: oldest,
            refused: Vec::new(),
            closed: Duration::ZERO,
            retry_after: Duration::ZERO,
            minted: 0,
            roll: 0.5,
        }
    }

    /// Can it happen now?
    pub(super) fn allows(&self, event: Event) -> bool {
        let held = self.machine.held().is_some();
        match event {
            Bound => !self.waiters.is_empty(),
            Rejected { .. } | RejectedOld => held,
            Ask => self.flight.is_some_and(|flight| flight.asked.is_none()),
            Fetched(Same | SameForLonger | SameWithHint) => held && self.flight.is_some(),
            Fetched(_) | Failed { .. } | Lost => self.flight.is_some(),
            Orphan => !self.orphans.is_empty(),
            _ => true,
        }
    }

    pub(super) fn step(&mut self, event: Event) {
        match event {
            Asked => {
                let decision = self.machine.asked(self.now);
                self.never_withheld(&decision);
                self.decided(decision, Purpose::Send, event);
            }
            ValidFor(span) => {
                let decision = self.machine.valid_for(self.now, span);
                self.decided(decision, Purpose::Send, event);
            }
            Forced => {
                let decision = self.machine.forced(self.now);
                self.decided(decision, Purpose::Refresh, event);
            }
            Tick => {
                let start = self.machine.tick(self.now);
                self.started(start, event);
            }
            Bound => {
                let purpose = self.waiters.remove(0);
                self.woken(Over::Bound, purpose);
            }
            Rejected { resent, resource, accepted } => {
                let generation = self.held_generation().expect("allowed");
                self.refused.push(generation);
                let accepted = accepted.then_some(self.now.mono);
                let rejection = Rejection { resent, resource, accepted, challenge: None };
                let decision = self.machine.rejected(self.now, generation, rejection, self.roll);
                self.decided(decision, Purpose::Replace(generation), event);
            }
            RejectedOld => self.rejected_other(self.oldest, event),
            RejectedForeign => self.rejected_other(Generation::new_provider().next(), event),
            Accepted => self.machine.accepted(7),
            Ask => drop(self.ask()),
            Fetched(brings) => {
                if let Some(task) = self.ask() {
                    let token = self.token(brings);
                    let before = self.held_generation();
                    let dies = schedule::dies(&token, task.asked.expect("it did"), self.now);
                    let refused = self
                        .machine
                        .held()
                        .is_some_and(|held| held.standing > Standing::Good && held.token.same_bytes(&token));
                    let landed = self.machine.fetched(self.now, task.number, token, self.roll);
                    assert!(!refused || matches!(landed, Landed::Failed | Landed::Dropped), "no successor of itself");
                    assert_eq!(
                        landed == Landed::Dropped,
                        task.void,
                        "a result counts unless something was told meanwhile"
                    );
                    if landed == Landed::Dropped {
                        assert_eq!(self.held_generation(), before);
                    } else {
                        self.lives_as_long_as(dies.expect("nothing absurd is brought"));
                    }
                    self.landed(landed, false);
                }
            }
            Failed { permanent, retry_after } => {
                if let Some(task) = self.ask() {
                    let failure = Failure { permanent, retry_after };
                    let error = FetchError::Source("down".into());
                    let landed = self.machine.failed(self.now, task.number, error, failure, self.roll);
                    assert_eq!(landed == Landed::Dropped, task.void);
                    if let (Some(wait), false) = (retry_after, task.void) {
                        self.retry_after = self.now.mono + wait;
                    }
                    self.landed(landed, permanent);
                }
            }
            Lost => {
                let task = self.flight.expect("allowed");
                self.machine.lost(task.number);
                self.lose();
            }
            Orphan => {
                let number = self.orphans.remove(0);
                let before = self.held_generation();
                assert_eq!(self.machine.leave(self.now, number), None, "a lost flight may not ask");
                assert!(!self.machine.ask(self.now, number));
                let token = self.token(Opaque);
                assert_eq!(self.machine.fetched(self.now, number, token, 0.0), Landed::Dropped);
                assert_eq!(self.held_generation(), before);
            }
            Set(brings) => {
                let token = self.token(brings);
                self.machine.set(self.now, token, self.roll);
                assert!(self.held_generation() > Some(self.newest), "a pushed token gets a generation of its own");
                self.told();
            }
            Clear => {
                self.machine.clear(self.now);
                assert!(self.machine.held().is_none() && self.machine.wake(self.now).is_none());
                self.told();
            }
            Pass(span) => self.now = self.now.after(span),
            WallAhead => self.now.wall += HOUR,
            WallBack => self.now.wall -= HOUR,
        }
        self.holds();
    }

    /// What must be true at any time.
    fn holds(&mut self) {
        // Whatever looks finds out that a flight is too old; here that is the loop, of a copy.
        let mut copy = self.machine.clone();
        let (wake, started) = (self.machine.wake(self.now), copy.tick(self.now));
        let due = wake.is_some_and(|wake| wake <= self.now.mono);
        assert!(due || started.is_none(), "what is due is woken for");
        assert!(
            !due || started.is_some() || self.machine.under_way().is_some(),
            "a wake-up that is due starts a flight"
        );
        if let Some(next) = copy.wake(self.now) {
            assert!(next > self.now.mono, "no busy loop");
            let then = self.now.after(next - self.now.mono);
            let (flew, starts) = (copy.under_way().is_some(), copy.tick(then).is_some());
            assert!(
                starts || flew && copy.wake(then).is_none_or(|wake| wake > then.mono),
                "a wake-up finds something to do"
            );
        }
        if let Some(held) = self.machine.held() {
            let generation = held.token.generation();
            assert!(generation >= self.newest, "never backwards");
            assert!(
                held.standing == Standing::Good || self.refused.contains(&generation),
                "marked without a rejection"
            );
            self.newest = generation;
        }
        let aged = |flight: Task| self.now.mono - flight.started >= LOST;
        match self.flight {
            Some(flight) if self.machine.under_way() != Some(flight.number) => {
                assert!(aged(flight), "a flight vanished");
                self.lose();
            }
            None => assert_eq!(self.machine.under_way(), None),
            _ => {}
        }
        assert!(self.waiters.is_empty() || self.flight.is_some(), "somebody waits for nothing");
    }

    fn held_generation(&self) -> Option<Generation> {
        self.machine.held().map(|held| held.token.generation())
    }

    fn lives(&self, held: &Held) -> bool {
        held.dies.is_none_or(|dies| self.now.wall < dies.wall && self.now.mono < dies.mono)
    }

    /// The held token's runway if it lives and nobody has to wait for its successor.
    fn good(&self) -> Option<Duration> {
        let held = self.machine.held().filter(|held| self.lives(held) && held.standing != Standing::Marked)?;
        Some(held.runway(self.now)).filter(|_| !self.machine.is_ended())
    }

    /// What the source gives is never thrown away: something lives, and for as long as the source said.
    fn lives_as_long_as(&self, dies: Option<Now>) {
        let held = self.machine.held().expect("something landed");
        assert!(self.lives(held), "a source that answers leaves nobody without a token");
        let (has, said) = (held.runway(self.now), dies.map_or(Duration::MAX, |dies| self.now.until(dies)));
        assert!(has.saturating_add(SECOND) >= said, "{has:?} of {said:?}");
    }

    fn never_withheld(&self, decision: &Decision) {
        let Some(runway) = self.good() else { return };
        match decision {
            Decision::Send { .. } => {}
            Decision::Wait { at_most: Some(at_most), .. } => assert!(*at_most <= SECOND.min(runway / 2)),
            decision => panic!("withheld: {decision:?}"),
        }
    }

    fn decided(&mut self, decision: Decision, purpose: Purpose, by: Event) {
        match decision {
            Decision::Send { token, start } => {
                let held = self.machine.held().expect("only what is held is sent");
                assert_eq!(held.token.generation(), token.generation());
                assert!(self.lives(held), "a dead token is never sent");
                assert!(!self.machine.is_ended(), "nothing is sent after the end");
                self.started(start, by);
            }
            Decision::Wait { start, .. } => {
                self.started(start, by);
                assert!(self.machine.under_way().is_some(), "a wait is for a flight");
                self.waiters.push(purpose);
            }
            Decision::Pass { start } => self.started(start, by),
            Decision::Unavailable(_) => assert!(
                by == Forced || matches!(purpose, Purpose::Replace(_)) || self.good().is_none(),
                "a living token is withheld"
            ),
        }
    }

    fn started(&mut self, start: Option<u64>, by: Event) {
        let Some(number) = start else { return };
        if let Some(flight) = self.flight {
            assert!(self.now.mono - flight.started >= LOST, "two flights at once");
            self.flight = None;
            self.orphans.push(flight.number);
        }
        assert!(!self.machine.is_ended(), "a fetch after the end");
        assert!(self.now.mono >= self.retry_after, "a Retry-After binds all");
        assert!(by == Forced || self.now.mono >= self.closed, "the gate is shut");
        self.flight = Some(Task { number, started: self.now.mono, asked: None, void: false });
    }

    /// As the flight's task does it. None: it may not, and its task ends.
    fn ask(&mut self) -> Option<Task> {
        let mut task = self.flight.expect("allowed");
        if task.asked.is_none() {
            let Some(sleep) = self.machine.leave(self.now, task.number) else {
                assert!(task.void || self.now.mono - task.started >= LOST);
                self.machine.lost(task.number);
                self.lose();
                return None;
            };
            self.now = self.now.after(sleep);
            assert!(self.machine.ask(self.now, task.number));
            assert!(self.last_ask.is_none_or(|last| self.now.mono - last >= SECOND), "two fetches within a second");
            self.last_ask = Some(self.now.mono);
            task.asked = Some(self.now);
            self.flight = Some(task);
        }
        if self.now.mono - task.started >= LOST {
            // Too old: whatever it brings is dropped, as that of any orphan.
            self.machine.lost(task.number);
            self.lose();
            return None;
        }
        Some(task)
    }

    fn landed(&mut self, landed: Landed, permanent: bool) {
        self.flight = None;
        let over = match landed {
            Landed::Failed => {
                // A permanent failure is asked about each minute by those who have nothing that lives.
                let wait = if permanent && !self.machine.held().is_some_and(|held| self.lives(held)) {
                    MINUTE
                } else {
                    SECOND
                };
                self.closed = (self.now.mono + wait).max(self.retry_after);
                Over::Failed
            }
            Landed::Dropped => Over::Lost,
            _ => {
                self.closed = self.retry_after;
                Over::Landed
            }
        };
        self.all_woken(over);
    }

    fn lose(&mut self) {
        let task = self.flight.take().expect("one is lost");
        self.orphans.push(task.number);
        self.all_woken(Over::Lost);
    }

    /// After `set` and `clear`: what waited has its answer, and what a flight brings is dropped.
    fn told(&mut self) {
        self.closed = self.retry_after;
        if let Some(flight) = &mut self.flight {
            flight.void = true;
            assert_eq!(self.machine.leave(self.now, flight.number), None);
        }
        self.all_woken(Over::Landed);
    }

    fn all_woken(&mut self, over: Over) {
        for purpose in std::mem::take(&mut self.waiters) {
            self.woken(over, purpose);
        }
    }

    fn woken(&mut self, over: Over, purpose: Purpose) {
        let good =
            self.good().is_some() && purpose != self.held_generation().map_or(Purpose::Refresh, Purpose::Replace);
        let decision = self.machine.woken(self.now, over, purpose);
        let sent = matches!(decision, Decision::Send { .. });
        assert!(!sent || (purpose, over) != (Purpose::Refresh, Over::Failed), "a forced fetch that failed is told");
        let waits = matches!(decision, Decision::Wait { .. });
        assert!(
            !waits || matches!(over, Over::Landed | Over::Lost),
            "who waited for a failure does not queue for the next"
        );
        if good && (purpose != Purpose::Refresh || over == Over::Landed) {
            assert!(sent, "{purpose:?} {over:?}: what lives is sent after the wait: {decision:?}");
        }
        let by = if purpose == Purpose::Refresh { Forced } else { Asked };
        self.decided(decision, purpose, by);
    }

    /// A rejection of what is not held is a request for the current token, to the last bit of the machine.
    fn rejected_other(&mut self, generation: Generation, by: Event) {
        let mut asked = self.machine.clone();
        drop(asked.asked(self.now));
        let decision = self.machine.rejected(self.now, generation, Rejection::default(), self.roll);
        if !self.machine.is_ended() {
            assert_eq!(format!("{:?}", self.machine), format!("{asked:?}"));
        }
        self.decided(decision, Purpose::Replace(generation), by);
    }

    fn token(&mut self, brings: Brings) -> Token {
        self.minted += 1;
        let held = self.machine.held().map(|held| held.token.clone());
        let new = Token::opaque(format!("t{}", self.minted)).expect("legal");
        let past = system_time(self.now.wall - 2 * HOUR).expect("in range");
        match (brings, held) {
            (Same, Some(held)) => held,
            (SameForLonger, Some(held)) => held.with_expires_in(2 * HOUR),
            (SameWithHint, Some(held)) => held.with_refresh_after(MINUTE),
            (Living(life), _) => new.with_expires_in(life),
            (BornDead, _) => new.with_expires_at(past),
            _ => new,
        }
    }
}
