//! When the source may be asked again: after a failure, in a storm, for a remembered resource.
//!
//! Jitter is the provider's own, so a wait is known between two bounds.

use crate::{clock::Moment, settings::Settings};
use std::time::Duration;

/// A moment that is known between two bounds; both zero: over since ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub least: Duration,
    pub most: Duration,
}

impl Span {
    fn after(self, from: Span) -> Self {
        Self { least: from.least + self.least, most: from.most + self.most }
    }

    fn at(moment: Duration) -> Self {
        Self { least: moment, most: moment }
    }

    fn map(self, change: impl Fn(Duration) -> Duration) -> Self {
        Self { least: change(self.least), most: change(self.most) }
    }
}

/// The `count`-th wait in a row: exponential, with half jitter.
fn delay(count: u32, settings: &Settings) -> Span {
    let (base, cap) = settings.backoff;
    let most = base.saturating_mul(1 << count.saturating_sub(1).min(31)).min(cap);
    Span { least: most / 2, most }
}

/// Half of what a living token has left, and never a hammer.
fn held_to(wait: Span, left: Option<Duration>, settings: &Settings) -> Span {
    wait.map(|wait| left.map_or(wait, |left| wait.min(left / 2)).max(settings.min_interval))
}

/// "After a failure, and for the schedule after no progress".
#[derive(Clone, Debug, Default)]
pub struct Waits {
    streak: u32,
    /// Nobody starts a flight before.
    pub hard: Span,
    /// Nor does anybody whose token lives, before this.
    pub soft: Span,
    pub retry_after: Duration,
}

impl Waits {
    pub fn succeed(&mut self) {
        *self = Self::default();
    }

    pub fn fail(
        &mut self,
        now: Moment,
        left: Option<Duration>,
        (permanent, retry_after): (bool, Option<Duration>),
        settings: &Settings,
    ) {
        self.streak += 1;
        let wait = held_to(delay(self.streak, settings), left, settings);
        let minute = Span::at(Duration::from_secs(60));
        let seldom = Span::at(Duration::from_secs(900));
        let (hard, soft) = if permanent { (held_to(minute, left, settings), seldom) } else { (wait, wait) };
        let floor = retry_after.map(|wait| now.mono + wait.clamp(Duration::from_secs(1), Duration::from_secs(300)));
        self.retry_after = floor.unwrap_or_default();
        self.hard = hard.after(Span::at(now.mono)).map(|at| at.max(self.retry_after));
        self.soft = soft.after(Span::at(now.mono));
        self.soft.least = self.soft.least.max(self.hard.least);
        self.soft.most = self.soft.most.max(self.hard.most);
    }

    pub fn no_progress(&mut self, now: Moment, left: Option<Duration>, settings: &Settings) {
        self.streak += 1;
        let wait = held_to(delay(self.streak, settings), left, settings);
        *self = Self { streak: self.streak, soft: wait.after(Span::at(now.mono)), ..Self::default() };
    }

    /// A token came that says it is dead: the earliest moment to ask again, while nobody is shut out.
    pub fn come_back(&mut self, now: Moment, settings: &Settings) -> Duration {
        *self = Self { streak: self.streak + 1, ..Self::default() };
        now.mono + held_to(delay(self.streak, settings), None, settings).least
    }

    pub fn forgive(&mut self) {
        let retry_after = self.retry_after;
        *self = Self { hard: Span::at(retry_after), soft: Span::at(retry_after), retry_after, ..Self::default() };
    }
}

/// "Storms": how many flights in a row a hasty rejection began.
#[derive(Clone, Debug, Default)]
pub struct Storm {
    /// At least, at most: a flight is seen only when it asks.
    pub count: (u32, u32),
    pub began: Span,
    pub until: Span,
}

impl Storm {
    pub fn calm(&mut self) {
        (self.count, self.until) = ((0, 0), Span::default());
    }

    pub fn add(&mut self, least: u32, most: u32, settings: &Settings) {
        self.count = (self.count.0 + least, self.count.1 + most);
        self.wait(settings);
    }

    /// A flight begins because the token was rejected.
    pub fn begin(&mut self, least: Duration, most: Duration, settings: &Settings) {
        self.began = Span { least, most };
        self.wait(settings);
    }

    pub fn lost(&mut self) {
        self.until = Span::default();
    }

    fn wait(&mut self, settings: &Settings) {
        let bound = |count: u32| delay(count, settings).map(|wait| wait.max(settings.min_interval));
        let least = if self.count.0 > 0 { self.began.least + bound(self.count.0).least } else { Duration::ZERO };
        let most = if self.count.1 > 0 { self.began.most + bound(self.count.1).most } else { Duration::ZERO };
        self.until = Span { least, most };
    }
}

/// Things whose resend was refused. Nothing here is random.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    list: Vec<Resource>,
    /// The generation that requests were accepted with while anything was remembered, and when the last of them was sent.
    evidence: (u64, Option<Duration>),
}

#[derive(Clone, Debug)]
struct Resource {
    key: u64,
    refused: u64,
    wait: Duration,
    until: Duration,
}

impl Resources {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn clear(&mut self) {
        self.list.clear();
    }

    pub fn accepted(&mut self, key: Option<u64>, generation: u64, sent: Option<Duration>) {
        if let Some(sent) = sent {
            let before = self.evidence.1.filter(|_| self.evidence.0 == generation);
            self.evidence = (generation, before.max(Some(sent)));
        }
        self.list.retain(|resource| Some(resource.key) != key);
    }

    /// Its 401 passes and touches nothing.
    pub fn is_old_news(&self, key: u64, generation: u64, now: Moment) -> bool {
        let accepted = self.evidence.1.filter(|_| self.evidence.0 == generation);
        // The provider notes whole milliseconds.
        let minute = Duration::from_secs(60);
        let recent = accepted.is_some_and(|sent| now.mono.saturating_sub(whole(sent)) < minute);
        recent && self.list.iter().any(|resource| resource.key == key && now.mono < resource.until)
    }

    /// A newer generation was refused at a first send.
    pub fn tried(&mut self, key: u64, generation: u64, now: Moment) {
        if let Some(resource) = self.find(key).filter(|resource| generation > resource.refused) {
            if now.mono >= resource.until {
                resource.wait = (resource.wait * 2).min(Duration::from_secs(3600));
            }
            resource.refused = generation;
            resource.until = now.mono + resource.wait;
        }
    }

    /// A resend was refused.
    pub fn remember(&mut self, key: u64, generation: u64, now: Moment) {
        let minute = Duration::from_secs(60);
        if let Some(resource) = self.find(key) {
            if now.mono >= resource.until {
                resource.wait = (resource.wait * 2).min(Duration::from_secs(3600));
                (resource.refused, resource.until) = (generation, now.mono + resource.wait);
            }
        } else {
            // The simulation has fewer paths than are remembered, so none gives way.
            self.list.push(Resource { key, refused: generation, wait: minute, until: now.mono + minute });
        }
    }

    fn find(&mut self, key: u64) -> Option<&mut Resource> {
        self.list.iter_mut().find(|resource| resource.key == key)
    }
}

fn whole(moment: Duration) -> Duration {
    Duration::from_millis(u64::try_from(moment.as_millis()).unwrap_or(u64::MAX))
}
