//! What a status that is no success means.

use super::{EndpointError, error::Failed};
use crate::source::answer;
use http::{HeaderMap, StatusCode, header};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

pub(super) fn judge(
    endpoint: Arc<str>,
    status: StatusCode,
    headers: &HeaderMap,
    date: Option<SystemTime>,
    body: &[u8],
) -> Failed {
    let retry_after = retry_after(headers, date);
    // "Later" is the opposite of "never", whatever the body says; a rate limit may come as 403 too, with `Retry-After`.
    let later = match status.as_u16() {
        408 | 425 | 429 => true,
        403 => retry_after.is_some(),
        _ => !status.is_client_error(),
    };
    let code = answer::object(body).ok().and_then(|object| answer::final_code(&object));
    if !later && (code.is_some() || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) {
        return EndpointError::Refused { endpoint, status, code }.into();
    }
    Failed { error: EndpointError::Status { endpoint, status }, retry_after }
}

/// RFC 9110 section 10.2.3: seconds, or a date of the server's clock.
fn retry_after(headers: &HeaderMap, date: Option<SystemTime>) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let then = httpdate::parse_http_date(value).ok()?;
    Some(then.duration_since(date.unwrap_or_else(SystemTime::now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SourceError, source::answer::FINAL};

    fn judged(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> SourceError {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        let date = super::super::date(&headers);
        judge("here".into(), StatusCode::from_u16(status).unwrap(), &headers, date, body.as_bytes()).into_source_error()
    }

    fn permanent(status: u16, body: &str) -> bool {
        judged(status, &[], body).is_permanent()
    }

    #[test]
    fn a_refused_credential_is_permanent() {
        for status in [401, 403] {
            for body in ["", "<html>", r#"{"error":"temporarily_unavailable"}"#, r#"{"error":{"code":1}}"#] {
                assert!(permanent(status, body), "{status} {body}");
            }
        }
        for code in FINAL {
            let body = format!(r#"{{"error":"{code}","error_description":"x"}}"#);
            assert!(permanent(400, &body) && permanent(401, &body) && permanent(422, &body), "{code}");
        }
    }

    #[test]
    fn what_may_change_by_itself_is_transient() {
        let final_body = r#"{"error":"invalid_grant"}"#;
        for status in [408, 425, 429, 500, 502, 503, 504, 599, 101] {
            assert!(!permanent(status, final_body), "{status} is never permanent");
        }
        for status in [400, 402, 404, 405, 410, 415, 422] {
            for body in ["", "[]", r#"{"error":"slow_down"}"#, r#"{"error":null}"#, r#"{"message":"invalid_grant"}"#] {
                assert!(!permanent(status, body), "{status} {body}");
            }
        }
    }

    // ginlix-ai/LangAlpha#379, cortexkit/anthropic-auth#40.
    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date_of_the_servers_clock() {
        let wait = |headers: &[_]| judged(429, headers, "").wait();
        assert_eq!(wait(&[("retry-after", "120")]), Some(Duration::from_secs(120)));
        assert_eq!(wait(&[("retry-after", "99999999999999999999999")]), Some(Duration::from_secs(u64::MAX)));
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(wait(&[date, ("retry-after", "Sun, 06 Nov 1994 08:51:07 GMT")]), Some(Duration::from_secs(90)));
        assert_eq!(wait(&[date, ("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), Some(Duration::ZERO));
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), Some(Duration::ZERO), "by our clock");
        for nonsense in ["", "-5", "1.5", "soon"] {
            assert_eq!(wait(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
    }

    #[test]
    fn a_403_with_retry_after_is_a_rate_limit_and_a_401_is_not() {
        let limited = judged(403, &[("retry-after", "60")], "");
        assert!(!limited.is_permanent());
        assert_eq!(limited.wait(), Some(Duration::from_secs(60)));
        assert!(judged(401, &[("retry-after", "60")], "").is_permanent());
    }
}
