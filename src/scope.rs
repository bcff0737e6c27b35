//! Which requests may carry the token.
//!
//! A bearer token is whoever's holds it (RFC 6750 section 5.3): it goes over TLS, or to this machine, and to the origins that the
//! user listed, if any. What is loopback is read from the URI, never asked of DNS.

use crate::{ConfigError, request::Target};
use std::{fmt, net::Ipv4Addr};

/// Scheme, host and port of a URI (RFC 6454 section 4).
///
/// ```
/// use tower_jwt_refresh::Origin;
///
/// let api = Origin::parse("https://api.example.com")?;
/// assert_eq!(api, Origin::parse("https://API.example.com:443/")?);
/// # Ok::<(), tower_jwt_refresh::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: Box<str>,
    host: Box<str>,
    port: Option<u16>,
}

impl Origin {
    /// Reads `scheme://host` or `scheme://host:port`.
    ///
    /// # Errors
    /// [`ConfigError::NotAnOrigin`] for anything else, a path or a user name among it.
    pub fn parse(origin: &str) -> Result<Self, ConfigError> {
        // A user name's password or a key in the query would end up in a log.
        let quoted = if origin.contains(['@', '?', '#']) { "(an address with a user name or a query)" } else { origin };
        let refuse = || ConfigError::NotAnOrigin(quoted.to_owned());
        let uri: http::Uri = origin.parse().map_err(|_| refuse())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(refuse()) };
        let bare = uri.path_and_query().is_none_or(|path| path == "/") && !authority.as_str().contains('@');
        if !bare || authority.host().is_empty() {
            return Err(refuse());
        }
        Ok(Self::of(scheme, authority.host(), authority.port_u16()))
    }

    pub(crate) fn of(scheme: &str, host: &str, port: Option<u16>) -> Self {
        let scheme = scheme.to_ascii_lowercase();
        let port = port.or_else(|| default_port(&scheme));
        Self { host: host.to_ascii_lowercase().into(), port, scheme: scheme.into() }
    }

    pub(crate) fn holds(&self, target: &Target<'_>) -> bool {
        let scheme = target.scheme().unwrap_or_default();
        self.scheme.eq_ignore_ascii_case(scheme)
            && target.host().is_some_and(|host| self.host.eq_ignore_ascii_case(host))
            && self.port == target.port().or_else(|| default_port(scheme))
    }

    pub(crate) fn target(&self) -> Target<'_> {
        Target::new(Some(&self.scheme), Some(&self.host), self.port, "")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match self.port {
            Some(port) if Some(port) != default_port(&self.scheme) => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

#[inline]
pub(crate) fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ if scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss") => Some(443),
        _ if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("ws") => Some(80),
        _ => None,
    }
}

/// Why a request may not be sent with the token. It was not sent at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// Plaintext to another machine: everybody on the way reads the token.
    #[error(
        "the token is not sent to {host} in plaintext: use https, or allow it by name with `JwtRefreshLayer::allow_plaintext`"
    )]
    Plaintext {
        /// Where it would have gone.
        host: String,
    },
    /// The request's URI has no host, as inside a tonic `Channel`, so nothing says where the token would go.
    #[error(
        "the request's URI has no host, so nothing says where the token would go: name it with `JwtRefreshLayer::assume_origin`"
    )]
    NoOrigin,
    /// The client follows redirects by itself and strips no header but `Authorization` when they lead to another host, which would get the token.
    #[error(
        "the token is not sent in `{header}`: reqwest follows redirects and sends that header on to other hosts; build the client with `redirect::Policy::none()` or one that stays on the host, then say so with `JwtRefreshLayer::redirects_handled`"
    )]
    Redirects {
        /// Where the token would have been.
        header: http::HeaderName,
    },
}

/// Where the token may go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) origins: Vec<Origin>,
    pub(crate) assumed: Option<Origin>,
    pub(crate) plaintext: bool,
}

impl Scope {
    /// May a request for it carry the token? False: it goes without.
    #[inline]
    pub(crate) fn admits(&self, target: &Target<'_>) -> Result<bool, ScopeError> {
        let target = match &self.assumed {
            _ if target.has_host() => target,
            Some(assumed) => &assumed.target(),
            None => return Err(ScopeError::NoOrigin),
        };
        if !self.origins.is_empty() && !self.origins.iter().any(|origin| origin.holds(target)) {
            return Ok(false);
        }
        if target.scheme().is_some_and(|scheme| default_port(scheme) == Some(443)) || self.plaintext {
            return Ok(true);
        }
        let host = target.host().unwrap_or_default();
        if is_loopback(host) { Ok(true) } else { Err(ScopeError::Plaintext { host: host.to_owned() }) }
    }
}

/// By its name alone (RFC 6761 section 6.3, RFC 1122 section 3.2.1.3).
pub(crate) fn is_loopback(host: &str) -> bool {
    let local = |host: &str| host.eq_ignore_ascii_case("localhost");
    local(host)
        || host.rsplit_once('.').is_some_and(|(name, last)| !name.is_empty() && local(last))
        || host == "[::1]"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(scope: &Scope, uri: &str) -> Result<bool, ScopeError> {
        let uri: http::Uri = uri.parse().unwrap();
        scope.admits(&Target::of_uri(&uri))
    }

    #[test]
    fn tls_and_loopback_are_in_scope_and_plaintext_is_an_error() {
        let scope = Scope::default();
        for good in [
            "https://example.com",
            "HTTPS://a.b:8443/x",
            "http://localhost:1/",
            "http://api.localhost",
            "http://127.9.9.9",
            "http://[::1]:80/",
        ] {
            assert_eq!(admits(&scope, good), Ok(true), "{good}");
        }
        for bad in [
            "http://example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://10.0.0.1",
            "http://notlocalhost",
            "http://example.com:[].localhost",
            "http://example.com:80[].localhost",
            "ftp://example.com",
            "http://[::2]",
        ] {
            let error = admits(&scope, bad).unwrap_err();
            assert!(error.to_string().contains("allow_plaintext"), "{bad}: {error}");
        }
        assert_eq!(admits(&Scope { plaintext: true, ..Scope::default() }, "http://example.com"), Ok(true));
    }

    #[test]
    fn a_scheme_is_known_however_it_is_spelled() {
        for tls in ["https", "HTTPS", "wss", "Wss"] {
            assert_eq!(default_port(tls), Some(443), "{tls}");
        }
        for plain in ["http", "Http", "ws", "WS"] {
            assert_eq!(default_port(plain), Some(80), "{plain}");
        }
        assert_eq!(default_port("ftp"), None);
        assert_eq!(admits(&Scope::default(), "wss://example.com"), Ok(true));
    }

    #[test]
    fn a_list_of_origins_leaves_all_others_without_a_token() {
        let origins = vec![Origin::parse("https://api.example.com").unwrap()];
        let scope = Scope { origins, ..Scope::default() };
        assert_eq!(admits(&scope, "https://API.example.com:443/x?y"), Ok(true));
        for other in [
            "https://example.com",
            "https://api.example.com:444",
            "http://api.example.com",
            "https://api.example.com.evil.org",
            "http://localhost",
        ] {
            assert_eq!(admits(&scope, other), Ok(false), "{other}");
        }
    }

    #[test]
    fn a_uri_without_a_host_is_judged_by_the_assumed_origin() {
        let error = admits(&Scope::default(), "/x").unwrap_err();
        assert!(error.to_string().contains("assume_origin"));
        let assumed = |origin| Scope { assumed: Some(Origin::parse(origin).unwrap()), ..Scope::default() };
        assert_eq!(admits(&assumed("https://example.com"), "/x"), Ok(true));
        assert!(admits(&assumed("http://example.com"), "/x").is_err());
        assert!(
            admits(&assumed("https://example.com"), "http://other.example.com/x").is_err(),
            "only where there is none"
        );
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for bad in ["", "example.com", "/x", "https://", "https://a/b", "https://a?b", "https://u:p@a", "https://a b"] {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Origin::parse("http://a:80").unwrap().to_string(), "http://a");
        assert_eq!(Origin::parse("http://a:81").unwrap().to_string(), "http://a:81");
    }
}
