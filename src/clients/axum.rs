//! axum's body: for gateways that send on what their handlers got.

use crate::body::{ReplayBody, Split};
use axum_core::body::Body;

impl ReplayBody for Body {
    /// Recorded up to the limit while it is sent.
    fn split(self, limit: usize) -> Split<Self> {
        Split::tee(self, limit, Self::new, |error| error)
    }
}
