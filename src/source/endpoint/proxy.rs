//! The way to an endpoint, straight or through a proxy.
//!
//! https goes through a tunnel (CONNECT, RFC 9110 section 9.3.6), so that the proxy reads nothing; http, where it is allowed, in absolute form (RFC 9112 section
//! 3.2.2), since proxies open tunnels to port 443 alone.

mod environment;
mod stream;

pub(super) use environment::Proxies;
pub(super) use stream::Stream;

use crate::{BoxError, ConfigError};
use http::{HeaderValue, Uri, uri::Scheme};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::{
    legacy::connect::{
        HttpConnector,
        proxy::{SocksV5, Tunnel},
    },
    proxy::matcher::{Intercept, Matcher},
};
use rustls::ClientConfig;
use std::{sync::Arc, time::Duration};
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

pub(super) type Connector = BoxCloneSyncService<Uri, Stream, BoxError>;

/// No proxy in between.
pub(super) fn straight(tls: ClientConfig, connect_timeout: Duration) -> Connector {
    Connector::new(https(tls, tcp(connect_timeout)).map_response(Stream::straight))
}

/// What gave no connection, though the endpoint may be well.
#[derive(Debug, thiserror::Error)]
#[error("{proxy} gave no connection")]
pub(super) struct Proxied {
    pub(super) proxy: Arc<str>,
    #[source]
    pub(super) error: BoxError,
}

#[derive(Clone)]
pub(super) struct Proxy {
    /// Without the user and password.
    name: Arc<str>,
    found: Intercept,
}

impl Proxy {
    /// The proxy of this URL; `place` is where that is from.
    fn parse(url: &str, place: &str) -> Result<Self, ConfigError> {
        let refuse = |problem| ConfigError::IllegalProxy { place: place.to_owned(), problem };
        // Taken apart at the first of these, what is behind it would be the host: sent to, and told in errors.
        let login = url.rsplit_once('@').map(|(login, _)| login.split_once("://").map_or(login, |(_, login)| login));
        if login.is_some_and(|login| login.contains(['@', '/', '?', '#'])) {
            return Err(refuse(
                "has a `@`, `/`, `?` or `#` in its user or password: write them as `%40`, `%2F`, `%3F` and `%23`",
            ));
        }
        let anything = Uri::from_static("https://-");
        let found = Matcher::builder().all(url).build().intercept(&anything).ok_or_else(|| {
            refuse("is no URL of a proxy: write `http://`, `https://` or `socks5://`, its host and its port")
        })?;
        let uri = found.uri();
        if !matches!(uri.scheme_str(), Some("http" | "https" | "socks5" | "socks5h")) {
            return Err(refuse("speaks SOCKS 4, which is not spoken here: use one of HTTP or SOCKS 5"));
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(refuse("has no host"));
        }
        let port = uri.authority().zip(uri.host()).map_or(0, |(authority, host)| authority.as_str().len() - host.len());
        // The colon is one.
        if uri.port().is_none() && port > 1 {
            return Err(refuse(
                "has a port that is no number from 0 to 65535: is a user or password meant? It ends in `@`",
            ));
        }
        if found.raw_auth().is_some_and(|(user, password)| user.len() > 255 || password.len() > 255) {
            return Err(refuse(
                "has a user or password of over 255 bytes, which SOCKS cannot send (RFC 1929 section 2)",
            ));
        }
        let name = uri.to_string().trim_end_matches('/').into();
        Ok(Self { name, found })
    }

    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(super) fn speaks_tls(&self) -> bool {
        self.found.uri().scheme() == Some(&Scheme::HTTPS)
    }

    /// What a request in absolute form shows it. A tunnel shows it once, when it is opened; SOCKS has it in another form.
    pub(super) fn credential(&self, target: &Uri) -> Option<&HeaderValue> {
        self.found.basic_auth().filter(|_| is_plain(target))
    }

    /// The way to this target.
    pub(super) fn connector(&self, target: &Uri, tls: ClientConfig, connect_timeout: Duration) -> Connector {
        let tcp = tcp(connect_timeout);
        let uri = self.found.uri().clone();
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            let mut socks = SocksV5::new(with_port(uri, 1080), tcp);
            if let Some((user, password)) = self.found.raw_auth() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            let socks = socks.map_request(|uri: Uri| if is_plain(&uri) { with_port(uri, 80) } else { uri });
            return Connector::new(https(tls, socks.map_err(self.blame())).map_response(Stream::straight));
        }
        if is_plain(target) {
            let proxy = https(tls, tcp).map_request(move |_: Uri| uri.clone()).map_err(self.blame());
            return Connector::new(proxy.map_response(Stream::proxied));
        }
        let mut tunnel = Tunnel::new(uri, https(tls.clone(), tcp));
        if let Some(credential) = self.found.basic_auth() {
            tunnel = tunnel.with_auth(credential.clone());
        }
        Connector::new(https(tls, tunnel.map_err(self.blame())).map_response(Stream::straight))
    }

    /// Names the proxy in its failures, so that nobody looks for them at the endpoint.
    fn blame<E: Into<BoxError>>(&self) -> impl Fn(E) -> BoxError + Clone + Send + Sync + use<E> {
        let proxy = self.name();
        move |error| Proxied { proxy: Arc::clone(&proxy), error: error.into() }.into()
    }
}

fn is_plain(target: &Uri) -> bool {
    target.scheme() == Some(&Scheme::HTTP)
}

fn tcp(connect_timeout: Duration) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    // The connector around it knows both schemes.
    tcp.enforce_http(false);
    // Shared out among the addresses of a name, so that a dead first one leaves time for the second.
    tcp.set_connect_timeout(Some(connect_timeout));
    tcp
}

fn https<C>(tls: ClientConfig, inner: C) -> HttpsConnector<C>
where
    HttpsConnector<C>: Service<Uri>,
{
    HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(inner)
}

/// The URI with this port, if it names none: the connectors know 443 alone.
fn with_port(uri: Uri, port: u16) -> Uri {
    if uri.port().is_some() {
        return uri;
    }
    let with_port = uri.host().and_then(|host| {
        Uri::builder().scheme("http").authority(format!("{host}:{port}")).path_and_query("/").build().ok()
    });
    with_port.unwrap_or(uri)
}
