//! Waiting for a file that is being written to stand still.

use super::read::{Failed, Read};
use std::{future::Future, time::Duration};
use tokio::time::sleep;

const PAUSE: Duration = Duration::from_millis(50);

/// How many looks follow the first.
const LOOKS: usize = 4;

/// What is there once nobody writes it, so far as looking can tell: the first look at what is old, else the first that agrees with the one before, else the last if all
/// gave the same bytes. The latter is for file systems that say of every file that it was written just now.
pub(super) async fn settled<F>(mut look: impl FnMut() -> F) -> Result<Read, Failed>
where
    F: Future<Output = Result<Read, Failed>>,
{
    let mut last = look().await?;
    if last.is_settled() {
        return Ok(last);
    }
    let mut same = true;
    for _ in 0..LOOKS {
        sleep(PAUSE).await;
        let next = look().await?;
        if next.agrees_with(&last) {
            return Ok(next);
        }
        same &= next.repeats(&last);
        last = next;
    }
    if same { Ok(last) } else { Err(Failed::Torn) }
}

#[cfg(test)]
mod tests {
    use super::{super::read::tests::look, *};
    use std::future::ready;
    use tokio::time::Instant;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Looks that give these, and what comes of them after how long.
    async fn after(looks: Vec<Read>) -> (Result<Vec<u8>, Failed>, Duration) {
        let (before, mut looks) = (Instant::now(), looks.into_iter());
        let read = settled(|| ready(Ok(looks.next().expect("no more looks than there are")))).await;
        assert!(looks.next().is_none(), "as many looks as there are");
        (read.map(|read| read.bytes().to_vec()), before.elapsed())
    }

    /// Two looks at one state of a file.
    fn twice(bytes: &[u8]) -> [Read; 2] {
        let first = look(bytes, Duration::ZERO, true);
        let second = first.again();
        [first, second]
    }

    // Scenario 64.
    #[tokio::test(start_paused = true)]
    async fn what_was_written_a_moment_ago_is_read_until_two_looks_agree() {
        let (read, took) = after(vec![look(b"old", HOUR, true)]).await;
        assert_eq!((read.unwrap().as_slice(), took), (&b"old"[..], Duration::ZERO));
        let [cut, whole, again] = {
            let [whole, again] = twice(b"new");
            [look(b"ne", Duration::ZERO, true), whole, again]
        };
        let (read, took) = after(vec![cut, whole, again]).await;
        assert_eq!((read.unwrap().as_slice(), took), (&b"new"[..], 2 * PAUSE));
        let [whole, again] = twice(b"old");
        let (read, _) = after(vec![look(b"ol", HOUR, false), whole, again]).await;
        assert_eq!(read.unwrap(), b"old", "it changed while it was read");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_never_stands_still_is_given_up() {
        let looks = (0..=LOOKS).map(|number| look(&vec![b'a'; number], Duration::ZERO, true)).collect();
        let (read, took) = after(looks).await;
        assert!(matches!(read, Err(Failed::Torn)));
        assert_eq!(took, PAUSE * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_file_whose_time_never_stands_still_bytes_that_do_are_taken_at_the_last_look() {
        let looks = |bytes: [&[u8]; LOOKS + 1]| bytes.map(|bytes| look(bytes, Duration::ZERO, false)).into();
        let (read, took) = after(looks([b"token"; LOOKS + 1])).await;
        assert_eq!((read.unwrap().as_slice(), took), (&b"token"[..], PAUSE * 4));
        let (read, _) = after(looks([b"tok", b"token", b"token", b"token", b"token"])).await;
        assert!(matches!(read, Err(Failed::Torn)), "it was written a moment ago");
    }
}
