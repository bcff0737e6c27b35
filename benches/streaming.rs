//! A streaming body through the layer, which records its first 128 KiB for a resend, against the same body without. `cargo bench --bench streaming`.
//!
//! Each frame of 16 KiB is copied out of memory when it is read and into a buffer when it is sent, the least that a file and a socket
//! would do. What is held meanwhile is told by `cargo bench --bench sizes`.

mod support;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use support::{
    Report,
    request::provider,
    stream::{Reads, material, streaming, upload},
    timing::in_turn,
};
use tower::Layer;
use tower_jwt_refresh::JwtRefreshLayer;

fn main() -> ExitCode {
    let mut report = Report::from_args();
    let from = material();
    for (size, bytes, rounds, times) in [("64 KiB", 64 << 10, 400, 64), ("100 MiB", 100 << 20, 60, 1)] {
        let (mut plain, mut ours) = (Reads, JwtRefreshLayer::new(provider()).layer(Reads));
        let (a, b) = (Arc::clone(&from), Arc::clone(&from));
        let each = |run: &mut dyn FnMut()| -> Duration {
            let start = Instant::now();
            (0..times).for_each(|_| run());
            start.elapsed() / times
        };
        let took = in_turn(
            rounds,
            [&mut || each(&mut || upload(&mut plain, streaming(&a, bytes))), &mut || {
                each(&mut || upload(&mut ours, streaming(&b, bytes)))
            }],
        );
        report.row(
            &format!("streaming body of {size} through the tee: time / the body without the layer"),
            "<= 1.05",
            took.ratio(1, 0),
            "ratio",
            &format!("{:.1} against {:.1} us", took.median(1) * 1e6, took.median(0) * 1e6),
        );
    }
    report.end()
}
