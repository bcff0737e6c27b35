//! A refused token that cannot be replaced: the server's answer is the caller's, and nothing is sent in vain.

mod support;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use std::time::Duration;
use support::{Api, Endpoint, HOUR, Logs, MINUTE, Reply, SECOND, get, pass, revoked, settle};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_jwt_refresh::{FetchError, JwtRefreshLayer, Token, TokenError, TokenProvider, source::Reason};

const URI: &str = "https://api.example.com/jobs/1";

async fn send(provider: &TokenProvider, api: &Api, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
    JwtRefreshLayer::new(provider.clone()).layer(api.clone()).oneshot(request).await.unwrap()
}

async fn refused(response: Response<Full<Bytes>>) -> bool {
    response.status() == StatusCode::UNAUTHORIZED
        && response.into_body().collect().await.unwrap().to_bytes() == "refused"
}

// Scenario 21.
#[tokio::test(start_paused = true)]
async fn a_failed_refresh_after_a_401_leaves_the_caller_the_servers_answer() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    endpoint.usually(Reply::Fail);
    assert!(refused(send(&provider, &api, get(URI)).await).await);
    assert_eq!(api.tokens(), ["t1"], "nothing is resent with the same token");
    settle().await;
    assert_eq!(endpoint.fetches(), 2);
}

// Alamofire/Alamofire#3877.
#[tokio::test(start_paused = true)]
async fn all_who_wait_for_a_refresh_that_fails_get_their_own_401_and_nothing_is_resent() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    endpoint.set_delay(SECOND);
    endpoint.usually(Reply::Fail);
    let all = (0..100).map(|_| send(&provider, &api, get(URI)));
    for response in futures_util::future::join_all(all).await {
        assert!(refused(response).await);
    }
    assert_eq!(api.tokens(), vec!["t1"; 100]);
    settle().await;
    assert_eq!(endpoint.fetches(), 2, "one for all, none queues to try again");
}

// Alamofire/Alamofire#3290.
#[tokio::test(start_paused = true)]
async fn a_second_401_right_after_a_failed_refresh_does_not_refresh_again() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    endpoint.usually(Reply::Fail);
    for _ in 0..3 {
        assert!(refused(send(&provider, &api, get(URI)).await).await);
    }
    settle().await;
    assert_eq!((endpoint.fetches(), api.tokens().len()), (2, 3));
}

// Scenario 96; aallam/openai-kotlin#456.
#[tokio::test(start_paused = true)]
async fn requests_wait_for_the_flight_after_a_rejection_and_once_it_failed_the_refused_token_is_sent() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    endpoint.set_delay(5 * SECOND);
    endpoint.usually(Reply::Fail);
    let first = tokio::spawn({
        let (provider, api) = (provider.clone(), api.clone());
        async move { refused(send(&provider, &api, get(URI)).await).await }
    });
    pass(SECOND).await;
    let sent = Instant::now();
    assert!(refused(send(&provider, &api, get(URI)).await).await);
    assert_eq!(sent.elapsed(), 4 * SECOND, "a new request waits for the flight under way");
    assert!(first.await.unwrap());
    // The wait after the first failure is half a second at least, and min_interval is a second.
    let sent = Instant::now();
    assert!(refused(send(&provider, &api, get(URI)).await).await);
    assert_eq!(sent.elapsed(), Duration::ZERO, "the same, at once");
    assert_eq!(api.tokens(), ["t1"; 3], "an unexpired token is never withheld");
    assert_eq!(endpoint.fetches(), 2);
    endpoint.usually(Reply::New(HOUR));
    pass(SECOND).await;
    assert_eq!(send(&provider, &api, get(URI)).await.status(), StatusCode::OK);
    assert_eq!(api.tokens().last().unwrap(), "t2", "and once the wait is over a caller starts the next flight");
    assert_eq!(endpoint.asked()[2].reason, Reason::Rejected);
}

// Scenario 69; ecederstrand/exchangelib#1090, square/okhttp#1395, square/okhttp#3984.
#[tokio::test(start_paused = true)]
async fn a_source_that_gives_the_refused_token_again_causes_no_resend_and_one_line_of_log() {
    let (logs, _guard) = Logs::listen();
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    endpoint.usually(Reply::This(Token::opaque("t1").unwrap().with_expires_in(HOUR)));
    let start = Instant::now();
    while start.elapsed() < 10 * MINUTE {
        assert!(refused(send(&provider, &api, get(URI)).await).await);
        pass(SECOND).await;
    }
    assert_eq!(api.tokens(), vec!["t1"; 600], "each was sent once");
    // The waits double from half a second at least to half a minute at least: 1 + 1 + 2 + 4 + 8 + 16 + 30 + 30 ...
    assert!(endpoint.fetches() <= 1 + 7 + 600 / 30, "{}", endpoint.fetches());
    assert_eq!(logs.warnings().len(), 1, "{:?}", logs.warnings());
    let error = provider.refresh().await.unwrap_err();
    assert!(
        matches!(&error, TokenError::Unavailable { error, .. } if matches!(**error, FetchError::RejectedTokenAgain))
    );
}

// square/okhttp#1395: in a storm, where the refused token is not marked and all others go on sending it.
#[tokio::test(start_paused = true)]
async fn a_flight_that_fails_in_a_storm_does_not_resend_the_refused_token_either() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    api.refuse_all(true);
    assert!(refused(send(&provider, &api, get(URI)).await).await);
    assert_eq!(api.tokens(), ["t1", "t2"]);
    // Its storm wait is over.
    pass(2 * SECOND).await;
    endpoint.usually(Reply::Fail);
    assert!(refused(send(&provider, &api, get(URI)).await).await);
    assert_eq!(api.tokens(), ["t1", "t2", "t2"]);
    assert_eq!(endpoint.fetches(), 3);
}

// ktorio/ktor#3460, the other way round: the newer token is known to be refused as well.
#[tokio::test(start_paused = true)]
async fn a_late_401_for_an_old_token_is_not_resent_with_a_newer_one_that_was_refused_meanwhile() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    api.set_delay(2 * MINUTE);
    let late = tokio::spawn({
        let (provider, api) = (provider.clone(), api.clone());
        async move { refused(send(&provider, &api, get(URI)).await).await }
    });
    settle().await;
    api.set_delay(Duration::ZERO);
    provider.refresh().await.unwrap();
    pass(2 * MINUTE - SECOND / 10).await;
    api.revoke("t2");
    endpoint.usually(Reply::Fail);
    assert!(refused(send(&provider, &api, get(URI)).await).await);
    assert!(late.await.unwrap());
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!(endpoint.fetches(), 3);
}

// talesofai/cohub#152.
#[tokio::test(start_paused = true)]
async fn a_flight_of_an_old_token_that_fails_late_leaves_the_token_set_meanwhile_alone() {
    let endpoint = Endpoint::hourly();
    let (provider, api) = revoked(&endpoint).await;
    endpoint.set_delay(5 * SECOND);
    endpoint.usually(Reply::Fail);
    let waiter = tokio::spawn({
        let (provider, api) = (provider.clone(), api.clone());
        async move { send(&provider, &api, get(URI)).await.status() }
    });
    pass(SECOND).await;
    provider.set(Token::opaque("login").unwrap().with_expires_in(HOUR));
    assert_eq!(waiter.await.unwrap(), StatusCode::OK, "who waits gets the token that was set");
    pass(4 * SECOND + SECOND / 2).await;
    assert_eq!((endpoint.busy(), endpoint.fetches()), (0, 2), "it has failed");
    assert_eq!(send(&provider, &api, get(URI)).await.status(), StatusCode::OK);
    // Nor does the new token's replacement have to wait for the failure of the old.
    endpoint.set_delay(Duration::ZERO);
    endpoint.usually(Reply::New(HOUR));
    api.revoke("login");
    assert_eq!(send(&provider, &api, get(URI)).await.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "login", "login", "login", "t2"]);
    assert_eq!(endpoint.fetches(), 3);
}
