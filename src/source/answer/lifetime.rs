//! How long a token lives, from what the answer says beside it.

use super::{AnswerError, Names, Object, find};
use crate::{Token, token::Expiry};
use serde_json::value::RawValue;
use std::time::{Duration, SystemTime};

/// Beyond ten years a lifetime is a mistake.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Where the answer says it, as JSON pointers, if not where it usually is.
#[derive(Clone, Debug, Default)]
pub(in crate::source) struct Ends {
    /// Of seconds.
    pub(in crate::source) lifetime: Option<String>,
    /// Of a moment.
    pub(in crate::source) expiry: Option<String>,
}

impl Ends {
    pub(super) fn are_named(&self) -> bool {
        self.lifetime.is_some() || self.expiry.is_some()
    }
}

/// What the answer says; none where it says nothing that can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// `expires_in`, for example.
    span: Option<Duration>,
    /// `expires_at`, for example.
    moment: Option<SystemTime>,
    /// One of them was or should have been there. Matters only where neither makes sense.
    absurd: bool,
}

impl Said {
    /// At the places that were named, or else by the usual names: then the first object that has a member decides about it.
    pub(super) fn by(
        objects: [Option<&Object<'_>>; 2],
        whole: &RawValue,
        names: &Names,
        ends: &Ends,
    ) -> Result<Self, AnswerError> {
        if ends.are_named() {
            let at = |pointer: &Option<String>| match pointer {
                Some(pointer) => find(whole, pointer).map(|(_, found)| found),
                None => Ok(None),
            };
            let (span, moment) = (at(&ends.lifetime)?.and_then(self::span), at(&ends.expiry)?.and_then(self::moment));
            // Nothing where something was expected is as good as nonsense: worth a warning.
            return Ok(Self { span, moment, absurd: true });
        }
        let first = |name: &str| {
            let mut found = objects.into_iter().flatten().map(|object| object.get(name));
            found.find(|found| !matches!(found, Ok(None))).unwrap_or(Ok(None))
        };
        let mut said = Self::default();
        for name in names.spans {
            let raw = first(name)?;
            said.span = said.span.or(raw.and_then(self::span));
            said.absurd |= raw.is_some();
        }
        for name in names.moments {
            let raw = first(name)?;
            said.moment = said.moment.or(raw.and_then(self::moment));
            said.absurd |= raw.is_some();
        }
        Ok(said)
    }

    pub(super) fn put_on(self, mut token: Token, date: Option<SystemTime>) -> Token {
        let own = token.expires_at();
        // What the server's clock says is left: moment and date are both of it, and no skew is ever computed. The earlier counts, since a
        // server that checks `exp` refuses the token then, whatever `expires_in` promised (in milliseconds, perhaps).
        let left = date.and_then(|date| {
            let left = |moment: SystemTime| moment.duration_since(date).unwrap_or_default();
            self.span.or(self.moment.map(left)).into_iter().chain(own.map(left)).min().filter(|left| *left <= LONGEST)
        });
        // Without a date a span and a moment cannot be compared.
        let end = left.or(self.span).map(Expiry::In);
        let end = end.or_else(|| self.moment.into_iter().chain(own).min().map(Expiry::At));
        token.expiry = end.unwrap_or(if self.absurd { Expiry::Absurd } else { token.expiry });
        token
    }
}

/// A number, or one in a string.
fn number(raw: &RawValue) -> Option<f64> {
    raw.get().trim_matches('"').trim().parse().ok()
}

/// RFC 6749 section 5.1, and strings, which many send. Zero is what some write for "never".
fn span(raw: &RawValue) -> Option<Duration> {
    let seconds = number(raw).filter(|seconds| *seconds > 0.0)?;
    Duration::try_from_secs_f64(seconds).ok().filter(|span| *span <= LONGEST)
}

/// Seconds since 1970, or milliseconds where seconds would lie beyond the year 5000, or RFC 3339. Nothing before 2001: that is a span by a
/// wrong name, or a zero time that stands for none.
fn moment(raw: &RawValue) -> Option<SystemTime> {
    let seconds = match number(raw) {
        Some(number) if number >= 1e11 => number / 1000.0,
        Some(number) => number,
        None => rfc3339(raw.get().trim_matches('"'))?,
    };
    let span = Duration::try_from_secs_f64(seconds).ok().filter(|span| span.as_secs() >= 1_000_000_000)?;
    SystemTime::UNIX_EPOCH.checked_add(span)
}

/// `2026-11-25T14:30:00Z`, with a fraction or an offset if need be (RFC 3339 section 5.6), as seconds since 1970.
fn rfc3339(text: &str) -> Option<f64> {
    // Then every slice below is of whole characters.
    let text = Some(text).filter(|text| text.is_ascii())?;
    let field = |at: usize, length: usize, least: u32, most: u32| {
        let digits = text.get(at..at + length)?;
        let value = digits.parse().ok().filter(|value| (least..=most).contains(value))?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(f64::from(value))
    };
    let mark = |at: usize, marks: &str| text.get(at..=at).filter(|mark| marks.contains(mark));
    for (at, marks) in [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")] {
        mark(at, marks)?;
    }
    let (year, month, day) = (field(0, 4, 1970, 9999)?, field(5, 2, 1, 12)?, field(8, 2, 1, 31)?);
    let time = field(11, 2, 0, 23)? * 3600.0 + field(14, 2, 0, 59)? * 60.0 + field(17, 2, 0, 60)?;
    let fraction = text[19..].bytes().skip(1).take_while(u8::is_ascii_digit).count();
    let zone = if mark(19, ".").is_some() && fraction > 0 { 20 + fraction } else { 19 };
    let offset = match text.get(zone..)? {
        "Z" | "z" => 0.0,
        rest if rest.len() == 6 && mark(zone + 3, ":").is_some() => {
            let offset = field(zone + 1, 2, 0, 23)? * 3600.0 + field(zone + 4, 2, 0, 59)? * 60.0;
            if mark(zone, "+-")? == "+" { offset } else { -offset }
        }
        _ => return None,
    };
    // Days of a year that begins in March, so that the leap day is its last.
    let (year, month) = if month > 2.0 { (year, month - 3.0) } else { (year - 1.0, month + 9.0) };
    let leap_days = (year / 4.0).floor() - (year / 100.0).floor() + (year / 400.0).floor();
    let days = year * 365.0 + leap_days + ((153.0 * month + 2.0) / 5.0).floor() + day - 719_469.0;
    Some(days * 86_400.0 + time - offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::answer;

    const NOON: u64 = 1_800_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn seconds(seconds: u64) -> Expiry {
        Expiry::In(Duration::from_secs(seconds))
    }

    /// `e30.{"exp":…}.c2ln`, or an opaque token.
    fn expiry(exp: Option<u64>, rest: &str, date: Option<u64>) -> Expiry {
        use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
        let jwt = exp.map(|exp| format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#))));
        let body = format!(r#"{{"jwt":"{}"{rest}}}"#, jwt.as_deref().unwrap_or("opaque"));
        answer::token(body.as_bytes(), None, &Ends::default(), date.map(at)).unwrap().expiry
    }

    #[test]
    fn expires_in_is_a_number_or_one_in_a_string() {
        for value in ["3600", "3600.0", "\"3600\"", "\" 3600 \"", "36e2"] {
            assert_eq!(expiry(None, &format!(r#","expires_in":{value}"#), None), seconds(3600), "{value}");
        }
    }

    // Scenario 101; decocms/studio#6112.
    #[test]
    fn an_absurd_expires_in_gives_way_to_the_tokens_own_exp_or_is_absurd() {
        for value in [
            "-1",
            "0",
            "1e20",
            "1e400",
            "-1e400",
            "\"NaN\"",
            "\"inf\"",
            "\"soon\"",
            "true",
            "{}",
            "[3600]",
            "3600000000",
            "\"\"",
        ] {
            let rest = format!(r#","expires_in":{value}"#);
            assert_eq!(expiry(None, &rest, None), Expiry::Absurd, "{value}");
            assert_eq!(expiry(Some(NOON), &rest, None), Expiry::At(at(NOON)), "{value}");
            assert_eq!(expiry(Some(NOON), &rest, Some(NOON - 60)), seconds(60), "{value}");
        }
        assert_eq!(expiry(None, r#","expires_in":null"#, None), Expiry::Unknown);
        assert_eq!(expiry(Some(NOON), r#","expires_in":null"#, None), Expiry::At(at(NOON)));
    }

    #[test]
    fn expires_in_as_milliseconds_is_capped_by_the_tokens_own_exp() {
        assert_eq!(expiry(Some(NOON + 3600), r#","expires_in":3600000"#, Some(NOON)), seconds(3600));
        assert_eq!(expiry(Some(NOON + 3600), r#","expires_in":60"#, Some(NOON)), seconds(60), "the earlier counts");
    }

    #[test]
    fn expires_at_is_seconds_milliseconds_or_a_date() {
        for value in [
            "1800000000",
            "\"1800000000\"",
            "1800000000000",
            "1.8e9",
            "\"2027-01-15T08:00:00Z\"",
            "\"2027-01-15t08:00:00.999z\"",
            "\"2027-01-15 08:00:00Z\"",
            "\"2027-01-15T10:30:00+02:30\"",
            "\"2027-01-14T23:00:00.5-09:00\"",
        ] {
            assert_eq!(expiry(None, &format!(r#","expires_at":{value}"#), None), Expiry::At(at(NOON)), "{value}");
        }
        assert_eq!(expiry(None, r#","expires_at":1800000000"#, Some(NOON - 60)), seconds(60), "by the server's clock");
        assert_eq!(expiry(None, r#","expires_at":1800000000,"expires_in":5"#, None), seconds(5));
        assert_eq!(expiry(Some(NOON), r#","expires_at":1900000000"#, None), Expiry::At(at(NOON)));
    }

    // boto/botocore#3775.
    #[test]
    fn an_absurd_expires_at_is_nothing_believed() {
        for value in [
            "0",
            "-1",
            "3600",
            "1e400",
            "true",
            "[]",
            "\"\"",
            "\"soon\"",
            "\"0001-01-01T00:00:00Z\"",
            "\"2027-13-15T08:00:00Z\"",
            "\"2027-01-15T08:00:00\"",
            "\"2027-01-15T08:00:00.Z\"",
            "\"2027-01-15T08:00:00*02:00\"",
            "\"2027-01-15T08:00:00+02:0\u{fc}\"",
            "\"2027-01-+5T08:00:00Z\"",
            "\"2027-01-15T08:00\"",
        ] {
            let rest = format!(r#","expires_at":{value}"#);
            assert_eq!(expiry(None, &rest, None), Expiry::Absurd, "{value}");
            assert_eq!(expiry(Some(NOON), &rest, None), Expiry::At(at(NOON)), "{value}");
        }
    }

    #[test]
    fn a_lifetime_and_a_moment_are_read_where_they_were_said_to_be_and_nowhere_else() {
        let expiry = |lifetime: Option<&str>, expiry: Option<&str>| {
            let ends = Ends { lifetime: lifetime.map(Into::into), expiry: expiry.map(Into::into) };
            let body =
                r#"{"jwt":"t","expires_in":5,"expires_at":1900000000,"data":{"ttl":"60","end":1800000000,"no":null}}"#;
            answer::token(body.as_bytes(), None, &ends, Some(at(NOON - 90))).unwrap().expiry
        };
        assert_eq!(expiry(Some("/data/ttl"), None), seconds(60));
        assert_eq!(expiry(None, Some("/data/end")), seconds(90), "and not by `expires_in`");
        assert_eq!(expiry(Some("/data/ttl"), Some("/data/end")), seconds(60), "as without names");
        assert_eq!(expiry(Some("/data/no"), Some("/data/end")), seconds(90));
        for missing in ["/data/no", "/ttl", "/jwt/x"] {
            assert_eq!(expiry(Some(missing), None), Expiry::Absurd, "{missing}");
        }
    }

    #[test]
    fn dates_are_counted_over_leap_years_and_centuries() {
        for (date, seconds) in [
            ("1970-01-01T00:00:00Z", 0.0),
            ("2000-02-29T12:00:00Z", 951_825_600.0),
            ("2000-03-01T00:00:00Z", 951_868_800.0),
            ("2024-12-31T23:59:60Z", 1_735_689_600.0),
            ("2100-03-01T00:00:00Z", 4_107_542_400.0),
        ] {
            assert_eq!(rfc3339(date), Some(seconds), "{date}");
        }
    }

    // Scenario 44.
    #[test]
    fn with_a_date_the_servers_clock_says_what_is_left() {
        assert_eq!(expiry(Some(NOON), "", Some(NOON - 600)), seconds(600));
        assert_eq!(expiry(Some(NOON), "", None), Expiry::At(at(NOON)));
        assert_eq!(expiry(Some(NOON), "", Some(NOON + 600)), seconds(0), "dead by its own clock");
        assert_eq!(expiry(Some(NOON), "", Some(0)), Expiry::At(at(NOON)), "no date that a server with a clock writes");
        assert_eq!(expiry(None, "", Some(NOON)), Expiry::Unknown);
    }
}
