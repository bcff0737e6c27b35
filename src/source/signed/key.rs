//! What a JWT is signed with.

mod pem;

use crate::ConfigError;
use ring::{
    error::Unspecified,
    hmac,
    rand::SystemRandom,
    signature::{EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use std::{fmt, sync::Arc};
use zeroize::Zeroizing;

/// HS256 wants a secret no shorter than its hash (RFC 7518 section 3.2).
const SHORTEST_SECRET: usize = 32;

/// What a [`SignedJwt`](super::SignedJwt) is signed with: a private key, or a shared secret.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_jwt_refresh::source::SigningKey;
///
/// let key = SigningKey::from_pem(std::fs::read("private-key.pem")?)?.key_id("2026-11");
/// let secret = SigningKey::hmac(std::env::var("EXAMPLE_SHARED_SECRET")?)?;
/// # Ok(()) }
/// ```
///
/// The algorithm follows from the key (RFC 7518 section 3.1, RFC 8037 section 3.1):
///
/// | key | `alg` |
/// | --- | --- |
/// | RSA, 2048 to 4096 bits | RS256 |
/// | EC on P-256 | ES256 |
/// | EC on P-384 | ES384 |
/// | Ed25519 | `EdDSA` |
/// | a shared secret | HS256 |
///
/// Cheap to clone: clones share one key. `Debug` shows the algorithm and the key's id alone.
///
/// # What is wiped
/// The text or secret handed over and what is decoded from it, at once; of a `&str` or slice only the copy made here, so pass a `Vec` or `String` to have it
/// wiped. *Not* wiped are the buffer in which the PEM reader collects base64,
/// and the key that `ring` keeps while a clone lives and frees after it: whoever can read this process's memory can sign.
#[derive(Clone)]
pub struct SigningKey {
    signer: Arc<Signer>,
    kid: Option<Arc<str>>,
}

enum Signer {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Hmac(hmac::Key),
}

impl SigningKey {
    /// Reads a private key in PEM: PKCS#8 (`BEGIN PRIVATE KEY`) of RSA, EC and Ed25519, or PKCS#1 (`BEGIN RSA PRIVATE KEY`).
    ///
    /// Certificates and public keys beside it are passed over. The key signs once here, so that one whose parts do not belong together
    /// is found now and not at the first fetch.
    ///
    /// # Errors
    /// [`ConfigError::SigningKey`] for what is no such key. It names the command that converts it where there is one: for an encrypted key, EC in
    /// its own format (`BEGIN EC PRIVATE KEY`), OpenSSH's format. RSA below 2048 bits is refused (RFC 7518 section 3.3), and so are
    /// other curves, and RSA for PSS alone.
    pub fn from_pem(pem: impl Into<Vec<u8>>) -> Result<Self, ConfigError> {
        let pem = Zeroizing::new(pem.into());
        let key = pem::read(&pem).map(Self::of).map_err(|problem| ConfigError::SigningKey { problem })?;
        match key.sign(b"") {
            Ok(_) => Ok(key),
            Err(Unspecified) => Err(ConfigError::SigningKey { problem: pem::INCONSISTENT }),
        }
    }

    /// Signs with a secret that the server shares (HS256). These very bytes: a secret handed out as hex or base64 mostly stands for the bytes
    /// that it encodes, so decode it first.
    ///
    /// # Errors
    /// [`ConfigError::SigningKey`] below 32 bytes (RFC 7518 section 3.2): from one signature a shorter secret can be guessed without asking
    /// anybody.
    pub fn hmac(secret: impl Into<Vec<u8>>) -> Result<Self, ConfigError> {
        let secret = Zeroizing::new(secret.into());
        let problem = match secret.len() {
            0 => "is empty: is its variable or file missing?",
            1..SHORTEST_SECRET => {
                "has under 32 bytes, too few for HS256 (RFC 7518 section 3.2): agree on a longer one, such as 32 random bytes"
            }
            _ => return Ok(Self::of(Signer::Hmac(hmac::Key::new(hmac::HMAC_SHA256, &secret)))),
        };
        Err(ConfigError::SigningKey { problem })
    }

    /// Names the key in each token's header: `kid` (RFC 7515 section 4.1.4), by which a server with several picks the right one. Default none.
    #[must_use]
    pub fn key_id(self, kid: impl Into<String>) -> Self {
        Self { kid: Some(kid.into().into()), ..self }
    }

    fn of(signer: Signer) -> Self {
        Self { signer: Arc::new(signer), kid: None }
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// `alg` (RFC 7518 section 3.1).
    pub(super) fn algorithm(&self) -> &'static str {
        match *self.signer {
            Signer::Rsa(_) => "RS256",
            Signer::P256(_) => "ES256",
            Signer::P384(_) => "ES384",
            Signer::Ed25519(_) => "EdDSA",
            Signer::Hmac(_) => "HS256",
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let random = SystemRandom::new();
        let signature = match &*self.signer {
            Signer::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                signature
            }
            Signer::P256(key) | Signer::P384(key) => key.sign(&random, message)?.as_ref().to_vec(),
            Signer::Ed25519(key) => key.sign(message).as_ref().to_vec(),
            Signer::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
        };
        Ok(Zeroizing::new(signature))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm())
            .field("key_id", &self.kid)
            .finish_non_exhaustive()
    }
}
