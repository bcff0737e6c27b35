//! Real processes that share a store: the test binary once more, with one test of it, which is named `process` and ignored.

#![allow(unreachable_pub, reason = "a module of each test file")]

use std::{
    env,
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

/// In what a process says, told apart from what the test's runner prints.
const WORD: &str = "process: ";

/// One of the processes.
pub struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// With these in its environment.
    pub fn start(variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "process", "--ignored", "--nocapture"])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next that it says; none once it has ended.
    pub fn says(&mut self) -> Option<String> {
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        // The runner may have written the start of the line.
        lines.find_map(|line| line.split_once(WORD).map(|(_, said)| said.to_owned()))
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn ends_well(mut self) {
        while self.says().is_some() {}
        assert!(self.child.wait().unwrap().success());
    }
}

/// In a process: what it tells the test that started it.
pub fn say(word: &str) {
    println!("{WORD}{word}");
    std::io::stdout().flush().unwrap();
}

/// In a process: gone with the test that started it, however that ends.
pub fn end_with_the_test() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::abort();
    });
}
