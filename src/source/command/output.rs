//! Reading the token out of what a program printed.

use super::error::OutputError;
use crate::{
    Token,
    source::answer::{self, AnswerError, Ends, Names},
};

/// What the command-line tools of clouds print, beside what endpoints answer. Azure's `expiresOn` is a local time without its zone, which says
/// nothing, so it is read as none; `expires_on` goes before it.
const OF_TOOLS: Names = Names {
    // kubectl's `TokenRequest`, gcloud's `config-helper`.
    holders: &["", "/status", "/credential"],
    tokens: &["jwt", "access_token", "accessToken", "token", "authorizationToken", "id_token"],
    spans: &["expires_in", "expiresIn"],
    moments: &[
        "expires_at",
        "expires_on",
        "expiresAt",
        "expiration",
        "Expiration",
        "expirationTimestamp",
        "expiry",
        "token_expiry",
        "expiresOn",
    ],
};

/// `client.authentication.k8s.io`, in which the token has the same place in every version.
const EXEC_VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];

/// What was set about the form of the output.
#[derive(Clone, Debug, Default)]
pub(super) struct Form {
    pub(super) token_at: Option<String>,
    pub(super) ends: Ends,
    pub(super) exec_credential: bool,
}

impl Form {
    /// Plain text and JSON cannot be mistaken for each other: no token begins with a brace, a bracket or a quote (RFC 6750 section 2.1).
    pub(super) fn read(&self, stdout: &[u8]) -> Result<Token, OutputError> {
        let text = std::str::from_utf8(stdout).map_err(|_| OutputError::NotUtf8)?;
        // A byte order mark, as some shells of Windows write it.
        let text = text.trim_start_matches('\u{feff}').trim();
        match text.chars().next() {
            None => Err(OutputError::Empty),
            Some('{' | '[' | '"') => self.json(text),
            _ if self.exec_credential => Err(OutputError::NoExecCredential),
            _ if self.token_at.is_some() => Err(OutputError::NotJson),
            Some(_) => plain(text),
        }
    }

    fn json(&self, text: &str) -> Result<Token, OutputError> {
        if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
            return Err(OutputError::NotJson);
        }
        if self.exec_credential || is_exec_credential(text) {
            return exec_credential(text);
        }
        let token_at = self.token_at.as_deref().or(text.starts_with('"').then_some(""));
        token(text, token_at, &self.ends)
    }
}

fn token(text: &str, token_at: Option<&str>, ends: &Ends) -> Result<Token, OutputError> {
    answer::named_token(text.as_bytes(), &OF_TOOLS, token_at, ends, None).map_err(|error| match error {
        AnswerError::NoToken { place } => OutputError::NoToken { place },
        AnswerError::NotAnObject => OutputError::NotAnObject,
        AnswerError::Refused { code } => OutputError::Refused { code },
        error => OutputError::Unusable(error),
    })
}

fn plain(text: &str) -> Result<Token, OutputError> {
    // `jq -r` of what is not there, and Python's print.
    if let Some(word) = ["null", "None", "undefined"].into_iter().find(|word| *word == text) {
        return Err(OutputError::Nothing { word });
    }
    match text.split_whitespace().count() {
        1 => answer::of_text(text).map_err(OutputError::Unusable),
        words => Err(OutputError::SeveralWords { words }),
    }
}

fn is_exec_credential(text: &str) -> bool {
    member(text, "kind") == Some(r#""ExecCredential""#)
}

/// A member of the object, as it stands.
fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    Some(answer::object(text.as_bytes()).ok()?.get(name).ok()??.get())
}

fn exec_credential(text: &str) -> Result<Token, OutputError> {
    if !is_exec_credential(text) {
        return Err(OutputError::NoExecCredential);
    }
    let version = member(text, "apiVersion").and_then(|version| version.trim_matches('"').split_once('/'));
    if !version
        .is_some_and(|(group, version)| group == "client.authentication.k8s.io" && EXEC_VERSIONS.contains(&version))
    {
        return Err(OutputError::ExecVersion);
    }
    let status = member(text, "status");
    let has = |name| status.and_then(|status| member(status, name)).is_some();
    if has("clientCertificateData") && !has("token") {
        return Err(OutputError::OnlyCertificate);
    }
    token(text, Some("/status/token"), &Ends::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Expiry;
    use std::time::{Duration, SystemTime};

    /// Ends at 1,900,000,000.
    const JWT: &str = "e30.eyJleHAiOjE5MDAwMDAwMDB9.c2ln";

    fn read(stdout: &str) -> Result<Token, OutputError> {
        Form::default().read(stdout.as_bytes())
    }

    fn exec(stdout: &str) -> Result<Token, OutputError> {
        Form { exec_credential: true, ..Form::default() }.read(stdout.as_bytes())
    }

    fn found(stdout: &str) -> (String, Expiry) {
        let token = read(stdout).unwrap_or_else(|error| panic!("{stdout}: {error:?}"));
        (token.expose_secret().to_owned(), token.expiry)
    }

    fn at(seconds: u64) -> Expiry {
        Expiry::At(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn span(seconds: u64) -> Expiry {
        Expiry::In(Duration::from_secs(seconds))
    }

    #[test]
    fn plain_text_is_the_token_without_the_blanks_around_it() {
        for text in ["opaque", "opaque\n", "  opaque\r\n\n", "\u{feff}opaque", "\"opaque\"\n"] {
            assert_eq!(found(text), ("opaque".into(), Expiry::Unknown), "{text:?}");
        }
        assert_eq!(found(JWT), (JWT.into(), at(1_900_000_000)));
        assert_eq!(found(&format!("\"{JWT}\"")).1, at(1_900_000_000));
    }

    #[test]
    fn what_the_tools_of_clouds_print_needs_no_setting() {
        for (json, token, expiry) in [
            // gcloud config config-helper
            (
                r#"{"configuration":{"properties":{}},"credential":{"access_token":"ya29","id_token":"x","token_expiry":"2027-01-15T08:00:00Z"},"sentinels":{}}"#,
                "ya29",
                at(1_800_000_000),
            ),
            // az account get-access-token, whose first time is a local one
            (
                r#"{"accessToken":"az","expiresOn":"2027-01-15 19:00:00.000000","expires_on":1800000000,"subscription":"s","tenant":"t","tokenType":"Bearer"}"#,
                "az",
                at(1_800_000_000),
            ),
            // azd auth token --output json
            (r#"{"token":"azd","expiresOn":"2027-01-15T08:00:00Z"}"#, "azd", at(1_800_000_000)),
            // aws codeartifact get-authorization-token, versions 2 and 1
            (r#"{"authorizationToken":"aws","expiration":"2027-01-15T09:00:00+01:00"}"#, "aws", at(1_800_000_000)),
            (r#"{"authorizationToken":"aws","expiration":1800000000.0}"#, "aws", at(1_800_000_000)),
            // kubectl create token -o json
            (
                r#"{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","spec":{"audiences":[]},"status":{"token":"k8s","expirationTimestamp":"2027-01-15T08:00:00Z"}}"#,
                "k8s",
                at(1_800_000_000),
            ),
            // databricks auth token
            (
                r#"{"access_token":"db","token_type":"Bearer","expiry":"2027-01-15T10:00:00+02:00"}"#,
                "db",
                at(1_800_000_000),
            ),
            // An endpoint's answer, by curl.
            (r#"{"access_token":"oauth","expires_in":3600}"#, "oauth", span(3600)),
        ] {
            let (found, ends) = found(json);
            assert_eq!((found.as_str(), ends), (token, expiry));
        }
    }

    // Azure/azure-sdk-for-rust#1176.
    #[test]
    fn a_time_without_its_zone_is_not_believed() {
        let local = r#""expiresOn":"2027-01-15 08:00:00.000000""#;
        assert_eq!(found(&format!(r#"{{"accessToken":"opaque",{local}}}"#)).1, Expiry::Absurd);
        assert_eq!(found(&format!(r#"{{"accessToken":"{JWT}",{local}}}"#)).1, at(1_900_000_000));
    }

    #[test]
    fn pointers_go_before_names() {
        let form = |token: &str, lifetime: Option<&str>, expiry: Option<&str>| Form {
            token_at: Some(token.into()),
            ends: Ends { lifetime: lifetime.map(Into::into), expiry: expiry.map(Into::into) },
            exec_credential: false,
        };
        let json = br#"{"token":"no","expires_in":9,"a":[{"key":"yes","expires_in":5}],"until":1800000000,"for":"60"}"#;
        let read = |lifetime: Option<&str>, expiry: Option<&str>| {
            let token = form("/a/0/key", lifetime, expiry).read(json).unwrap();
            (token.expose_secret().to_owned(), token.expiry)
        };
        assert_eq!(read(None, None), ("yes".into(), span(5)), "the end is beside the token");
        assert_eq!(read(None, Some("/until")).1, at(1_800_000_000));
        assert_eq!(read(Some("/for"), None).1, span(60));
        assert_eq!(read(None, Some("/nowhere")).1, Expiry::Absurd);
        assert_eq!(form("/token", None, None).read(b"plain").unwrap_err(), OutputError::NotJson);
    }

    #[test]
    fn an_exec_credential_is_recognised_by_its_kind() {
        let json = |version: &str, status: &str| {
            format!(r#"{{"kind":"ExecCredential","apiVersion":"{version}","spec":{{}},"status":{status}}}"#)
        };
        let v1 = |status: &str| json("client.authentication.k8s.io/v1", status);
        let whole = r#"{"token":"k8s","expirationTimestamp":"2027-01-15T08:00:00Z","clientCertificateData":"x"}"#;
        for version in EXEC_VERSIONS {
            let json = json(&format!("client.authentication.k8s.io/{version}"), whole);
            assert_eq!(found(&json), ("k8s".into(), at(1_800_000_000)));
            assert_eq!(exec(&json).unwrap().expose_secret(), "k8s");
        }
        assert_eq!(found(&v1(r#"{"token":"k8s"}"#)).1, Expiry::Unknown);
        assert_eq!(found(&v1(r#"{"token":"k8s","expirationTimestamp":null}"#)).1, Expiry::Unknown);
        for (stdout, error) in [
            (json("client.authentication.k8s.io/v2", whole), OutputError::ExecVersion),
            (json("v1", whole), OutputError::ExecVersion),
            (json("example.com/v1", whole), OutputError::ExecVersion),
            (v1(r#"{"clientCertificateData":"s3cr3t","clientKeyData":"s3cr3t"}"#), OutputError::OnlyCertificate),
            (v1(r#"{"token":null,"clientCertificateData":"s3cr3t"}"#), OutputError::OnlyCertificate),
        ] {
            assert_eq!(read(&stdout).unwrap_err(), error, "{stdout}");
        }
        for status in ["{}", "null", "7", r#"{"token":7}"#, r#"{"token":""}"#, r#"{"token":"a b"}"#] {
            let error = read(&v1(status)).unwrap_err();
            assert!(matches!(error, OutputError::Unusable(_) | OutputError::NoToken { .. }), "{status}: {error:?}");
        }
        // Asked for by name, nothing else will do.
        for other in ["plain", r#"{"token":"x"}"#, r#""x""#, r#"{"kind":"TokenRequest","status":{"token":"x"}}"#] {
            assert_eq!(exec(other).unwrap_err(), OutputError::NoExecCredential, "{other}");
        }
    }

    // Scenario 63.
    #[test]
    fn what_is_no_token_is_an_error_that_says_what_it_is_and_quotes_nothing() {
        for (stdout, says) in [
            ("", "is empty"),
            (" \r\n\t", "is empty"),
            ("\u{feff}", "is empty"),
            ("null\n", "printed `null`"),
            ("None", "printed `None`"),
            ("not logged in, s3cr3t", "printed 4 words"),
            ("s3cr3t\ns3cr3t\n", "printed 2 words"),
            ("s3cr3t-\u{fc}", "no usable token"),
            ("s3cr3t\0", "no usable token"),
            ("{s3cr3t", "and is none"),
            ("{\"token\":\"s3cr3t\"} s3cr3t", "and is none"),
            ("{}", "no token at `jwt`, `access_token`, `accessToken`, "),
            ("[]", "neither an object nor a string"),
            ("[\"s3cr3t\"]", "neither an object nor a string"),
            ("{\"status\":{}}", "no token at"),
            ("\"\"", "no usable token"),
            (r#"{"token":"s3cr3t\n"}"#, "no usable token"),
            (r#"{"token":"s3cr3t","token":"s3cr3t2"}"#, "no usable token"),
            (
                r#"{"error":"invalid_grant","error_description":"s3cr3t"}"#,
                "an error in the place of a token (invalid_grant)",
            ),
            (r#"{"error":{"message":"s3cr3t"}}"#, "an error in the place of a token:"),
            // AWS's credential_process: keys to sign requests with, no token.
            (
                r#"{"Version":1,"AccessKeyId":"s3cr3t","SecretAccessKey":"s3cr3t","SessionToken":"s3cr3t"}"#,
                "no token at",
            ),
        ] {
            let error = read(stdout).unwrap_err();
            let text = format!("{error}: {error:?}");
            assert!(text.contains(says), "{stdout:?}: {text}");
            assert!(!text.contains("s3cr3t"), "{text}");
            let chain = crate::source::chain(&error).map(|error| format!("{error}: ")).collect::<String>();
            assert!(!["URL", "proxy", "endpoint"].iter().any(|word| chain.contains(word)), "nobody asked one: {chain}");
        }
        assert_eq!(Form::default().read(b"\xff\xfes3cr3t").unwrap_err(), OutputError::NotUtf8);
    }
}
