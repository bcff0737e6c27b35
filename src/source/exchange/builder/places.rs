//! What is read: where the token and its end are in the answer.

use super::ExchangeBuilder;
use crate::{
    ConfigError,
    source::{answer, exchange::Place},
};
use http::HeaderName;

impl ExchangeBuilder {
    /// Where the token is in the answer, as a JSON pointer (RFC 6901): `/data/token`; `""` for an answer that is nothing but a JSON string. The
    /// lifetime is then looked for beside the token first, then at the top.
    pub fn token_at(self, pointer: impl Into<String>) -> Self {
        self.pointer(pointer.into(), |this, pointer| this.token = Place::At(pointer))
    }

    /// The token is in this header of the answer, as it is or after `Bearer`, and not in its body, which may then be empty or no JSON. Of this and
    /// [`token_at`](Self::token_at) the last one counts.
    ///
    /// OpenStack's Keystone does it so:
    ///
    /// ```no_run
    /// # fn main() -> Result<(), tower_jwt_refresh::ConfigError> {
    /// # let login = "{}";
    /// use http::HeaderName;
    /// use tower_jwt_refresh::source::Exchange;
    ///
    /// let source = Exchange::post("https://keystone.example.com/v3/auth/tokens")
    ///     .json(login)
    ///     .token_from_header(HeaderName::from_static("x-subject-token"))
    ///     .expiry_at("/token/expires_at")
    ///     .build()?;
    /// # Ok(()) }
    /// ```
    pub fn token_from_header(self, name: HeaderName) -> Self {
        Self { token: Place::Header(name), ..self }
    }

    /// Where the token's lifetime is in the answer, as a JSON pointer to seconds: in place of `expires_in` and `expires_at`, which are then not
    /// looked for.
    pub fn lifetime_at(self, pointer: impl Into<String>) -> Self {
        self.pointer(pointer.into(), |this, pointer| this.ends.lifetime = Some(pointer))
    }

    /// Where the moment of the token's end is in the answer, as a JSON pointer to seconds or milliseconds since 1970, or RFC 3339: in place of `expires_in`
    /// and `expires_at`, which are then not looked for. With [`lifetime_at`](Self::lifetime_at) as well that one goes first.
    pub fn expiry_at(self, pointer: impl Into<String>) -> Self {
        self.pointer(pointer.into(), |this, pointer| this.ends.expiry = Some(pointer))
    }

    fn pointer(mut self, pointer: String, set: impl FnOnce(&mut Self, String)) -> Self {
        if !answer::is_pointer(&pointer) {
            return self.wrong(ConfigError::NotAPointer(pointer));
        }
        set(&mut self, pointer);
        self
    }
}
