//! A Redis of the test's own, on a socket in a directory of its own. It ends with the test, also if that is killed.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use redis::{Client, Cmd, FromRedisValue, cmd};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// What takes longer than this has hung.
pub const BOUND: Duration = Duration::from_secs(60);

pub struct Redis {
    dir: TempDir,
    settings: Vec<String>,
    /// A shell that kills it when its standard input ends, as it does with this process.
    keeper: Child,
    process: u32,
}

impl Redis {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With further settings, as on its command line.
    pub fn with(settings: &[&str]) -> Self {
        Self::in_dir(tempfile::tempdir().unwrap(), settings)
    }

    pub fn in_dir(dir: TempDir, settings: &[&str]) -> Self {
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect::<Vec<_>>();
        let (keeper, process) = run(&dir, &settings);
        Self { dir, settings, keeper, process }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// `login` as in `user=u&pass=p`.
    pub fn client_as(&self, login: &str) -> Client {
        Client::open(format!("redis+unix://{}?{login}", self.socket().display())).unwrap()
    }

    pub fn client(&self) -> Client {
        self.client_as("")
    }

    /// What an operator sees, on a connection of its own.
    pub fn ask<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query(&mut self.client().get_connection().unwrap()).unwrap()
    }

    /// The same, in one line.
    pub fn run<T: FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut asked = cmd(words.next().unwrap());
        for word in words {
            asked.arg(word);
        }
        self.ask(&asked)
    }

    pub fn field(&self, key: &str, field: &str) -> Option<String> {
        self.run(&format!("HGET {key} {field}"))
    }

    /// As if the time of the lease were over.
    pub fn end_the_lease(&self, key: &str) {
        assert_eq!(self.run::<u32>(&format!("HSET {key} until 1")), 0, "there is one");
    }

    /// How often scripts were asked for.
    pub fn scripts_run(&self) -> usize {
        let stats: String = self.run("INFO commandstats");
        let calls = stats
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_eval:calls="))
            .map(|rest| rest.split(',').next().unwrap().parse().unwrap());
        calls.unwrap_or(0)
    }

    pub fn kill(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }

    pub fn start_again(&mut self) {
        (self.keeper, self.process) = run(&self.dir, &self.settings);
    }

    /// `STOP` and `CONT`: it hangs, and goes on.
    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill").arg(format!("-{signal}")).arg(self.process.to_string()).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(dir: &TempDir, settings: &[String]) -> (Child, u32) {
    let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
    let mut keeper = Command::new("sh")
        .args(["-c", r#""$@" & server=$!; exec >/dev/null 2>&1; cat; kill -9 $server"#, "sh"])
        .arg(program)
        .args([
            "--port",
            "0",
            "--unixsocket",
            "redis.sock",
            "--save",
            "",
            "--appendfsync",
            "always",
            "--daemonize",
            "no",
        ])
        .arg("--dir")
        .arg(dir.path())
        .args(settings)
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(keeper.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    let ready = loop {
        match lines.next() {
            Some(Ok(line)) if line.contains("eady to accept connections") => break line,
            Some(Ok(line)) => said.push(line),
            _ => {
                let errors: Vec<_> =
                    BufReader::new(keeper.stderr.take().unwrap()).lines().map_while(Result::ok).collect();
                panic!("these tests need a Redis, `apt-get install redis-server` brings one: {said:?} {errors:?}");
            }
        }
    };
    // It may write more.
    thread::spawn(move || lines.for_each(drop));
    let process = ready.split(':').next().unwrap().parse().expect("a line of the log begins with the process id");
    (keeper, process)
}

/// A port that nobody listens on now.
pub fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Lets everything go on until this is so.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < BOUND, "it never became so");
        tokio::task::yield_now().await;
    }
}

/// What must come, if not at once.
pub async fn soon<T>(coming: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, coming).await.expect("it hangs")
}

/// A file that only a test writes.
pub fn write(dir: &TempDir, name: &str, content: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}
