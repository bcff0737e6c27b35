//! What an operator sees of a provider, and how seldom a source is asked that refuses.

mod support;

use std::{error::Error, time::Duration};
use support::{Endpoint, HOUR, Logs, MINUTE, Reply, SECOND, builder, pass, provider, settle};
use tokio::time::Instant;
use tower_jwt_refresh::{Token, TokenError, TokenProvider, TokenStatus, clock::Clock};

fn now(provider: &TokenProvider) -> TokenStatus {
    provider.subscribe().borrow().clone()
}

/// An error with its causes, one a line; without the status that is there for tonic, whose text repeats its cause.
fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.filter(|error| !error.is::<tonic::Status>()).map(ToString::to_string).collect()
}

/// A caller a second for so long; how many got a token.
async fn demand(provider: &TokenProvider, seconds: u64) -> usize {
    let mut served = 0;
    for _ in 0..seconds {
        served += usize::from(provider.token().await.is_ok());
        pass(SECOND).await;
    }
    served
}

// Scenario 74.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_for_half_an_hour_shows_in_the_status_and_is_warned_of_once() {
    let (logs, _guard) = Logs::listen();
    let endpoint = Endpoint::new(Reply::New(HOUR * 2));
    let (builder, clock) = builder();
    let provider = builder.refresh_before(HOUR).build(endpoint.source()).unwrap();
    let mut status = provider.subscribe();
    assert_eq!(*status.borrow_and_update(), TokenStatus::Stale);
    provider.init().await.unwrap();
    assert_eq!(*status.borrow_and_update(), TokenStatus::Fresh);

    endpoint.usually(Reply::Fail);
    pass(MINUTE * 70).await;
    let first = endpoint.asked()[1].at;
    let began = clock.wall() - first.elapsed();
    pass(MINUTE * 30).await;
    let TokenStatus::Failing { since, next_try: Some(next_try) } = now(&provider) else { panic!("{status:?}") };
    assert_eq!(since, began, "since the first failure, whatever came after it");
    let wait = next_try.duration_since(clock.wall()).unwrap();
    assert!(wait <= MINUTE, "{wait:?}");
    let fetches = endpoint.fetches();
    pass(wait).await;
    assert_eq!(endpoint.fetches(), fetches + 1, "it is asked again when it says");
    assert!(fetches > 30 && logs.warnings().len() == 1, "{:#?}", logs.warnings());
    let warning = &logs.warnings()[0];
    assert!(warning.contains("the endpoint is down") && warning.contains("runway"), "{warning}");

    endpoint.usually(Reply::New(HOUR * 2));
    pass(MINUTE).await;
    assert_eq!(now(&provider), TokenStatus::Fresh);
    assert!(logs.text().contains("the token source works again"));
    assert_eq!(logs.warnings().len(), 1);
}

// Scenario 74.
#[tokio::test(start_paused = true)]
async fn every_change_is_told_to_who_listens() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    let mut status = provider.subscribe();
    let mut seen = Vec::new();
    let listener = async {
        loop {
            seen.push(match *status.borrow_and_update() {
                TokenStatus::Fresh => "fresh",
                TokenStatus::Stale => "stale",
                TokenStatus::Failing { .. } => "failing",
                TokenStatus::NeedsCredential { .. } => "needs credential",
                TokenStatus::SignedOut => "signed out",
                TokenStatus::ShutDown => "shut down",
                _ => "unknown",
            });
            if seen.len() == 9 || status.changed().await.is_err() {
                break;
            }
        }
    };
    let events = async {
        provider.init().await.unwrap();
        settle().await;
        provider.reject(&provider.current().unwrap());
        settle().await;
        pass(SECOND).await;
        for reply in [Reply::Fail, Reply::Refuse] {
            endpoint.next(reply);
            assert!(provider.refresh().await.is_err());
            settle().await;
        }
        provider.clear();
        settle().await;
        provider.set(Token::opaque("pushed").unwrap());
        settle().await;
        provider.shutdown().await;
    };
    tokio::join!(listener, events);
    let expected =
        ["stale", "fresh", "stale", "fresh", "failing", "needs credential", "signed out", "fresh", "shut down"];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_turns_stale_again_is_told_each_time() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    assert_eq!(now(&provider), TokenStatus::Stale);
    for _ in 0..2 {
        provider.token().await.unwrap();
        assert_eq!(now(&provider), TokenStatus::Fresh);
        pass(56 * MINUTE).await;
        endpoint.set_delay(SECOND);
        assert!(provider.try_token().is_some());
        assert_eq!(now(&provider), TokenStatus::Stale);
        pass(2 * SECOND).await;
    }
}

// Scenario 89.
#[tokio::test(start_paused = true)]
async fn a_subscriber_that_never_reads_or_is_gone_holds_nothing_up() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    let idle = provider.subscribe();
    drop(provider.subscribe());
    let before = Instant::now();
    for _ in 0..1000 {
        provider.clear();
        provider.set(Token::opaque("pushed").unwrap());
    }
    assert_eq!(provider.token().await.unwrap().expose_secret(), "pushed");
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(*idle.borrow(), TokenStatus::Fresh, "the latest, not the first of a queue");
    // Nor does one that is just looking: the request path tells nobody anything.
    let looking = idle.borrow();
    assert!(provider.token().await.is_ok() && provider.try_token().is_some());
    drop(looking);
    drop(provider);
    settle().await;
    assert!(idle.has_changed().is_err(), "and a listener learns that the provider is gone");
}

// Scenarios 65, 123; zalando/tokens#10, camunda-community-hub/zeebe-client-node-js#244.
#[tokio::test(start_paused = true)]
async fn a_refused_credential_is_reported_and_asked_about_each_15_minutes_while_a_token_lives_then_each_minute() {
    let (logs, _guard) = Logs::listen();
    let endpoint = Endpoint::new(Reply::New(HOUR * 2));
    let (builder, clock) = builder();
    let provider = builder.refresh_before(HOUR).build(endpoint.source()).unwrap();
    provider.init().await.unwrap();
    endpoint.usually(Reply::Refuse);
    let seconds = 2 * 3600 - 5;
    assert_eq!(demand(&provider, seconds).await, 7195, "the living token goes on being sent");
    assert_eq!(endpoint.gaps()[1..], [MINUTE * 15; 3], "an hour, less up to a tenth");
    let TokenStatus::NeedsCredential { since } = now(&provider) else { panic!("{:?}", now(&provider)) };
    assert_eq!(since, clock.wall() - endpoint.asked()[1].at.elapsed());
    let errors = logs.warnings();
    assert!(errors.len() == 1 && errors[0].contains("ERROR") && errors[0].contains("was revoked"), "{errors:#?}");

    let before = endpoint.fetches();
    pass(SECOND * 10).await;
    assert_eq!(demand(&provider, 600).await, 0);
    let dead = &endpoint.gaps()[before..];
    assert!(dead.len() == 10 - 1 && dead.iter().all(|gap| *gap >= MINUTE && *gap <= MINUTE + SECOND), "{dead:?}");
    assert_eq!(logs.warnings().len(), 1, "one line for all of it");

    // Repaired, and nobody says so.
    endpoint.usually(Reply::New(HOUR));
    assert!(demand(&provider, 61).await > 0);
    assert_eq!(now(&provider), TokenStatus::Fresh);
}

// Scenarios 65, 73.
#[tokio::test(start_paused = true)]
async fn the_error_holds_what_the_source_said_as_its_cause_and_quotes_none_of_it() {
    let endpoint = Endpoint::new(Reply::Refuse);
    let (provider, _) = provider(&endpoint);
    let error = provider.token().await.unwrap_err();
    assert!(matches!(error, TokenError::NeedsCredential { .. }), "{error:?}");
    let chain = chain(&error);
    assert_eq!(chain.last().unwrap(), "the credential was revoked");
    assert_eq!(chain.iter().filter(|line| line.contains("was revoked")).count(), 1, "{chain:#?}");

    let endpoint = Endpoint::new(Reply::Fail);
    let (provider, _) = support::provider(&endpoint);
    let error = provider.token().await.unwrap_err();
    assert!(matches!(error, TokenError::Unavailable { .. }), "{error:?}");
    let chain = self::chain(&error);
    assert_eq!(chain.iter().filter(|line| line.contains("is down")).count(), 1, "{chain:#?}");
    assert_eq!(chain.last().unwrap(), "the endpoint is down");
}

// Scenario 123.
#[tokio::test(start_paused = true)]
async fn a_repaired_credential_is_tried_at_once_by_refresh() {
    let endpoint = Endpoint::new(Reply::Refuse);
    let (provider, _) = provider(&endpoint);
    assert!(provider.init().await.is_err());
    endpoint.usually(Reply::New(HOUR));
    pass(SECOND).await;
    assert!(provider.token().await.is_err());
    assert_eq!(endpoint.fetches(), 1);
    assert!(provider.refresh().await.is_ok());
    assert_eq!(now(&provider), TokenStatus::Fresh);
    let token = provider.current().unwrap();
    assert!(provider.replace(&token).await.is_ok(), "the waits are over for all");
}

// Scenario 123.
#[tokio::test(start_paused = true)]
async fn with_a_refused_credential_a_rejected_token_is_asked_about_each_minute() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    endpoint.usually(Reply::Refuse);
    let token = provider.current().unwrap();
    let before = endpoint.fetches();
    for _ in 0..600 {
        assert!(provider.replace(&token).await.is_err());
        assert_eq!(provider.token().await.unwrap().expose_secret(), "t1", "it lives: the server's to judge");
        pass(SECOND).await;
    }
    assert_eq!(endpoint.fetches() - before, 10);
    assert!(endpoint.gaps()[before..].iter().all(|gap| *gap == MINUTE), "{:?}", endpoint.gaps());
}

// Scenario 123; ginlix-ai/LangAlpha#379, cortexkit/anthropic-auth#40.
#[tokio::test(start_paused = true)]
async fn a_busy_endpoint_is_left_alone_as_long_as_it_asks_with_one_line_in_the_log() {
    let (logs, _guard) = Logs::listen();
    let endpoint = Endpoint::new(Reply::Busy(SECOND * 20));
    let (provider, _) = provider(&endpoint);
    assert_eq!(demand(&provider, 100).await, 0);
    assert!(matches!(now(&provider), TokenStatus::Failing { .. }), "{:?}", now(&provider));
    // The backoff has grown to 16 s, less its jitter, by then: the Retry-After is the longer.
    assert_eq!(endpoint.gaps(), [SECOND * 20; 4]);
    assert_eq!(logs.warnings().len(), 1, "{:#?}", logs.warnings());
}
