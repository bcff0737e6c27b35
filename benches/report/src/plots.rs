//! The three plots of the page.

mod scale;

use crate::{
    figures::Figures,
    svg::{Anchor, COLOURS, Svg, WIDTH},
};
use scale::Scale;

#[derive(Debug)]
pub struct Plot {
    pub file: &'static str,
    pub title: &'static str,
    pub svg: String,
}

/// As the benches call it.
const OURS: [&str; 2] = ["this crate", "this layer"];
const FOOT: f64 = 60.0;

pub fn all(figures: &Figures) -> Vec<Plot> {
    [
        peers(figures),
        curves(
            figures,
            "stampede",
            "One fetch, many waiters",
            "milliseconds past the fetch until the last has its token",
            "waiters",
        ),
        curves(
            figures,
            "refresh",
            "Latency through a refresh",
            "per cent of requests, ten steps to a doubling",
            "latency in µs",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Ours has the first wherever it stands.
fn colour(series: &str, nth: usize) -> usize {
    if OURS.contains(&series) { 0 } else { 1 + nth % (COLOURS - 1) }
}

/// What a layer adds to a request, in two groups of bars.
fn peers(figures: &Figures) -> Option<Plot> {
    let groups = ["no copy kept", "copy kept"].map(|group| (group, figures.series(&format!("peers, {group}"))));
    let bars: usize = groups.iter().map(|(_, series)| series.len().saturating_sub(1)).sum();
    let added = |series: &[(&str, Vec<(f64, f64)>)]| {
        let none = series.iter().find(|(name, _)| *name == "no layer").map_or(0.0, |(_, points)| points[0].1);
        let others = series.iter().filter(|(name, _)| *name != "no layer");
        others.map(|(name, points)| ((*name).to_owned(), points[0].1 - none)).collect::<Vec<_>>()
    };
    let groups = groups.map(|(group, series)| (group, added(&series)));
    let longest = groups.iter().flat_map(|(_, bars)| bars).map(|(_, added)| *added).fold(0.0, f64::max);
    if bars == 0 {
        return None;
    }

    let title = "What a layer adds to a request";
    let height = 90.0 + 26.0 * (bars as f64) + 2.0 * 36.0;
    let mut svg =
        Svg::new(title, "nanoseconds more than without any layer; fresh token of 900 bytes, 6 other headers", height);
    let (left, right) = (260.0, WIDTH - 70.0);
    let mut y = 80.0;
    for (group, bars) in groups {
        svg.text(20.0, y + 4.0, Anchor::Start, "faint", group);
        y += 14.0;
        for (name, added) in bars {
            let width = (added / longest).max(0.002) * (right - left);
            svg.text(left - 10.0, y + 14.0, Anchor::End, "", &name);
            svg.bar((left, y), (width, 18.0), if OURS.contains(&name.as_str()) { 0 } else { COLOURS - 1 });
            svg.text(left + width + 8.0, y + 14.0, Anchor::Start, "", format!("{added:.0}"));
            y += 26.0;
        }
        y += 22.0;
    }
    Some(Plot { file: "peers", title, svg: svg.end() })
}

/// Lines over logarithmic axes, with a legend.
fn curves(figures: &Figures, plot: &'static str, title: &'static str, y_unit: &str, x_unit: &str) -> Option<Plot> {
    let series = figures.series(plot);
    let points = || series.iter().flat_map(|(_, points)| points).filter(|(x, y)| *x > 0.0 && *y > 0.0);
    let (top, bottom) = (110.0, 420.0 - FOOT);
    let x = Scale::over(points().map(|(x, _)| *x), (70.0, WIDTH - 30.0))?;
    let y = Scale::over(points().map(|(_, y)| *y), (bottom, top))?;

    let mut svg = Svg::new(title, y_unit, 420.0);
    for (value, label) in x.ticks() {
        svg.grid((x.at(value), top), (x.at(value), bottom));
        svg.text(x.at(value), bottom + 20.0, Anchor::Middle, "faint", label);
    }
    for (value, label) in y.ticks() {
        svg.grid((70.0, y.at(value)), (WIDTH - 30.0, y.at(value)));
        svg.text(62.0, y.at(value) + 4.0, Anchor::End, "faint", label);
    }
    svg.text(WIDTH - 30.0, bottom + 42.0, Anchor::End, "faint", x_unit);

    let mut legend = 70.0;
    for (nth, (name, points)) in series.iter().enumerate() {
        let colour = colour(name, nth);
        let mut points: Vec<_> = points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0).copied().collect();
        points.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let points: Vec<_> = points.iter().map(|(px, py)| (x.at(*px), y.at(*py))).collect();
        svg.line(&points, colour);
        if points.len() <= 10 {
            points.iter().for_each(|point| svg.dot(*point, colour));
        }
        svg.dot((legend, 81.0), colour);
        svg.text(legend + 10.0, 85.0, Anchor::Start, "", name);
        // No font is at hand to measure it by.
        legend += 34.0 + 7.2 * name.chars().count() as f64;
    }
    Some(Plot { file: plot, title, svg: svg.end() })
}
