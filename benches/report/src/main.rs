//! `report build`: what a clean build of this crate costs, as lines of JSON. `report page`: reads all benches' lines from standard input and writes
//! docs/PERFORMANCE.md and its plots; `--json` prints the goals as well. Both run in the repository's root. `./scripts/bench` calls them.

mod build_cost;
mod figures;
mod machine;
mod page;
mod plots;
mod svg;

use figures::Figures;
use std::{env, error::Error, fs, io};

const PAGE: &str = "docs/PERFORMANCE.md";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    let page = fs::read_to_string(PAGE)?;
    match arguments.first().map(String::as_str) {
        Some("build") => build_cost::print(&page::by_hand(&page)?),
        Some("page") => {
            let figures = Figures::read(io::stdin().lines())?;
            fs::create_dir_all("docs/performance")?;
            let plots = plots::all(&figures);
            for plot in &plots {
                fs::write(format!("docs/performance/{}.svg", plot.file), &plot.svg)?;
            }
            fs::write(PAGE, page::with(&page, &page::measured(&figures, &plots)?)?)?;
            if has("--json") {
                println!("{}", figures.goals());
            } else {
                print!("{}", page::table(&figures.rows));
            }
            Ok(())
        }
        _ => Err("usage: report build | report page [--json]".into()),
    }
}
