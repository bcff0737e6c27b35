//! Nothing of what was logged or reported holds a token, a client's secret or its assertion.

use crate::{report::Report, server::Server};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use std::{collections::BTreeSet, fs};
use tower_jwt_refresh::BoxError;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// In each client's secret, and where the claims of any JWT begin: an assertion is a new one each time.
const MARKS: [&str; 2] = ["s3cr3t", ".eyJ"];
/// No part of a token that is shorter says anything.
const LONG: usize = 16;

/// From now on all that is logged is written down; of the connections below the layer not every step.
pub(crate) fn listen(server: &Server) -> Result<(), BoxError> {
    let targets = Targets::new().with_default(LevelFilter::DEBUG).with_target("tower_jwt_refresh", LevelFilter::TRACE);
    let log = fmt::layer().with_ansi(false).with_writer(fs::File::create(server.log())?).with_filter(targets);
    Ok(tracing_subscriber::registry().with(log).try_init()?)
}

pub(crate) async fn kept(server: &Server, report: &Report) -> Result<(), BoxError> {
    let (seen, log, said) = (server.seen().await?, fs::read_to_string(server.log())?, report.text());
    let tokens: BTreeSet<_> = seen.tokens().collect();
    let secrets: BTreeSet<_> =
        tokens.iter().flat_map(|token| forms(token)).chain(MARKS.into_iter().flat_map(hidden)).collect();
    let shown = secrets.iter().filter(|secret| log.contains(*secret) || said.contains(*secret)).count();
    let lines = log.lines().filter(|line| line.contains("tower_jwt_refresh")).count();
    report.claim(
        "what was logged",
        format!("of {} tokens and the clients' secrets, {shown} in {lines} lines of ours", tokens.len()),
        shown == 0 && lines > 20 && tokens.len() > 20,
    );
    Ok(())
}

/// The token, and what is told by itself of a JWT: all parts but the first, which is the same for many.
fn forms(token: &str) -> Vec<String> {
    let parts = token.split('.').skip(1).filter(|part| part.len() >= LONG);
    parts.chain([token]).flat_map(hidden).collect()
}

/// As it is, as it becomes in a form, as `Debug` shows its bytes, and in base64, wherever in it.
fn hidden(part: &str) -> Vec<String> {
    let form = part.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => char::from(byte).to_string(),
        b' ' => "+".to_owned(),
        _ => format!("%{byte:02X}"),
    });
    let bytes: Vec<_> = part.bytes().map(|byte| byte.to_string()).collect();
    let base64 = (0..3).flat_map(|offset| {
        let whole = [&vec![0; offset], part.as_bytes()].concat();
        // The letters at the edges hold bits of what is before and after.
        let sure = (offset * 8).div_ceil(6)..whole.len() * 8 / 6;
        [&BASE64_STANDARD_NO_PAD, &BASE64_URL_SAFE_NO_PAD].map(|engine| engine.encode(&whole)[sure.clone()].to_owned())
    });
    [part.to_owned(), form.collect(), bytes.join(", ")].into_iter().chain(base64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::BASE64_STANDARD;

    #[test]
    fn a_token_is_found_in_every_form_and_place() {
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLWE=";
        let found = |text: &str| forms(token).iter().any(|form| text.contains(form));
        for text in [
            format!("the token was {token}."),
            format!("x{token}y"),
            format!("token={}", token.replace('=', "%3D")),
            format!("{:?}", token.as_bytes()),
            "the claims eyJzdWIiOiJhbGljZSJ9".to_owned(),
        ] {
            assert!(found(&text), "{text}");
        }
        for before in ["", "i", "id", "id:"] {
            let text = BASE64_STANDARD.encode(format!("{before}{token}"));
            assert!(found(&text), "{text}");
        }
        assert!(forms("an opaque+1").iter().any(|form| "token=an+opaque%2B1".contains(form)), "in a form");
        assert!(!found("eyJhbGciOiJub25lIn0"), "many have this header");
    }

    #[test]
    fn a_secret_and_an_assertion_are_found_by_their_marks() {
        let found = |text: &str| MARKS.into_iter().flat_map(hidden).any(|form| text.contains(&form));
        assert!(
            found("client_secret=s3cr3t+post%3A100%25")
                && found("client_assertion=eyJhbGciOiJSUzI1NiJ9.eyJqdGkiOiJ4In0.s")
        );
        assert!(found(&BASE64_STANDARD.encode("revoked:s3cr3t-of-the-revoked")));
        assert!(!found("2026-11-25T10:00:00Z DEBUG hyper_util: connected to 127.0.0.1:80"));
    }
}
