//! The workers as the fleet sees them: started, read, killed, started again.

use crate::issuer::Issuer;
use std::{
    io,
    ops::AddAssign,
    process::Stdio,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};
use tower_jwt_refresh::BoxError;

pub struct Workers {
    all: Vec<Slot>,
    issuer: Issuer,
    refresh_token: String,
    store: Option<String>,
    pub kills: u32,
}

struct Slot {
    child: Child,
    /// Of this one, and of those that were here before: what they said last may still be on its way.
    counts: Vec<Arc<Mutex<Counts>>>,
}

#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Answered otherwise than by 401.
    pub good: u64,
    pub unauthorized: u64,
    pub failed: u64,
    /// Tokens that it had.
    pub tokens: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.good += other.good;
        self.unauthorized += other.unauthorized;
        self.failed += other.failed;
        self.tokens += other.tokens;
    }
}

impl Workers {
    pub fn start(count: usize, issuer: &Issuer, store: Option<String>) -> Result<Self, BoxError> {
        let refresh_token = issuer.log_in();
        let mut workers = Self { all: Vec::new(), issuer: issuer.clone(), refresh_token, store, kills: 0 };
        for number in 0..count {
            let (child, counts) = workers.spawn(number)?;
            workers.all.push(Slot { child, counts: vec![counts] });
        }
        Ok(workers)
    }

    fn spawn(&self, number: usize) -> io::Result<(Child, Arc<Mutex<Counts>>)> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["worker", &number.to_string(), &self.issuer.url()])
            .args(&self.store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let counts = Arc::new(Mutex::new(Counts::default()));
        let mut input = child.stdin.take().expect("it is piped");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (told, login) = (Arc::clone(&counts), format!("{}\n", self.refresh_token));
        tokio::spawn(async move {
            // Held open: its end is the worker's.
            if input.write_all(login.as_bytes()).await.is_err() {
                return;
            }
            while let Ok(Some(line)) = lines.next_line().await {
                let mut numbers = line.split(' ').map_while(|word| word.parse().ok());
                let mut next = || numbers.next().unwrap_or(0);
                let counts = Counts { good: next(), unauthorized: next(), failed: next(), tokens: next() };
                *told.lock().expect("only counted under it") = counts;
            }
        });
        Ok((child, counts))
    }

    /// As `kill -9` does, and another in its place.
    pub fn kill(&mut self, number: usize) -> io::Result<()> {
        self.kills += 1;
        self.all[number].child.start_kill()?;
        let (child, counts) = self.spawn(number)?;
        self.all[number].child = child;
        self.all[number].counts.push(counts);
        Ok(())
    }

    /// # Errors
    /// One has ended that nobody killed.
    pub fn tend(&mut self) -> Result<(), BoxError> {
        for (number, slot) in self.all.iter_mut().enumerate() {
            if let Some(status) = slot.child.try_wait()? {
                return Err(format!("worker {number} ended by itself: {status}").into());
            }
        }
        Ok(())
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Of each, with those that were there before.
    pub fn each(&self) -> impl Iterator<Item = Counts> {
        self.all.iter().map(|slot| sum(slot.counts.iter().map(|counts| *counts.lock().expect("only counted under it"))))
    }

    pub fn sum(&self) -> Counts {
        sum(self.each())
    }
}

fn sum(all: impl Iterator<Item = Counts>) -> Counts {
    let mut sum = Counts::default();
    for counts in all {
        sum += counts;
    }
    sum
}
