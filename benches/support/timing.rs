//! Times that mean something on a machine that others use as well.
//!
//! All variants run in turn in one process, in many short rounds, each round in another order; compared is what ran within the same round,
//! and of all rounds the median counts. Whatever slows the machine down for longer than a round slows all variants down, and what is
//! shorter spoils a few rounds. The rule is the same for every row; no row is measured again because it missed.

use std::time::Duration;

/// Times of each variant, by round.
pub struct Rounds<const N: usize>(Vec<[Duration; N]>);

/// Runs each variant once a round. The first tenth of the rounds warms up and does not count.
pub fn in_turn<const N: usize>(rounds: usize, variants: [&mut dyn FnMut() -> Duration; N]) -> Rounds<N> {
    let mut variants: Vec<_> = variants.into_iter().enumerate().collect();
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds + rounds.div_ceil(10) {
        let mut row = [Duration::ZERO; N];
        for (nth, variant) in &mut variants {
            row[*nth] = variant();
        }
        times.push(row);
        variants.rotate_left(1);
    }
    times.drain(..rounds.div_ceil(10));
    Rounds(times)
}

impl<const N: usize> Rounds<N> {
    /// Of the rounds' own ratios.
    pub fn ratio(&self, of: usize, to: usize) -> f64 {
        self.median_of(|row| row[of].as_secs_f64() / row[to].as_secs_f64())
    }

    /// Of one variant, in seconds.
    pub fn median(&self, of: usize) -> f64 {
        self.median_of(|row| row[of].as_secs_f64())
    }

    pub fn median_of(&self, figure: impl Fn(&[Duration; N]) -> f64) -> f64 {
        median(self.0.iter().map(figure).collect())
    }
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}
