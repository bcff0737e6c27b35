//! Programs to be run: scripts for `/bin/sh`, with a directory of their own in `$DIR`, where they count their runs.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    error::Error,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::Command,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant, UNIX_EPOCH},
};
use tempfile::TempDir;
use tower_jwt_refresh::{
    Token, TokenError, TokenProvider,
    clock::{Clock, ManualClock},
    source::{CommandError, TokenCommand, TokenCommandBuilder},
};

pub struct Script {
    text: String,
    dir: TempDir,
}

impl Script {
    pub fn new(text: &str) -> Self {
        Self { text: format!("echo run >>\"$DIR/runs\"\n{text}"), dir: TempDir::new().unwrap() }
    }

    pub fn command(&self) -> TokenCommandBuilder {
        let dir = self.dir.path().to_str().expect("a temporary directory has a plain name");
        // Not a file that is executed: another test may be forking, and for that moment the file would be open for writing.
        TokenCommand::program("/bin/sh").args(["-c", &self.text, "sh"]).env("DIR", dir)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn runs(&self) -> usize {
        self.read("runs").lines().count()
    }

    pub fn pipe(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }
}

/// Lets everything go on until this is so.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < BOUND, "it never became so");
        tokio::task::yield_now().await;
    }
}

/// A provider with clocks that stand still: time passes when the test says so.
pub fn provider(command: TokenCommandBuilder) -> (TokenProvider, ManualClock) {
    let clock = ManualClock::new();
    (TokenProvider::builder().clock(clock.clone()).build(command.build().unwrap()).unwrap(), clock)
}

/// One run.
pub async fn once(command: TokenCommandBuilder) -> Result<Token, TokenError> {
    provider(command).0.token().await
}

pub async fn secret(command: TokenCommandBuilder) -> String {
    once(command).await.unwrap_or_else(|error| panic!("{}", printed(&error))).expose_secret().to_owned()
}

/// Seconds since 1970, this long after the clock's now.
pub fn unix(clock: &ManualClock, ahead: Duration) -> u64 {
    (clock.wall() + ahead).duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub fn command_error(error: &TokenError) -> &CommandError {
    chain(error).find_map(|error| error.downcast_ref()).expect("an error of the command")
}

pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// All that anybody could print of it.
pub fn printed(error: &(dyn Error + 'static)) -> String {
    chain(error).map(|error| format!("{error}: {error:?}\n")).collect()
}

/// Begins a script: it holds a pipe open, and so does another process that it starts and that never ends by itself.
pub const FAMILY: &str = "exec 3>\"$DIR/held\"; sleep 1000 & echo $$ >&3;";

/// Far more than any machine needs to start or end a process: a test must end, too.
const BOUND: Duration = Duration::from_secs(20);

/// Who holds the pipe `held` of a script.
pub struct Family(JoinHandle<(BufReader<File>, u32)>);

pub struct Running {
    pipe: BufReader<File>,
    pub leader: u32,
}

impl Family {
    pub fn of(script: &Script) -> Self {
        let path = script.pipe("held");
        Self(thread::spawn(move || {
            let mut pipe = BufReader::new(File::open(path).unwrap());
            let mut line = String::new();
            pipe.read_line(&mut line).unwrap();
            (pipe, line.trim().parse().unwrap())
        }))
    }

    /// Once all of them run. Blocks no runtime.
    pub async fn running(self) -> Running {
        let (pipe, leader) = tokio::task::spawn_blocking(|| self.0.join().unwrap()).await.unwrap();
        Running { pipe, leader }
    }
}

impl Running {
    /// Returns once none of them runs, and nothing is left of the one that was ours: not even its exit status.
    pub async fn gone(self) {
        tokio::task::spawn_blocking(|| self.wait_until_gone()).await.unwrap();
    }

    pub fn wait_until_gone(mut self) {
        let (ended, all_ended) = mpsc::channel();
        thread::spawn(move || ended.send(self.pipe.read_to_end(&mut Vec::new())));
        assert_eq!(all_ended.recv_timeout(BOUND).expect("one of them still runs").unwrap(), 0);
        let begin = Instant::now();
        while is_there(self.leader) {
            assert!(begin.elapsed() < BOUND, "nobody has waited for it");
        }
    }
}

impl Running {
    /// What the holders of the pipe wrote into it until the last of them was gone.
    pub async fn last_words(mut self) -> String {
        let (ended, all_ended) = mpsc::channel();
        thread::spawn(move || {
            let mut text = String::new();
            ended.send(self.pipe.read_to_string(&mut text).map(|_| text))
        });
        let words = move || all_ended.recv_timeout(BOUND).expect("one of them still runs").unwrap();
        tokio::task::spawn_blocking(words).await.unwrap()
    }
}

/// Also of one that has ended, and was not waited for.
pub fn is_there(process: u32) -> bool {
    signal("0", process)
}

pub fn signal(signal: &str, process: u32) -> bool {
    Command::new("kill").arg(format!("-{signal}")).arg(process.to_string()).output().unwrap().status.success()
}
