//! A thing that is forbidden for ever: the server answers 401 for it whatever the token.

mod support;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use std::time::Duration;
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, get, pass, provider};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, TokenProvider};

const GOOD: &str = "https://api.example.com/good";
const FORBIDDEN: &str = "https://api.example.com/forbidden";
const DAY: Duration = HOUR.saturating_mul(24);

async fn send(provider: &TokenProvider, api: &Api, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
    JwtRefreshLayer::new(provider.clone()).layer(api.clone()).oneshot(request).await.unwrap()
}

async fn status(provider: &TokenProvider, api: &Api, uri: &str) -> StatusCode {
    send(provider, api, get(uri)).await.status()
}

/// A provider whose token is a minute old, and an API that forbids one path.
async fn forbidding(endpoint: &Endpoint) -> (TokenProvider, Api) {
    let (provider, _) = provider(endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    let api = Api::new();
    api.forbid("/forbidden");
    (provider, api)
}

// Scenario 76.
#[tokio::test(start_paused = true)]
async fn a_forbidden_thing_costs_one_refresh_and_then_its_401s_pass_through() {
    let endpoint = Endpoint::new(Reply::New(DAY)).taking(SECOND);
    let (provider, api) = forbidding(&endpoint).await;
    assert_eq!(status(&provider, &api, FORBIDDEN).await, StatusCode::UNAUTHORIZED);
    assert_eq!((endpoint.fetches(), api.tokens()), (2, vec!["t1".to_owned(), "t2".to_owned()]));
    for _ in 0..11 {
        let sent = Instant::now();
        assert_eq!(status(&provider, &api, GOOD).await, StatusCode::OK);
        assert_eq!(status(&provider, &api, FORBIDDEN).await, StatusCode::UNAUTHORIZED);
        assert_eq!(sent.elapsed(), Duration::ZERO, "nobody waits");
        pass(5 * SECOND).await;
    }
    assert_eq!(endpoint.fetches(), 2, "inside its minute nothing is fetched for it");
    assert_eq!(api.tokens().iter().filter(|token| *token == "t2").count(), 23, "and nothing is sent twice");
}

/// What a day costs: the fetches, and the requests for other things that had to wait. Something forbidden is polled every 61 s if `poll`.
async fn a_day(life: Duration, poll: bool) -> (usize, usize) {
    let endpoint = Endpoint::new(Reply::New(life)).taking(SECOND);
    let (provider, api) = forbidding(&endpoint).await;
    let end = Instant::now() + DAY;
    let mut waited = 0;
    while Instant::now() < end {
        let forbidden = async {
            if poll {
                assert_eq!(status(&provider, &api, FORBIDDEN).await, StatusCode::UNAUTHORIZED);
            }
        };
        // One in the middle of the fetch, if there is one, and one as evidence.
        let good = async {
            for pause in [SECOND / 2, 59 * SECOND] {
                pass(pause).await;
                let sent = Instant::now();
                assert_eq!(status(&provider, &api, GOOD).await, StatusCode::OK);
                waited += usize::from(!sent.elapsed().is_zero());
            }
            pass(SECOND + SECOND / 2).await;
        };
        tokio::join!(forbidden, good);
    }
    (endpoint.fetches(), waited)
}

// Scenario 126.
#[tokio::test(start_paused = true)]
async fn a_day_of_polling_a_forbidden_thing_costs_some_thirty_fetches_and_one_wait_of_the_others() {
    assert_eq!(a_day(DAY * 7, false).await, (1, 0));
    // Tried anew after 1, 2, 4 ... 32 minutes, and then once an hour: 1 + 6 + 22.
    assert_eq!(a_day(DAY * 7, true).await, (1 + 29, 1));
}

// Scenario 126.
#[tokio::test(start_paused = true)]
async fn a_forbidden_thing_is_tried_with_the_tokens_that_others_fetch_anyway() {
    let (fetches, waited) = a_day(HOUR, false).await;
    assert_eq!(waited, 0);
    let (polled, waited) = a_day(HOUR, true).await;
    // Only the first hour costs more, and a fetch that falls between the evidence and the poll.
    assert!(polled <= fetches + 15, "{polled} instead of {fetches}");
    assert!(waited <= 10, "{waited}");
}

/// Polls every 61 s until the thing is tried for the `count`-th time, with a good request before each.
async fn until_tried(count: usize, endpoint: &Endpoint, provider: &TokenProvider, api: &Api) {
    while endpoint.fetches() < count {
        pass(SECOND).await;
        assert_eq!(status(provider, api, GOOD).await, StatusCode::OK);
        pass(MINUTE).await;
        assert_eq!(status(provider, api, GOOD).await, StatusCode::OK);
        assert_eq!(status(provider, api, FORBIDDEN).await, StatusCode::UNAUTHORIZED);
    }
}

// Scenario 126.
#[tokio::test(start_paused = true)]
async fn a_real_revocation_is_healed_at_once_while_something_is_forbidden() {
    let endpoint = Endpoint::new(Reply::New(DAY * 7));
    let (provider, api) = forbidding(&endpoint).await;
    until_tried(8, &endpoint, &provider, &api).await;
    pass(10 * MINUTE).await;
    api.revoke("t8");
    for _ in 0..10 {
        assert_eq!(status(&provider, &api, GOOD).await, StatusCode::OK);
    }
    assert_eq!(endpoint.fetches(), 9);
    assert_eq!(status(&provider, &api, FORBIDDEN).await, StatusCode::UNAUTHORIZED);
    assert_eq!(endpoint.fetches(), 9, "it was tried with the new token, and that was that");
}

// Scenario 126.
#[tokio::test(start_paused = true)]
async fn a_thing_that_is_allowed_again_works_at_once_and_is_forgotten() {
    let endpoint = Endpoint::new(Reply::New(DAY * 7));
    let (provider, api) = forbidding(&endpoint).await;
    until_tried(6, &endpoint, &provider, &api).await;
    pass(2 * MINUTE).await;
    api.allow("/forbidden");
    assert_eq!(status(&provider, &api, FORBIDDEN).await, StatusCode::OK);
    assert_eq!(endpoint.fetches(), 6);
    // Forgotten: its next 401 is like anybody's.
    api.revoke("t6");
    assert_eq!(status(&provider, &api, GOOD).await, StatusCode::OK);
    pass(2 * MINUTE).await;
    assert_eq!(status(&provider, &api, GOOD).await, StatusCode::OK);
    api.revoke("t7");
    assert_eq!(status(&provider, &api, FORBIDDEN).await, StatusCode::OK);
    assert_eq!(endpoint.fetches(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_pushed_is_tried_for_what_was_forbidden_to_the_one_before() {
    let endpoint = Endpoint::new(Reply::New(DAY));
    let (provider, api) = forbidding(&endpoint).await;
    until_tried(4, &endpoint, &provider, &api).await;
    provider.set(tower_jwt_refresh::Token::opaque("login").unwrap().with_expires_in(DAY));
    pass(SECOND).await;
    assert_eq!(status(&provider, &api, GOOD).await, StatusCode::OK);
    assert_eq!(status(&provider, &api, FORBIDDEN).await, StatusCode::UNAUTHORIZED);
    assert_eq!(endpoint.fetches(), 5, "its 401 is like anybody's");
}

// Scenario 141.
#[tokio::test(start_paused = true)]
async fn old_evidence_does_not_lock_a_thing_out_when_all_other_traffic_has_ended() {
    let endpoint = Endpoint::new(Reply::New(DAY * 7));
    let (provider, api) = forbidding(&endpoint).await;
    // By now it is left alone for an hour.
    until_tried(8, &endpoint, &provider, &api).await;
    pass(MINUTE * 2).await;
    assert_eq!(status(&provider, &api, GOOD).await, StatusCode::OK);
    api.allow("/forbidden");
    api.revoke("t8");
    let ended = Instant::now();
    while status(&provider, &api, FORBIDDEN).await != StatusCode::OK {
        assert!(ended.elapsed() < 70 * SECOND, "the last accepted request still speaks for a dead token");
        pass(5 * SECOND).await;
    }
    assert_eq!(ended.elapsed(), MINUTE, "no sooner: nothing told a forbidden thing from a dead token");
    assert_eq!(endpoint.fetches(), 9);
}

// Scenario 141: a request that was accepted speaks for the token it carried, and for no other.
#[tokio::test(start_paused = true)]
async fn what_speaks_for_a_token_does_not_speak_for_its_successor() {
    let endpoint = Endpoint::new(Reply::New(DAY * 7));
    let (provider, api) = forbidding(&endpoint).await;
    until_tried(8, &endpoint, &provider, &api).await;
    // The storm wait of its last try is over.
    pass(MINUTE).await;
    assert_eq!(status(&provider, &api, GOOD).await, StatusCode::OK);
    pass(SECOND).await;
    api.allow("/forbidden");
    api.revoke("t9");
    provider.refresh().await.unwrap();
    assert_eq!(status(&provider, &api, FORBIDDEN).await, StatusCode::OK);
    assert_eq!(endpoint.fetches(), 10);
}

// Scenario 141: what the other half is for.
#[tokio::test(start_paused = true)]
async fn a_thing_that_is_polled_alone_is_tried_at_most_once_a_poll() {
    let endpoint = Endpoint::new(Reply::New(DAY * 7));
    let (provider, api) = forbidding(&endpoint).await;
    for polls in 1..=20 {
        assert_eq!(status(&provider, &api, FORBIDDEN).await, StatusCode::UNAUTHORIZED);
        assert_eq!(endpoint.fetches(), 1 + polls);
        pass(61 * SECOND).await;
    }
    api.allow("/forbidden");
    assert_eq!(status(&provider, &api, FORBIDDEN).await, StatusCode::OK);
    assert_eq!(endpoint.fetches(), 21);
}

// Scenario 76: a refusal that is old news touches nothing, a resend's neither.
#[tokio::test(start_paused = true)]
async fn a_slow_refusal_that_met_a_newer_token_is_old_news_too() {
    let endpoint = Endpoint::new(Reply::New(DAY));
    let (provider, api) = forbidding(&endpoint).await;
    until_tried(4, &endpoint, &provider, &api).await;
    api.set_delay(20 * SECOND);
    let slow = tokio::spawn({
        let (provider, api) = (provider.clone(), api.clone());
        async move { status(&provider, &api, FORBIDDEN).await }
    });
    pass(SECOND).await;
    api.set_delay(Duration::ZERO);
    provider.refresh().await.unwrap();
    assert_eq!(status(&provider, &api, GOOD).await, StatusCode::OK);
    assert_eq!(slow.await.unwrap(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.tokens().iter().filter(|token| *token == "t5").count(), 2, "it was sent again with the newer token");
    pass(SECOND).await;
    assert_eq!(endpoint.fetches(), 5, "and the newer token was left alone");
}

// Scenario 143: one URL for everything, told apart by the body alone.
#[tokio::test(start_paused = true)]
async fn forbidden_queries_to_the_one_url_of_everything_do_not_keep_revocations_from_healing() {
    const QUERY: &str = "https://api.example.com/graphql";
    let endpoint = Endpoint::new(Reply::New(DAY)).taking(SECOND / 10);
    let (provider, api) = forbidding(&endpoint).await;
    let revoked = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    api.judge_by({
        let revoked = std::sync::Arc::clone(&revoked);
        move |seen| {
            let dead = seen.token.as_ref() == Some(&*revoked.lock().unwrap());
            (dead || seen.body == "forbidden").then(|| support::answer(401, "refused"))
        }
    });
    // How many seconds things may go wrong after a revocation.
    let (mut ill, mut limit) = (0, 0);
    for second in 0..3600u32 {
        if second % 431 == 430 {
            provider.current().unwrap().expose_secret().clone_into(&mut revoked.lock().unwrap());
            // No storm wait is longer than a minute: healed at once unless it still runs since the last forbidden query.
            (ill, limit) = (0, if (second - 99) % 100 > 60 { 0 } else { 60 });
        }
        let body = if second % 100 == 99 { "forbidden" } else { "good" };
        let answer = send(&provider, &api, support::post(QUERY, body)).await.status();
        assert!(body == "good" || answer == StatusCode::UNAUTHORIZED);
        ill += u32::from(body == "good" && answer != StatusCode::OK);
        assert!(ill <= limit, "{second}: not healed in time");
        pass(SECOND).await;
    }
    // Each of the 36 forbidden ones costs at most a fetch, each of the 8 revocations one.
    assert!(endpoint.fetches() <= 1 + 36 + 8, "{}", endpoint.fetches());
}

// Scenario 126: sent before the thing was remembered, answered after it.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_was_on_its_way_when_its_thing_was_found_forbidden_passes_too() {
    let endpoint = Endpoint::new(Reply::New(DAY));
    let (provider, api) = forbidding(&endpoint).await;
    api.set_delay(5 * SECOND);
    let ask = || {
        let (provider, api) = (provider.clone(), api.clone());
        tokio::spawn(async move { status(&provider, &api, FORBIDDEN).await })
    };
    let first = ask();
    pass(6 * SECOND).await;
    assert_eq!(api.tokens(), ["t1", "t2"], "its resend is under way");
    let second = ask();
    assert_eq!(first.await.unwrap(), StatusCode::UNAUTHORIZED);
    api.set_delay(Duration::ZERO);
    assert_eq!(status(&provider, &api, GOOD).await, StatusCode::OK);
    assert!(!second.is_finished());
    assert_eq!(second.await.unwrap(), StatusCode::UNAUTHORIZED);
    assert_eq!((endpoint.fetches(), api.tokens().len()), (2, 4));
}
