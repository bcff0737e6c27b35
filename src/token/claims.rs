//! Reading the two times of a JWT's payload, and nothing else of it.

use super::{Expiry, InvalidToken};
use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::value::RawValue;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// Without padding as RFC 7515 section 2 has it, and with, as some issuers do.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(super) struct Claims {
    pub(super) exp: Expiry,
    pub(super) nbf: Option<SystemTime>,
}

/// Raw: a number that `f64` cannot hold (`1e400`) must not make the whole payload unreadable.
#[derive(serde::Deserialize)]
struct Payload<'a> {
    #[serde(borrow, default)]
    exp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    nbf: Option<&'a RawValue>,
}

pub(super) fn read(jwt: &str) -> Result<Claims, InvalidToken> {
    let mut parts = jwt.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(InvalidToken::NotAJwt { parts: jwt.split('.').count() });
    };
    let json = Zeroizing::new(BASE64URL.decode(payload).map_err(|_| InvalidToken::NotBase64)?);
    // A list would do for serde, which reads its fields in order.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(InvalidToken::NotJson);
    }
    let claims: Payload<'_> = serde_json::from_slice(&json).map_err(|_| InvalidToken::NotJson)?;
    Ok(Claims {
        exp: claims.exp.map_or(Expiry::Unknown, |exp| numeric_date(exp).map_or(Expiry::Absurd, Expiry::At)),
        nbf: claims.nbf.and_then(numeric_date),
    })
}

/// RFC 7519 section 2: seconds since the epoch, fractions allowed. Some issuers write the number as a string.
fn numeric_date(raw: &RawValue) -> Option<SystemTime> {
    let seconds: f64 = raw.get().trim_matches('"').parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> String {
        format!("e30.{}.c2ln", BASE64URL.encode(payload))
    }

    fn exp(payload: &str) -> Expiry {
        read(&jwt(payload)).unwrap().exp
    }

    fn at(seconds: f64) -> Expiry {
        Expiry::At(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds))
    }

    #[test]
    fn exp_is_read_as_an_integer_a_fraction_or_a_number_in_a_string() {
        assert_eq!(exp(r#"{"exp":1700000000}"#), at(1_700_000_000.0));
        assert_eq!(exp(r#"{"exp":1700000000.25,"sub":"x"}"#), at(1_700_000_000.25));
        assert_eq!(exp(r#"{"exp":"1700000000"}"#), at(1_700_000_000.0));
        assert_eq!(exp(r#"{"exp":17e8}"#), at(1_700_000_000.0));
    }

    #[test]
    fn a_missing_exp_is_unknown() {
        assert_eq!(exp("{}"), Expiry::Unknown);
        assert_eq!(exp(r#"{"exp":null}"#), Expiry::Unknown);
    }

    #[test]
    fn an_exp_that_cannot_be_is_absurd_and_no_error() {
        for absurd in ["-1", "1e20", "1e400", "\"soon\"", "\"NaN\"", "true", "[1]", "{}", "\"\""] {
            assert_eq!(exp(&format!(r#"{{"exp":{absurd}}}"#)), Expiry::Absurd, "{absurd}");
        }
    }

    #[test]
    fn nbf_is_read_and_an_absurd_one_ignored() {
        let nbf = |payload| read(&jwt(payload)).unwrap().nbf;
        assert_eq!(nbf(r#"{"nbf":7}"#), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(7)));
        assert_eq!(nbf(r#"{"nbf":-7}"#), None);
    }

    #[test]
    fn what_is_no_jwt_is_a_clear_error() {
        let error = |jwt: &str| read(jwt).err().unwrap();
        assert_eq!(error("e30.e30"), InvalidToken::NotAJwt { parts: 2 });
        assert_eq!(error("a.b.c.d.e"), InvalidToken::NotAJwt { parts: 5 });
        assert_eq!(error("not.a!.jwt"), InvalidToken::NotBase64);
        assert_eq!(error(&jwt("[]")), InvalidToken::NotJson);
        assert_eq!(error(&jwt("no json")), InvalidToken::NotJson);
        assert_eq!(error(&jwt(r#"{"exp":1,"exp":2}"#)), InvalidToken::NotJson);
        assert_eq!(error(&jwt(&format!("{}1{}", "[".repeat(500), "]".repeat(500)))), InvalidToken::NotJson);
    }

    #[test]
    fn padding_is_tolerated() {
        assert_eq!(read("e30.e30=.c2ln").unwrap().exp, Expiry::Unknown);
    }
}
