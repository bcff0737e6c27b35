//! Tokens from a command-line tool: how often it is run, and what becomes of a run that hangs.
//!
//! `cargo run --example command_token`, on Unix, for about ten seconds. The tool is a script that this program writes: it prints JSON as `az` does, with
//! tokens that live for 6 s, and its second run hangs. 20 tasks use them without pause on a service in this process, which refuses a token that has
//! ended. Fails if anybody sees a refusal or an error, if the tool runs more often than about once per token, or if the run that hung is still there.

#[cfg(not(unix))]
fn main() {
    println!("the tool of this example is a script for Unix");
}

#[cfg(unix)]
#[tokio::main]
async fn main() -> Result<(), tower_jwt_refresh::BoxError> {
    unix::run().await
}

#[cfg(unix)]
mod unix {
    use bytes::Bytes;
    use http::{Request, Response, StatusCode, header::AUTHORIZATION};
    use http_body_util::Empty;
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
        path::Path,
        process::Command,
        time::{Duration, Instant, SystemTime, UNIX_EPOCH},
    };
    use tower::{Layer, Service, ServiceExt};
    use tower_jwt_refresh::{BoxError, JwtRefreshLayer, TokenProvider, source::TokenCommand};

    /// A token says itself when it ends, so that the service needs no list of them.
    const TOOL: &str = r#"#!/bin/sh
echo $$ >>"$RUNS"
if [ "$(($(wc -l <"$RUNS")))" = 2 ]; then
    echo "waiting for the network" >&2
    sleep 1000
fi
end=$(($(date +%s) + 6))
echo "{\"accessToken\": \"ends-$end\", \"expires_on\": $end, \"tokenType\": \"Bearer\"}"
"#;

    pub(super) async fn run() -> Result<(), BoxError> {
        let directory = tempfile::tempdir()?;
        let (tool, runs) = (directory.path().join("cloud"), directory.path().join("runs"));
        fs::write(&tool, TOOL)?;
        fs::set_permissions(&tool, Permissions::from_mode(0o755))?;

        let source = TokenCommand::program(&tool)
            .args(["account", "get-access-token"])
            .env("RUNS", runs.to_string_lossy())
            .timeout(Duration::from_secs(1))
            .build()?;
        let provider = TokenProvider::new(source);
        provider.init().await?;

        let begin = Instant::now();
        let tasks = (0..20).map(|_| tokio::spawn(poll(provider.clone(), begin))).collect::<Vec<_>>();
        let mut requests = 0;
        for task in tasks {
            requests += task.await??;
        }
        report(requests, &runs)
    }

    /// Uses a client of its own for ten seconds; all of them share the provider.
    async fn poll(provider: TokenProvider, begin: Instant) -> Result<u32, BoxError> {
        let mut client = JwtRefreshLayer::new(provider).layer(tower::service_fn(service));
        let mut requests = 0;
        while begin.elapsed() < Duration::from_secs(10) {
            let request = Request::get("https://api.example.com/jobs/1").body(Empty::<Bytes>::new())?;
            let status = client.ready().await?.call(request).await?.status();
            if !status.is_success() {
                return Err(format!("after {:.1?} the service answered {status}", begin.elapsed()).into());
            }
            requests += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(requests)
    }

    async fn service(request: Request<Empty<Bytes>>) -> Result<Response<()>, BoxError> {
        let token = request.headers()[AUTHORIZATION].to_str()?;
        let end = token.strip_prefix("Bearer ends-").ok_or("no token")?.parse()?;
        let lives = SystemTime::now() < UNIX_EPOCH + Duration::from_secs(end);
        let status = if lives { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        Ok(Response::builder().status(status).body(())?)
    }

    fn report(requests: u32, runs: &Path) -> Result<(), BoxError> {
        let runs = fs::read_to_string(runs)?;
        let runs = runs.lines().collect::<Vec<_>>();
        println!("{requests} requests, all answered, with the tokens of {} runs, one of which hung", runs.len());
        if !(3..=6).contains(&runs.len()) {
            return Err("that is not about once per token".into());
        }
        if Command::new("kill").args(["-0", runs[1]]).output()?.status.success() {
            return Err("the run that hung is still there".into());
        }
        println!("the run that hung was killed after a second, and nobody noticed");
        Ok(())
    }
}
