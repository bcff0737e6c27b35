//! A Redis of the fleet's own: on a socket in a directory that goes with it, every write on disk before it is answered.

use std::{process::Stdio, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};
use tower_jwt_refresh::BoxError;

pub struct Redis {
    dir: TempDir,
    /// A shell that kills it when its standard input ends: also if this process is killed.
    keeper: Child,
}

impl Redis {
    pub async fn start() -> Result<Self, BoxError> {
        let dir = tempfile::tempdir()?;
        let keeper = run(&dir).await?;
        Ok(Self { dir, keeper })
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.dir.path().join("redis.sock").display())
    }

    pub async fn kill(&mut self) -> Result<(), BoxError> {
        drop(self.keeper.stdin.take());
        self.keeper.wait().await?;
        Ok(())
    }

    /// With what it had.
    pub async fn start_again(&mut self) -> Result<(), BoxError> {
        self.keeper = run(&self.dir).await?;
        Ok(())
    }
}

async fn run(dir: &TempDir) -> Result<Child, BoxError> {
    let script = r#"redis-server --port 0 --unixsocket redis.sock --save "" --appendonly yes --appendfsync always &
        server=$!; exec >/dev/null 2>&1; cat; kill -9 $server; wait"#;
    let mut keeper = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut lines = BufReader::new(keeper.stdout.take().expect("it is piped")).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await? {
            if line.contains("eady to accept connections") {
                return Ok(());
            }
        }
        Err(BoxError::from("no `redis-server` here: Debian's package `redis-server` has one, Homebrew's `redis` too"))
    };
    timeout(Duration::from_secs(30), ready).await.map_err(|_| "Redis did not start within 30 s")??;
    // It goes on writing.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(keeper)
}
