use super::*;
use tower::service_fn;

const URL: &str = "https://login.example.com/token";

fn credentials() -> OAuth2Builder {
    OAuth2::client_credentials(URL, ClientAuth::basic("id", "s3cr3t"))
}

fn refreshing(token: &str) -> OAuth2Builder {
    OAuth2::refresh_token(URL, ClientAuth::public("id"), token)
}

fn mistake(builder: OAuth2Builder) -> ConfigError {
    let debug = format!("{builder:?}");
    let mistake = builder.build().unwrap_err();
    assert!(!format!("{debug} {mistake} {mistake:?}").contains("s3cr3t"), "{mistake:?}");
    mistake
}

#[test]
fn a_place_that_no_credential_may_go_to_is_refused() {
    for place in ["", "token", "http://login.example.com/token", "https://user:s3cr3t@login.example.com"] {
        for place in [TokenEndpoint::url(place), TokenEndpoint::discover(place)] {
            let refused = mistake(OAuth2::client_credentials(place, ClientAuth::basic("id", "s3cr3t")));
            let of_place =
                matches!(refused, ConfigError::IllegalEndpoint { .. } | ConfigError::PlaintextEndpoint { .. });
            assert!(of_place, "{refused:?}");
        }
    }
    let far = TokenEndpoint::discover("http://login.example.com");
    assert!(OAuth2::client_credentials(far, ClientAuth::none()).allow_plaintext().build().is_ok());
    for issuer in ["https://login.example.com/?a=b", "https://login.example.com/#a"] {
        let refused = mistake(OAuth2::client_credentials(TokenEndpoint::discover(issuer), ClientAuth::none()));
        assert!(refused.to_string().contains("RFC 8414 section 2"), "{refused}");
    }
}

#[test]
fn parameters_that_cannot_be_are_refused_and_their_values_not_quoted() {
    let illegal = |builder: OAuth2Builder, name: &str| match mistake(builder) {
        ConfigError::IllegalParameter { name: named, .. } => assert_eq!(named, name),
        other => panic!("{other:?}"),
    };
    for scope in ["", " ", "a  b", " a", "a\n", "s3cr3t\"", "\u{fc}"] {
        illegal(credentials().scope(scope), "scope");
    }
    for resource in ["", "api.example.com", "https://a#s3cr3t", ":x", "a b:c"] {
        illegal(credentials().resource(resource), "resource");
    }
    for name in RESERVED {
        illegal(credentials().param(name, "s3cr3t"), name);
    }
    illegal(credentials().param("", "s3cr3t"), "");
    for fine in [credentials().resource("urn:a:b"), credentials().scope("https://a/.default openid")] {
        assert!(fine.build().is_ok());
    }
}

#[test]
fn a_refresh_token_that_was_read_wrongly_is_refused() {
    for token in ["", "s3cr3t\n", " s3cr3t"] {
        assert!(matches!(mistake(refreshing(token)), ConfigError::IllegalCredential { .. }), "{token:?}");
    }
    assert!(refreshing("1//0g-any/thing+you=like").build().is_ok());
}

#[test]
fn settings_of_another_grant_are_refused_by_name() {
    let source = || service_fn(|_: TokenRequest| async { Ok::<_, BoxError>(Token::opaque("t")?) });
    for (builder, setting) in [
        (credentials().on_rotation(|_| async { Ok(()) }), "on_rotation"),
        (credentials().actor_token(source(), "urn:a"), "actor_token"),
        (refreshing("r").subject_token_type("urn:a"), "subject_token_type"),
        (refreshing("r").requested_token_type("urn:a"), "requested_token_type"),
    ] {
        let refused = mistake(builder);
        assert!(matches!(refused, ConfigError::NotOfThisGrant { setting: named, .. } if named == setting), "{refused}");
    }
}

#[test]
fn the_first_mistake_is_told() {
    let first = mistake(credentials().timeout(Duration::ZERO).scope(""));
    assert!(matches!(first, ConfigError::Zero { setting: "timeout", .. }), "{first:?}");
    let first = mistake(OAuth2::client_credentials(URL, ClientAuth::basic("", "s3cr3t")).scope(""));
    assert!(matches!(first, ConfigError::IllegalCredential { .. }), "{first:?}");
}

#[test]
fn nothing_printed_holds_a_secret() {
    let builder = refreshing("s3cr3t").param("password", "s3cr3t");
    let first = format!("{builder:?}");
    let text = format!("{first} {:?}", builder.build().unwrap());
    assert!(text.contains(URL) && !text.contains("s3cr3t"), "{text}");
    for place in ["https://a/token?key=s3cr3t", "https://user:s3cr3t@a/token", "https://a/#s3cr3t"] {
        let text = format!("{:?} {:?}", TokenEndpoint::url(place), TokenEndpoint::discover(place));
        assert!(!text.contains("s3cr3t"), "{text}");
    }
}
