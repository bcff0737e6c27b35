//! Where the token endpoint is: known, or found out from its issuer (RFC 8414, OpenID Connect Discovery).

use super::error::{Deadline, OAuth2Error};
use crate::{
    ConfigError, SourceError,
    source::{
        EndpointError, answer,
        endpoint::{AGENT, Endpoint, Settings},
    },
};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

/// Endpoints move seldom, and a move announces itself by a failure; a day bounds what a wrong answer can do.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Where an authorization server gives tokens: its token endpoint, or the issuer that says where that is.
///
/// A string is the [URL](Self::url) of a token endpoint.
///
/// ```
/// use tower_jwt_refresh::source::oauth2::TokenEndpoint;
///
/// let found = TokenEndpoint::discover("https://login.example.com/tenant");
/// let known: TokenEndpoint = "https://login.example.com/tenant/token".into();
/// ```
#[derive(Clone)]
pub struct TokenEndpoint(Place);

#[derive(Clone)]
enum Place {
    Url(String),
    Issuer(String),
}

impl TokenEndpoint {
    /// A token endpoint by its URL. https, or this machine, or what is [allowed](super::OAuth2Builder::allow_plaintext).
    pub fn url(url: impl Into<String>) -> Self {
        Self(Place::Url(url.into()))
    }

    /// The token endpoint that this issuer's metadata names: `https://login.example.com/tenant`, exactly as the server writes itself, since the
    /// metadata must say the same, letter by letter (RFC 8414 section 3.3).
    ///
    /// Asked with the first fetch, at `/.well-known/oauth-authorization-server` before the issuer's path (RFC 8414 section 3.1), and where that is
    /// not there, or another issuer's, at `/.well-known/openid-configuration` after it. All of it may take half of a fetch's [time](super::OAuth2Builder::timeout), so that
    /// the other half is left for the token. What was found is kept for a day. It is asked for anew before that if the token
    /// endpoint answers 404 or 410, or cannot be connected to. Where asking anew fails, what is known serves on, with a warning in the log if what
    /// the issuer publishes now is wrong: metadata of another issuer, or without a usable token endpoint.
    pub fn discover(issuer: impl Into<String>) -> Self {
        Self(Place::Issuer(issuer.into()))
    }

    pub(super) fn settings(&self) -> Settings {
        let (Place::Url(url) | Place::Issuer(url)) = &self.0;
        let mut settings = Settings::new(url);
        if matches!(self.0, Place::Issuer(_)) {
            settings.names_another();
            if url.contains(['?', '#']) {
                let problem =
                    "is an issuer with a query or fragment, which none has (RFC 8414 section 2): leave it out";
                settings.wrong(ConfigError::IllegalEndpoint { problem });
            }
        }
        settings
    }

    pub(super) fn with(self, settings: Settings) -> Result<Location, ConfigError> {
        Ok(match self.0 {
            Place::Url(url) => Location::Known(Arc::new(Found {
                endpoint: settings.build()?,
                audience: url.into(),
                methods: None,
                doubted: AtomicBool::new(false),
            })),
            Place::Issuer(issuer) => Location::Discovered(Box::new(Discovery::new(issuer.into(), &settings.build()?)?)),
        })
    }
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Place::Url(url) | Place::Issuer(url)) = &self.0;
        // A query or a user name may hold a secret.
        let shown = url.split(['?', '#']).next().filter(|shown| !shown.contains('@'));
        f.debug_tuple("TokenEndpoint").field(&shown.unwrap_or("-")).finish()
    }
}

impl From<&str> for TokenEndpoint {
    fn from(url: &str) -> Self {
        Self::url(url)
    }
}

impl From<String> for TokenEndpoint {
    fn from(url: String) -> Self {
        Self::url(url)
    }
}

pub(super) enum Location {
    Known(Arc<Found>),
    Discovered(Box<Discovery>),
}

/// A token endpoint.
pub(super) struct Found {
    pub(super) endpoint: Endpoint,
    /// Whom client assertions are for: the issuer, if it is known.
    pub(super) audience: Arc<str>,
    /// The ways to authenticate that the metadata lists.
    methods: Option<Vec<String>>,
    doubted: AtomicBool,
}

pub(super) struct Discovery {
    issuer: Arc<str>,
    /// Where metadata may be, also the client for what is found.
    documents: [Endpoint; 2],
    /// Never held across an await: whoever stops there, as a frozen runtime does, keeps it from nobody.
    known: Mutex<Option<Known>>,
    /// Held while the issuer is asked, so that one asks for all.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Known {
    found: Arc<Found>,
    until: Instant,
}

impl Location {
    /// How long a whole fetch may take.
    pub(super) fn timeout(&self) -> Duration {
        match self {
            Self::Known(found) => found.endpoint.timeout(),
            Self::Discovered(discovery) => discovery.documents[0].timeout(),
        }
    }

    pub(super) fn name(&self) -> Arc<str> {
        match self {
            Self::Known(found) => found.endpoint.name(),
            Self::Discovered(discovery) => Arc::clone(&discovery.issuer),
        }
    }

    pub(super) async fn find(&self, deadline: Deadline) -> Result<Arc<Found>, SourceError> {
        match self {
            Self::Known(found) => Ok(Arc::clone(found)),
            Self::Discovered(discovery) => discovery.find(deadline).await,
        }
    }
}

impl Found {
    /// A failure after which the issuer is asked whether it has moved.
    pub(super) fn failed(&self, error: &EndpointError) {
        let moved = match error {
            EndpointError::Connect { .. } | EndpointError::Tls { .. } => true,
            EndpointError::Status { status, .. } => matches!(*status, StatusCode::NOT_FOUND | StatusCode::GONE),
            _ => false,
        };
        if moved {
            // Nothing else is published by it.
            self.doubted.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn lists(&self, method: &str) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.iter().any(|listed| listed == method))
    }
}

impl Discovery {
    fn new(issuer: Arc<str>, endpoint: &Endpoint) -> Result<Self, ConfigError> {
        let base = issuer.trim_end_matches('/');
        let (scheme, rest) = base.split_once("://").unwrap_or(("", base));
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let documents = [
            endpoint.at(&format!("{scheme}://{host}/.well-known/oauth-authorization-server{path}"))?,
            endpoint.at(&format!("{base}/.well-known/openid-configuration"))?,
        ];
        Ok(Self { issuer, documents, known: Mutex::new(None), asking: tokio::sync::Mutex::new(()) })
    }

    async fn find(&self, deadline: Deadline) -> Result<Arc<Found>, SourceError> {
        if let Some(found) = self.known().and_then(Known::good) {
            return Ok(found);
        }
        // Who has the turn may never end: its runtime may be frozen. Then each asks for itself, which costs the issuer a request, and no more.
        let half = deadline.half();
        let _turn = timeout_at(halfway_to(half), self.asking.lock()).await;
        let known = self.known();
        if let Some(found) = known.clone().and_then(Known::good) {
            return Ok(found);
        }
        // Half the time, so that the token endpoint can still be asked: a refresh token that is shown too late is lost.
        match (self.ask(half).await, known) {
            (Ok(newer), _) => Ok(self.learn(newer)),
            (Err(error), Some(known)) => {
                let issuer = &self.issuer;
                // What is known was checked when it was found, and is no worse for what another says in the issuer's place.
                if error.is_permanent() {
                    warn!(%error, %issuer, "no good metadata any more: going on with the token endpoint that is known");
                } else {
                    debug!(%error, %issuer, "no metadata: going on with the token endpoint that is known");
                }
                Ok(known.found)
            }
            (Err(error), None) => Err(error),
        }
    }

    fn known(&self) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, newer: Found) -> Arc<Found> {
        let known = Known { found: Arc::new(newer), until: Instant::now() + KEPT };
        let found = Arc::clone(&known.found);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        found
    }

    async fn ask(&self, until: Instant) -> Result<Found, SourceError> {
        let [rfc_8414, openid] = &self.documents;
        let (missed, is_other) = match self.ask_at(rfc_8414, until).await {
            Err(Missed::Absent(error)) => (error, false),
            // A server may answer for one issuer there, and for each of its issuers below their own paths.
            Err(Missed::Other(error)) => (error, true),
            asked => return asked.map_err(Missed::error),
        };
        match self.ask_at(openid, until).await {
            Err(_) if is_other => Err(missed),
            asked => asked.map_err(Missed::error),
        }
    }

    async fn ask_at(&self, document: &Endpoint, until: Instant) -> Result<Found, Missed> {
        let mut request = Request::new(Full::<Bytes>::default());
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        let began = Instant::now();
        match document.ask_until(until, request).await {
            Ok(reply) => match Metadata::read(&reply.body) {
                Some(metadata) => self.judge(metadata),
                None => {
                    let error = OAuth2Error::UnreadableMetadata { issuer: self.issuer() };
                    Err(Missed::Absent(SourceError::transient(error)))
                }
            },
            Err(mut failed) => {
                if let EndpointError::TimedOut { after, .. } = &mut failed.error {
                    *after = until.saturating_duration_since(began);
                }
                let absent = is_absent(&failed.error);
                // No credential was shown, so none was refused: what denies the document may be a deployment that heals.
                let said = SourceError { permanent: false, ..failed.into_source_error() };
                let error = OAuth2Error::around(said, |error| OAuth2Error::NoMetadata { issuer: self.issuer(), error });
                Err(if absent { Missed::Absent(error) } else { Missed::Failed(error) })
            }
        }
    }

    fn judge(&self, metadata: Metadata) -> Result<Found, Missed> {
        if *metadata.issuer != *self.issuer {
            let said = metadata.issuer.escape_debug().take(200).collect();
            let error = OAuth2Error::OtherIssuer { issuer: self.issuer(), said };
            return Err(Missed::Other(SourceError::permanent(error)));
        }
        let endpoint = match metadata.token_endpoint {
            Some(url) => self.documents[0].at(&url),
            None => Err(ConfigError::IllegalEndpoint { problem: "is not named: is it an issuer of another kind?" }),
        };
        match endpoint {
            Ok(endpoint) => Ok(Found {
                endpoint,
                audience: self.issuer(),
                methods: metadata.methods,
                doubted: AtomicBool::new(false),
            }),
            Err(error) => {
                let error = OAuth2Error::NoTokenEndpoint { issuer: self.issuer(), error };
                Err(Missed::Failed(SourceError::permanent(error)))
            }
        }
    }

    fn issuer(&self) -> Arc<str> {
        Arc::clone(&self.issuer)
    }
}

/// Why a document named no token endpoint.
enum Missed {
    /// It is not there.
    Absent(SourceError),
    /// It is another issuer's.
    Other(SourceError),
    /// No other document would help.
    Failed(SourceError),
}

impl Missed {
    fn error(self) -> SourceError {
        match self {
            Self::Absent(error) | Self::Other(error) | Self::Failed(error) => error,
        }
    }
}

impl Known {
    /// What is found, if there is no reason to ask anew.
    fn good(self) -> Option<Arc<Found>> {
        let good = !self.found.doubted.load(Ordering::Relaxed) && Instant::now() < self.until;
        good.then_some(self.found)
    }
}

fn halfway_to(end: Instant) -> Instant {
    end - end.saturating_duration_since(Instant::now()) / 2
}

/// A server that has no such document, so that the other may be there: it is not in trouble, nor asks for patience.
fn is_absent(error: &EndpointError) -> bool {
    match error {
        EndpointError::Refused { .. } | EndpointError::Redirected { .. } => true,
        EndpointError::Status { status, .. } => {
            status.is_client_error() && !matches!(status.as_u16(), 403 | 408 | 425 | 429)
        }
        _ => false,
    }
}

/// What we need of RFC 8414 section 2.
struct Metadata {
    issuer: String,
    token_endpoint: Option<String>,
    methods: Option<Vec<String>>,
}

impl Metadata {
    fn read(body: &[u8]) -> Option<Self> {
        let object = answer::object(body).ok()?;
        Some(Self {
            issuer: answer::string_at(&object, "issuer")?,
            token_endpoint: answer::string_at(&object, "token_endpoint"),
            methods: answer::strings_at(&object, "token_endpoint_auth_methods_supported"),
        })
    }
}
