//! What is claimed, and whether it holds.

use std::{process::ExitCode, sync::Mutex};

/// The claims in the order in which they were decided.
#[derive(Debug, Default)]
pub(crate) struct Report(Mutex<Vec<Claim>>);

#[derive(Debug)]
struct Claim {
    about: &'static str,
    says: String,
    holds: bool,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// `says` holds what was seen too, so that a failure explains itself.
    pub(crate) fn claim(&self, about: &'static str, says: impl Into<String>, holds: bool) {
        let claim = Claim { about, says: says.into(), holds };
        self.0.lock().expect("no claim panics").push(claim);
    }

    /// All claims so far.
    pub(crate) fn text(&self) -> String {
        let claims = self.0.lock().expect("no claim panics");
        claims.iter().map(|claim| format!("{}\n", claim.says)).collect()
    }

    /// Prints the table.
    pub(crate) fn end(self) -> ExitCode {
        let mut claims = self.0.into_inner().expect("no claim panics");
        claims.sort_by_key(|claim| claim.about);
        for Claim { about, says, holds } in &claims {
            println!("{}  {about:<19}  {says}", if *holds { "ok    " } else { "FAILED" });
        }
        let failed = claims.iter().filter(|claim| !claim.holds).count();
        println!("{} passed, {failed} failed", claims.len() - failed);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
