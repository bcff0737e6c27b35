//! What a program prints: plain text, JSON of any tool, and `ExecCredential`, against `serde_json::Value`.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tower_jwt_refresh::{Token, source::read_output};
use tower_jwt_refresh_fuzz::json::Object;

fuzz_target!(|data: &[u8]| {
    let Some((form, stdout)) = data.split_first() else { return };
    let stdout = if form & 2 == 0 { Ok(stdout.to_vec()) } else { credential(&mut Unstructured::new(stdout)) };
    let Ok(stdout) = stdout else { return };
    let exec = form & 1 != 0;
    let outcome = read_output(&stdout, exec);
    let told = |outcome: &std::result::Result<Token, _>| format!("{outcome:?}");
    assert_eq!(told(&outcome), told(&read_output(&stdout, exec)));
    assert!(!told(&outcome).contains("s3cr3t"), "{outcome:?}");

    let Ok(text) = std::str::from_utf8(&stdout) else {
        outcome.expect_err("no text");
        return;
    };
    let text = text.trim_start_matches('\u{feff}').trim();
    if !text.starts_with(['{', '[', '"']) {
        let is_word = Token::opaque(text).is_ok() && !["null", "None", "undefined"].contains(&text);
        let found = outcome.ok().map(|token| token.expose_secret().to_owned());
        assert_eq!(found.as_deref(), Some(text).filter(|_| is_word && !exec));
        return;
    }
    let Some(top) = Object::read(text.as_bytes()) else { return };
    let is_credential = top.get("kind").and_then(Value::as_str) == Some("ExecCredential");
    if ["kind", "apiVersion", "status"].into_iter().any(|name| top.is_double(name)) || !is_credential && !exec {
        return;
    }
    let version = top.get("apiVersion").and_then(Value::as_str);
    let is_known = version.and_then(|version| version.strip_prefix("client.authentication.k8s.io/"));
    let is_known = is_known.is_some_and(|version| ["v1", "v1beta1", "v1alpha1"].contains(&version));
    let token = top.get("status").and_then(|status| status.get("token")).and_then(Value::as_str);
    match token.filter(|token| is_credential && is_known && Token::opaque(*token).is_ok()) {
        // A member of `status` may stand there twice, which a `Value` does not tell.
        Some(token) => {
            assert!(outcome.is_err() && text.matches("oken").count() > 1 || outcome.unwrap().expose_secret() == token)
        }
        // What is escaped in a name or a version, or what follows `null`, is told in other words.
        None => drop(outcome.map(|token| panic!("{text}: {:?}", token.expose_secret()))),
    }
});

/// An `ExecCredential`, more or less.
fn credential(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let kind = u.choose(&["\"ExecCredential\"", "\"ExecCredential\"", "\"Other\"", "null", "1"])?;
    let version = u.choose(&["v1", "v1beta1", "v1alpha1", "v2", ""])?;
    let group = u.choose(&["client.authentication.k8s.io/", "client.authentication.k8s.io/", "k8s.io/", ""])?;
    let token = u.choose(&[
        "\"s3cr3t\"",
        "\"e30.eyJleHAiOjE5MDAwMDAwMDB9.c2ln\"",
        "\"\"",
        "null",
        "7",
        "\"a b\"",
        "\"\\u0041\"",
    ])?;
    let end = u.choose(&["\"2026-01-02T00:00:00Z\"", "\"soon\"", "null", "1", "\"1970-01-01T00:00:00Z\""])?;
    let certificate = if u.arbitrary()? { ",\"clientCertificateData\":\"c\"" } else { "" };
    let status = match u.int_in_range(0..=7)? {
        0 => "null".into(),
        1 => format!("{{\"expirationTimestamp\":{end}{certificate}}}"),
        2 => format!("[{token}]"),
        _ => format!("{{\"token\":{token},\"expirationTimestamp\":{end}{certificate}}}"),
    };
    let blank = u.choose(&["", " ", "\n", "\u{feff}"])?;
    Ok(format!("{blank}{{\"kind\":{kind},\"apiVersion\":\"{group}{version}\",\"status\":{status}}}\n").into_bytes())
}
