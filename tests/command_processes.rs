//! Whatever becomes of a run, no process of it is left, and none holds it up.
#![cfg(unix)]

#[path = "support/command.rs"]
mod script;

use script::{FAMILY, Family, Script, command_error, is_there, once, printed, provider, secret, signal};
use std::{fs::File, io::Write, sync::Arc, time::Duration};
use tokio::{runtime::Builder, sync::Notify};
use tower::Service;
use tower_jwt_refresh::{BoxError, FetchError, Token, TokenError, TokenProvider, TokenRequest, source::CommandError};

/// A script that holds its pipe, and does this then.
fn family(then: &str) -> (Script, Family) {
    let script = Script::new(&format!("{FAMILY} {then}"));
    let family = Family::of(&script);
    (script, family)
}

// Scenario 63. The paused clock stands still while a thread waits for the program to be there, and then jumps to the limit.
#[tokio::test(start_paused = true)]
async fn a_program_that_hangs_is_killed_with_all_that_it_started() {
    let (script, family) = family("wait");
    let token = tokio::spawn(once(script.command()));
    let family = family.running().await;
    let error = token.await.unwrap().unwrap_err();
    let CommandError::TimedOut { after, .. } = command_error(&error) else { panic!("{error:?}") };
    assert_eq!(*after, Duration::from_secs(20));
    family.gone().await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_gives_up_kills_the_program() {
    let (script, family) = family("wait");
    let token = tokio::spawn(once(script.command().timeout(Duration::from_secs(600))));
    let family = family.running().await;
    let error = token.await.unwrap().unwrap_err();
    let TokenError::Unavailable { error, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*error, FetchError::TimedOut { .. }), "{error:?}");
    family.gone().await;
}

// Scenario 63.
#[tokio::test]
async fn a_program_that_prints_without_end_is_killed_with_all_that_it_started() {
    let (script, family) = family("cat /dev/zero");
    let error = once(script.command()).await.unwrap_err();
    assert!(matches!(command_error(&error), CommandError::TooLarge { limit: 1_048_576, .. }), "{error:?}");
    family.running().await.gone().await;
}

#[tokio::test]
async fn a_dropped_future_kills_the_program_and_all_that_it_started() {
    let (script, family) = family("wait");
    let (give_up, mut command) = (Arc::new(Notify::new()), script.command().build().unwrap());
    let given_up = Arc::clone(&give_up);
    // Any layer around the source may do so, tower's timeout for one.
    let source = tower::service_fn(move |request: TokenRequest| {
        let (run, given_up) = (command.call(request), Arc::clone(&given_up));
        async move {
            tokio::select! {
                token = run => token,
                () = given_up.notified() => Err::<Token, BoxError>("given up".into()),
            }
        }
    });
    let provider = TokenProvider::new(source);
    let token = tokio::spawn(async move { provider.token().await });
    let family = family.running().await;
    give_up.notify_one();
    assert!(printed(&token.await.unwrap().unwrap_err()).contains("given up"));
    family.gone().await;
}

// Scenario 41.
#[test]
fn a_runtime_that_goes_down_takes_the_program_with_it() {
    for threads in [0, 2] {
        let (script, family) = family("wait");
        let mut builder = if threads == 0 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
        let runtime = builder.enable_all().build().unwrap();
        let (provider, _) = provider(script.command());
        let waiting = provider.clone();
        runtime.spawn(async move { waiting.token().await });
        let family = runtime.block_on(family.running());
        assert!(is_there(family.leader));
        runtime.shutdown_background();
        // No runtime is left that could wait for it.
        family.wait_until_gone();
        assert!(provider.try_token().is_none());
    }
}

#[tokio::test]
async fn what_a_program_leaves_behind_neither_holds_up_its_token_nor_is_killed() {
    // It holds both pipes open, and says a word when it is asked.
    let script = Script::new(
        r#"exec 3>"$DIR/held"; echo $$ >&3; { read line <"$DIR/ask"; echo "$line" >&3; } & exec 3>&-; echo t"#,
    );
    let (ask, family) = (script.pipe("ask"), Family::of(&script));
    assert_eq!(secret(script.command()).await, "t");
    let agent = family.running().await;
    // For reading too, so that this waits for nobody: the agent may be dead.
    let mut ask = File::options().read(true).write(true).open(ask).unwrap();
    ask.write_all(b"alive\n").unwrap();
    assert_eq!(agent.last_words().await, "alive\n", "it was started on purpose");
}

#[tokio::test]
async fn what_a_program_writes_last_is_read_though_somebody_holds_the_pipe() {
    // More than a pipe holds, so that it is read while it is written.
    let script = Script::new(
        r#"sleep 1000 & echo $! >"$DIR/agent"; printf '{"pad":"%0300000d","token":"' 0; echo 't"}'; exit 0"#,
    );
    for _ in 0..20 {
        assert_eq!(secret(script.command()).await, "t");
        signal("KILL", script.read("agent").trim().parse().unwrap());
    }
}

#[tokio::test]
async fn a_flood_on_stderr_neither_blocks_the_program_nor_is_kept() {
    let script =
        Script::new("head -c 20000000 /dev/zero | tr '\\0' x >&2; printf '\nthe end\n' >&2; echo t; exit $FAIL");
    assert_eq!(secret(script.command().env("FAIL", "0")).await, "t");
    let error = once(script.command().env("FAIL", "1")).await.unwrap_err();
    let CommandError::Failed { stderr, code: 1, .. } = command_error(&error) else { panic!("{error:?}") };
    assert_eq!(stderr, "the end");
}

// Scenario 72.
#[tokio::test]
async fn programs_that_ended_leave_nothing_to_wait_for() {
    let script = Script::new(r#"echo $$ >>"$DIR/pids"; test "$FAIL" || echo t"#);
    for _ in 0..10 {
        once(script.command()).await.unwrap();
        once(script.command().env("FAIL", "1")).await.unwrap_err();
    }
    let pids = script.read("pids");
    assert_eq!(pids.lines().filter(|pid| !is_there(pid.parse().unwrap())).count(), 20);
}
