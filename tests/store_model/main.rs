//! The lease, with the real layer and the real provider in each of several processes, under every order of what they ask of store and issuer, and with
//! every fault at every point: a process crashes and is started again, or stands still for longer than its lease and goes on at any later point.
//!
//! A process waits at a *gate* before each thing that it asks: to load, to take the lease, to save, to give back, the issuer. A schedule lets one through at a time.
//! Between two gates a process does nothing that others see, so this is every order there is. Time passes when nobody can go on, and when somebody
//! stands still. The search runs a schedule to its end, and then the next one that takes another turn at the last point where there is one, from the
//! start: nothing of the code under test is copied or mocked. Of two orders that differ only in what does not touch the same thing, such as a load and the
//! issuer's answer, one is run (sleep sets, as in Godefroid's). The hosts' clocks are an hour apart from each other.
//!
//! What must hold:
//! - no refresh token is shown twice, unless a fault befell its owner between its asking the issuer and its saving, and none ever that was
//!   spent before the last answer, which no grace window heals;
//! - all together fetch once, and once more for each fault at most;
//! - a late save is refused, and the revision that is stored never goes back;
//! - nobody gets a token that is older than the one that was stored when it asked;
//! - everybody gets one, within two waits.

#![allow(unreachable_pub, reason = "the parts are modules of their own")]

mod lease;
mod process;
mod world;

use process::{A_WHILE, Process};
use std::time::Duration;
use world::{Kind, Life, Shared};

const SECOND: Duration = Duration::from_secs(1);

struct Limits {
    processes: usize,
    rounds: usize,
    faults: usize,
    /// Of who stood still, timers have gone on, as of a process that was stopped. Else they stood still as well, as of a machine that was suspended.
    timers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// What waits at this gate happens.
    Pass(u64, usize, Kind),
    Crash(usize),
    Freeze(usize),
    Thaw(usize),
}

impl Step {
    fn process(self) -> usize {
        let (Self::Pass(_, process, _) | Self::Crash(process) | Self::Freeze(process) | Self::Thaw(process)) = self;
        process
    }

    /// Whichever comes first, the other can follow, and what comes of both is the same.
    fn commutes_with(self, other: Self) -> bool {
        self.process() != other.process()
            && match (self, other) {
                (Self::Pass(_, _, one), Self::Pass(_, _, other)) => one.commutes_with(other),
                // Time passes with the first; and there are only so many faults.
                (Self::Freeze(_), _) | (_, Self::Freeze(_)) | (Self::Crash(_), Self::Crash(_)) => false,
                // Who starts again may not get less than is stored then.
                (Self::Crash(_), Self::Pass(_, _, kind)) | (Self::Pass(_, _, kind), Self::Crash(_)) => {
                    kind != Kind::Save
                }
                (Self::Thaw(_), _) | (_, Self::Thaw(_)) => true,
            }
    }
}

/// The turns of a schedule: which of how many, at each point.
#[derive(Default)]
struct Turns {
    taken: Vec<(usize, usize)>,
    at: usize,
    /// What was done instead of a step before this one, and has nothing to do with anything that was done since: the order of the two makes no
    /// difference, so it is not done here.
    asleep: Vec<Step>,
}

impl Turns {
    /// None if there is nothing here that another schedule does not do.
    fn take(&mut self, steps: &[Step]) -> Option<Step> {
        let of: Vec<_> = steps.iter().copied().filter(|step| !self.asleep.contains(step)).collect();
        if of.is_empty() {
            return None;
        }
        if self.at == self.taken.len() {
            self.taken.push((0, of.len()));
        }
        let (turn, known) = self.taken[self.at];
        assert_eq!(known, of.len(), "a schedule that is run again is the same");
        self.at += 1;
        self.asleep.extend_from_slice(&of[..turn]);
        self.asleep.retain(|step| step.commutes_with(of[turn]));
        Some(of[turn])
    }

    /// The next schedule, if there is one.
    fn next(&mut self) -> bool {
        (self.at, self.asleep) = (0, Vec::new());
        while let Some((turn, of)) = self.taken.pop() {
            if turn + 1 < of {
                self.taken.push((turn + 1, of));
                return true;
            }
        }
        false
    }
}

#[derive(Default)]
struct Sums {
    schedules: usize,
    refused: usize,
    again: usize,
    most_waits: usize,
}

/// Seconds that pass while nobody can go on: who waits for a process that crashed waits for its lease to end, and a failure may cost a wait of its own. A
/// provider's caller waits at most twice 31 s.
const MOST_WAITS: usize = 31;

fn schedule(limits: &Limits, turns: &mut Turns, sums: &mut Sums) {
    let world = Shared::new();
    let mut processes: Vec<_> =
        (0..limits.processes).map(|process| Process::start(&world, Life { process, life: 0 }, limits.rounds)).collect();
    let (mut faults, mut waits) = (0, 0);
    let mut wakes = vec![true; processes.len()];
    loop {
        for (process, _) in processes.iter().zip(&wakes).filter(|(process, wakes)| **wakes && process.frozen.is_none())
        {
            process.settle();
        }
        wakes.fill(true);
        let steps = steps(&world, &processes, limits.faults > faults);
        if steps.iter().all(|step| matches!(step, Step::Crash(_) | Step::Freeze(_))) {
            if processes.iter().all(Process::ended) {
                break;
            }
            // Nobody can go on: they wait for time to pass.
            waits += 1;
            if waits > MOST_WAITS {
                fail(&world, &processes, "somebody waits for ever");
            }
            pass_time(&world, &processes, SECOND);
            processes.iter_mut().for_each(|process| process.time_passes(SECOND));
            continue;
        }
        let Some(step) = turns.take(&steps) else { return };
        match step {
            Step::Pass(number, nth, kind) => {
                let waker = world.lock().pass(number);
                if let Some(waker) = waker {
                    waker.wake();
                }
                // Whoever else hears of it.
                let told = matches!(kind, Kind::Save | Kind::Release);
                wakes = processes.iter().map(|process| told || process.life.process == nth).collect();
            }
            Step::Crash(nth) => {
                faults += 1;
                let life = processes[nth].life;
                world.lock().dies(life);
                world.lock().log.push(format!("{life:?} crashes"));
                let next = Life { life: life.life + 1, ..life };
                processes[nth] = Process::start(&world, next, limits.rounds);
                world.lock().forget_the_dead();
            }
            Step::Freeze(nth) => {
                faults += 1;
                let life = processes[nth].life;
                world.lock().fault_befalls(life);
                world.lock().log.push(format!("{life:?} stands still"));
                processes[nth].frozen = Some(A_WHILE);
                // The others go on meanwhile, or have not come to it.
                pass_time(&world, &processes, A_WHILE);
            }
            Step::Thaw(nth) => {
                let life = processes[nth].life;
                world.lock().log.push(format!("{life:?} goes on"));
                processes[nth].thaw(limits.timers);
            }
        }
    }
    let told: Vec<_> = processes.iter().flat_map(Process::faults).collect();
    let mut ended = world.lock();
    sums.schedules += 1;
    sums.refused += ended.refused;
    sums.again += ended.again;
    sums.most_waits = sums.most_waits.max(waits);
    if ended.again > ended.excused {
        let fault = format!("{} refresh tokens were shown again, and {} faults excuse it", ended.again, ended.excused);
        ended.faults.push(fault);
    }
    let fetches = ended.fetches();
    if limits.rounds == 1 && fetches > 1 + faults {
        ended.faults.push(format!("{fetches} fetches with {faults} faults"));
    }
    let faults = std::mem::take(&mut ended.faults);
    drop(ended);
    if let Some(fault) = faults.iter().chain(&told).next() {
        fail(&world, &processes, fault);
    }
}

/// What may happen next.
fn steps(world: &Shared, processes: &[Process], may_fail: bool) -> Vec<Step> {
    let asked = world.lock().asked();
    let runs = |life: Life| processes.iter().any(|process| process.life == life && process.frozen.is_none());
    let pass =
        |(number, life, kind): &(u64, Life, Kind)| runs(*life).then_some(Step::Pass(*number, life.process, *kind));
    let mut steps: Vec<_> = asked.iter().filter_map(pass).collect();
    for (nth, process) in processes.iter().enumerate() {
        if process.frozen.is_some() {
            steps.push(Step::Thaw(nth));
        } else if may_fail && asked.iter().any(|(_, life, _)| *life == process.life) {
            steps.extend([Step::Crash(nth), Step::Freeze(nth)]);
        }
    }
    steps
}

fn pass_time(world: &Shared, processes: &[Process], span: Duration) {
    let runs = |life| processes.iter().any(|process| process.life == life && process.frozen.is_none());
    world.lock().time_passes(span, runs);
}

fn fail(world: &Shared, processes: &[Process], fault: &str) -> ! {
    let log = world.lock().log.join("\n");
    let ended: Vec<_> = processes.iter().map(|process| (process.life, process.ended())).collect();
    panic!("{fault}\n{log}\n{ended:?}")
}

fn search(limits: &Limits) -> Sums {
    let (mut turns, mut sums) = (Turns::default(), Sums::default());
    loop {
        schedule(limits, &mut turns, &mut sums);
        if !turns.next() {
            return sums;
        }
    }
}

// `LEASE_MODEL=long` searches further: more rounds, two faults, three processes.
#[test]
fn under_every_schedule_the_lease_holds_what_it_promises() {
    let long = std::env::var("LEASE_MODEL").is_ok_and(|mode| mode == "long");
    let mut all = vec![
        Limits { processes: 2, rounds: 2, faults: 0, timers: true },
        Limits { processes: 2, rounds: 1, faults: 1, timers: false },
        Limits { processes: 2, rounds: 1, faults: 1, timers: true },
        Limits { processes: 3, rounds: 1, faults: 0, timers: true },
    ];
    if long {
        all.extend([
            Limits { processes: 2, rounds: 2, faults: 1, timers: false },
            Limits { processes: 2, rounds: 1, faults: 2, timers: false },
            Limits { processes: 2, rounds: 1, faults: 2, timers: true },
            Limits { processes: 3, rounds: 1, faults: 1, timers: false },
        ]);
    }
    let mut schedules = 0;
    for limits in &all {
        let sums = search(limits);
        let Limits { processes, rounds, faults, timers } = limits;
        let kind = if *timers { "" } else { ", suspended" };
        println!(
            "lease: {processes} processes, {rounds} rounds, {faults} faults{kind}: {} schedules, {} late saves refused, {} tokens shown again after a fault, {} s waited at most",
            sums.schedules, sums.refused, sums.again, sums.most_waits
        );
        assert!(
            *faults == 0 || (sums.refused > 0 && sums.again > 0) || *timers,
            "the faults that matter are among them"
        );
        schedules += sums.schedules;
    }
    println!("lease model: {schedules} schedules");
}
