//! What the command line says.

use std::time::Duration;

pub enum Role {
    Fleet(Options),
    Worker(Worker),
}

pub struct Options {
    pub processes: usize,
    pub span: Duration,
    pub seed: u64,
    pub alone: bool,
    pub json: bool,
}

/// One process of the fleet, started by the first.
pub struct Worker {
    pub number: usize,
    pub server: String,
    pub store: Option<String>,
}

const USAGE: &str = "fleet [--processes N] [--seconds N, at least 20] [--seed N] [--alone] [--json]";

pub fn read() -> Result<Role, String> {
    let mut options = Options {
        processes: 8,
        span: Duration::from_secs(30),
        seed: fastrand::u64(..1_000),
        alone: false,
        json: false,
    };
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.peek().is_some_and(|first| first == "worker") {
        let mut next = || arguments.by_ref().nth(1).ok_or(USAGE);
        let number = next()?.parse().map_err(|_| USAGE)?;
        let server = arguments.next().ok_or(USAGE)?;
        return Ok(Role::Worker(Worker { number, server, store: arguments.next() }));
    }
    while let Some(name) = arguments.next() {
        let mut number = || arguments.next().and_then(|value| value.parse::<u32>().ok()).ok_or(USAGE);
        match name.as_str() {
            "--processes" => options.processes = number()?.clamp(1, 1_000) as usize,
            "--seconds" => options.span = Duration::from_secs(number()?.max(20).into()),
            "--seed" => options.seed = number()?.into(),
            "--alone" => options.alone = true,
            "--json" => options.json = true,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(Role::Fleet(options))
}
