//! A program prints a token: how it is run, what it is told, how often.
#![cfg(unix)]

#[path = "support/command.rs"]
mod script;
mod support;

use futures_util::future::join_all;
use http::header::WWW_AUTHENTICATE;
use script::{Script, command_error, once, printed, provider, secret, unix, until};
use std::time::{Duration, UNIX_EPOCH};
use support::{Api, HOUR, MINUTE, SECOND, answer, get};
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{
    FetchError, JwtRefreshLayer, TokenError, TokenStatus,
    clock::{Clock, ManualClock},
    source::{CommandError, TokenCommand},
};

const URI: &str = "https://api.example.com/jobs/1";

// Scenario 63.
#[tokio::test]
async fn what_a_program_prints_is_the_token() {
    assert_eq!(secret(TokenCommand::program("echo").arg("t1")).await, "t1");
    assert_eq!(secret(Script::new(r#"printf '{"accessToken": "t2"}'"#).command()).await, "t2");
}

#[tokio::test]
async fn arguments_and_variables_arrive_as_they_are_and_nothing_can_be_read_from_stdin() {
    let odd = [r#"$(touch "$DIR/harm"); 'a "b"#, "", "*", "--x=\n;"];
    let script = Script::new(r#"printf '<%s>' "$@" "$ODD" >"$DIR/seen"; cat >"$DIR/stdin"; echo t"#);
    assert_eq!(secret(script.command().args(odd).env("ODD", "`y` $z")).await, "t");
    assert_eq!(script.read("seen"), format!("<{}><{}><{}><{}><`y` $z>", odd[0], odd[1], odd[2], odd[3]));
    assert!(script.read("stdin").is_empty() && !script.path("harm").exists());
}

#[tokio::test]
async fn token_and_end_are_read_where_they_were_said_to_be() {
    let script = Script::new(r#"echo '{"token":"no","data":{"key":"t"},"for":60,"until":4000000000}'"#);
    let command = || script.command().token_at("/data/key");
    let end = async |command| {
        let (provider, clock) = provider(command);
        let token = provider.token().await.unwrap();
        assert_eq!(token.expose_secret(), "t");
        token.expires_at().map(|at| at.duration_since(clock.wall()).unwrap())
    };
    assert_eq!(end(command()).await, None);
    assert_eq!(end(command().lifetime_at("/for")).await, Some(MINUTE));
    let until = once(command().expiry_at("/data/until")).await.unwrap();
    assert_eq!(until.expires_at(), None, "there is nothing");
    let script = Script::new(r#"echo "{\"token\":\"t\",\"until\":$UNTIL}""#);
    let until = unix(&ManualClock::new(), HOUR);
    let token = once(script.command().expiry_at("/until").env("UNTIL", until.to_string())).await.unwrap();
    assert_eq!(token.expires_at(), Some(UNIX_EPOCH + Duration::from_secs(until)));
}

#[tokio::test]
async fn a_servers_challenge_never_reaches_the_program() {
    let script = Script::new(r#"{ env; printf '%s\n' "$@"; cat; } >>"$DIR/seen"; echo "t$(($(wc -l <"$DIR/runs")))""#);
    let (provider, clock) = provider(script.command());
    let old = provider.token().await.unwrap().expose_secret().to_owned();
    clock.advance(MINUTE);
    let api = Api::new();
    api.revoke(&old);
    api.refuse_with(|| {
        let mut refused = answer(401, "refused");
        refused.headers_mut().append(WWW_AUTHENTICATE, r#"Bearer claims="h4rm $(id)""#.parse().unwrap());
        refused
    });
    let response = JwtRefreshLayer::new(provider).layer(api.clone()).oneshot(get(URI)).await.unwrap();
    assert_eq!((response.status().as_u16(), script.runs()), (200, 2));
    let seen = script.read("seen");
    assert!(seen.contains("DIR=") && !seen.contains("h4rm"), "{seen}");
    assert!(!seen.contains(&old), "nor does the old token");
}

#[tokio::test]
async fn a_kubernetes_plugin_is_told_what_is_expected_of_it() {
    let script = Script::new(
        r#"case "$KUBERNETES_EXEC_INFO" in
        '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":false}}')
            echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"k8s"}}';;
        *) exit 3;;
        esac"#,
    );
    assert_eq!(secret(script.command().exec_credential()).await, "k8s");
    let error = once(script.command()).await.unwrap_err();
    assert!(matches!(command_error(&error), CommandError::Failed { code: 3, .. }), "{error:?}");
}

// Azure/azure-sdk-for-rust#1228.
#[tokio::test]
async fn a_program_runs_once_in_the_life_of_a_token_whoever_asks() {
    let script = Script::new(r#"cat "$DIR/json""#);
    let (provider, clock) = provider(script.command());
    let print = |token: &str, expires_on: u64| {
        script.write("json", &format!(r#"{{"accessToken":"{token}","expires_on":{expires_on}}}"#));
    };
    print("t1", unix(&clock, HOUR));
    for token in join_all((0..100).map(|_| provider.token())).await {
        assert_eq!(token.unwrap().expose_secret(), "t1");
    }
    for _ in 0..54 {
        clock.advance(MINUTE);
        assert_eq!(provider.token().await.unwrap().expose_secret(), "t1");
    }
    assert_eq!(script.runs(), 1);
    clock.advance(6 * MINUTE);
    print("t2", unix(&clock, HOUR));
    for token in join_all((0..100).map(|_| provider.token())).await {
        assert_eq!(token.unwrap().expose_secret(), "t2");
    }
    assert_eq!(script.runs(), 2);
}

// Azure/azure-sdk-for-rust#1176; kubernetes/kubernetes#106768.
#[tokio::test]
async fn a_token_that_is_born_expired_is_used_and_the_program_is_not_run_in_a_loop() {
    let script = Script::new(r#"cat "$DIR/json""#);
    script.write(
        "json",
        r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"t1","expirationTimestamp":"2020-01-01T00:00:00Z"}}"#,
    );
    let (provider, clock) = provider(script.command());
    let api = Api::new();
    let client = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
    for _ in 0..100 {
        assert_eq!(client.clone().oneshot(get(URI)).await.unwrap().status(), 200);
        clock.advance(Duration::from_millis(1));
    }
    assert_eq!((script.runs(), api.tokens().len()), (1, 100));
}

#[tokio::test]
async fn a_token_without_an_end_is_asked_for_again_when_the_hint_says_so() {
    let script = Script::new(r#"echo "t$(($(wc -l <"$DIR/runs")))""#);
    let (provider, clock) = provider(script.command().refresh_after(HOUR));
    provider.token().await.unwrap();
    clock.advance(50 * MINUTE);
    provider.token().await.unwrap();
    assert_eq!(script.runs(), 1);
    clock.advance(11 * MINUTE);
    // The one that is held is sent, and a run begins beside it.
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t1");
    until(|| provider.current().unwrap().expose_secret() == "t2").await;
    assert_eq!(script.runs(), 2);
}

// Scenario 65.
#[tokio::test]
async fn a_program_that_says_that_somebody_must_act_is_run_seldom_and_a_repair_is_noticed() {
    let script = Script::new(r#"test -e "$DIR/login" && echo t || { echo 'run: cloud login' >&2; exit 77; }"#);
    let (provider, clock) = provider(script.command().permanent_exit_codes([77, 78]));
    let error = provider.token().await.unwrap_err();
    assert!(matches!(error, TokenError::NeedsCredential { .. }), "{error:?}");
    assert!(printed(&error).contains("run: cloud login"));
    assert!(matches!(*provider.subscribe().borrow(), TokenStatus::NeedsCredential { .. }));
    for _ in 0..59 {
        clock.advance(SECOND);
        provider.token().await.unwrap_err();
    }
    assert_eq!(script.runs(), 1);
    script.write("login", "");
    clock.advance(2 * SECOND);
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t");
    assert_eq!(script.runs(), 2);
}

// Scenario 65.
#[tokio::test]
async fn oauths_refusal_printed_in_the_place_of_a_token_is_permanent_and_other_failures_are_not() {
    let permanent = |error: &TokenError| matches!(error, TokenError::NeedsCredential { .. });
    let refused = Script::new(r#"echo '{"error":"invalid_grant"}'"#);
    assert!(permanent(&once(refused.command()).await.unwrap_err()));
    let busy = Script::new(r#"echo '{"error":"temporarily_unavailable"}'"#);
    assert!(!permanent(&once(busy.command()).await.unwrap_err()));
    let failed = Script::new("exit 77");
    assert!(!permanent(&once(failed.command()).await.unwrap_err()));
    assert!(!permanent(&once(TokenCommand::program("/nowhere/cloud")).await.unwrap_err()));
}

// Scenario 104.
#[tokio::test(flavor = "current_thread")]
async fn a_timer_fires_while_the_program_blocks() {
    let script = Script::new(r#"read line <"$DIR/gate"; echo "$line""#);
    let gate = script.pipe("gate");
    let (provider, _) = provider(script.command());
    let token = tokio::spawn(async move { provider.token().await });
    until(|| script.runs() == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!token.is_finished());
    tokio::task::spawn_blocking(|| std::fs::write(gate, "t\n")).await.unwrap().unwrap();
    assert_eq!(token.await.unwrap().unwrap().expose_secret(), "t");
}

#[test]
fn in_a_runtime_without_io_no_program_is_run_and_the_error_is_no_panic_of_the_caller() {
    let script = Script::new("cat");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let error = runtime.block_on(once(script.command())).unwrap_err();
    assert!(script::chain(&error).any(|error| matches!(error.downcast_ref(), Some(FetchError::Panicked))), "{error:?}");
    assert_eq!(script.runs(), 0);
}
