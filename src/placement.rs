//! Where the token goes in a request.

use crate::{ConfigError, Token};
use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use std::sync::Arc;

/// Where the token goes in a request, and in what form.
///
/// The finished header value is built once per token and shared by all requests.
///
/// ```
/// use http::{HeaderName, header::AUTHORIZATION};
/// use tower_jwt_refresh::Placement;
///
/// let usual = Placement::bearer(); // Authorization: Bearer <token>
/// let raw = Placement::header(HeaderName::from_static("x-api-key")); // X-API-Key: <token>
/// let other = Placement::prefixed(AUTHORIZATION, "Token")?; // Authorization: Token <token>
/// # Ok::<(), tower_jwt_refresh::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement(Form);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Bearer,
    Raw(HeaderName),
    Prefixed(HeaderName, Arc<str>),
}

impl Placement {
    /// `Authorization: Bearer <token>` (RFC 6750 section 2.1). The default.
    #[must_use]
    pub fn bearer() -> Self {
        Self(Form::Bearer)
    }

    /// The bare token in this header.
    ///
    /// What follows redirects below the layer mostly takes `Authorization` off for another host, but sends any other header on. Follow
    /// them above the layer, with the [origins](crate::JwtRefreshLayer::allow_origin) listed.
    #[must_use]
    pub fn header(name: HeaderName) -> Self {
        Self(Form::Raw(name))
    }

    /// `<prefix> <token>` in this header.
    ///
    /// # Errors
    /// [`ConfigError::IllegalPrefix`] unless the prefix is visible ASCII.
    pub fn prefixed(name: HeaderName, prefix: &str) -> Result<Self, ConfigError> {
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::IllegalPrefix);
        }
        Ok(Self(Form::Prefixed(name, prefix.into())))
    }

    #[inline]
    pub(crate) fn name(&self) -> &HeaderName {
        match &self.0 {
            Form::Bearer => &AUTHORIZATION,
            Form::Raw(name) | Form::Prefixed(name, _) => name,
        }
    }

    #[inline]
    pub(crate) fn attach(&self, headers: &mut HeaderMap, token: &Token) {
        headers.insert(self.name().clone(), self.value(token).clone());
    }

    #[inline]
    fn value<'t>(&self, token: &'t Token) -> &'t HeaderValue {
        match &self.0 {
            Form::Bearer => token.bearer(),
            Form::Raw(_) => token.raw(),
            Form::Prefixed(_, prefix) => token.prefixed(prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_as_its_name_says() {
        let token = Token::opaque("t").unwrap();
        let value = |placement: &Placement| placement.value(&token).to_str().unwrap().to_owned();
        assert_eq!(value(&Placement::bearer()), "Bearer t");
        assert_eq!(value(&Placement::header(AUTHORIZATION)), "t");
        assert_eq!(value(&Placement::prefixed(AUTHORIZATION, "Token").unwrap()), "Token t");
    }

    #[test]
    fn a_prefix_that_no_header_can_hold_is_refused() {
        for bad in ["", "a b", "a\n", "ä"] {
            assert_eq!(Placement::prefixed(AUTHORIZATION, bad), Err(ConfigError::IllegalPrefix));
        }
    }
}
