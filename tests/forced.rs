//! A fetch that somebody asks for although a token lives: `refresh` and `token_valid_for`.

mod support;

use futures_util::future::join_all;
use support::{Endpoint, HOUR, MINUTE, Reply, SECOND, pass, provider, settle};
use tokio::time::Instant;
use tower_jwt_refresh::{Token, TokenError, source::Reason};

fn secret(got: &Result<Token, TokenError>) -> &str {
    got.as_ref().unwrap().expose_secret()
}

// Scenario 36.
#[tokio::test(start_paused = true)]
async fn refresh_fetches_even_when_fresh_and_two_at_once_share_one_fetch() {
    let endpoint = Endpoint::hourly().taking(SECOND);
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    let (one, two) = tokio::join!(provider.refresh(), provider.refresh());
    assert_eq!((secret(&one), secret(&two)), ("t2", "t2"));
    assert_eq!(endpoint.fetches(), 2);
    assert_eq!(endpoint.asked()[1].reason, Reason::Forced);
}

// Scenario 36.
#[tokio::test(start_paused = true)]
async fn refresh_sleeps_out_min_interval() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(SECOND / 4).await;
    let before = Instant::now();
    assert_eq!(secret(&provider.refresh().await), "t2");
    assert_eq!((before.elapsed(), endpoint.gaps()), (SECOND * 3 / 4, vec![SECOND]));
}

// Scenario 36; ginlix-ai/LangAlpha#379.
#[tokio::test(start_paused = true)]
async fn refresh_ends_at_once_inside_a_retry_after_and_ignores_any_other_wait() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    endpoint.next(Reply::Busy(SECOND * 20));
    pass(MINUTE).await;
    assert!(provider.refresh().await.is_err());
    for _ in 0..19 {
        pass(SECOND).await;
        let before = Instant::now();
        let Err(TokenError::Unavailable { retry_in, .. }) = provider.refresh().await else {
            panic!("inside a Retry-After")
        };
        assert!(retry_in <= SECOND * 19 && before.elapsed().is_zero());
        assert_eq!(secret(&provider.token().await), "t1", "the living token goes on being sent");
    }
    assert_eq!(endpoint.fetches(), 2);
    pass(SECOND).await;
    assert_eq!(secret(&provider.refresh().await), "t2");

    endpoint.usually(Reply::Refuse);
    for fetches in 4..10 {
        pass(SECOND).await;
        assert!(matches!(provider.refresh().await, Err(TokenError::NeedsCredential { .. })));
        assert_eq!(endpoint.fetches(), fetches);
    }
}

// Scenario 36.
#[tokio::test(start_paused = true)]
async fn refresh_without_progress_gives_the_held_token_back() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    let held = provider.token().await.unwrap();
    endpoint.usually(Reply::This(held.clone()));
    pass(MINUTE).await;
    let same = provider.refresh().await.unwrap();
    assert_eq!((same.generation(), endpoint.fetches()), (held.generation(), 2));
}

// Scenario 125.
#[tokio::test(start_paused = true)]
async fn a_token_valid_for_longer_than_the_held_one_is_fetched() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.token().await.unwrap();
    pass(MINUTE * 50).await;
    assert_eq!(secret(&provider.token_valid_for(MINUTE * 9).await), "t1");
    assert_eq!(endpoint.fetches(), 1);
    pass(MINUTE * 6).await;
    assert_eq!(secret(&provider.token_valid_for(MINUTE * 10).await), "t2");
    assert_eq!(endpoint.asked()[1].reason, Reason::Forced);
}

// Scenario 125.
#[tokio::test(start_paused = true)]
async fn a_span_no_token_ever_has_costs_two_fetches_a_lifetime_at_most() {
    let endpoint = Endpoint::new(Reply::New(MINUTE * 10));
    let (provider, _) = provider(&endpoint);
    for _ in 0..3600 {
        assert!(provider.token_valid_for(HOUR).await.is_ok());
        pass(SECOND).await;
    }
    assert!((6..=12).contains(&endpoint.fetches()), "{}", endpoint.fetches());
}

// Scenario 125.
#[tokio::test(start_paused = true)]
async fn the_best_there_is_comes_back_while_the_source_is_slow_or_down() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    provider.token().await.unwrap();
    pass(HOUR - MINUTE / 2).await;
    endpoint.usually(Reply::Hang);
    let before = Instant::now();
    assert_eq!(secret(&provider.token_valid_for(MINUTE * 10).await), "t1");
    assert_eq!(before.elapsed(), SECOND * 15, "half of what it had left");

    let endpoint = Endpoint::hourly();
    let (provider, _) = support::provider(&endpoint);
    provider.token().await.unwrap();
    pass(MINUTE * 30).await;
    endpoint.usually(Reply::Fail);
    let all = (0..100).map(|_| provider.token_valid_for(MINUTE * 40));
    assert!(join_all(all).await.iter().all(|got| secret(got) == "t1"));
    assert_eq!(secret(&provider.token_valid_for(MINUTE * 40).await), "t1");
    settle().await;
    assert_eq!(endpoint.fetches(), 2, "after a failure it waits as for a stale token");
}

/// How a flight can end.
#[derive(Clone, Debug)]
enum Exit {
    Reply(Reply),
    Set,
    Clear,
}

// forcedotcom/SalesforceMobileSDK-Android#2846: an early return woke nobody.
#[tokio::test(start_paused = true)]
async fn every_exit_of_a_flight_wakes_all_who_wait() {
    let replies = [Reply::New(HOUR), Reply::Opaque, Reply::Fail, Reply::Refuse, Reply::Busy(SECOND), Reply::Hang];
    let replies = replies.into_iter().chain([Reply::Panic, Reply::PanicAtOnce]);
    for exit in replies.map(Exit::Reply).chain([Exit::Set, Exit::Clear]) {
        let endpoint = Endpoint::hourly();
        let (provider, _) = provider(&endpoint);
        let old = provider.token().await.unwrap();
        pass(MINUTE).await;
        endpoint.usually(if let Exit::Reply(reply) = &exit { reply.clone() } else { Reply::Hang });
        endpoint.set_delay(SECOND);
        let before = Instant::now();
        let waiting = async {
            let refresh = join_all((0..50).map(|_| provider.refresh()));
            let replace = join_all((0..50).map(|_| provider.replace(&old)));
            tokio::join!(refresh, replace)
        };
        let outside = async {
            endpoint.asked_times(2).await;
            match &exit {
                Exit::Reply(_) => {}
                Exit::Set => provider.set(Token::opaque("pushed").unwrap()),
                Exit::Clear => provider.clear(),
            }
        };
        let ((refreshed, replaced), ()) = tokio::join!(waiting, outside);
        let good = matches!(exit, Exit::Set | Exit::Reply(Reply::New(_) | Reply::Opaque));
        assert!(refreshed.iter().chain(&replaced).all(|got| got.is_ok() == good), "{exit:?}");
        let limit = if matches!(exit, Exit::Reply(Reply::Hang)) { SECOND * 30 } else { SECOND };
        assert!(before.elapsed() <= limit, "{exit:?} {:?}", before.elapsed());
        assert_eq!(endpoint.fetches(), 2, "{exit:?}: nobody queued for another");
    }
}
