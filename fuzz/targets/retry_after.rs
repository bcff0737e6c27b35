//! `Retry-After` (RFC 9110 section 10.2.3) of a busy endpoint, up to the moment at which the provider asks again; dates against `httpdate`.

#![no_main]

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use libfuzzer_sys::fuzz_target;
use std::time::{Duration, SystemTime};
use tower_jwt_refresh::TokenStatus;
use tower_jwt_refresh_fuzz::{NOW, at, endpoint::Asked};

thread_local! {
    static ASKED: Asked = Asked::new(|exchange| exchange);
}

/// What an answer without a `Retry-After` brings: the backoff that the endpoint's provider is set to.
const TINY: Duration = Duration::from_millis(1);

fuzz_target!(|data: &[u8]| {
    let (value, known) = match data {
        // Seconds or a date in one of its three forms, of which the meaning is known.
        [b'!', form, rest @ ..] => {
            let mut bytes = [0; 4];
            bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            let ahead = u64::from(u32::from_le_bytes(bytes) >> (form & 31));
            let date = httpdate::fmt_http_date(at((NOW + ahead) as f64));
            match form >> 6 {
                0 => (ahead.to_string(), Some(ahead)),
                1 => (date, Some(ahead)),
                2 => (asctime(&date), Some(ahead)),
                // Two digits of a year mean one within fifty years of now.
                _ if ahead < 40 * 365 * 86_400 => (rfc850(&date), Some(ahead)),
                _ => (date, Some(ahead)),
            }
        }
        _ => (String::from_utf8_lossy(data).into_owned(), None),
    };
    let Ok(value) = HeaderValue::from_str(&value) else { return };
    let date = HeaderValue::from_str(&httpdate::fmt_http_date(at(NOW as f64))).expect("a date is ASCII");
    let busy = Response::builder().status(429).header(header::RETRY_AFTER, &value).header(header::DATE, date);
    let outcome = ASKED.with(|asked| asked.answering(busy.body(Bytes::new()).expect("legal")));
    outcome.token.expect_err("the endpoint is busy");
    let TokenStatus::Failing { since, next_try } = outcome.status else { panic!("{:?}", outcome.status) };
    let wait = next_try.expect("it is asked again").duration_since(since).expect("later");

    let text = value.to_str().unwrap_or_default().trim();
    let read = known.map(Duration::from_secs).or_else(|| seconds(text)).or_else(|| {
        let then = httpdate::parse_http_date(text).ok()?;
        let left = then.duration_since(SystemTime::UNIX_EPOCH).ok()?.saturating_sub(Duration::from_secs(NOW));
        Some(left)
    });
    let expected = read.map_or(TINY, |read| read.clamp(Duration::from_secs(1), Duration::from_secs(300)));
    assert!(wait <= expected && wait >= expected / 2, "{value:?}: {wait:?}, not {expected:?}");
    assert!(read.is_none() || wait == expected, "{value:?}: {wait:?}, not {expected:?}");
});

/// All digits, however many.
fn seconds(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as `Sun Nov  6 08:49:37 1994`.
fn asctime(date: &str) -> String {
    let (day, month, year, time) = (&date[5..7], &date[8..11], &date[12..16], &date[17..25]);
    let day = day.strip_prefix('0').map_or_else(|| day.to_owned(), |digit| format!(" {digit}"));
    format!("{} {month} {day} {time} {year}", &date[..3])
}

/// The same as `Sunday, 06-Nov-94 08:49:37 GMT`.
fn rfc850(date: &str) -> String {
    let days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let name = days.into_iter().find(|name| name.starts_with(&date[..3])).expect("a day of the week");
    format!("{name}, {}-{}-{} {} GMT", &date[5..7], &date[8..11], &date[14..16], &date[17..25])
}
