//! Nothing of what was logged or reported holds a token or a client's secret.

use crate::{report::Report, server::Server};
use std::{collections::BTreeSet, fs};
use tower_jwt_refresh::BoxError;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// In each client's secret.
const MARK: &str = "s3cr3t";

/// From now on all that is logged is written down; of the connections below the layer not every step.
pub(crate) fn listen(server: &Server) -> Result<(), BoxError> {
    let targets = Targets::new().with_default(LevelFilter::DEBUG).with_target("tower_jwt_refresh", LevelFilter::TRACE);
    let log = fmt::layer().with_ansi(false).with_writer(fs::File::create(server.log())?).with_filter(targets);
    Ok(tracing_subscriber::registry().with(log).try_init()?)
}

pub(crate) async fn kept(server: &Server, report: &Report) -> Result<(), BoxError> {
    let (seen, log, said) = (server.seen().await?, fs::read_to_string(server.log())?, report.text());
    let tokens: BTreeSet<_> = seen.tokens().collect();
    // Made of the same letters, and all longer than a word.
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let words = |text| str::split(text, move |letter| !is_part(letter));
    let shown = words(&log).chain(words(&said)).filter(|word| tokens.contains(word)).count();
    let marked = log.matches(MARK).count() + said.matches(MARK).count();
    let lines = log.lines().filter(|line| line.contains("tower_jwt_refresh")).count();
    report.claim(
        "what was logged",
        format!("of {} tokens and the clients' secrets, {} in {lines} lines of ours", tokens.len(), shown + marked),
        shown + marked == 0 && lines > 20 && tokens.len() > 20,
    );
    Ok(())
}
