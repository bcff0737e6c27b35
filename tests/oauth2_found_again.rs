//! The token endpoint that an issuer named is kept, and looked for anew when it seems to have moved.

#[path = "support/oauth2.rs"]
mod oauth2;
#[path = "support/exchange.rs"]
mod server;
mod support;

use oauth2::{Asked, asked, issuer, judging, metadata, provider};
use server::{Server, Step, answer, exchange_error, is_permanent, ok};
use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use support::{HOUR, Logs, SECOND};
use tokio::{runtime::Runtime, sync::Semaphore};
use tower::{Service, ServiceExt, layer::layer_fn, service_fn};
use tower_jwt_refresh::source::{
    EndpointClient, EndpointError,
    oauth2::{ClientAuth, OAuth2, OAuth2Builder, TokenEndpoint},
};

const RFC_8414: &str = "/.well-known/oauth-authorization-server/tenant";

fn token(_: &Asked) -> Vec<Step> {
    ok(r#"{"access_token":"t","expires_in":60}"#)
}

fn discovering(server: &Server) -> OAuth2Builder {
    OAuth2::client_credentials(TokenEndpoint::discover(issuer(server)), ClientAuth::basic("id", "durable-s3cr3t"))
}

fn paths(server: &Server) -> Vec<String> {
    asked(server).iter().map(|asked| asked.path().to_owned()).collect()
}

/// A server whose token endpoint moves from `/1` to `/2` and so on each time `moves` is raised, and then is no longer where it was.
async fn moving(gone: &'static str) -> (Server, Arc<AtomicUsize>) {
    let moves = Arc::new(AtomicUsize::new(1));
    let at = Arc::clone(&moves);
    let server = judging(move |asked| {
        let at = at.load(Ordering::SeqCst);
        let origin = asked.origin();
        match asked.path() {
            RFC_8414 => ok(&format!(r#"{{"issuer":"{origin}/tenant","token_endpoint":"{origin}/{at}"}}"#)),
            path if path == format!("/{at}") => token(asked),
            _ => answer(gone, "", ""),
        }
    })
    .await;
    (server, moves)
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_looked_for_anew() {
    for gone in ["404 Not Found", "410 Gone"] {
        let (server, moves) = moving(gone).await;
        let (provider, clock) = provider(discovering(&server));
        provider.token().await.unwrap();
        moves.fetch_add(1, Ordering::SeqCst);
        clock.advance(HOUR);
        assert!(!is_permanent(&provider.token().await.unwrap_err()));
        clock.advance(HOUR);
        provider.token().await.unwrap();
        assert_eq!(paths(&server), [RFC_8414, "/1", "/1", RFC_8414, "/2"]);
    }
}

#[tokio::test]
async fn an_endpoint_that_only_fails_is_not_looked_for() {
    let (server, moves) = moving("500 Internal Server Error").await;
    let (provider, clock) = provider(discovering(&server));
    provider.token().await.unwrap();
    moves.fetch_add(1, Ordering::SeqCst);
    for _ in 0..2 {
        clock.advance(HOUR);
        provider.token().await.unwrap_err();
    }
    assert_eq!(paths(&server), [RFC_8414, "/1", "/1", "/1"]);
}

#[tokio::test]
async fn an_endpoint_without_a_connection_is_looked_for_anew() {
    let nobody = server::nobody().await;
    let found = AtomicUsize::new(0);
    let server = judging(move |asked| match asked.path() {
        RFC_8414 if found.fetch_add(1, Ordering::SeqCst) == 0 => {
            ok(&format!(r#"{{"issuer":"{}/tenant","token_endpoint":"{nobody}"}}"#, asked.origin()))
        }
        RFC_8414 => ok(&metadata(asked, "")),
        _ => token(asked),
    })
    .await;
    let (provider, clock) = provider(discovering(&server));
    let error = provider.token().await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Connect { .. }), "{error:?}");
    clock.advance(HOUR);
    provider.token().await.unwrap();
    assert_eq!(paths(&server), [RFC_8414, RFC_8414, "/token"]);
}

/// Metadata that is found once, then never again.
async fn forgetful() -> Server {
    let found = AtomicUsize::new(0);
    judging(move |asked| match asked.path() {
        RFC_8414 if found.fetch_add(1, Ordering::SeqCst) == 0 => ok(&metadata(asked, "")),
        "/token" => token(asked),
        _ => answer("503 Service Unavailable", "", ""),
    })
    .await
}

#[tokio::test]
async fn what_was_found_is_kept_for_a_day_and_longer_where_asking_anew_fails() {
    let server = forgetful().await;
    let (provider, clock) = provider(discovering(&server));
    let day = Duration::from_secs(24 * 3600);
    for (span, asked) in [(Duration::ZERO, 1), (day - SECOND * 10, 1), (SECOND * 11, 2), (SECOND, 3)] {
        // Nothing waits for a socket while tokio's clock is moved by hand.
        tokio::time::pause();
        tokio::time::advance(span).await;
        tokio::time::resume();
        clock.advance(HOUR);
        assert_eq!(provider.token().await.unwrap().expose_secret(), "t");
        assert_eq!(paths(&server).iter().filter(|path| *path == RFC_8414).count(), asked, "after {span:?} more");
    }
}

// What is known was checked when it was found: an issuer that is another one today takes it from nobody.
#[tokio::test]
async fn what_is_known_serves_on_where_the_issuer_turns_out_to_be_wrong_and_that_is_said() {
    for wrong in [r#"{"issuer":"https://other.example.com"}"#, r#"{"issuer":"…/tenant"}"#] {
        let (logs, _listening) = Logs::listen();
        let found = AtomicUsize::new(0);
        let server = judging(move |asked| match asked.path() {
            RFC_8414 if found.fetch_add(1, Ordering::SeqCst) == 0 => ok(&metadata(asked, "")),
            "/token" => token(asked),
            _ => ok(&wrong.replace('…', &asked.origin())),
        })
        .await;
        let (provider, clock) = provider(discovering(&server));
        provider.token().await.unwrap();
        tokio::time::pause();
        tokio::time::advance(HOUR * 25).await;
        tokio::time::resume();
        clock.advance(HOUR);
        provider.token().await.unwrap();
        let said = logs.warnings();
        assert!(said.iter().any(|line| line.contains("/tenant") && line.contains("metadata")), "{said:?}");
    }
}

#[tokio::test]
async fn an_issuer_that_hangs_leaves_time_for_the_endpoint_that_is_known() {
    let found = AtomicUsize::new(0);
    let server = judging(move |asked| match asked.path() {
        RFC_8414 if found.fetch_add(1, Ordering::SeqCst) == 0 => ok(&metadata(asked, "")),
        RFC_8414 => vec![Step::Hang],
        _ => token(asked),
    })
    .await;
    let (provider, clock) = provider(discovering(&server).timeout(SECOND));
    provider.token().await.unwrap();
    tokio::time::pause();
    tokio::time::advance(HOUR * 25).await;
    tokio::time::resume();
    clock.advance(HOUR);
    provider.token().await.unwrap();
    assert_eq!(paths(&server), [RFC_8414, "/token", RFC_8414, "/token"]);
}

/// The source's first request for metadata, after those that are let through, is never answered, and its runtime never runs again.
async fn freeze(source: &OAuth2, frozen_at: Arc<Semaphore>) -> Runtime {
    let (mut source, request) = (source.clone(), oauth2::request().await);
    let freeze = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.spawn(source.call(request));
        runtime.block_on(frozen_at.acquire()).unwrap().forget();
        runtime
    };
    std::thread::spawn(freeze).join().unwrap()
}

/// Never answers the `n`-th request, from 0, and gives a permit when it comes.
fn freezing(source: OAuth2Builder, n: usize) -> (OAuth2, Arc<Semaphore>) {
    let frozen_at = Arc::new(Semaphore::new(0));
    let (there, count) = (Arc::clone(&frozen_at), Arc::new(AtomicUsize::new(0)));
    let layer = layer_fn(move |client: EndpointClient| {
        let (there, count) = (Arc::clone(&there), Arc::clone(&count));
        service_fn(move |request| {
            let answer = client.clone().oneshot(request);
            let frozen = count.fetch_add(1, Ordering::SeqCst) == n;
            if frozen {
                there.add_permits(1);
            }
            async move { if frozen { pending().await } else { answer.await } }
        })
    });
    (source.layer(layer).build().unwrap(), frozen_at)
}

// A runtime that is not driven while it asks keeps the endpoint from nobody.
#[tokio::test]
async fn who_is_frozen_while_it_asks_the_issuer_does_not_keep_others_from_asking() {
    let server = oauth2::with_metadata(token).await;
    let (source, frozen_at) = freezing(discovering(&server).timeout(SECOND), 0);
    let frozen = freeze(&source, frozen_at).await;
    let (provider, clock) = oauth2::provider_of(source);
    for _ in 0..2 {
        provider.token().await.unwrap();
        clock.advance(HOUR);
    }
    assert_eq!(paths(&server), [RFC_8414, "/token", "/token"]);
    frozen.shutdown_background();
}

#[tokio::test]
async fn who_is_frozen_while_it_asks_anew_does_not_keep_others_from_what_is_known() {
    let (server, moves) = moving("404 Not Found").await;
    let (source, frozen_at) = freezing(discovering(&server).timeout(SECOND), 3);
    let (provider, clock) = oauth2::provider_of(source.clone());
    provider.token().await.unwrap();
    moves.fetch_add(1, Ordering::SeqCst);
    clock.advance(HOUR);
    provider.token().await.unwrap_err();
    let frozen = freeze(&source, frozen_at).await;
    clock.advance(HOUR);
    provider.token().await.unwrap();
    assert_eq!(paths(&server), [RFC_8414, "/1", "/1", RFC_8414, "/2"]);
    frozen.shutdown_background();
}
