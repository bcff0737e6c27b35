//! Callers who look at the outcome of their wait long after their flight failed, when the world has moved on.

mod support;

use futures_util::FutureExt;
use std::{pin::pin, time::Duration};
use support::{Endpoint, HOUR, Reply, SECOND, pass, provider, settle};
use tokio::time::Instant;
use tower_jwt_refresh::{Token, TokenError};

// Scenario 91, for a refresh by hand: what a later flight brought is newer than the call, which is all that was asked for.
#[tokio::test(start_paused = true)]
async fn a_refresh_polled_long_after_its_flight_failed_gets_the_newer_token_and_not_an_error() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    endpoint.next(Reply::Fail);
    let mut late = pin!(provider.refresh());
    assert!(late.as_mut().now_or_never().is_none());
    pass(2 * SECOND).await;
    provider.token().await.unwrap();
    assert_eq!(late.await.unwrap().expose_secret(), "t1");
    assert_eq!(endpoint.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_whose_flight_failed_is_an_error_though_a_token_lives() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    endpoint.usually(Reply::Fail);
    let mut late = pin!(provider.refresh());
    assert!(late.as_mut().now_or_never().is_none());
    pass(2 * SECOND).await;
    assert_eq!(endpoint.fetches(), 2);
    assert!(matches!(late.await, Err(TokenError::Unavailable { .. })));
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t1", "it goes on being sent");
}

// Scenario 91; aws/aws-sdk-java-v2#3314: what came meanwhile is over as well, and nothing keeps the next flight from starting.
#[tokio::test(start_paused = true)]
async fn a_waiter_that_slept_through_a_failure_and_a_whole_lifetime_gets_a_token_and_no_error_of_the_past() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    endpoint.next(Reply::Fail);
    endpoint.next(Reply::New(2 * SECOND));
    let mut late = pin!(provider.token());
    assert!(late.as_mut().now_or_never().is_none());
    pass(SECOND + SECOND / 100).await;
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t1");
    pass(5 * SECOND).await;
    let before = Instant::now();
    assert_eq!(late.await.unwrap().expose_secret(), "t2");
    assert_eq!((endpoint.fetches(), before.elapsed()), (3, Duration::ZERO));
}

// Scenarios 121 and 122.
#[tokio::test(start_paused = true)]
async fn a_refresh_whose_flight_failed_before_a_set_or_a_sign_out_gets_what_that_says() {
    let endpoint = Endpoint::new(Reply::Fail);
    for signed_out in [false, true] {
        let (provider, _) = provider(&endpoint);
        let mut late = pin!(provider.refresh());
        assert!(late.as_mut().now_or_never().is_none());
        settle().await;
        if signed_out {
            provider.clear();
            assert!(matches!(late.await, Err(TokenError::SignedOut)));
        } else {
            provider.set(Token::opaque("set").unwrap().with_expires_in(HOUR));
            assert_eq!(late.await.unwrap().expose_secret(), "set");
        }
    }
    assert_eq!(endpoint.fetches(), 2);
}
