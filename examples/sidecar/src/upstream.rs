//! Where requests go, and redirects that lead there.

use http::{
    HeaderMap, HeaderValue, Uri,
    header::{CONTENT_LOCATION, LOCATION},
    uri::{Authority, PathAndQuery, Scheme},
};
use std::net::Ipv4Addr;
use tower_jwt_refresh::Origin;

/// The one service that gets the token: over TLS, on this machine, or allowed by name.
#[derive(Clone, Debug)]
pub struct Upstream {
    scheme: Scheme,
    authority: Authority,
    origin: Origin,
}

impl Upstream {
    /// Reads scheme, host and port. `plaintext_to` are the hosts that may be reached without TLS.
    pub fn parse(url: &str, plaintext_to: &[String]) -> Result<Self, String> {
        let origin = Origin::parse(url).map_err(|error| error.to_string())?;
        let uri: Uri = url.parse().map_err(|_| "is no URL".to_owned())?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err("is no URL".to_owned());
        };
        if ![Scheme::HTTP, Scheme::HTTPS].contains(scheme) {
            return Err(format!("`{scheme}` is neither https nor http"));
        }
        let upstream = Self { scheme: scheme.clone(), authority: authority.clone(), origin };
        if !upstream.is_tls() && !is_loopback(authority.host()) && !allows(plaintext_to, authority.host()) {
            return Err(plaintext(authority.host()));
        }
        Ok(upstream)
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Would a request come back to us?
    pub(crate) fn is_port_here(&self, port: u16) -> bool {
        !self.is_tls() && is_loopback(self.authority.host()) && self.authority.port_u16().unwrap_or(80) == port
    }

    /// The same path there. None for `*` and other targets without a path.
    pub(crate) fn uri(&self, path: Option<&PathAndQuery>) -> Option<Uri> {
        let path = path.filter(|path| path.as_str().starts_with('/'))?.clone();
        Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path).build().ok()
    }

    /// Redirects to the upstream lead to us instead, who are `host` to the client; others are the client's to follow, without the token. We follow
    /// none.
    pub(crate) fn redirect_to_us(&self, headers: &mut HeaderMap, host: &str) {
        for name in [LOCATION, CONTENT_LOCATION] {
            let Some(location) = headers.get(&name).and_then(|value| value.to_str().ok()) else { continue };
            if let Some(ours) = self.as_ours(location, host).and_then(|ours| HeaderValue::try_from(ours).ok()) {
                headers.insert(name, ours);
            }
        }
    }

    /// By hand, since `Uri` has no fragments. None: it stays as it is.
    fn as_ours(&self, location: &str, host: &str) -> Option<String> {
        // Without a scheme it means the one of the page (RFC 3986 section 4.2): the upstream's, and not our http.
        let (scheme, rest) = match location.strip_prefix("//") {
            Some(rest) => (self.scheme.as_str(), rest),
            None => location.split_once("://")?,
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if Origin::parse(&format!("{scheme}://{authority}")).is_ok_and(|origin| origin == self.origin) {
            return Some(format!("http://{host}{path}"));
        }
        location.starts_with("//").then(|| format!("{scheme}:{location}"))
    }
}

/// Why not.
pub(crate) fn plaintext(host: &str) -> String {
    format!("nothing is sent to {host} in plaintext: use https, or allow it by name with --allow-plaintext {host}")
}

pub(crate) fn allows(plaintext_to: &[String], host: &str) -> bool {
    plaintext_to.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
}

/// By its name alone, never by DNS.
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upstream_is_https_or_on_this_machine_unless_its_host_is_allowed_by_name() {
        let allowed = ["api.internal".to_owned()];
        for good in [
            "https://api.example.com",
            "http://127.0.0.1:1",
            "http://localhost",
            "http://[::1]:1",
            "http://API.internal",
        ] {
            assert!(Upstream::parse(good, &allowed).is_ok(), "{good}");
        }
        for bad in ["http://api.example.com", "http://127.0.0.1.example.com", "http://10.0.0.1", "http://x.internal"] {
            let why = Upstream::parse(bad, &allowed).unwrap_err();
            assert!(why.contains("--allow-plaintext"), "{bad}: {why}");
        }
        for bad in
            ["", "api.example.com", "https://api.example.com/v1", "https://u:p@api.example.com", "ftp://localhost"]
        {
            assert!(Upstream::parse(bad, &allowed).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_location_at_the_upstream_becomes_ours_and_all_others_stay() {
        let upstream = Upstream::parse("https://api.example.com", &[]).unwrap();
        let ours = |location| upstream.as_ours(location, "localhost:8080");
        assert_eq!(ours("https://api.example.com/a?b#c").unwrap(), "http://localhost:8080/a?b#c");
        assert_eq!(ours("HTTPS://API.example.com:443").unwrap(), "http://localhost:8080");
        assert_eq!(ours("//api.example.com/a").unwrap(), "http://localhost:8080/a");
        assert_eq!(ours("//other.example.com/a").unwrap(), "https://other.example.com/a", "not by our http");
        for other in [
            "/a",
            "a?to=https://api.example.com/",
            "http://api.example.com/a",
            "https://api.example.com:8443/a",
            "https://api.example.com.evil.com/",
            "https://api.example.com@evil.com/",
            "https://evil.com/https://api.example.com/",
        ] {
            assert_eq!(ours(other), None, "{other}");
        }
    }

    #[test]
    fn a_path_stays_a_path() {
        let upstream = Upstream::parse("https://api.example.com", &[]).unwrap();
        let uri = |target: &'static str| upstream.uri(Some(&PathAndQuery::from_static(target)));
        assert_eq!(uri("//evil.com/a?b").unwrap().host(), Some("api.example.com"));
        assert_eq!(uri("*"), None);
        assert_eq!(upstream.uri(None), None);
    }
}
