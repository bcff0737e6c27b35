//! Whatever a program does: a clear error, and no secret in it or in the log.
//!
//! One test in a file of its own: a thread without a subscriber would switch off the log's call sites for all.
#![cfg(unix)]

#[path = "support/command.rs"]
mod script;
mod support;

use script::{Script, once, printed};
use std::{fs, os::unix::fs::PermissionsExt};
use support::Logs;
use tower_jwt_refresh::source::{TokenCommand, TokenCommandBuilder};

/// What the program does, and what the error says. Whatever it prints holds a secret.
const FAILURES: [(&str, &str); 16] = [
    ("", "its stdout is empty"),
    ("printf '\\n \\n'", "its stdout is empty"),
    ("echo 'not logged in, s3cr3t'", "it printed 4 words"),
    ("echo null", "it printed `null`"),
    ("printf '\\377\\376s3cr3t'", "its stdout is not UTF-8"),
    ("echo '{\"token\": \"s3cr3t'", "begins like JSON, and is none"),
    ("echo '{\"secret\": \"s3cr3t\"}'", "no token at `jwt`, `access_token`, "),
    ("echo '{\"token\": [\"s3cr3t\"]}'", "something else than a string"),
    ("echo 's3cr3t\u{fc}'", "what it printed has no usable token"),
    ("exit 1", "failed with exit code 1, and wrote nothing to its stderr"),
    (
        "echo 'ERROR: run `cloud login` (token=s3cr3t)' >&2; exit 3",
        "failed with exit code 3, and wrote to its stderr: ERROR: run `cloud login` (token=[cut]",
    ),
    ("echo s3cr3t; echo 'got s3cr3t, gave up' >&2; exit 1", "and wrote to its stderr: got [cut], gave up"),
    ("echo \"key $KEY $ID is wrong\" >&2; exit 1", "and wrote to its stderr: key [cut] [cut] is wrong"),
    ("printf '\\033[31mtoken:\\r\\n\\033[0ms3cr3t\\n' >&2", "and wrote to its stderr: token: | [cut]"),
    ("echo 'Authorization: Bearer s3cr3t' >&2; kill -9 $$", "was killed by signal 9, and wrote to its stderr: Auth"),
    ("kill -TERM $$", "was killed by signal 15, and wrote nothing"),
];

/// What does not even start.
fn not_started(script: &Script) -> Vec<(TokenCommandBuilder, &'static str)> {
    script.write("file", "echo s3cr3t");
    script.write("bad", "#!/nowhere/s3cr3t\n");
    fs::set_permissions(script.path("bad"), fs::Permissions::from_mode(0o755)).unwrap();
    vec![
        (TokenCommand::program("no-such-program-anywhere"), "there is no such program"),
        (TokenCommand::program(script.path("file")), "this user may not execute it"),
        (TokenCommand::program(script.path("bad")), "the interpreter in its first line"),
    ]
}

// Scenarios 63, 61 and 73.
#[tokio::test]
async fn every_failure_is_a_clear_error_that_holds_no_secret_nor_does_the_log() {
    let (logs, _guard) = Logs::listen();
    let other = Script::new("");
    let mut failures = not_started(&other);
    let scripts: Vec<_> = FAILURES.iter().map(|(text, says)| (Script::new(text), *says)).collect();
    for (script, says) in &scripts {
        // One is long, the other has a name that says what it is.
        let command = script.command().env("KEY", "dur-s3cr3t").env("ID", "a durable s3cr3t");
        failures.push((command.arg("--password=s3cr3t"), says));
    }
    for (command, says) in failures {
        let text = printed(&once(command).await.unwrap_err());
        assert!(text.contains(says), "{says} not in {text}");
        assert!(!text.contains("s3cr3t") && !text.contains('\u{1b}'), "{text}");
    }
    assert!(scripts.iter().all(|(script, _)| script.runs() == 1), "no retry inside a flight");
    assert!(logs.text().contains("flight over"), "the log was on");
    assert!(!logs.text().contains("s3cr3t"), "{}", logs.text());
}
