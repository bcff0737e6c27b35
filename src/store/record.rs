//! What is stored: one JSON object, with its version first.

use crate::{BoxError, Token, token::Expiry};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

const FORMAT: &str = "tower-jwt-refresh";
const VERSION: u64 = 1;

/// Less is left of a token than it takes to be worth sharing: what [`min_runway`](crate::TokenProviderBuilder::min_runway) is by default.
const RUNWAY: (Duration, u32) = (Duration::from_secs(60), 20);

/// All moments are by the clock that those who share the store agree on.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) id: Id,
    pub(super) access: Option<Access>,
    pub(super) refresh_token: Option<Zeroizing<String>>,
}

/// Which one it is of those that were ever stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    /// When the first of its line was made, in nanoseconds: two that were begun apart, after a loss, cannot be compared by their revisions.
    pub(super) line: u64,
    /// Grows with each that is stored.
    pub(super) revision: u64,
}

#[derive(Clone)]
pub(super) struct Access {
    pub(super) token: Token,
    expires_at: Option<SystemTime>,
    /// What it had left when it was got.
    life: Option<Duration>,
}

impl Id {
    /// Both are of one line, and this one is the later.
    pub(super) fn is_after(self, other: Id) -> bool {
        self.line == other.line && self.revision > other.revision
    }

    pub(super) fn after(before: Option<Id>, now: SystemTime) -> Self {
        match before {
            Some(Id { line, revision }) => Self { line, revision: revision.saturating_add(1) },
            None => {
                let born = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
                Self { line: u64::try_from(born).unwrap_or(u64::MAX), revision: 1 }
            }
        }
    }
}

impl Access {
    /// What a source answered that was asked at that moment.
    pub(super) fn new(token: &Token, asked: SystemTime) -> Self {
        let expires_at = match token.expiry {
            Expiry::At(at) => Some(at),
            Expiry::In(span) => asked.checked_add(span),
            Expiry::Unknown | Expiry::Absurd => None,
        };
        let life = expires_at.map(|at| at.duration_since(asked).unwrap_or_default());
        Self { token: token.clone(), expires_at, life }
    }

    /// What is left of it, if it has a known end.
    pub(super) fn runway(&self, now: SystemTime) -> Option<Duration> {
        self.expires_at.map(|at| at.duration_since(now).unwrap_or_default())
    }

    /// It lives, and will for long enough to be of use to who has none.
    pub(super) fn lives(&self, now: SystemTime) -> bool {
        let (most, part) = RUNWAY;
        let least = self.life.map_or(most, |life| most.min(life / part));
        self.runway(now).is_none_or(|left| left > least)
    }
}

/// What the bytes are.
pub(super) enum Read {
    Record(Record),
    /// Nothing of ours, or broken: whoever has the lock may write over it.
    Garbage(BoxError),
    /// Another version's: it stays.
    Foreign(BoxError),
}

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    format: Cow<'a, str>,
    version: u64,
    line: u64,
    revision: u64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    access_token: Option<Cow<'a, str>>,
    /// Since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    life_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_after_ms: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<Cow<'a, str>>,
}

/// What every version has.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    format: Cow<'a, str>,
    version: u64,
}

#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("what it holds is no token that was stored by this crate")]
    NotOurs,
    #[error("what it holds is not as it was stored: cut or altered")]
    Broken,
    #[error(
        "what it holds has format version {found}, and this program knows version {VERSION}: let all that share it run the same version of tower-jwt-refresh, or give this program a store of its own"
    )]
    Version { found: u64 },
}

impl Record {
    pub(super) fn read(bytes: &[u8]) -> Read {
        let garbage = |error: Unreadable| Read::Garbage(error.into());
        let Ok(head) = serde_json::from_slice::<Head<'_>>(bytes) else { return garbage(Unreadable::NotOurs) };
        match (&*head.format, head.version) {
            (FORMAT, VERSION) => {}
            (FORMAT, found) => return Read::Foreign(Unreadable::Version { found }.into()),
            _ => return garbage(Unreadable::NotOurs),
        }
        // The parser's own error may quote what it stumbled over.
        let Ok(stored) = serde_json::from_slice::<Stored<'_>>(bytes) else { return garbage(Unreadable::Broken) };
        let access = match stored.access_token.map(|token| Token::opaque(token.into_owned())).transpose() {
            Ok(token) => token.map(|token| Access {
                token: match stored.refresh_after_ms {
                    Some(after) => token.with_refresh_after(span(after)),
                    None => token,
                },
                expires_at: stored.expires_at_ms.and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(span(ms))),
                life: stored.life_ms.map(span),
            }),
            Err(_) => return garbage(Unreadable::Broken),
        };
        Read::Record(Self {
            id: Id { line: stored.line, revision: stored.revision },
            access,
            refresh_token: stored.refresh_token.map(|token| Zeroizing::new(token.into_owned())),
        })
    }

    pub(super) fn write(&self) -> Zeroizing<Vec<u8>> {
        let access = self.access.as_ref();
        let stored = Stored {
            format: Cow::Borrowed(FORMAT),
            version: VERSION,
            line: self.id.line,
            revision: self.id.revision,
            access_token: access.map(|access| Cow::Borrowed(access.token.expose_secret())),
            expires_at_ms: access
                .and_then(|access| access.expires_at)
                .map(|at| ms(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())),
            life_ms: access.and_then(|access| access.life).map(ms),
            refresh_after_ms: access.and_then(|access| access.token.refresh_after).map(ms),
            refresh_token: self.refresh_token.as_ref().map(|token| Cow::Borrowed(token.as_str())),
        };
        // Large enough from the start, so that no growth leaves a copy behind: JSON may write a byte as six.
        let secrets = [&stored.access_token, &stored.refresh_token];
        let length: usize = secrets.into_iter().flatten().map(|secret| secret.len()).sum();
        let mut bytes = Zeroizing::new(Vec::with_capacity(6 * length + 512));
        serde_json::to_writer(&mut *bytes, &stored).expect("strings and numbers, into memory");
        bytes
    }

    /// Somebody has signed out for all.
    pub(super) fn is_signed_out(&self) -> bool {
        self.access.is_none() && self.refresh_token.is_none()
    }
}

fn span(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        NOW + Duration::from_secs(seconds)
    }

    fn record(token: &Token) -> Record {
        let access = Some(Access::new(token, at(1000)));
        Record { id: Id::after(None, at(1000)), access, refresh_token: Some(Zeroizing::new("r\"\\ö\n".to_owned())) }
    }

    fn again(record: &Record) -> Record {
        match Record::read(&record.write()) {
            Read::Record(record) => record,
            Read::Garbage(error) | Read::Foreign(error) => panic!("{error}"),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let token = Token::opaque("t\"\\").unwrap().with_expires_in(Duration::from_millis(90_500));
        let before = record(&token.with_refresh_after(Duration::from_secs(60)));
        let after = again(&before);
        assert_eq!(after.id, before.id);
        assert_eq!(after.refresh_token, before.refresh_token);
        let access = after.access.unwrap();
        assert_eq!(access.token.expose_secret(), "t\"\\");
        assert_eq!(access.expires_at, Some(at(1090) + Duration::from_millis(500)));
        assert_eq!(access.life, Some(Duration::from_millis(90_500)));
        assert_eq!(access.token.refresh_after, Some(Duration::from_secs(60)));

        let bare = Record { access: None, refresh_token: None, ..before };
        assert!(again(&bare).is_signed_out() && !again(&record(&Token::opaque("t").unwrap())).is_signed_out());
    }

    #[test]
    fn the_first_version_stays_readable() {
        let written = br#"{"format":"tower-jwt-refresh","version":1,"line":5,"revision":7,"access_token":"t","expires_at_ms":1090500,"life_ms":90500,"refresh_after_ms":60000,"refresh_token":"r","later":"ignored"}"#;
        let Read::Record(read) = Record::read(written) else { panic!() };
        assert_eq!((read.id, read.refresh_token.unwrap().as_str()), (Id { line: 5, revision: 7 }, "r"));
        assert_eq!(read.access.unwrap().expires_at, Some(at(1090) + Duration::from_millis(500)));
    }

    #[test]
    fn nothing_that_was_stored_is_quoted() {
        let broken: [&[u8]; 4] = [
            b"s3cr3t",
            br#"{"format":"tower-jwt-refresh","version":1,"line":"s3cr3t"}"#,
            br#"{"format":"tower-jwt-refresh","version":1,"line":1,"revision":1,"access_token":"s3cr3t "}"#,
            br#"{"format":"s3cr3t","version":1}"#,
        ];
        for bytes in broken {
            let Read::Garbage(error) = Record::read(bytes) else { panic!() };
            assert!(!format!("{error} {error:?}").contains("s3cr3t"));
        }
        let foreign = br#"{"format":"tower-jwt-refresh","version":99,"s3cr3t":[]}"#;
        assert!(matches!(Record::read(foreign), Read::Foreign(error) if error.to_string().contains("version 99")));
    }

    #[test]
    fn a_token_is_written_into_memory_that_does_not_grow() {
        let token = Token::opaque("\"".repeat(60_000)).unwrap();
        let record = Record { refresh_token: Some(Zeroizing::new("\u{1}".repeat(60_000))), ..record(&token) };
        let bytes = record.write();
        assert!(bytes.len() > 6 * 60_000 && bytes.capacity() == 6 * 120_000 + 512);
    }

    #[test]
    fn what_lives_for_a_minute_more_or_a_twentieth_of_its_life_is_worth_sharing() {
        let lives = |life: u64, left: u64| {
            let token = Token::opaque("t").unwrap().with_expires_in(Duration::from_secs(life));
            Access::new(&token, at(0)).lives(at(life - left))
        };
        assert!(lives(3600, 61) && !lives(3600, 60) && lives(100, 6) && !lives(100, 5) && !lives(0, 0));
        assert!(Access::new(&Token::opaque("t").unwrap(), at(0)).lives(at(1_000_000)));
    }

    #[test]
    fn revisions_are_compared_within_their_line() {
        let first = Id::after(None, at(1));
        let second = Id::after(Some(first), at(2));
        let other = Id::after(None, at(2));
        assert!(second.is_after(first) && !first.is_after(second) && !first.is_after(first));
        assert!(!other.is_after(first) && !second.is_after(other));
        assert!(Id::after(Some(Id { line: 1, revision: u64::MAX }), at(1)).revision == u64::MAX);
    }
}
