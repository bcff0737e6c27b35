use serde_json::{Value, json};
use std::{error::Error, io};

/// What the benches print, in the order in which they print it.
#[derive(Debug, Default)]
pub struct Figures {
    pub rows: Vec<Row>,
    pub points: Vec<Point>,
    pub versions: Vec<String>,
}

/// One goal, and what was measured.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub goal: String,
    /// None if its bench did not end.
    pub measured: Option<f64>,
    pub unit: String,
    pub met: bool,
    pub note: String,
}

#[derive(Debug)]
pub struct Point {
    pub plot: String,
    pub series: String,
    pub x: f64,
    pub y: f64,
}

impl Figures {
    pub fn read(lines: impl Iterator<Item = io::Result<String>>) -> Result<Self, Box<dyn Error>> {
        let mut figures = Self::default();
        for line in lines {
            let line = line?;
            let value: Value = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
            let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
            let number = |key: &str| value[key].as_f64().ok_or_else(|| format!("no number \"{key}\": {line}"));
            if value["plot"].is_string() {
                figures.points.push(Point {
                    plot: text("plot"),
                    series: text("series"),
                    x: number("x")?,
                    y: number("y")?,
                });
            } else if value["version"].is_string() {
                figures.versions.push(text("version"));
            } else {
                figures.rows.push(Row {
                    name: text("name"),
                    goal: text("goal"),
                    measured: value["measured"].as_f64(),
                    unit: text("unit"),
                    met: value["met"].as_bool().ok_or_else(|| format!("neither met nor missed: {line}"))?,
                    note: text("note"),
                });
            }
        }
        Ok(figures)
    }

    /// For programs.
    pub fn goals(&self) -> Value {
        let goals = self
            .rows
            .iter()
            .map(|row| json!({"name": row.name, "goal": row.goal, "measured": row.measured, "met": row.met}));
        json!({"goals": goals.collect::<Vec<_>>()})
    }

    /// The points of a plot by series, both in the order in which they came.
    pub fn series(&self, plot: &str) -> Vec<(&str, Vec<(f64, f64)>)> {
        let mut all: Vec<(&str, Vec<_>)> = Vec::new();
        for point in self.points.iter().filter(|point| point.plot == plot) {
            match all.iter_mut().find(|(name, _)| *name == point.series) {
                Some((_, points)) => points.push((point.x, point.y)),
                None => all.push((&point.series, vec![(point.x, point.y)])),
            }
        }
        all
    }
}
