//! `cargo run --manifest-path tests/echo/generate/Cargo.toml && cargo fmt`, after a change of `echo.proto`.

use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let echo = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = protox::compile([echo.join("echo.proto")], [&echo])?;
    tonic_prost_build::configure().out_dir(&echo).compile_fds(files)?;
    fs::rename(echo.join("echo.rs"), echo.join("generated.rs"))?;
    Ok(())
}
