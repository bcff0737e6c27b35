//! Header fields that end here, in both directions.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        self, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, SET_COOKIE, TRANSFER_ENCODING, UPGRADE,
        VIA,
    },
};

/// For one connection alone (RFC 9110 sections 7.6.1 and 11.7), beside those that `Connection` names. `Trailer` is not among them.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

pub(crate) struct Fields {
    credentials: Vec<HeaderName>,
    cookies: bool,
}

impl Fields {
    /// `credentials` are the headers that hold one, `Authorization` beside them.
    pub(crate) fn new(credentials: impl IntoIterator<Item = HeaderName>, cookies: bool) -> Self {
        Self { credentials: credentials.into_iter().chain([AUTHORIZATION]).collect(), cookies }
    }

    /// What the client says to us alone, and every credential it sends: the token takes their place.
    ///
    /// A cookie is one, and browsers and cookie jars send those of one port of this machine to all others (RFC 6265 section 8.5).
    pub(crate) fn clean_request(&self, headers: &mut HeaderMap, upgrade: bool) {
        end_hop(headers, upgrade);
        for name in &self.credentials {
            headers.remove(name);
        }
        if !self.cookies {
            headers.remove(COOKIE);
        }
        // The upstream has a name of its own, and whoever waits for a 100 gets it from us as soon as the upstream takes the body.
        headers.remove(HOST);
        headers.remove(EXPECT);
        // RFC 9110 section 7.6.3.
        headers.append(VIA, HeaderValue::from_static("1.1 sidecar"));
    }

    /// What the upstream says to us alone.
    pub(crate) fn clean_response(&self, headers: &mut HeaderMap, upgrade: bool) {
        end_hop(headers, upgrade);
        if !self.cookies {
            headers.remove(SET_COOKIE);
        }
    }
}

fn end_hop(headers: &mut HeaderMap, upgrade: bool) {
    let protocol = headers.get(UPGRADE).filter(|_| upgrade).cloned();
    if headers.contains_key(TRANSFER_ENCODING) {
        // Of two lengths one is a lie (RFC 9112 section 6.3).
        headers.remove(CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = options(headers).filter_map(|name| name.parse().ok()).collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// What `Connection` names.
pub(crate) fn options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}
