//! Servers that refuse token after token: fetches stay few, and 401s get through.
//!
//! The bounds come from the storm wait: the `count`-th is 2^(count - 1) seconds, at most a minute, of which jitter takes up to half, and
//! never less than a second.

mod support;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use std::{
    convert::Infallible,
    future::{Ready, ready},
    time::Duration,
};
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, answer, get, pass, provider};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, retry::Policy};
use tower_jwt_refresh::{BoxError, JwtRefreshLayer, TokenProvider};

const URI: &str = "https://api.example.com/jobs/1";

async fn send(provider: &TokenProvider, api: &Api, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
    JwtRefreshLayer::new(provider.clone()).layer(api.clone()).oneshot(request).await.unwrap()
}

async fn status(provider: &TokenProvider, api: &Api, uri: &str) -> StatusCode {
    send(provider, api, get(uri)).await.status()
}

/// A provider whose first token is a minute old, and an API.
async fn settled(endpoint: &Endpoint) -> (TokenProvider, Api) {
    let (provider, _) = provider(endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    (provider, Api::new())
}

/// The most flights that can begin in so many seconds of a storm. A generation counts twice, by its refused resend and by the hasty
/// rejection on which the next flight begins; but that one is not hasty any more after 10 s. So the counts are 1, 3, 5, 6, 7,
/// and with all the jitter the flights begin at 0, 1, 3, 13, 29, 59 s, and each half a minute after that.
fn most(seconds: usize) -> usize {
    6 + (seconds - 59) / 30
}

// Scenario 22; Alamofire/Alamofire#3735.
#[tokio::test(start_paused = true)]
async fn a_minute_in_which_every_token_is_refused_costs_a_handful_of_fetches() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = settled(&endpoint).await;
    api.refuse_all(true);
    for _ in 0..60 * 50 {
        let sent = Instant::now();
        assert_eq!(status(&provider, &api, URI).await, StatusCode::UNAUTHORIZED);
        assert!(sent.elapsed() <= SECOND, "no longer than it takes to sleep out min_interval");
        pass(SECOND / 50).await;
    }
    // Without any jitter the flights begin at 0, 1, 5, 21 s.
    let fetches = endpoint.fetches() - 1;
    assert!((4..=most(60)).contains(&fetches), "{fetches}");
    assert!(api.seen().iter().all(|seen| seen.token.is_some()), "no request goes without");
    api.refuse_all(false);
    assert_eq!(status(&provider, &api, URI).await, StatusCode::OK, "no penalty is left for who is accepted");
}

// Scenario 22.
#[tokio::test(start_paused = true)]
async fn in_a_storm_each_refused_request_is_sent_once_but_for_those_that_waited_for_a_flight() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = settled(&endpoint).await;
    api.refuse_all(true);
    for _ in 0..600 {
        assert_eq!(status(&provider, &api, URI).await, StatusCode::UNAUTHORIZED);
        pass(SECOND).await;
    }
    let fetches = endpoint.fetches() - 1;
    assert_eq!(api.seen().len(), 600 + fetches);
    assert!(fetches <= most(600), "{fetches}");
}

// Scenario 77.
#[tokio::test(start_paused = true)]
async fn the_first_token_of_a_process_is_replaced_once_and_then_the_storm_wait_runs() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    let api = Api::new();
    api.refuse_all(true);
    let start = Instant::now();
    assert_eq!(status(&provider, &api, URI).await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!((endpoint.fetches(), start.elapsed()), (2, SECOND), "min_interval lies between the two");
    while endpoint.fetches() < 4 {
        assert_eq!(status(&provider, &api, URI).await, StatusCode::UNAUTHORIZED);
        pass(SECOND / 10).await;
    }
    // Each time its flight and its refused resend count: 1..2 s from one flight's start to the next, then 4..8 s. A flight sleeps out
    // min_interval before it asks.
    let gaps = endpoint.gaps();
    assert!(gaps[1] < 2 * SECOND && (3 * SECOND..9 * SECOND).contains(&gaps[2]), "{gaps:?}");
    // The service is warm now.
    api.refuse_all(false);
    assert_eq!(status(&provider, &api, URI).await, StatusCode::OK);
}

// A storm ends where a token lasts: the next revocation is healed at once.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_only_after_ten_seconds_ends_the_storm() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = settled(&endpoint).await;
    api.refuse_all(true);
    for _ in 0..300 {
        assert_eq!(status(&provider, &api, URI).await, StatusCode::UNAUTHORIZED);
        pass(SECOND).await;
    }
    api.refuse_all(false);
    provider.refresh().await.unwrap();
    for _ in 0..3 {
        pass(10 * SECOND).await;
        let before = endpoint.fetches();
        api.revoke(provider.current().unwrap().expose_secret());
        assert_eq!(status(&provider, &api, URI).await, StatusCode::OK);
        assert_eq!(endpoint.fetches(), before + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_refused_before_they_are_ten_seconds_old_build_a_storm_up() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = settled(&endpoint).await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        api.revoke(provider.current().unwrap().expose_secret());
        answers.push(status(&provider, &api, URI).await);
        pass(9 * SECOND).await;
    }
    // The first was old. Then the counts are 1, 2, 3, 4, whose waits are over after 9 s, 5, whose may be, and 6, whose is not.
    assert_eq!(answers[..5], [StatusCode::OK; 5]);
    assert!(answers[5..].contains(&StatusCode::UNAUTHORIZED), "{answers:?}");
}

// Scenario 95: a success forgives no storm.
#[tokio::test(start_paused = true)]
async fn accepted_requests_and_fetches_that_succeed_do_not_reset_the_storm_wait() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = settled(&endpoint).await;
    api.judge_by(|seen| (seen.uri.path() != "/good").then(|| answer(401, "refused")));
    // Each path once: nothing is remembered twice.
    for at in 0..300 {
        assert_eq!(status(&provider, &api, &format!("https://api.example.com/{at}")).await, StatusCode::UNAUTHORIZED);
        assert_eq!(status(&provider, &api, "https://api.example.com/good").await, StatusCode::OK);
        pass(SECOND).await;
    }
    let fetches = endpoint.fetches() - 1;
    assert!(fetches <= most(300), "{fetches}");
}

/// Sends a request again, so many times, if it was refused.
#[derive(Clone)]
struct Again(u32);

impl Policy<Request<Full<Bytes>>, Response<Full<Bytes>>, BoxError> for Again {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Full<Bytes>>,
        result: &mut Result<Response<Full<Bytes>>, BoxError>,
    ) -> Option<Ready<()>> {
        let refused = result.as_ref().is_ok_and(|response| response.status() == StatusCode::UNAUTHORIZED);
        self.0 = self.0.checked_sub(u32::from(refused))?;
        refused.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

// Scenario 80.
#[tokio::test(start_paused = true)]
async fn retries_below_and_above_multiply_by_no_more_than_they_say_and_share_one_flight() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = settled(&endpoint).await;
    api.refuse_all(true);
    let below =
        tower::retry::Retry::new(Again(2), api.clone().map_err(|never: Infallible| -> BoxError { match never {} }));
    let above = tower::retry::Retry::new(Again(1), JwtRefreshLayer::new(provider.clone()).layer(below));
    let response = above.clone().oneshot(get(URI)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    // Three by the one below with t1, three with t2, and three more for the one above, which meet the storm wait.
    assert_eq!(api.tokens(), ["t1", "t1", "t1", "t2", "t2", "t2", "t2", "t2", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
    // A revocation proper takes one flight, and three sends in vain.
    api.refuse_all(false);
    pass(10 * SECOND).await;
    provider.refresh().await.unwrap();
    pass(10 * SECOND).await;
    api.forget_seen();
    api.revoke("t3");
    assert_eq!(above.oneshot(get(URI)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t3", "t3", "t3", "t4"]);
    assert_eq!(endpoint.fetches(), 4);
}

// Scenario 140; googleapis/java-bigtable-hbase#1204.
#[tokio::test(start_paused = true)]
async fn one_bad_backend_among_three_costs_no_more_fetches_and_waits_than_a_storm() {
    let endpoint = Endpoint::hourly().taking(SECOND / 5);
    let (provider, api) = settled(&endpoint).await;
    // Any sequence will do, as long as it has no period that the requests share.
    let mut random = 1u32;
    api.judge_by(move |_| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((random >> 16) % 10 < 3).then(|| answer(401, "bad backend"))
    });
    let (mut waited, mut refused) = (Duration::ZERO, 0);
    for at in 0..10 * 60 * 20 {
        let sent = Instant::now();
        // Many things, so that few are remembered when they are asked for again.
        let answered = status(&provider, &api, &format!("https://api.example.com/{}", at % 500)).await;
        refused += usize::from(answered != StatusCode::OK);
        waited = waited.max(sent.elapsed());
        pass(SECOND / 20).await;
    }
    // Most resends are accepted, so a generation may count once, and one that lasts for ten seconds not at all: the flights begin at 0, 1, 2, 3, 5,
    // 9, 17 s at the earliest, and each 16 s after that.
    let fetches = endpoint.fetches() - 1;
    assert!(fetches <= 7 + (600 - 17) / 16, "{fetches}");
    assert!(waited <= SECOND + SECOND / 5, "{waited:?}: min_interval and one fetch");
    assert!((2_000..5_000).contains(&refused), "{refused}: as bad as the backend, and no worse");
}

/// Everything is refused for six hours; then the server takes tokens that are minted from then on.
async fn six_hours(endpoint: &Endpoint, provider: &TokenProvider, api: &Api, uris: &[String]) -> usize {
    let before = endpoint.fetches();
    api.refuse_all(true);
    let start = Instant::now();
    while start.elapsed() < 6 * HOUR {
        for uri in uris {
            assert_eq!(status(provider, api, uri).await, StatusCode::UNAUTHORIZED);
        }
        pass(10 * SECOND).await;
    }
    let fetches = endpoint.fetches() - before;
    for old in 0..=before + fetches {
        api.revoke(&format!("t{old}"));
    }
    api.refuse_all(false);
    fetches
}

// Scenario 142.
#[tokio::test(start_paused = true)]
async fn after_six_hours_in_which_everything_was_refused_all_works_within_a_minute() {
    let endpoint = Endpoint::new(Reply::New(48 * HOUR));
    let (provider, api) = settled(&endpoint).await;
    let uris: Vec<_> = (0..10).map(|at| format!("https://api.example.com/{at}")).collect();
    let fetches = six_hours(&endpoint, &provider, &api, &uris).await;
    // At least one each minute and a poll.
    assert!((6 * 3600 / 70..=most(6 * 3600)).contains(&fetches), "{fetches}");
    let healed = Instant::now();
    let mut works = vec![None; uris.len()];
    while works.iter().any(Option::is_none) {
        assert!(healed.elapsed() < 70 * SECOND, "{works:?}");
        for (uri, works) in uris.iter().zip(&mut works) {
            if status(&provider, &api, uri).await == StatusCode::OK {
                works.get_or_insert(healed.elapsed());
            }
        }
        pass(10 * SECOND).await;
    }
    assert_eq!(endpoint.fetches(), 1 + fetches + 1);
}

// Scenario 142: each is polled by itself, and seldom.
#[tokio::test(start_paused = true)]
async fn a_thing_that_is_asked_for_seldom_works_at_the_first_time_after_such_hours() {
    let endpoint = Endpoint::new(Reply::New(48 * HOUR));
    let (provider, api) = settled(&endpoint).await;
    let uris: Vec<_> = (0..80).map(|at| format!("https://api.example.com/{at}")).collect();
    let fetches = six_hours(&endpoint, &provider, &api, &uris).await;
    pass(MINUTE).await;
    for uri in &uris {
        assert_eq!(status(&provider, &api, uri).await, StatusCode::OK);
    }
    assert_eq!(endpoint.fetches(), 1 + fetches + 1);
}
