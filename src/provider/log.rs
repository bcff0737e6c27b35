//! One event per change, never per attempt, and never a secret.

use super::{TokenStatus, state::Note};
use std::{error::Error, fmt, time::Duration};
use tracing::{debug, error, info, warn};

pub(crate) fn note(note: Note) {
    match note {
        Note::AbsurdExpiry => warn!(
            "the token names an expiry that cannot be (negative, no number, over ten years ahead): it is sent until a server rejects it; are these milliseconds?"
        ),
        Note::BornDead { dead_for } => warn!(
            ?dead_for,
            "the source gives tokens that are expired by this machine's clock: clock skew? They are sent, the servers decide"
        ),
        Note::NotYetValid { valid_in } => {
            warn!(?valid_in, "the token is not valid yet by this machine's clock: clock skew? It is sent all the same");
        }
        Note::SlowRefresh => warn!("the refresh is slow: requests go out with the token that lives"),
    }
}

pub(crate) fn status(
    before: &TokenStatus,
    now: &TokenStatus,
    runway: Option<Duration>,
    cause: Option<&(dyn Error + 'static)>,
) {
    let failing =
        |status: &TokenStatus| matches!(status, TokenStatus::Failing { .. } | TokenStatus::NeedsCredential { .. });
    let cause = Chain(cause);
    match now {
        TokenStatus::NeedsCredential { .. } if !matches!(before, TokenStatus::NeedsCredential { .. }) => {
            error!(error = %cause, ?runway, "the token source refuses its credential: somebody must repair it");
        }
        TokenStatus::Failing { .. } if !failing(before) => {
            warn!(error = %cause, ?runway, "the token source fails: the token held is sent while it lives");
        }
        TokenStatus::SignedOut => info!("signed out"),
        TokenStatus::ShutDown => info!("shut down"),
        TokenStatus::Fresh | TokenStatus::Stale if failing(before) => info!(?runway, "the token source works again"),
        TokenStatus::Fresh => debug!(?runway, "the token is fresh"),
        TokenStatus::Stale => debug!(?runway, "the token is stale"),
        TokenStatus::Failing { .. } | TokenStatus::NeedsCredential { .. } => {}
    }
}

/// An error with its causes, in one line.
struct Chain<'a>(Option<&'a (dyn Error + 'static)>);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, error) in std::iter::successors(self.0, |error| (*error).source()).take(16).enumerate() {
            write!(f, "{}{error}", if depth == 0 { "" } else { ": " })?;
        }
        Ok(())
    }
}
