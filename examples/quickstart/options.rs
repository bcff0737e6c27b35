//! The command line.

use http::{HeaderName, Uri};
use std::{env, time::Duration};

const KEY: &str = "QUICKSTART_API_KEY";

/// More measure how a machine shared by clients and service is overloaded, and not the clients.
const MOST_POLLERS: u64 = 200;

const HELP: &str = "\
Three clients poll one service on loopback through the same faults; the table shows what their callers saw.

cargo run --release --example quickstart -- [OPTIONS]

  --seconds N         how long to poll, 10 or more (default 20)
  --pollers N         tasks that poll through each client, 1 to 200 (default 50)
  --json              print one JSON object and nothing else

Poll a real service instead, through this crate alone and with its default settings; each poller once a second (default 1 poller):

  --auth-url URL      answers a POST with a token; the credential is read from QUICKSTART_API_KEY and sent as X-API-Key
  --api-url URL       is polled by GET with the token
  --token-header H    sends the bare token in this header, instead of `Authorization: Bearer`
";

pub(crate) struct Options {
    pub(crate) seconds: u64,
    pub(crate) pollers: usize,
    pub(crate) json: bool,
    pub(crate) mode: Mode,
}

pub(crate) enum Mode {
    Loopback,
    Real(Box<Real>),
}

pub(crate) struct Real {
    pub(crate) auth_url: String,
    pub(crate) api_url: Uri,
    pub(crate) key: String,
    pub(crate) token_header: Option<HeaderName>,
}

impl Options {
    pub(crate) fn run(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// None: help was asked for, and printed.
pub(crate) fn read() -> Result<Option<Options>, String> {
    let (mut seconds, mut pollers, mut json) = (20, None, false);
    let (mut auth_url, mut api_url, mut token_header) = (None, None, None);
    let mut words =
        env::args_os().skip(1).map(|word| word.into_string().map_err(|word| format!("{word:?} is no text")));
    while let Some(word) = words.next() {
        let word = word?;
        let (name, given) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (&*word, None),
        };
        let mut value = |what: &str| match given.clone().map(Ok).or_else(|| words.next()) {
            Some(Ok(value)) if !value.is_empty() => Ok(value),
            Some(Err(mistake)) => Err(mistake),
            _ => Err(format!("{name} needs {what}")),
        };
        match name {
            "--seconds" => seconds = whole(name, &value("a number of seconds")?, 10, 1_000_000)?,
            "--pollers" => pollers = Some(whole(name, &value("a number of tasks")?, 1, MOST_POLLERS)?),
            "--auth-url" => auth_url = Some(value("a URL")?),
            "--api-url" => api_url = Some(url(name, &value("a URL")?)?),
            "--token-header" => {
                let header = value("the name of a header")?;
                token_header = Some(header.parse().map_err(|_| format!("{name}: {header:?} is no name of a header"))?);
            }
            "--json" if given.is_none() => json = true,
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(None);
            }
            _ => return Err(format!("there is no option {word:?}")),
        }
    }
    let mode = match (auth_url, api_url) {
        (Some(auth_url), Some(api_url)) => {
            let key = env::var(KEY).ok().filter(|key| !key.trim().is_empty());
            let key = key.ok_or(format!("a real service needs a credential: set the environment variable {KEY}"))?;
            Mode::Real(Box::new(Real { auth_url, api_url, key: key.trim().to_owned(), token_header }))
        }
        (None, None) if token_header.is_some() => {
            return Err("--token-header goes with --auth-url and --api-url".into());
        }
        (None, None) => Mode::Loopback,
        _ => return Err("--auth-url and --api-url go together: where tokens come from, and what is polled".into()),
    };
    let usual = if matches!(mode, Mode::Loopback) { 50 } else { 1 };
    let pollers = usize::try_from(pollers.unwrap_or(usual)).map_err(|error| error.to_string())?;
    Ok(Some(Options { seconds, pollers, json, mode }))
}

fn whole(name: &str, value: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{name} is a whole number from {least} to {most}, not {value:?}"))
}

fn url(name: &str, value: &str) -> Result<Uri, String> {
    let uri = value.parse().ok().filter(|uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")));
    uri.ok_or_else(|| format!("{name} is a URL such as https://api.example.com/jobs/1, not {value:?}"))
}
