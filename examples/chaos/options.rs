//! What the command line says.

use std::time::Duration;

pub struct Options {
    /// How long things go wrong; the calm after it takes some seconds more.
    pub chaos: Duration,
    pub callers: usize,
    pub seed: u64,
}

pub fn read() -> Result<Options, String> {
    let mut options = Options { chaos: Duration::from_secs(10), callers: 2000, seed: u64::from(fastrand::u32(..)) };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        let value: u64 = value.ok_or_else(|| format!("{name} wants a number"))?;
        match name.as_str() {
            "--seconds" => options.chaos = Duration::from_secs(value),
            "--callers" => options.callers = usize::try_from(value).map_err(|error| error.to_string())?,
            "--seed" => options.seed = value,
            _ => return Err(format!("{name} is none of --seconds, --callers, --seed")),
        }
    }
    Ok(options)
}
