//! Cutting out what may be a secret.
//!
//! Each rule names ranges of the text, and all of them are cut: a word too much rather than a token. They are meant for programs that tell more than
//! they know (a dump of their settings, a request with its headers), not for ones that hide a secret on purpose.

use super::random;
use std::{collections::HashSet, ops::Range};
use zeroize::Zeroizing;

const CUT: &str = "[cut]";

/// A piece that also stands on stdout is cut from this length: shorter ones are words of the language.
const SHARED: usize = 8;

/// What is shorter is no secret, whatever it is called, and is part of every other word.
pub(super) const SHORTEST: usize = 3;

/// Ends of words that make a name that of a secret, wherever they stand in it.
const SECRET: [&str; 12] = [
    "token",
    "tokens",
    "secret",
    "secrets",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "credential",
    "credentials",
    "jwt",
    "assertion",
];

/// Words that do so as the last of a name.
const SECRET_LAST: [&str; 9] = ["key", "keys", "auth", "session", "sid", "sig", "signature", "pass", "apikey"];

/// Names whose value has several words.
const WHOLE_LINE: [&str; 3] = ["authorization", "cookie", "cookies"];

pub(super) fn redact(text: &str, stdout: &[u8], known: &[&str]) -> Zeroizing<String> {
    let mut cuts = Vec::new();
    verbatim(text, known, &mut cuts);
    shared(text, stdout, &mut cuts);
    armoured(text, &mut cuts);
    named(text, &mut cuts);
    announced(text, &mut cuts);
    user_in_url(text, &mut cuts);
    random::words(text, &mut cuts);
    without(text, cuts)
}

fn without(text: &str, mut cuts: Vec<Range<usize>>) -> Zeroizing<String> {
    cuts.retain(|cut| !cut.is_empty());
    cuts.sort_by_key(|cut| cut.start);
    let mut left = Zeroizing::new(String::with_capacity(text.len() + CUT.len() * cuts.len()));
    let mut at = 0;
    for cut in cuts {
        // What overlaps or touches is one.
        if cut.start > at || (cut.start == 0 && at == 0) {
            left.push_str(&text[at..cut.start]);
            left.push_str(CUT);
        }
        at = at.max(cut.end);
    }
    left.push_str(&text[at..]);
    left
}

/// What is known to be secret.
fn verbatim(text: &str, known: &[&str], cuts: &mut Vec<Range<usize>>) {
    for secret in known.iter().filter(|secret| !secret.is_empty()) {
        cuts.extend(text.match_indices(secret).map(|(at, _)| at..at + secret.len()));
    }
}

/// What stands on stdout too. Of one word there, it is that word wherever it stands.
fn shared(text: &str, stdout: &[u8], cuts: &mut Vec<Range<usize>>) {
    if let Ok(stdout) = std::str::from_utf8(stdout)
        && let [word] = stdout.split_whitespace().take(2).collect::<Vec<_>>()[..]
        && word.len() >= SHORTEST
    {
        verbatim(text, &[word.trim_matches('"')], cuts);
    }
    let there: HashSet<&[u8]> =
        stdout.split(|byte| !is_piece(char::from(*byte))).filter(|piece| piece.len() >= SHARED).collect();
    cuts.extend(runs(text, is_piece).filter(|run| there.contains(&text.as_bytes()[run.clone()])));
}

/// PEM (RFC 7468), whose last line is short. Also where its beginning or its end is missing.
fn armoured(text: &str, cuts: &mut Vec<Range<usize>>) {
    let (begin, end) = (text.find("-----BEGIN"), text.rfind("-----END"));
    match (begin, end) {
        (None, None) => {}
        (None, Some(end)) => cuts.push(0..end),
        (Some(begin), Some(end)) if begin < end => cuts.push(begin..end),
        (Some(begin), Some(end)) => cuts.extend([0..end, begin..text.len()]),
        (Some(begin), None) => cuts.push(begin..text.len()),
    }
}

/// `name=value`, `name: value`, `"name": "value"`, `--name value`, where the name is that of a secret.
fn named(text: &str, cuts: &mut Vec<Range<usize>>) {
    for name in runs(text, |char| is_piece(char) || char == '.') {
        let after = &text[name.end..];
        let name = &text[name];
        let flag = name.starts_with("--") && after.starts_with(' ');
        let closed = after.trim_start_matches(['"', '\'', '\\', ']', ' ']);
        let Some(value) = closed.strip_prefix(['=', ':']).or(flag.then_some(after)) else { continue };
        let spaced = value.trim_start_matches(['>', '=', ' ', '\n']);
        let start = text.len() - spaced.len();
        let words = words(name);
        let length = if words.iter().any(|word| WHOLE_LINE.contains(&word.as_str())) {
            spaced.find('\n').unwrap_or(spaced.len())
        } else if is_secrets(&words) {
            value_length(spaced)
        } else {
            continue;
        };
        // "cannot fetch token: 400": a status tells much, and is no secret.
        let status = value.starts_with(' ') && spaced[..length].trim().parse::<u16>().is_ok_and(|code| code < 1000);
        if !status {
            cuts.push(start..start + length);
        }
    }
}

/// Whether what has this name is a secret.
pub(super) fn is_secrets_name(name: &str) -> bool {
    let words = words(name);
    words.iter().any(|word| WHOLE_LINE.contains(&word.as_str())) || is_secrets(&words)
}

fn is_secrets(words: &[Zeroizing<String>]) -> bool {
    let ends = |word: &str, of: &[&str]| of.iter().any(|of| word.ends_with(of));
    words.iter().any(|word| ends(word, &SECRET))
        || words.last().is_some_and(|word| SECRET_LAST.contains(&word.as_str()))
}

/// `accessToken`, `access_token` and `ACCESS-TOKEN` as words in lower case; `token2` is one more token.
fn words(name: &str) -> Vec<Zeroizing<String>> {
    let mut words = vec![Zeroizing::new(String::new())];
    let mut small = false;
    for char in name.chars() {
        if !char.is_ascii_alphanumeric() || (small && char.is_ascii_uppercase()) {
            words.push(Zeroizing::new(String::new()));
        }
        small = char.is_ascii_lowercase();
        if char.is_ascii_alphabetic()
            && let Some(word) = words.last_mut()
        {
            word.push(char.to_ascii_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Up to the closing quote, else up to the next blank: passwords may hold any mark.
fn value_length(value: &str) -> usize {
    let unescaped = value.trim_start_matches(['b', '\\']);
    let Some(quote) = unescaped.chars().next().filter(|char| matches!(char, '"' | '\'')) else {
        return value.find(char::is_whitespace).unwrap_or(value.len());
    };
    let inside = value.len() - unescaped.len() + 1;
    let mut escaped = false;
    let end = value[inside..].find(|char| {
        let ends = char == quote && !escaped;
        escaped = char == '\\' && !escaped;
        ends
    });
    // An escaped quote opened it, so one closes it.
    let end = if inside > 1 && value.starts_with('\\') { value[inside..].find(quote) } else { end };
    end.map_or(value.len(), |end| inside + end)
}

/// `Bearer x` (RFC 6750 section 2.1) and `Basic x` (RFC 7617), wherever they stand.
fn announced(text: &str, cuts: &mut Vec<Range<usize>>) {
    for scheme in runs(text, |char| char.is_ascii_alphanumeric()) {
        if ["bearer", "basic"].iter().any(|name| text[scheme.clone()].eq_ignore_ascii_case(name)) {
            let value = text[scheme.end..].trim_start_matches([' ', ':', '=', '\n', '"', '\'']);
            let start = text.len() - value.len();
            cuts.push(start..start + value_length(value));
        }
    }
}

/// `https://user:password@host`
fn user_in_url(text: &str, cuts: &mut Vec<Range<usize>>) {
    for (at, mark) in text.match_indices("://") {
        let start = at + mark.len();
        let authority = text[start..].split(|char: char| char.is_whitespace() || "/?#\"'<>".contains(char)).next();
        if let Some(end) = authority.and_then(|authority| authority.rfind('@')) {
            cuts.push(start..start + end);
        }
    }
}

pub(super) fn is_piece(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '-' || char == '_'
}

/// Where such characters stand together.
pub(super) fn runs(text: &str, belongs: impl Fn(char) -> bool) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(&belongs)?;
        at = text[start..].find(|char| !belongs(char)).map_or(text.len(), |length| start + length);
        Some(start..at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        redact(text, b"", &[]).to_string()
    }

    #[test]
    fn what_a_person_would_write_stays() {
        for text in [
            "ERROR: (gcloud.auth.print-access-token) You do not currently have an active account selected.",
            "AADSTS700016: Application with identifier 'web' was not found in the directory (InvalidAuthenticationTokenTenant)",
            "oauth2: cannot fetch token: 400 Bad Request",
            "File \"/usr/lib/python3/dist-packages/google/auth/transport/requests.py\", line 192, in request",
            "ModuleNotFoundError: No module named 'google_auth_httplib2'",
            "dial tcp 10.0.0.1:443: connect: connection refused",
            "error: exec: \"kubelogin-linux-x86_64\": executable file not found in $PATH",
            "arn:aws:iam::123456789012:role/Deploy is not authorized to perform sts:AssumeRole",
            "2026-11-25T14:30:00Z WARN retry 3 of 5",
            "The token has expired",
            "requests.exceptions.SSLError: HTTPSConnectionPool(host='x', port=443): SSLCertVerificationError",
            "Please run: az login --tenant contoso.onmicrosoft.com",
            "KeyError: 'region'",
            "https://login.example.com/oauth2/v2.0/authorize?prompt=none",
            "",
        ] {
            assert_eq!(of(text), text);
        }
    }

    #[test]
    fn the_value_of_a_name_that_is_a_secrets_is_cut() {
        for (text, left) in [
            ("token=s3cr3t", "token=[cut]"),
            ("access_token: s3cr3t (cached)", "access_token: [cut] (cached)"),
            ("MY_API_KEY=s3cr3t", "MY_API_KEY=[cut]"),
            ("x-api-key:s3cr3t", "x-api-key:[cut]"),
            ("clientSecret => s3cr3t", "clientSecret => [cut]"),
            ("secretAccessKey = s3cr3t", "secretAccessKey = [cut]"),
            ("authtoken2: s3cr3t", "authtoken2: [cut]"),
            ("password: a,b;c&s3cr3t'\"", "password: [cut]"),
            ("{\"refresh_token\": \"a b s3cr3t\", \"n\": 1}", "{\"refresh_token\": [cut]\", \"n\": 1}"),
            ("{\"a\":\"x\",\"token\":\"a\\\"s3cr3t\"}", "{\"a\":\"x\",\"token\":[cut]\"}"),
            (r#"body {\"token\":\"s3cr3t\",\"n\":1}"#, r#"body {\"token\":[cut]",\"n\":1}"#),
            ("env['PASSWORD'] = 'a s3cr3t'", "env['PASSWORD'] = [cut]'"),
            ("password: b's3cr3t'", "password: [cut]'"),
            ("token='s3cr3t never closed", "token=[cut]"),
            ("run --token s3cr3t --verbose", "run --token [cut] --verbose"),
            ("run --client-secret=s3cr3t", "run --client-secret=[cut]"),
            ("password:\ns3cr3t\nend", "password:\n[cut]\nend"),
            ("Authorization: Digest a=\"s3cr3t\", b=\"s3cr3t\"\nend", "Authorization: [cut]\nend"),
            ("set-cookie: a=s3cr3t; b=s3cr3t", "set-cookie: [cut]"),
            ("GET https://x/y?sig=s3cr3t", "GET https://x/y?sig=[cut]"),
            ("token: 123456", "token: [cut]"),
            ("token:123", "token:[cut]"),
        ] {
            assert_eq!(of(text), left);
        }
    }

    #[test]
    fn what_follows_bearer_or_basic_is_cut_and_the_user_in_a_url() {
        assert_eq!(of("sent Bearer s3cr3t and failed"), "sent Bearer [cut] and failed");
        assert_eq!(of("h: 'bearer: s3cr3t'"), "h: 'bearer: [cut]");
        assert_eq!(of("BASIC\ns3cr3t"), "BASIC\n[cut]");
        assert_eq!(of("Bearer"), "Bearer");
        assert_eq!(of("via http://user:s3cr3t@proxy:8080/x"), "via http://[cut]@proxy:8080/x");
        assert_eq!(of("via http://user:a@s3cr3t@proxy"), "via http://[cut]@proxy");
        assert_eq!(of("via http://proxy/@x"), "via http://proxy/@x");
    }

    #[test]
    fn keys_in_armour_are_cut_even_where_an_end_is_missing() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIIEs3cr3t\ns3cr3t==\n-----END PRIVATE KEY-----";
        assert_eq!(of(&format!("bad key:\n{key}\nend")), "bad key:\n[cut]-----END PRIVATE KEY-----\nend");
        assert_eq!(of("s3cr3t\n-----END KEY-----\nend"), "[cut]-----END KEY-----\nend");
        assert_eq!(of("x\n-----BEGIN KEY-----\ns3cr3t"), "x\n[cut]");
        assert_eq!(of("s3cr3t\n-----END K-----\nx\n-----BEGIN K-----\ns3cr3t"), "[cut]-----END K-----\nx\n[cut]");
    }

    #[test]
    fn what_also_stands_on_stdout_is_cut() {
        let cut = |text: &str, stdout: &[u8]| redact(text, stdout, &[]).to_string();
        assert_eq!(cut("got 'abc', x", b"abc\n"), "got '[cut]', x");
        assert_eq!(cut("got abcd", b"\"abc\""), "got [cut]d", "wherever it stands");
        assert_eq!(cut("got t", b"t"), "got t");
        assert_eq!(cut("cached correcthorse now", br#"{"t": "correcthorse"}"#), "cached [cut] now");
        assert_eq!(cut("cached correcthorse now", b"\xff correcthorse"), "cached [cut] now");
        assert_eq!(cut("a token is here", br#"{"token": "is here"}"#), "a token is here", "too short to be one");
    }

    #[test]
    fn what_is_known_to_be_secret_is_cut_wherever_it_stands() {
        assert_eq!(redact("x ö-s3cr3t-ö s3cr3t", b"", &["s3cr3t", ""]).as_str(), "x ö-[cut]-ö [cut]");
        assert_eq!(redact("s3cr3ts3cr3t", b"", &["s3cr3t"]).as_str(), "[cut]");
        assert_eq!(redact("s3cr3t-2", b"", &["s3cr3t", "s3cr3t-2"]).as_str(), "[cut]");
    }
}
