//! The command line.

use crate::{listen::Listen, upstream::Upstream};
use http::HeaderName;
use std::{ffi::OsString, fmt, fs, time::Duration};
use tower_jwt_refresh::Origin;

const CREDENTIAL: &str = "SIDECAR_CREDENTIAL";

pub const HELP: &str = "\
A reverse proxy on loopback that puts a fresh token on each request to one upstream: for programs in any language.

sidecar --upstream URL --token-url URL [OPTIONS]

  --upstream URL              where requests go: scheme, host and port, such as https://api.example.com
  --token-url URL             answers a POST with a token, as JSON
  --listen ADDRESS            127.0.0.1:PORT, [::1]:PORT or unix:PATH (default 127.0.0.1:8080)

The durable credential is read from the environment, never from the command line, where every user of the machine can read it.

  --credential-env NAME       the variable that holds it (default SIDECAR_CREDENTIAL)
  --credential-header NAME    sent bare in this header to the token URL (default: Authorization: Bearer)
  --token-header NAME         the token goes bare in this header to the upstream (default: Authorization: Bearer)
  --token-at POINTER          where the token is in the answer (RFC 6901), such as /data/token

  --allow-browser-origin URL  lets pages of this origin in; without it requests of browsers get 403 (repeatable)
  --allow-plaintext HOST      lets credential and token go to this host without TLS (repeatable)
  --pass-cookies              lets Cookie and Set-Cookie through
  --root-certificates FILE    trusts the authorities in this PEM, instead of the system's
  --drain-seconds N           at the end, how long what is under way may take (default 10)
";

/// What to do.
pub struct Options {
    pub listen: Listen,
    pub upstream: Upstream,
    pub token_url: String,
    pub credential: String,
    pub credential_header: Option<HeaderName>,
    pub token_header: Option<HeaderName>,
    pub token_at: Option<String>,
    pub browser_origins: Vec<Origin>,
    pub plaintext_to: Vec<String>,
    pub cookies: bool,
    pub root_certificates: Option<Vec<u8>>,
    pub drain: Duration,
}

impl Options {
    /// Reads arguments, without the program's name, and the environment. None: help was asked for.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        use lexopt::prelude::{Long, Short};

        let (mut listen, mut upstream, mut token_url, mut variable) = (None, None, None, CREDENTIAL.to_owned());
        let (mut credential_header, mut token_header, mut token_at) = (None, None, None);
        let (mut browser_origins, mut plaintext_to) = (Vec::new(), Vec::new());
        let (mut cookies, mut root_certificates, mut drain) = (false, None, Duration::from_secs(10));
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(readable)? {
            let Long(name) = argument else {
                if matches!(argument, Short('h')) {
                    return Ok(None);
                }
                // Not quoted: it may be a credential.
                return Err("there is a word that is no option; see --help".to_owned());
            };
            let name = name.to_owned();
            let mut value =
                || parser.value().map_err(readable)?.into_string().map_err(|_| format!("--{name} is no text"));
            let wrong = |why: String| format!("--{name}: {why}");
            match &*name {
                "help" => return Ok(None),
                "listen" => listen = Some(value()?.parse().map_err(wrong)?),
                "upstream" => upstream = Some(value()?),
                "token-url" => token_url = Some(value()?),
                "credential-env" => variable = value()?,
                "credential-header" => credential_header = Some(header(&value()?).map_err(wrong)?),
                "token-header" => token_header = Some(header(&value()?).map_err(wrong)?),
                "token-at" => token_at = Some(value()?),
                "allow-browser-origin" => {
                    browser_origins.push(Origin::parse(&value()?).map_err(|error| wrong(error.to_string()))?);
                }
                "allow-plaintext" => plaintext_to.push(value()?.to_ascii_lowercase()),
                "pass-cookies" => cookies = true,
                "root-certificates" => {
                    let file = value()?;
                    let pem = fs::read(&file).map_err(|error| wrong(format!("{file}: {error}")))?;
                    root_certificates = Some(pem);
                }
                "drain-seconds" => {
                    let seconds = value()?.parse().map_err(|_| wrong("is a whole number of seconds".to_owned()))?;
                    drain = Duration::from_secs(seconds);
                }
                _ => return Err(format!("there is no option --{name}; see --help")),
            }
        }
        let upstream = upstream.ok_or("--upstream is missing: where do requests go? see --help")?;
        let credential = environment(&variable).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        Ok(Some(Self {
            listen: listen.unwrap_or_default(),
            upstream: Upstream::parse(&upstream, &plaintext_to).map_err(|why| format!("--upstream: {why}"))?,
            token_url: token_url.ok_or("--token-url is missing: where do tokens come from? see --help")?,
            credential: credential.ok_or(format!("no credential: set the environment variable {variable}"))?,
            credential_header,
            token_header,
            token_at,
            browser_origins,
            plaintext_to,
            cookies,
            root_certificates,
            drain,
        }))
    }
}

fn header(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("{name:?} is no name of a header"))
}

fn readable(error: lexopt::Error) -> String {
    match error {
        // These quote the value, which may be a credential.
        lexopt::Error::UnexpectedArgument(_) | lexopt::Error::UnexpectedValue { .. } => {
            "there is a value where none belongs; see --help".to_owned()
        }
        error => error.to_string(),
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("upstream", &self.upstream)
            .finish_non_exhaustive()
    }
}
