//! A session that slides (the very same bytes, with a longer life at each fetch), and one thing that is forbidden to it: the refusal is
//! that caller's, and the session lives on for all others.

mod support;

use http::StatusCode;
use std::time::Duration;
use support::{Api, Endpoint, HOUR, Logs, MINUTE, Reply, SECOND, get, pass, provider};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{
    JwtRefreshLayer, Token, TokenProvider,
    clock::{Clock, ManualClock},
};

const OK: StatusCode = StatusCode::OK;
const REFUSED: StatusCode = StatusCode::UNAUTHORIZED;

fn session() -> Token {
    Token::opaque("session").unwrap()
}

async fn status(provider: &TokenProvider, api: &Api, path: &str) -> StatusCode {
    let client = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
    client.oneshot(get(&format!("https://api.example.com{path}"))).await.unwrap().status()
}

/// A session that was refused for `/admin` when it was a minute old, and is taken for all else.
async fn refused(endpoint: &Endpoint, looped: bool) -> (TokenProvider, Api, ManualClock) {
    let ((provider, clock), api) = (provider(endpoint), Api::new());
    if looped {
        provider.init().await.unwrap();
    } else {
        assert_eq!(status(&provider, &api, "/good").await, OK);
    }
    pass(MINUTE).await;
    api.forbid("/admin");
    api.forget_seen();
    assert_eq!(status(&provider, &api, "/admin").await, REFUSED);
    assert_eq!(api.tokens(), ["session"], "the same bytes are no successor: nothing is resent");
    assert_eq!(endpoint.fetches(), 2);
    (provider, api, clock)
}

/// A request each minute for so long, all of them answered.
async fn goes_on(provider: &TokenProvider, api: &Api, span: Duration) {
    let start = Instant::now();
    while start.elapsed() < span {
        let before = Instant::now();
        assert_eq!(status(provider, api, "/good").await, OK, "{:?}", start.elapsed());
        assert_eq!(before.elapsed(), Duration::ZERO);
        pass(MINUTE).await;
    }
}

// Scenario 131; scenario 69 between.
#[tokio::test(start_paused = true)]
async fn a_sliding_session_outlives_one_401_for_a_forbidden_thing() {
    for looped in [true, false] {
        let (logs, _guard) = Logs::listen();
        let endpoint = Endpoint::new(Reply::This(session().with_expires_in(HOUR)));
        let (provider, api, clock) = refused(&endpoint, looped).await;
        let first = provider.current().unwrap();
        assert_eq!(first.expires_at(), Some(clock.wall() + HOUR), "its longer life counts at once");
        goes_on(&provider, &api, 6 * HOUR).await;
        let last = provider.current().unwrap();
        assert_eq!(last.generation(), first.generation());
        assert!(last.expires_at().unwrap() > clock.wall() + 50 * MINUTE);
        // The waits after a failure grow to half a minute at least.
        assert!(endpoint.fetches() <= 8 + 6 * 3600 / 30, "{}", endpoint.fetches());
        assert!(endpoint.gaps().iter().all(|gap| *gap >= SECOND));
        assert_eq!(logs.warnings().len(), 1, "{:#?}", logs.warnings());
        // And once it is really revoked, the next token heals all.
        api.revoke("session");
        endpoint.usually(Reply::New(HOUR));
        pass(MINUTE).await;
        assert_eq!(status(&provider, &api, "/good").await, OK);
        assert_eq!(api.tokens().last().unwrap(), "t1");
    }
}

// The same, asked for so seldom that it is over each time.
#[tokio::test(start_paused = true)]
async fn a_refused_session_that_ended_meanwhile_goes_on_when_the_source_prolongs_it() {
    let endpoint = Endpoint::new(Reply::This(session().with_expires_in(HOUR)));
    let (provider, api, clock) = refused(&endpoint, false).await;
    for _ in 0..10 {
        pass(3 * HOUR).await;
        assert_eq!(status(&provider, &api, "/good").await, OK);
        assert_eq!(provider.current().unwrap().expires_at(), Some(clock.wall() + HOUR));
    }
    // By the wall clock too.
    pass(MINUTE).await;
    clock.jump_wall_ahead(2 * HOUR);
    assert_eq!(status(&provider, &api, "/good").await, OK);
    assert_eq!(endpoint.fetches(), 2 + 11);
}

// A storm leaves the last token unmarked: the others go on sending it.
#[tokio::test(start_paused = true)]
async fn a_sliding_session_outlives_a_storm() {
    let endpoint = Endpoint::new(Reply::This(session().with_expires_in(HOUR)));
    endpoint.next(Reply::New(HOUR));
    let ((provider, clock), api) = (provider(&endpoint), Api::new());
    provider.init().await.unwrap();
    api.refuse_all(true);
    assert_eq!(status(&provider, &api, "/good").await, REFUSED);
    assert_eq!(api.tokens(), ["t1", "session"]);
    for _ in 0..10 {
        assert_eq!(status(&provider, &api, "/good").await, REFUSED);
        pass(SECOND).await;
    }
    api.refuse_all(false);
    let before = endpoint.fetches();
    goes_on(&provider, &api, 24 * HOUR).await;
    assert!(provider.current().unwrap().expires_at().unwrap() > clock.wall() + MINUTE);
    assert!(endpoint.fetches() - before <= 27, "on schedule: {}", endpoint.fetches() - before);
}

// Scenario 132, of a token that was refused.
#[tokio::test(start_paused = true)]
async fn a_refused_token_that_ended_is_still_the_servers_to_judge_if_the_source_has_no_other() {
    for (looped, suspended) in [(true, false), (false, false), (true, true), (false, true)] {
        let (logs, _guard) = Logs::listen();
        let end = ManualClock::following_tokio().wall() + HOUR;
        let endpoint = Endpoint::new(Reply::This(session().with_expires_at(end)));
        let (provider, api, clock) = refused(&endpoint, looped).await;
        let generation = provider.current().unwrap().generation();
        assert_eq!(provider.current().unwrap().expires_at(), Some(end));
        if suspended {
            clock.jump_wall_ahead(2 * HOUR);
            // The wait after the failure binds all.
            pass(MINUTE).await;
        } else {
            goes_on(&provider, &api, HOUR - MINUTE).await;
            pass(MINUTE).await;
        }
        let before = endpoint.fetches();
        goes_on(&provider, &api, 6 * HOUR).await;
        let held = provider.current().unwrap();
        assert_eq!((held.generation(), held.expires_at()), (generation, None));
        assert!(endpoint.fetches() - before <= 8 + 6 * 3600 / 30, "{}", endpoint.fetches() - before);
        assert!(endpoint.gaps().iter().all(|gap| *gap >= SECOND));
        assert_eq!(logs.warnings().len(), 1, "{:#?}", logs.warnings());
        assert_eq!(api.tokens().len(), 1 + if suspended { 360 } else { 59 + 360 }, "each is sent once");
        endpoint.usually(Reply::New(HOUR));
        pass(MINUTE).await;
        assert_eq!(status(&provider, &api, "/good").await, OK);
        assert_eq!(api.tokens().last().unwrap(), "t1", "a successor is taken as soon as there is one");
    }
}

// A storm, then a source that has nothing else: nobody rejects it any more, so the schedule alone looks for a successor.
#[tokio::test(start_paused = true)]
async fn a_token_of_a_storm_that_ended_is_sent_and_asked_for_anew() {
    let endpoint = Endpoint::hourly();
    let ((provider, _), api) = (provider(&endpoint), Api::new());
    provider.init().await.unwrap();
    api.refuse_all(true);
    for _ in 0..10 {
        assert_eq!(status(&provider, &api, "/good").await, REFUSED);
        pass(SECOND).await;
    }
    api.refuse_all(false);
    let held = provider.current().unwrap();
    endpoint.usually(Reply::This(held.clone()));
    let start = Instant::now();
    while start.elapsed() < 6 * HOUR {
        if start.elapsed() < HOUR - MINUTE || start.elapsed() > HOUR {
            assert_eq!(status(&provider, &api, "/good").await, OK, "{:?}", start.elapsed());
        }
        pass(MINUTE).await;
    }
    assert_eq!(provider.current().unwrap().expires_at(), None);
    assert_eq!(provider.current().unwrap().generation(), held.generation());
    endpoint.usually(Reply::New(HOUR));
    pass(MINUTE + SECOND).await;
    assert_ne!(provider.current().unwrap().generation(), held.generation());
}
