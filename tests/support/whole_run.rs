//! What the run of all the tests logs, and the secrets it uses. `scripts/test` names a directory for both, and `tests/whole_run.rs` looks for the ones in the other.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use base64::{Engine, prelude::BASE64_STANDARD};
use std::{
    collections::HashSet,
    fs::File,
    io::Write,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};
use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    fmt::{self, format::FmtSpan},
    layer::SubscriberExt,
};

/// Names of what lets somebody in, in forms and in JSON.
const CREDENTIALS: [&str; 13] = [
    "access_token",
    "actor_token",
    "api_key",
    "assertion",
    "client_assertion",
    "client_secret",
    "device_token",
    "id_token",
    "jwt",
    "password",
    "refresh_token",
    "subject_token",
    "token",
];

/// From now on everything that any thread of this process logs is written down, and every panic.
pub fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let Some(file) = log() else { return };
        // Windows and queues of HTTP/2, by the hundred thousand. What it encodes and decodes is under other names, and stays.
        let targets = Targets::new().with_default(LevelFilter::TRACE).with_target("h2::proto", Level::DEBUG);
        let layer = fmt::layer()
            .with_ansi(false)
            .without_time()
            .with_span_events(FmtSpan::NEW | FmtSpan::CLOSE)
            .with_writer(file);
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(targets));
        // A test file may hold this module twice.
        if tracing::subscriber::set_global_default(subscriber).is_ok() {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                print(&format!("{panic}\n"));
                hook(panic);
            }));
        }
    });
}

/// This is to be searched too.
pub fn print(text: &str) {
    if let Some(file) = log() {
        file.as_ref().write_all(text.as_bytes()).expect("the log can be written");
    }
}

/// This must be in nothing that is printed.
pub fn secret(secret: &str) {
    static KNOWN: OnceLock<Mutex<HashSet<String>>> = OnceLock::new();
    static FILE: OnceLock<Option<Arc<File>>> = OnceLock::new();
    listen();
    let Some(file) = FILE.get_or_init(|| open("secrets")) else { return };
    // A `-` is how servers write down that there was none.
    if ["", "-"].contains(&secret) {
        return;
    }
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if known.insert(secret.to_owned()) {
        // Written at once, since other processes write there as well; as JSON, so that it is one line.
        let line = format!("{}\n", serde_json::Value::from(secret));
        file.as_ref().write_all(line.as_bytes()).expect("the secrets can be written");
    }
}

/// Whatever of that kind a request or an answer says.
pub fn secrets_of(message: &str) {
    let (head, body) = message.split_once("\r\n\r\n").unwrap_or((message, ""));
    for line in head.lines() {
        let Some(value) = ["authorization: ", "x-api-key: "].iter().find_map(|name| line.strip_prefix(name)) else {
            continue;
        };
        let credential = value.rsplit(' ').next().unwrap_or(value);
        secret(credential);
        if let Some(pair) = BASE64_STANDARD.decode(credential).ok().and_then(|pair| String::from_utf8(pair).ok()) {
            secret(pair.split_once(':').map_or("", |(_, password)| password));
        }
    }
    match serde_json::from_str(body) {
        Ok(json) => secrets_of_json(&json),
        Err(_) => form_urlencoded::parse(body.as_bytes())
            .filter(|(name, _)| CREDENTIALS.contains(&&**name))
            .for_each(|(_, value)| secret(&value)),
    }
}

fn secrets_of_json(json: &serde_json::Value) {
    for (name, value) in json.as_object().into_iter().flatten() {
        match value.as_str() {
            Some(text) if CREDENTIALS.contains(&name.as_str()) => self::secret(text),
            _ => secrets_of_json(value),
        }
    }
}

fn log() -> Option<Arc<File>> {
    static FILE: OnceLock<Option<Arc<File>>> = OnceLock::new();
    FILE.get_or_init(|| open("log")).clone()
}

fn open(name: &str) -> Option<Arc<File>> {
    let path = std::path::Path::new(&std::env::var_os("TEST_RUN")?).join(name);
    let file = File::options().append(true).create(true).open(&path);
    Some(Arc::new(file.unwrap_or_else(|error| panic!("TEST_RUN: {}: {error}", path.display()))))
}
