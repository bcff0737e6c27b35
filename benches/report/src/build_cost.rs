//! A clean release build of the default features against that of tower-http with its auth feature, and the crates that either brings.

use serde_json::json;
use std::{
    collections::BTreeSet,
    env,
    error::Error,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};
use tempfile::TempDir;

/// Clean builds of each; the faster one counts.
const BUILDS: usize = 2;
const GOAL: &str = "named and justified";

/// `by_hand` is the page's part that must name each crate which tower-http does without.
pub fn print(by_hand: &str) -> Result<(), Box<dyn Error>> {
    let here = env::current_dir()?;
    let ours = Probe::new("tower-jwt-refresh", &format!("{{ path = {:?} }}", here.display().to_string()))?;
    let theirs = Probe::new("tower-http", r#"{ version = "0.7", features = ["auth"] }"#)?;
    let mut fastest = [f64::MAX; 2];
    for _ in 0..BUILDS {
        for (probe, fastest) in [&ours, &theirs].into_iter().zip(&mut fastest) {
            *fastest = fastest.min(probe.build()?);
        }
    }
    let [our_crates, their_crates] = [ours.crates()?, theirs.crates()?];
    let more: Vec<_> = our_crates.difference(&their_crates).map(String::as_str).collect();
    let unnamed: Vec<_> = more.iter().filter(|name| !by_hand.contains(&format!("`{name}`"))).collect();
    let met = unnamed.is_empty();
    let unnamed = if met { String::new() } else { format!("; not named: {unnamed:?}") };
    let row = |name: &str, measured: f64, unit: &str, note: String| {
        println!(
            "{}",
            json!({"name": name, "goal": GOAL, "measured": measured, "unit": unit, "met": met, "note": note})
        );
    };
    let round = |seconds: f64| (seconds * 10.0).round() / 10.0;
    let [seconds, theirs] = fastest.map(round);
    row("clean release build of the default features", seconds, "s", format!("tower-http with auth: {theirs} s"));
    let note = format!("tower-http with auth: {}; more: {}{unnamed}", their_crates.len(), more.join(", "));
    row("crates that the default features bring", our_crates.len() as f64, "crates", note);
    Ok(())
}

/// An empty crate that depends on one other.
struct Probe {
    name: &'static str,
    dir: TempDir,
}

impl Probe {
    fn new(name: &'static str, dependency: &str) -> Result<Self, Box<dyn Error>> {
        let dir = TempDir::new()?;
        let manifest = format!(
            "[package]\nname = \"probe\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n{name} = {dependency}\n"
        );
        fs::write(dir.path().join("Cargo.toml"), manifest)?;
        // The versions that this crate is tested with; cargo strikes out the others.
        fs::copy("Cargo.lock", dir.path().join("Cargo.lock"))?;
        fs::create_dir(dir.path().join("src"))?;
        fs::write(dir.path().join("src/lib.rs"), "")?;
        let probe = Self { name, dir };
        probe.cargo(&["fetch"])?;
        Ok(probe)
    }

    fn cargo(&self, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(arguments)
            .current_dir(self.dir.path())
            .env("CARGO_TARGET_DIR", self.target())
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(format!("cargo {arguments:?}: {}", output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    fn build(&self) -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        self.cargo(&["build", "--release", "--offline", "--quiet"])?;
        let took = start.elapsed().as_secs_f64();
        fs::remove_dir_all(self.target())?;
        Ok(took)
    }

    /// Without itself.
    fn crates(&self) -> Result<BTreeSet<String>, Box<dyn Error>> {
        let tree = self.cargo(&["tree", "--offline", "-e", "normal", "--prefix", "none", "--format", "{p}"])?;
        let names = tree.lines().filter_map(|line| line.split(' ').next());
        Ok(names.filter(|name| !name.is_empty() && *name != "probe" && *name != self.name).map(str::to_owned).collect())
    }
}
