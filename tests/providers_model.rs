//! Which providers are kept, by random uses against a list that a child could keep.

mod support;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};
use support::{Endpoint, SECOND, pass};
use tokio::time::Instant;
use tower_jwt_refresh::{Token, TokenProvider, TokenProviders};

/// What is kept, from the oldest to the newest.
#[derive(Default)]
struct Model {
    kept: VecDeque<Entry>,
    made: HashMap<u32, u32>,
}

struct Entry {
    key: u32,
    /// Which of this key's.
    nth: u32,
    used: Instant,
}

const IDLE: Duration = Duration::from_millis(60_037);
const CAPACITY: usize = 4;

impl Model {
    /// Looks at the oldest, while there is one too many or one that is due.
    fn tidy(&mut self, capacity: usize, now: Instant, held: &impl Fn(u32, u32) -> bool) {
        for _ in 0..8 {
            let Some(oldest) = self.kept.pop_front() else { return };
            if self.kept.len() < capacity && now < oldest.used + IDLE {
                return self.kept.push_front(oldest);
            }
            if held(oldest.key, oldest.nth) {
                self.kept.push_back(Entry { used: now, ..oldest });
            }
        }
    }

    fn get(&mut self, key: u32, now: Instant, held: &impl Fn(u32, u32) -> bool) -> u32 {
        let at = self.kept.iter().position(|entry| entry.key == key);
        let nth = at.and_then(|at| self.kept.remove(at)).map_or_else(
            || {
                let made = self.made.entry(key).or_default();
                *made += 1;
                *made
            },
            |entry| entry.nth,
        );
        self.kept.push_back(Entry { key, nth, used: now });
        self.tidy(CAPACITY, now, &|other, number| (other, number) == (key, nth) || held(other, number));
        nth
    }

    fn pass(&mut self, until: Instant, held: &impl Fn(u32, u32) -> bool) {
        while let Some(due) = self.kept.front().map(|oldest| oldest.used + IDLE).filter(|due| *due <= until) {
            self.tidy(usize::MAX, due, held);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn random_uses_leave_what_a_simple_model_leaves() {
    for seed in 0..40 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let made: Arc<Mutex<HashMap<u32, u32>>> = Arc::default();
        let providers = TokenProviders::builder().capacity(CAPACITY).idle_after(IDLE).build({
            let made = Arc::clone(&made);
            move |key: &u32| {
                let mut made = made.lock().unwrap();
                let nth = made.entry(*key).or_default();
                *nth += 1;
                let seed = Token::opaque(format!("{nth}")).unwrap();
                support::builder().0.seed(seed).build(Endpoint::hourly().source())
            }
        });
        let (providers, mut model) = (providers.unwrap(), Model::default());
        let mut held: Vec<(u32, u32, TokenProvider)> = Vec::new();
        for step in 0..200 {
            let told = format!("seed {seed}, step {step}");
            let key = dice.u32(..8);
            let is_held = |key, nth| held.iter().any(|(other, number, _)| (*other, *number) == (key, nth));
            match dice.u8(..10) {
                0..6 => {
                    let nth = model.get(key, Instant::now(), &is_held);
                    let provider = providers.get(&key).unwrap();
                    assert_eq!(provider.current().unwrap().expose_secret(), nth.to_string(), "{told}, key {key}");
                    if dice.u8(..3) == 0 {
                        held.push((key, nth, provider));
                    }
                }
                6 if !held.is_empty() => drop(held.swap_remove(dice.usize(..held.len()))),
                7 => {
                    model.kept.retain(|entry| entry.key != key);
                    providers.remove(&key);
                }
                _ => {
                    pass(SECOND * dice.u32(..50)).await;
                    model.pass(Instant::now(), &is_held);
                }
            }
            assert_eq!(providers.len(), model.kept.len(), "{told}");
        }
        assert_eq!(*made.lock().unwrap(), model.made);
    }
}
