//! Those who read, against those who publish.

use super::*;
use crate::Generation;

/// The snapshot that a request path gets, all of one piece: the generation of its token.
fn read(provider: &TokenProvider) -> Option<Generation> {
    let snapshot = provider.fresh()?;
    let token = snapshot.token.as_ref().expect("what is fresh is there");
    let lives = match token.expose_secret() {
        "a" => HOUR,
        "b" => 2 * HOUR,
        "c" => 3 * HOUR,
        other => panic!("nobody published {other}"),
    };
    let start = SystemTime::UNIX_EPOCH + 1_000_000 * HOUR;
    assert_eq!(token.expires_at(), Some(start + lives), "another token's expiry");
    let left = snapshot.fresh_until.left(ModelClock.monotonic());
    assert!(left <= lives && left > lives - HOUR, "another token's bounds");
    Some(token.generation())
}

// Invariant 3: never backwards.
#[test]
fn a_reader_never_sees_halves_nor_a_token_older_than_the_one_before() {
    Model::of("a reader against two who publish").with_status().check(|| {
        let (provider, seen) = provider(Some(HOUR), b);
        let first = read(&provider).unwrap();
        let one = spawn(&provider, |provider| provider.set(token("b", 2 * HOUR)));
        let other = spawn(&provider, |provider| provider.set(token("c", 3 * HOUR)));
        let second = read(&provider).unwrap();
        let third = read(&provider).unwrap();
        one.join().unwrap();
        other.join().unwrap();
        let last = read(&provider).unwrap();
        assert!(first <= second && second <= third && third <= last, "backwards");
        // The last that was stored is the last that was published.
        let held = provider.core().event(|machine, _, _| machine.held().map(|held| held.token.clone())).unwrap();
        assert_eq!((last, secret(provider.current())), (held.generation(), secret(Some(held))));
        drop(provider);
        seen.end(0, &TokenStatus::Fresh);
    });
}

// Invariant 3; an own rejection is seen at once.
#[test]
fn a_reader_against_a_landing_gets_the_old_token_or_the_new_one_and_in_the_end_the_new_one() {
    Model::of("readers against a landing").check(|| {
        let (provider, seen) = provider(Some(HOUR), |_| Ok(token("b", 2 * HOUR)));
        let old = provider.current().unwrap();
        let reader = spawn(&provider, |provider| (read(&provider), read(&provider)));
        provider.reject(&old);
        // Its own rejection a caller sees at once; then there is the new token, or none that is fresh.
        assert!(read(&provider).is_none_or(|now| now > old.generation()));
        let (one, two) = reader.join().unwrap();
        assert!(two.is_none_or(|two| one.is_none_or(|one| one <= two)), "backwards");
        tasks::join_all();
        assert!(read(&provider).unwrap() > old.generation());
        drop(provider);
        seen.end(1, &TokenStatus::Fresh);
    });
}
