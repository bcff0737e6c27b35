//! What is random: how much a wait or a threshold is off its round number.

use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use tower::util::rng::{HasherRng, Rng};

/// Numbers that nobody else draws, or the same on each run.
pub(crate) struct Jitter(HasherRng<Start>);

impl Jitter {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(HasherRng::with_hasher(seed.map_or_else(|| Start::Random(RandomState::new()), Start::Seed)))
    }

    /// In `0..1`.
    pub(crate) fn roll(&mut self) -> f64 {
        self.0.next_f64()
    }
}

enum Start {
    Random(RandomState),
    Seed(u64),
}

impl BuildHasher for Start {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        match self {
            Self::Random(state) => state.build_hasher(),
            Self::Seed(seed) => {
                let mut hasher = DefaultHasher::new();
                hasher.write_u64(*seed);
                hasher
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_each_time_and_none_gives_others() {
        let draw = |seed| {
            let mut jitter = Jitter::new(seed);
            [jitter.roll(), jitter.roll()]
        };
        assert_eq!(draw(Some(7)), draw(Some(7)));
        assert!(draw(Some(7)) != draw(Some(8)) && draw(None) != draw(None));
        let [one, two] = draw(Some(7));
        assert!(one != two && (0.0..1.0).contains(&one));
    }
}
