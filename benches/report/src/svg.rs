//! As much of SVG as three plots need. Each plot has its own background, and colours for light and dark pages.

use std::fmt::{Display, Write};

pub const WIDTH: f64 = 760.0;

/// Colours are told apart in both palettes, also by those who see fewer.
const STYLE: &str = "
.back { fill: #ffffff; stroke: #d0d7de; }
text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
text.title { font-size: 16px; font-weight: 600; }
text.faint { fill: #59636e; font-size: 12px; }
.grid { stroke: #d8dee4; stroke-width: 1; }
.line { fill: none; stroke-width: 2.5; }
.f0 { fill: #0969da; } .f1 { fill: #bc4c00; } .f2 { fill: #8250df; } .f3 { fill: #1a7f37; } .f4 { fill: #8c959f; }
.s0 { stroke: #0969da; } .s1 { stroke: #bc4c00; } .s2 { stroke: #8250df; } .s3 { stroke: #1a7f37; } .s4 { stroke: #8c959f; }
@media (prefers-color-scheme: dark) {
  .back { fill: #0d1117; stroke: #3d444d; }
  text { fill: #f0f6fc; }
  text.faint { fill: #9198a1; }
  .grid { stroke: #2f353d; }
  .f0 { fill: #4493f8; } .f1 { fill: #f0883e; } .f2 { fill: #ab7df8; } .f3 { fill: #3fb950; } .f4 { fill: #6e7681; }
  .s0 { stroke: #4493f8; } .s1 { stroke: #f0883e; } .s2 { stroke: #ab7df8; } .s3 { stroke: #3fb950; } .s4 { stroke: #6e7681; }
}
";
/// How many colours there are; the last is the pale one.
pub const COLOURS: usize = 5;

#[derive(Debug)]
pub struct Svg {
    body: String,
    height: f64,
    title: String,
}

/// Which end of a text stands at its place.
#[derive(Clone, Copy, Debug)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub fn new(title: &str, under: &str, height: f64) -> Self {
        let mut svg = Self { body: String::new(), height, title: escaped(title) };
        svg.text(20.0, 30.0, Anchor::Start, "title", title);
        svg.text(20.0, 50.0, Anchor::Start, "faint", under);
        svg
    }

    pub fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, text: impl Display) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(&text.to_string());
        self.push(format_args!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#));
    }

    pub fn grid(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.push(format_args!(r#"<line class="grid" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#));
    }

    pub fn bar(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), colour: usize) {
        self.push(format_args!(
            r#"<rect class="f{colour}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="2"/>"#
        ));
    }

    pub fn dot(&mut self, (x, y): (f64, f64), colour: usize) {
        self.push(format_args!(r#"<circle class="f{colour}" cx="{x:.1}" cy="{y:.1}" r="4"/>"#));
    }

    pub fn line(&mut self, points: &[(f64, f64)], colour: usize) {
        let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.push(format_args!(r#"<polyline class="line s{colour}" points="{}"/>"#, points.join(" ")));
    }

    fn push(&mut self, element: impl Display) {
        writeln!(self.body, "{element}").expect("a String takes all");
    }

    pub fn end(self) -> String {
        let Self { body, height, title } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
             aria-label=\"{title}\">\n<style>{STYLE}</style>\n<rect class=\"back\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" \
             rx=\"6\"/>\n{body}</svg>\n",
            WIDTH - 1.0,
            height - 1.0
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
