//! What the benches share: how a figure is told, how variants are timed against each other, and the request that all of them send.
//!
//! `cargo bench --bench NAME` prints a table. With `-- --json` nothing is printed but one JSON object a line: a row
//! `{"name", "goal", "measured", "unit", "met", "note"}` for each goal, and a point `{"plot", "series", "x", "y"}` for each point of a plot.
#![allow(dead_code, unreachable_pub, reason = "each bench uses its part")]

pub mod flights;
pub mod request;
pub mod stream;
pub mod timing;

use serde_json::json;
use std::process::ExitCode;

/// Tells rows as they come, and remembers whether an exact one was missed.
pub struct Report {
    json: bool,
    broken: bool,
}

impl Report {
    pub fn from_args() -> Self {
        Self { json: std::env::args().any(|argument| argument == "--json"), broken: false }
    }

    /// A figure that a busy machine may spoil: told, and no more. `goal` is `<= 1.10` or `>= 0.97`.
    pub fn row(&mut self, name: &str, goal: &str, measured: f64, unit: &str, note: &str) -> bool {
        let met = meets(goal, measured);
        if self.json {
            let measured = (measured * 10_000.0).round() / 10_000.0;
            let row = json!({"name": name, "goal": goal, "measured": measured, "unit": unit, "met": met, "note": note});
            println!("{row}");
        } else {
            let verdict = if met { "met" } else { "MISSED" };
            println!("{name}\n    {} {unit}, goal {goal}: {verdict}. {note}", figure(measured));
        }
        met
    }

    /// A figure that is the same on every machine: missed, the bench fails.
    pub fn exact(&mut self, name: &str, goal: &str, measured: f64, unit: &str, note: &str) {
        self.broken |= !self.row(name, goal, measured, unit, note);
    }

    /// The same for a goal that is known to be missed: the bench fails if it gets worse than `so_far`.
    pub fn at_least_as_good(&mut self, name: &str, goal: &str, so_far: &str, measured: f64, unit: &str, note: &str) {
        self.broken |= !meets(so_far, measured);
        self.row(name, goal, measured, unit, note);
    }

    pub fn point(&self, plot: &str, series: &str, x: f64, y: f64) {
        if self.json {
            println!("{}", json!({"plot": plot, "series": series, "x": x, "y": y}));
        }
    }

    /// What helps to understand a row; left out of JSON.
    pub fn say(&self, text: impl std::fmt::Display) {
        if !self.json {
            println!("  {text}");
        }
    }

    pub fn end(self) -> ExitCode {
        if self.broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

fn meets(goal: &str, measured: f64) -> bool {
    let (relation, bound) = goal.split_once(' ').expect("a relation and a bound");
    let bound: f64 = bound.replace(',', "").parse().expect("a number");
    match relation {
        "<=" => measured <= bound,
        ">=" => measured >= bound,
        _ => panic!("{goal}: neither <= nor >="),
    }
}

fn figure(number: f64) -> String {
    if number.abs() >= 1_000.0 || number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.3}") }
}
