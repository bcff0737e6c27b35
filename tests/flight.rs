//! The flight: one fetch for all who need a token, whether it succeeds, fails, panics or hangs.

mod support;

use futures_util::future::join_all;
use std::time::Duration;
use support::{Endpoint, HOUR, Logs, MINUTE, Reply, SECOND, builder, pass, provider};
use tokio::time::Instant;
use tower_jwt_refresh::{FetchError, Token, TokenError, TokenProvider, TokenStatus};

/// The cause of a failed fetch.
fn cause(error: &TokenError) -> &FetchError {
    match error {
        TokenError::Unavailable { error, .. } => error,
        other => panic!("not a failed fetch: {other}"),
    }
}

async fn secret(provider: &TokenProvider) -> String {
    provider.token().await.unwrap().expose_secret().to_owned()
}

// Azure/azure-sdk-for-net#13610; AzureAD/microsoft-authentication-library-for-dotnet#2329; icerockdev/moko-network#24.
#[tokio::test(start_paused = true)]
async fn a_hundred_callers_at_a_cold_start_cost_one_fetch() {
    let endpoint = Endpoint::hourly().taking(SECOND);
    let (provider, _) = provider(&endpoint);
    for token in join_all((0..100).map(|_| secret(&provider))).await {
        assert_eq!(token, "t1");
    }
    assert_eq!(endpoint.fetches(), 1);
}

// Scenario 2; apache/opendal-reqsign#837.
#[tokio::test(start_paused = true)]
async fn at_the_stale_boundary_a_hundred_callers_wait_for_nothing_and_cost_one_fetch() {
    let endpoint = Endpoint::hourly().taking(SECOND);
    let (provider, _) = provider(&endpoint);
    provider.token().await.unwrap();
    pass(HOUR - 2 * MINUTE).await;
    let before = Instant::now();
    for token in join_all((0..100).map(|_| secret(&provider))).await {
        assert_eq!(token, "t1");
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
    pass(2 * SECOND).await;
    assert_eq!(secret(&provider).await, "t2");
    assert_eq!(endpoint.fetches(), 2);
}

// vectordotdev/vector#12421.
#[tokio::test(start_paused = true)]
async fn a_slow_fetch_costs_callers_with_a_stale_token_nothing() {
    let endpoint = Endpoint::hourly().taking(8 * SECOND);
    let (provider, _) = provider(&endpoint);
    provider.token().await.unwrap();
    pass(HOUR - 2 * MINUTE).await;
    for _ in 0..8 {
        let before = Instant::now();
        assert_eq!(secret(&provider).await, "t1");
        assert_eq!(before.elapsed(), Duration::ZERO);
        pass(SECOND).await;
    }
    assert_eq!(secret(&provider).await, "t2");
    assert_eq!(endpoint.fetches(), 2);
}

// vectordotdev/vector#12421.
#[tokio::test(start_paused = true)]
async fn the_fetch_timeout_is_what_was_set() {
    let endpoint = Endpoint::hourly().taking(8 * SECOND);
    let impatient = builder().0.fetch_timeout(5 * SECOND).build(endpoint.source()).unwrap();
    assert!(
        matches!(cause(&impatient.token().await.unwrap_err()), FetchError::TimedOut { after } if *after == 5 * SECOND)
    );
    let patient = builder().0.fetch_timeout(9 * SECOND).build(endpoint.source()).unwrap();
    patient.token().await.unwrap();
}

// Scenario 34; aws/aws-sdk-java-v2#5690, aws/aws-sdk-go-v2#490; forcedotcom/SalesforceMobileSDK-Android#2846.
#[tokio::test(start_paused = true)]
async fn a_hundred_waiters_of_a_failing_fetch_cost_one_fetch_and_one_fetch_time() {
    let endpoint = Endpoint::new(Reply::Fail).taking(SECOND);
    let (provider, _) = provider(&endpoint);
    let before = Instant::now();
    for result in join_all((0..100).map(|_| provider.token())).await {
        assert!(matches!(cause(&result.unwrap_err()), FetchError::Source(_)));
    }
    assert_eq!(before.elapsed(), SECOND);
    assert_eq!(endpoint.fetches(), 1);
}

// Scenarios 35, 93; aws/aws-sdk-java-v2#5690; googleapis/google-cloud-rust#4593.
#[tokio::test(start_paused = true)]
async fn after_a_failure_callers_get_its_error_at_once_until_the_wait_is_over_and_then_a_flight_at_once() {
    let endpoint = Endpoint::new(Reply::Fail);
    let (provider, _) = provider(&endpoint);
    let first = provider.token().await.unwrap_err();
    let failed = Instant::now();
    let TokenError::Unavailable { retry_in, .. } = first else { panic!("{first}") };
    assert!(SECOND / 2 <= retry_in && retry_in <= SECOND, "{retry_in:?}");
    endpoint.usually(Reply::New(HOUR));
    while failed.elapsed() < retry_in {
        let before = Instant::now();
        assert!(matches!(cause(&provider.token().await.unwrap_err()), FetchError::Source(_)));
        assert_eq!(before.elapsed(), Duration::ZERO);
        pass(retry_in / 10).await;
    }
    let before = Instant::now();
    assert_eq!(secret(&provider).await, "t1");
    assert!(before.elapsed() <= SECOND / 1000, "{:?}", before.elapsed());
    assert_eq!(endpoint.fetches(), 2);
}

// Scenarios 32, 71; ktorio/ktor#3606; forcedotcom/SalesforceMobileSDK-Android#2846.
#[tokio::test(start_paused = true)]
async fn a_source_that_panics_is_an_error_for_all_who_wait_and_the_next_caller_starts_anew() {
    for panic in [Reply::Panic, Reply::PanicAtOnce] {
        let endpoint = Endpoint::hourly();
        let (provider, _) = provider(&endpoint);
        endpoint.next(panic);
        for result in join_all((0..10).map(|_| provider.token())).await {
            assert!(matches!(cause(&result.unwrap_err()), FetchError::Panicked));
        }
        assert_eq!(endpoint.fetches(), 1);
        pass(SECOND).await;
        assert_eq!(secret(&provider).await, "t1");
    }
}

// Scenario 33; Azure/azure-sdk-for-net#45351.
#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_fails_at_the_fetch_timeout_and_the_next_flight_is_possible() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    endpoint.next(Reply::Hang);
    let before = Instant::now();
    let error = provider.token().await.unwrap_err();
    assert_eq!(before.elapsed(), 30 * SECOND);
    assert!(matches!(cause(&error), FetchError::TimedOut { after } if *after == 30 * SECOND));
    assert_eq!(endpoint.busy(), 0, "what hung was dropped");
    pass(SECOND).await;
    assert_eq!(secret(&provider).await, "t1");
}

// Scenarios 33, 79.
#[tokio::test(start_paused = true)]
async fn while_the_source_hangs_an_urgent_token_is_sent_after_a_second_and_warned_of_once() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.token().await.unwrap();
    endpoint.usually(Reply::Hang);
    pass(HOUR - 30 * SECOND).await;
    let (logs, _guard) = Logs::listen();
    for _ in 0..3 {
        let before = Instant::now();
        assert_eq!(secret(&provider).await, "t1");
        assert_eq!(before.elapsed(), SECOND);
    }
    assert_eq!(logs.warnings().iter().filter(|line| line.contains("refresh is slow")).count(), 1, "{}", logs.text());
}

// AzureAD/microsoft-authentication-library-for-dotnet#6053.
#[tokio::test(start_paused = true)]
async fn an_hour_of_traffic_over_a_hanging_endpoint_leaves_one_fetch_pending_and_no_queue() {
    let endpoint = Endpoint::new(Reply::New(2 * HOUR));
    let (builder, _) = builder();
    let provider = builder.refresh_before(HOUR).build(endpoint.source()).unwrap();
    provider.init().await.unwrap();
    endpoint.usually(Reply::Hang);
    pass(HOUR + MINUTE).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for _ in 0..50 * 60 {
        let before = Instant::now();
        assert_eq!(secret(&provider).await, "t1");
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert!(tasks() <= 2, "the loop and at most one flight, not {}", tasks());
        pass(SECOND).await;
    }
    assert_eq!(endpoint.most_at_once(), 1);
    assert!(endpoint.fetches() >= 30, "it goes on trying: a timeout and a wait of a minute are the longest pause");
}

// Scenario 40; talesofai/cohub#152.
#[tokio::test(start_paused = true)]
async fn a_slow_old_fetch_that_ends_after_a_newer_one_is_ignored_be_it_a_success_or_a_failure() {
    for old in [Reply::This(Token::opaque("old").unwrap().with_expires_in(2 * HOUR)), Reply::Fail] {
        let endpoint = Endpoint::hourly().taking(10 * SECOND);
        let (provider, clock) = provider(&endpoint);
        endpoint.next(old);
        let waiter = tokio::spawn({
            let provider = provider.clone();
            async move { secret(&provider).await }
        });
        endpoint.asked_times(1).await;
        // The first flight is lost by age while its task goes on.
        clock.advance(MINUTE);
        endpoint.set_delay(SECOND);
        assert_eq!(secret(&provider).await, "t1");
        assert_eq!(waiter.await.unwrap(), "t1", "a waiter of the lost flight joins the new one");
        assert_eq!(endpoint.busy(), 1, "the old one still runs");
        pass(MINUTE).await;
        assert_eq!(endpoint.busy(), 0);
        assert_eq!(secret(&provider).await, "t1");
        assert_eq!(*provider.subscribe().borrow(), TokenStatus::Fresh);
        assert_eq!(endpoint.fetches(), 2);
    }
}
