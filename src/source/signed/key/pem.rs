//! From PEM to a key that signs, or to what is wrong with it.

use super::Signer;
use ring::{
    error::KeyRejected,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        Ed25519KeyPair, RsaKeyPair,
    },
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use zeroize::Zeroizing;

/// What is wrong, and what to do.
type Problem = &'static str;

pub(super) const INCONSISTENT: Problem = "was cut or altered: its parts do not belong together";

const DAMAGED: Problem =
    "was cut or altered: it needs its BEGIN and END on lines of their own, and nothing but base64 between them";

/// RFC 5915 section 3 lets EC leave it out, and some tools do.
const HALF: Problem =
    "was cut or altered, or lacks its public half, which `openssl ec -in key.pem | openssl pkey -out whole.pem` adds";

/// Object identifiers as DER has them (RFC 8017 appendix A, RFC 5480 section 2.1.1, RFC 8410 section 3).
mod oid {
    pub(super) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    pub(super) const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
    pub(super) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    pub(super) const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    pub(super) const P384: &[u8] = &[0x2b, 0x81, 4, 0, 34];
    pub(super) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
}

pub(super) fn read(pem: &[u8]) -> Result<Signer, Problem> {
    let mut keys = PrivateKeyDer::pem_slice_iter(pem).map(|key| key.map(Zeroizing::new));
    let Some(Ok(key)) = keys.next() else { return Err(no_key(pem)) };
    if keys.next().is_some() {
        return Err("is one of several in this PEM: leave the one to sign with");
    }
    match &*key {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).map(Signer::Rsa).map_err(refused),
        PrivateKeyDer::Pkcs8(der) => pkcs8(der.secret_pkcs8_der()),
        _ => Err("is EC in a format of its own (SEC1): convert it with `openssl pkey -in key.pem -out pkcs8.pem`"),
    }
}

fn pkcs8(der: &[u8]) -> Result<Signer, Problem> {
    let (algorithm, curve) = algorithm(der).ok_or(INCONSISTENT)?;
    let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm| {
        EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new()).map_err(|_| HALF)
    };
    // *Fixed*: a JWS has the two numbers of a signature in fields of fixed length (RFC 7518 section 3.4), not in DER as elsewhere.
    match (algorithm, curve) {
        (oid::RSA, _) => RsaKeyPair::from_pkcs8(der).map(Signer::Rsa).map_err(refused),
        (oid::EC, Some(oid::P256)) => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Signer::P256),
        (oid::EC, Some(oid::P384)) => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING).map(Signer::P384),
        // OpenSSL writes Ed25519 without the public half: there is nothing to check the private one against.
        (oid::ED25519, _) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Signer::Ed25519).map_err(refused),
        (oid::EC, _) => Err("is on a curve that is not supported: P-256 and P-384 are"),
        (oid::RSA_PSS, _) => {
            Err("is RSA for PSS alone, which is not supported: make one with `openssl genpkey -algorithm RSA`")
        }
        _ => Err("is for an algorithm that is not supported: RSA, EC on P-256 or P-384, and Ed25519 are"),
    }
}

/// ring says why by a word alone; a word that is not known here says at least that something is wrong.
fn refused(why: KeyRejected) -> Problem {
    match why.to_string().as_str() {
        "TooSmall" => "has under 2048 bits, too few for RS256 (RFC 7518 section 3.3): make a longer one",
        "TooLarge" => "has over 4096 bits, more than is supported: make a shorter one",
        _ => INCONSISTENT,
    }
}

/// Algorithm and, if it has one, curve of a PKCS#8 key (RFC 5958 section 2).
fn algorithm(pkcs8: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    const INTEGER: u8 = 0x02;
    const OBJECT: u8 = 0x06;
    const SEQUENCE: u8 = 0x30;
    let (key, _) = element(pkcs8, SEQUENCE)?;
    let (_version, rest) = element(key, INTEGER)?;
    let (identifier, _) = element(rest, SEQUENCE)?;
    let (algorithm, parameters) = element(identifier, OBJECT)?;
    Some((algorithm, element(parameters, OBJECT).map(|(curve, _)| curve)))
}

/// The first element's content, if it has this tag, and what follows it.
fn element(der: &[u8], expected: u8) -> Option<(&[u8], &[u8])> {
    let (&tag, der) = der.split_first()?;
    let (&first, der) = der.split_first()?;
    let (length, der) = match first {
        0..=0x7f => (usize::from(first), der),
        // No key is longer than two bytes can say.
        0x81 => (usize::from(*der.first()?), &der[1..]),
        0x82 => (usize::from(u16::from_be_bytes(*der.first_chunk()?)), &der[2..]),
        _ => return None,
    };
    if tag == expected { der.split_at_checked(length) } else { None }
}

/// What was given in place of a private key.
fn no_key(pem: &[u8]) -> Problem {
    let has = |text: &str| pem.windows(text.len()).any(|part| part == text.as_bytes());
    if pem.trim_ascii().is_empty() {
        "is empty: is its variable or file missing?"
    } else if pem.trim_ascii().starts_with(b"{") {
        "is JSON: give the PEM that is in it alone (of a service account's file, the field `private_key`)"
    } else if has("-----\\n") {
        "has `\\n` written out in place of its line breaks, as in a variable: replace them"
    } else if has("ENCRYPTED") {
        "is encrypted: decrypt it with `openssl pkey -in key.pem -out plain.pem`, and let nobody else read that file"
    } else if has("BEGIN OPENSSH PRIVATE KEY") {
        "is in OpenSSH's format: convert a copy of it with `ssh-keygen -p -m PKCS8 -N '' -f copy`, or make a new one if it is Ed25519"
    } else if !has("-----BEGIN ") {
        "is no PEM, which begins with `-----BEGIN`: convert DER with `openssl pkey -inform DER -in key.der -out key.pem`"
    } else if has("PRIVATE KEY") {
        DAMAGED
    } else {
        "is not in this PEM: give the private key, not its certificate or public key"
    }
}
