//! What may be set about an endpoint, checked when it is built.

use super::{
    Endpoint, Url,
    client::{self, EndpointClient},
    proxy::{Proxies, Proxy},
    roots::Roots,
};
use crate::{BoxError, ConfigError, scope::is_loopback};
use bytes::Bytes;
use http::{Request, Response, Uri, uri::Scheme};
use http_body::Body;
use http_body_util::Full;
use rustls::RootCertStore;
use std::{fmt, time::Duration};
use tower::{Layer, Service};
use zeroize::Zeroizing;

/// The first mistake is kept until it is built.
pub(in crate::source) struct Settings {
    url: Url,
    timeout: Duration,
    connect_timeout: Duration,
    plaintext: bool,
    names_another: bool,
    roots: Option<RootCertStore>,
    way: Way,
    /// The first is the outermost.
    layers: Vec<Wrap>,
    mistake: Option<ConfigError>,
}

enum Way {
    Environment,
    Straight,
    /// A proxy's URL.
    Proxy(Zeroizing<String>),
}

type Wrap = Box<dyn FnOnce(EndpointClient) -> EndpointClient + Send>;

impl Settings {
    pub(in crate::source) fn new(url: &str) -> Self {
        let (url, mistake) = match Url::parse(url) {
            Ok(url) => (url, None),
            Err(mistake) => (Url { uri: Uri::default(), name: "-".into() }, Some(mistake)),
        };
        Self {
            url,
            timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(5),
            plaintext: false,
            names_another: false,
            roots: None,
            way: Way::Environment,
            layers: Vec::new(),
            mistake,
        }
    }

    pub(in crate::source) fn timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
        self.limited("timeout", timeout);
    }

    pub(in crate::source) fn connect_timeout(&mut self, timeout: Duration) {
        self.connect_timeout = timeout;
        self.limited("connect_timeout", timeout);
    }

    pub(in crate::source) fn allow_plaintext(&mut self) {
        self.plaintext = true;
    }

    /// It will say where another endpoint is, and that may speak TLS even if this one does not.
    #[cfg(feature = "oauth2")]
    pub(in crate::source) fn names_another(&mut self) {
        self.names_another = true;
    }

    pub(in crate::source) fn root_certificates(&mut self, pem: &[u8]) {
        match Roots::only(pem) {
            Ok(more) => self.roots.get_or_insert_with(RootCertStore::empty).roots.extend(more.roots),
            Err(mistake) => self.wrong(mistake),
        }
    }

    pub(in crate::source) fn no_proxy(&mut self) {
        self.way = Way::Straight;
    }

    pub(in crate::source) fn proxy(&mut self, url: String) {
        self.way = Way::Proxy(Zeroizing::new(url));
    }

    pub(in crate::source) fn layer<L, B>(&mut self, layer: L)
    where
        L: Layer<EndpointClient> + Send + 'static,
        L::Service: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>
            + Clone
            + Send
            + Sync
            + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.layers.push(Box::new(move |client| client::boxed(layer.layer(client))));
    }

    pub(in crate::source) fn wrong(&mut self, mistake: ConfigError) {
        self.mistake.get_or_insert(mistake);
    }

    pub(in crate::source) fn build(self) -> Result<Endpoint, ConfigError> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        let tls = self.url.uri.scheme() == Some(&Scheme::HTTPS);
        self.url.is_safe(self.plaintext)?;
        let proxies = match &self.way {
            Way::Straight => Proxies::none(),
            Way::Environment => Proxies::of_environment(&|name| std::env::var_os(name)),
            Way::Proxy(url) => Proxies::named(url),
        };
        let to_proxy = proxies.of(&self.url.uri)?.is_some_and(Proxy::speaks_tls);
        let tls = match self.roots {
            Some(roots) => Roots::Only(roots).tls()?,
            None if tls || to_proxy => Roots::System.tls()?,
            // A container without roots can still ask where nothing is encrypted.
            None if self.names_another => Roots::System.tls().or_else(|_| Roots::Unused.tls())?,
            None => Roots::Unused.tls()?,
        };
        let client = client::client(tls, proxies, self.connect_timeout);
        let client = self.layers.into_iter().rev().fold(client, |client, wrap| wrap(client));
        Ok(Endpoint {
            url: self.url,
            client,
            timeout: self.timeout,
            #[cfg(feature = "oauth2")]
            plaintext: self.plaintext,
        })
    }

    fn limited(&mut self, setting: &'static str, value: Duration) {
        let checked = ConfigError::if_zero(setting, value, "every exchange would fail at once");
        if let Err(mistake) = checked.and_then(|()| ConfigError::if_too_long(setting, value)) {
            self.wrong(mistake);
        }
    }
}

impl Url {
    /// May a credential go there?
    pub(super) fn is_safe(&self, plaintext: bool) -> Result<(), ConfigError> {
        let host = self.uri.host().unwrap_or_default();
        if plaintext || self.uri.scheme() == Some(&Scheme::HTTPS) || is_loopback(host) {
            return Ok(());
        }
        Err(ConfigError::PlaintextEndpoint { host: host.to_owned() })
    }

    pub(super) fn parse(url: &str) -> Result<Self, ConfigError> {
        let refuse = |problem| Err(ConfigError::IllegalEndpoint { problem });
        let parsed = url.parse::<Uri>().ok();
        let Some((uri, scheme, authority)) = parsed
            .as_ref()
            .and_then(|uri| Some((uri, uri.scheme()?, uri.authority()?)))
            .filter(|(_, scheme, _)| [Scheme::HTTP, Scheme::HTTPS].contains(scheme))
            .filter(|(_, _, authority)| !authority.host().is_empty())
        else {
            return refuse("is no absolute http or https URL, such as `https://api.example.com/token`");
        };
        if authority.as_str().contains('@') {
            return refuse("has a user name in its URL: give it to `basic`, where it is kept secret");
        }
        let name = format!("{scheme}://{authority}{}", uri.path()).into();
        Ok(Self { uri: uri.clone(), name })
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("url", &self.url.name)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("mistake", &self.mistake)
            .finish_non_exhaustive()
    }
}
