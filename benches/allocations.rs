//! Allocations of one request while the token is fresh. `cargo bench --bench allocations`.
//!
//! A bench of its own: the allocator that counts would be part of every time measured beside it. The request is made outside of what is
//! counted, and its answer dropped inside.

mod support;

use allocation_counter::measure;
use http::HeaderMap;
use std::process::ExitCode;
use support::{
    Report,
    request::{Req, fixed, fixed_and_kept, ours, ours_and_kept, provider, request, send},
};
use tower::Service;

/// Of the second request: the first may fill what is filled once.
fn of<S: Service<Req>>(mut service: S) -> f64 {
    send(&mut service, request());
    let request = request();
    number(measure(|| send(&mut service, request)).count_total)
}

fn of_a_cloned_map() -> f64 {
    // Made anew: the first clone of a header's value costs more than the next.
    let request = request();
    let mut copy = HeaderMap::new();
    number(measure(|| copy = request.headers().clone()).count_total)
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).expect("few"))
}

fn main() -> ExitCode {
    let mut report = Report::from_args();
    let provider = provider();
    let (fixed, kept, map) = (of(fixed()), of(fixed_and_kept()), of_a_cloned_map());
    let (ours, ours_kept) = (of(ours(&provider)), of(ours_and_kept(&provider)));
    report.exact(
        "allocations per request without a copy, more than the static layer",
        "<= 0",
        ours - fixed,
        "allocations",
        &format!("{ours} against {fixed}"),
    );
    report.exact(
        "allocations per request with a copy, more than the static layer and one HeaderMap::clone",
        "<= 0",
        ours_kept - (fixed + map),
        "allocations",
        &format!("{ours_kept} against {fixed} and {map}; tower::retry over the static layer: {kept}"),
    );
    report.end()
}
