//! docs/PERFORMANCE.md: what is measured stands between two markers, all else is written by hand and stays.

use crate::{
    figures::{Figures, Row},
    machine,
    plots::Plot,
};
use std::{
    error::Error,
    fmt::{self, Write},
};

const BEGIN: &str = "<!-- measured: ./scripts/bench writes from here -->";
const END: &str = "<!-- measured: to here -->";

fn split(page: &str) -> Result<(&str, &str), Box<dyn Error>> {
    let (before, rest) = page.split_once(BEGIN).ok_or("the page has no begin marker")?;
    let (_, after) = rest.split_once(END).ok_or("the page has no end marker")?;
    Ok((before, after))
}

/// The page without what is measured.
pub fn by_hand(page: &str) -> Result<String, Box<dyn Error>> {
    let (before, after) = split(page)?;
    Ok(format!("{before}{after}"))
}

pub fn with(page: &str, measured: &str) -> Result<String, Box<dyn Error>> {
    let (before, after) = split(page)?;
    Ok(format!("{before}{BEGIN}\n\n{measured}\n\n{END}{after}"))
}

pub fn measured(figures: &Figures, plots: &[Plot]) -> Result<String, Box<dyn Error>> {
    let mut page = String::new();
    let missed = figures.rows.iter().filter(|row| !row.met).count();
    writeln!(page, "{}, on {}.", machine::date()?, machine::describe()?)?;
    writeln!(page, "{} of {} goals are met.\n", figures.rows.len() - missed, figures.rows.len())?;
    writeln!(page, "Versions: {}.\n", figures.versions.join(", "))?;
    page.push_str(&table(&figures.rows));
    side_by_side(&mut page, figures, "End to end", "end to end, ")?;
    side_by_side(&mut page, figures, "Nanoseconds per request", "peers, ")?;
    for plot in plots {
        writeln!(page, "\n![{}](performance/{}.svg)", plot.title, plot.file)?;
    }
    Ok(page.trim_end().to_owned())
}

/// A line a goal.
pub fn table(rows: &[Row]) -> String {
    let mut table = "| what | goal | measured | | |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for row in rows {
        let verdict = if row.met { "met" } else { "**missed**" };
        let cells = [&row.name, &row.goal, &measure(row), verdict, &row.note].map(|text| text.replace('|', "\\|"));
        table.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    table
}

/// The plots whose names begin so, each a column of a table; those of other series in a table of their own.
fn side_by_side(page: &mut String, figures: &Figures, title: &str, prefix: &str) -> fmt::Result {
    let mut plots: Vec<&str> = Vec::new();
    for point in &figures.points {
        if point.plot.starts_with(prefix) && !plots.contains(&point.plot.as_str()) {
            plots.push(&point.plot);
        }
    }
    let names = |plot: &str| figures.series(plot).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    for columns in plots.chunk_by(|a, b| names(a) == names(b)) {
        let heads: Vec<_> = columns.iter().map(|plot| &plot[prefix.len()..]).collect();
        writeln!(page, "\n| {title} | {} |\n| --- |{}", heads.join(" | "), " ---: |".repeat(heads.len()))?;
        for (nth, name) in names(columns[0]).into_iter().enumerate() {
            let cells: Vec<_> = columns.iter().map(|plot| number(figures.series(plot)[nth].1[0].1)).collect();
            writeln!(page, "| {name} | {} |", cells.join(" | "))?;
        }
    }
    Ok(())
}

fn measure(row: &Row) -> String {
    match (row.measured, row.unit.as_str()) {
        (None, _) => "not measured".to_owned(),
        (Some(measured), "ratio" | "") => number(measured),
        (Some(measured), unit) => format!("{} {unit}", number(measured)),
    }
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_by_hand_stays() {
        let page = format!("# Before\n{BEGIN}\nold\n{END}\nafter\n");
        let page = with(&page, "new").expect("both markers");
        assert_eq!(page, format!("# Before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"));
        assert_eq!(by_hand(&page).expect("both markers"), "# Before\n\nafter\n");
    }

    #[test]
    fn a_page_without_markers_is_left_alone() {
        assert!(with("# All by hand\n", "new").is_err());
    }
}
