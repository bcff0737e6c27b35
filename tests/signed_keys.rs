//! What is no key to sign with is refused where it is read, with the way out, and never quoted.

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::KeyPair;
use tower_jwt_refresh::{ConfigError, source::SigningKey};

/// Why it was refused, once it is sure that nothing of the text is quoted.
fn refused(pem: impl AsRef<[u8]>) -> String {
    let pem = String::from_utf8_lossy(pem.as_ref());
    let error = SigningKey::from_pem(pem.as_bytes()).expect_err(&pem);
    assert!(matches!(error, ConfigError::SigningKey { .. }), "{error:?}");
    let text = format!("{error} {error:?}");
    for line in pem.lines().filter(|line| line.len() > 20 && !line.starts_with("-----")) {
        assert!(!text.contains(line), "{text}");
    }
    text
}

/// A key as it should be: P-256 in PKCS#8.
fn pem() -> String {
    KeyPair::generate().unwrap().serialize_pem()
}

#[test]
fn a_key_in_another_format_is_refused_with_the_command_that_converts_it() {
    assert!(refused(include_str!("keys/refused/sec1.pem")).contains("`openssl pkey -in"));
    assert!(
        refused(include_str!("keys/refused/encrypted.pem")).contains("is encrypted: decrypt it with `openssl pkey")
    );
    assert!(refused(include_str!("keys/refused/encrypted-pkcs1.pem")).contains("is encrypted"));
    assert!(refused(include_str!("keys/refused/openssh.pem")).contains("`ssh-keygen -p -m PKCS8"));
    assert!(refused(include_str!("keys/refused/no-public-half.pem")).contains("lacks its public half"));
    assert!(refused(KeyPair::generate().unwrap().serialize_der()).contains("`openssl pkey -inform DER"));
}

#[test]
fn a_key_of_another_kind_is_refused() {
    assert!(refused(include_str!("keys/refused/rsa-1024.pem")).contains("under 2048 bits"));
    assert!(refused(include_str!("keys/refused/rsa-pss.pem")).contains("PSS alone"));
    assert!(refused(include_str!("keys/refused/secp256k1.pem")).contains("on a curve that is not supported"));
    assert!(refused(include_str!("keys/refused/p521.pem")).contains("P-256 and P-384 are"));
    assert!(refused(include_str!("keys/refused/x25519.pem")).contains("an algorithm that is not supported"));
}

#[test]
fn what_was_given_in_place_of_a_key_is_named() {
    for nothing in ["", " \n\t"] {
        assert!(refused(nothing).contains("is empty"));
    }
    assert!(refused("s3cr3t-that-is-no-key-at-all").contains("is no PEM"));
    assert!(refused(KeyPair::generate().unwrap().public_key_pem()).contains("its certificate or public key"));
    let service_account = serde_json::json!({"type": "service_account", "private_key": pem()}).to_string();
    assert!(refused(service_account).contains("`private_key`"));
    assert!(refused(pem().trim_end().replace('\n', "\\n")).contains("written out"), "as in a variable");
    assert!(refused(pem() + &pem()).contains("one of several"));
}

#[test]
fn a_key_that_was_cut_or_altered_is_refused_wherever_the_cut_is() {
    let whole = pem();
    assert!(refused(whole.replace('\n', " ")).contains("on lines of their own"));
    for end in 28..whole.trim_end().len() {
        let text = refused(&whole[..end]);
        assert!(text.contains("was cut or altered"), "{end}: {text}");
    }
    let lines: Vec<_> = whole.lines().collect();
    for gone in 1..lines.len() - 1 {
        let mut lines = lines.clone();
        lines.remove(gone);
        assert!(refused(lines.join("\n")).contains("was cut or altered"), "without line {gone}");
    }
    for nothing in ["", "AA==", "MA==", "MAA=", "MIA=", "MIE=", "MIEA", "MII=", "MIIA", "MIIAAA==", "MAMCAQA=", "MIP/"]
    {
        let text = refused(format!("-----BEGIN PRIVATE KEY-----\n{nothing}\n-----END PRIVATE KEY-----\n"));
        assert!(text.contains("was cut or altered"), "{nothing}: {text}");
    }
}

// The private half is not the one that belongs to the public half: found when it is read, not when it first signs.
#[test]
fn halves_of_two_keys_are_no_key() {
    let (one, other) = (KeyPair::generate().unwrap().serialize_der(), KeyPair::generate().unwrap().serialize_der());
    assert_eq!(one.len(), other.len());
    let at = one.len() - 65;
    let mixed = [&one[..at], &other[at..]].concat();
    let body = BASE64_STANDARD.encode(mixed);
    let text = refused(format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"));
    assert!(text.contains("was cut or altered"), "{text}");
}

// ring looks at these parts only when it signs: found when the key is read all the same, not at the first fetch.
#[test]
fn an_rsa_key_of_which_one_bit_is_wrong_is_refused() {
    let pem = include_str!("keys/rsa-pkcs1.pem");
    let body: String = pem.lines().skip_while(|line| !line.starts_with('-')).filter(|l| !l.starts_with('-')).collect();
    let mut der = BASE64_STANDARD.decode(body).unwrap();
    // Before the last two of its numbers, of some 130 bytes each, is `d mod (p - 1)`.
    let inside = der.len() - 2 * 132 - 60;
    der[inside] ^= 1;
    let body = BASE64_STANDARD.encode(&der);
    let text = refused(format!("-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\n"));
    assert!(text.contains("do not belong together"), "{text}");
}

#[test]
fn text_line_ends_and_certificates_around_a_key_do_no_harm() {
    let pem = pem();
    let certificate = rcgen::CertificateParams::new([]).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap();
    for good in [
        format!("{}{pem}", certificate.pem()),
        format!("{pem}{}", certificate.pem()),
        format!("Bag Attributes\n    friendlyName: x\n{pem}"),
        pem.replace('\n', "\r\n"),
        pem.trim_end().to_owned(),
    ] {
        assert!(SigningKey::from_pem(good.as_str()).is_ok(), "{good}");
    }
}

// Apple's, for its push service and App Store, name their curve a second time (RFC 5915 section 3).
#[test]
fn a_key_that_names_its_curve_twice_is_read() {
    let der = KeyPair::generate().unwrap().serialize_der();
    let (outer, key, public) = (&der[6..27], &der[31..68], &der[68..]);
    let curve = [0xa0, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    let twice = [&[0x30, 0x81, 0x93, 2, 1, 0], outer, &[4, 0x79, 0x30, 0x77], key, &curve, public].concat();
    let body = BASE64_STANDARD.encode(twice);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----");
    let key = SigningKey::from_pem(pem).unwrap();
    assert!(format!("{key:?}").contains("ES256"));
}

// RFC 7518 section 3.2.
#[test]
fn a_secret_that_can_be_guessed_is_refused() {
    for length in [1, 16, 31] {
        let error = SigningKey::hmac("s".repeat(length)).unwrap_err();
        assert!(error.to_string().contains("under 32 bytes"), "{error}");
        assert!(!format!("{error} {error:?}").contains(&"s".repeat(length.max(4))));
    }
    assert!(SigningKey::hmac("").unwrap_err().to_string().contains("is empty"));
    assert!(SigningKey::hmac([7; 32]).is_ok());
}
