//! Where this process is the parent of all orphans, as the first of a container is, no dead one of a run is left to it.
//!
//! One test in a file of its own: it changes the whole process.
#![cfg(target_os = "linux")]

#[path = "support/command.rs"]
mod script;

use rustix::process::{WaitId, WaitIdOptions, getpid, set_child_subreaper, waitid};
use script::{Script, command_error, provider};
use std::{process::Command, time::Duration};
use tower_jwt_refresh::source::CommandError;

// Scenario 72.
#[tokio::test]
async fn of_a_killed_group_no_orphan_is_left_and_no_child_of_others_is_waited_for() {
    set_child_subreaper(Some(getpid())).unwrap();
    let mut other = Command::new("true").spawn().unwrap();
    // A child, a grandchild, and one whose parent is dead already.
    let script = Script::new(
        r#"test -e "$DIR/again" && echo t && exit; sleep 1000 & (sleep 1000 & wait) & (sleep 1000 &); cat /dev/zero"#,
    );
    let (provider, clock) = provider(script.command());
    let error = provider.token().await.unwrap_err();
    assert!(matches!(command_error(&error), CommandError::TooLarge { .. }), "{error:?}");
    // It is run again when nothing of the first run is left.
    script.write("again", "");
    clock.advance(Duration::from_secs(2));
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t");
    assert!(other.wait().unwrap().success(), "it is still there to be waited for");
    let any = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    assert_eq!(waitid(WaitId::All, any).unwrap_err(), rustix::io::Errno::CHILD, "there is no child, alive or dead");
}
