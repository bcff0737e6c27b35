use std::{error::Error, fs, process::Command, thread::available_parallelism};

/// What the figures were taken on, without its name.
pub fn describe() -> Result<String, Box<dyn Error>> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let model = field(&cpuinfo, "model name").unwrap_or("unknown processor");
    let kilobytes = field(&meminfo, "MemTotal").and_then(|total| total.trim_end_matches(" kB").parse::<f64>().ok());
    let memory =
        kilobytes.map_or("unknown memory".to_owned(), |kilobytes| format!("{:.0} GiB", kilobytes / 1024.0 / 1024.0));
    let cores = available_parallelism()?;
    Ok(format!("{model}, {cores} cores, {memory}; {}", said("rustc", &["--version"])?))
}

pub fn date() -> Result<String, Box<dyn Error>> {
    said("date", &["-u", "+%Y-%m-%d"])
}

/// Of `name  : value`, the first.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

fn said(program: &str, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let output = Command::new(program).args(arguments).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
