//! What a program wrote, in memory that wipes itself: all of its stdout within a limit, the end of its stderr.

use zeroize::Zeroizing;

/// More than any token needs.
pub(super) const LIMIT: usize = 1024 * 1024;

/// The end of stderr that is kept: an error shows less.
const KEPT: usize = 4096;

#[derive(Default)]
pub(super) struct Captured {
    pub(super) stdout: Stdout,
    pub(super) stderr: Tail,
}

/// All of it, or the word that it is too much.
#[derive(Default)]
pub(super) struct Stdout(Zeroizing<Vec<u8>>);

pub(super) struct TooMuch;

impl Stdout {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), TooMuch> {
        if bytes.len() > LIMIT - self.0.len() {
            return Err(TooMuch);
        }
        if self.0.capacity() - self.0.len() < bytes.len() {
            // By a new buffer, so that the old one is wiped: `Vec` itself would leave it behind.
            let mut larger =
                Zeroizing::new(Vec::with_capacity((self.0.len() + bytes.len()).max(self.0.capacity() * 2)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The last of it, however much there is.
pub(super) struct Tail {
    /// Of its final size from the start, so that no growth leaves a copy behind.
    kept: Zeroizing<Vec<u8>>,
    begun: bool,
}

impl Default for Tail {
    fn default() -> Self {
        Self { kept: Zeroizing::new(Vec::with_capacity(2 * KEPT)), begun: false }
    }
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let last = &bytes[bytes.len().saturating_sub(KEPT)..];
        if self.kept.len() + last.len() > 2 * KEPT {
            let old = self.kept.len().saturating_sub(KEPT);
            self.kept.copy_within(old.., 0);
            let left = self.kept.len() - old;
            self.kept.truncate(left);
            self.begun = true;
        }
        self.begun |= last.len() < bytes.len();
        self.kept.extend_from_slice(last);
    }

    /// The last bytes, and whether there were more before them.
    pub(super) fn last(&self) -> (&[u8], bool) {
        let old = self.kept.len().saturating_sub(KEPT);
        (&self.kept[old..], self.begun || old > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdout_is_kept_up_to_the_limit_and_no_further() {
        let mut stdout = Stdout::default();
        for _ in 0..LIMIT / 4096 {
            assert!(stdout.push(&[7; 4096]).is_ok());
        }
        assert!(stdout.bytes().len() == LIMIT && stdout.bytes().iter().all(|byte| *byte == 7));
        assert!(stdout.push(&[]).is_ok() && stdout.push(b"x").is_err());
        assert!(Stdout::default().push(&[7; LIMIT + 1]).is_err());
    }

    #[test]
    fn of_stderr_the_end_is_kept_however_it_comes() {
        for chunk in [1, 3, 1000, KEPT, 2 * KEPT, 5 * KEPT] {
            let all: Vec<u8> = (0..5 * KEPT).map(|at| at.to_le_bytes()[0]).collect();
            let mut tail = Tail::default();
            let place = tail.kept.as_ptr();
            for bytes in all.chunks(chunk) {
                tail.push(bytes);
            }
            assert_eq!(tail.last(), (&all[4 * KEPT..], true), "{chunk}");
            assert_eq!(tail.kept.as_ptr(), place, "no copy was left behind");
        }
        let mut tail = Tail::default();
        tail.push(&[1; KEPT]);
        assert_eq!(tail.last(), (&[1; KEPT][..], false));
        tail.push(&[2]);
        assert!(tail.last().1);
    }
}
