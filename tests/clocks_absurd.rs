//! Clocks that no machine should have, and moments that no calendar has: nothing panics, and no request fails for it.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use support::{Endpoint, HOUR, Logs, MINUTE, Reply, SECOND, builder, pass, provider};
use tokio::time::{Instant, sleep, sleep_until};
use tower::service_fn;
use tower_jwt_refresh::{BoxError, Token, TokenProvider, TokenRequest, clock::Clock};

const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

async fn secret(provider: &TokenProvider) -> String {
    provider.token().await.unwrap().expose_secret().to_owned()
}

// Scenario 86.
#[tokio::test(start_paused = true)]
async fn a_monotonic_clock_that_runs_backwards_leaves_it_to_the_wall_clock() {
    let endpoint = Endpoint::hourly();
    let (provider, clock) = provider(&endpoint);
    let began = Instant::now();
    provider.init().await.unwrap();
    pass(30 * MINUTE).await;
    clock.jump_monotonic_back(20 * MINUTE);
    pass(26 * MINUTE).await;
    assert_eq!(endpoint.fetches(), 2, "on time");
    assert_eq!(secret(&provider).await, "t2");
    // Further back than it ever was.
    clock.jump_monotonic_back(3 * HOUR);
    sleep_until(began + 2 * HOUR).await;
    assert_ne!(secret(&provider).await, "t2");
    assert!(endpoint.fetches() <= 4, "{}", endpoint.fetches());
    assert!(endpoint.gaps().iter().all(|gap| *gap >= 50 * MINUTE), "{:?}", endpoint.gaps());
}

// Scenario 86.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_before_1970_leaves_it_to_the_monotonic_clock() {
    let endpoint = Endpoint::hourly();
    let (builder, clock) = builder();
    clock.jump_wall_back(100 * YEAR);
    assert!(clock.wall() < SystemTime::UNIX_EPOCH);
    let provider = builder.build(endpoint.source()).unwrap();
    provider.init().await.unwrap();
    pass(54 * MINUTE).await;
    assert_eq!((secret(&provider).await, endpoint.fetches()), ("t1".into(), 1));
    pass(2 * MINUTE).await;
    assert_eq!((secret(&provider).await, endpoint.fetches()), ("t2".into(), 2));
}

// Scenario 86.
#[tokio::test(start_paused = true)]
async fn an_expiry_beyond_any_calendar_is_unknown_with_one_warning_and_one_before_1970_is_over() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    // 10000-01-01, and about the last moment that a `SystemTime` can hold.
    for end in [at(253_402_300_800), at(i64::MAX.unsigned_abs())] {
        let (logs, _guard) = Logs::listen();
        let endpoint = Endpoint::new(Reply::This(Token::opaque("late").unwrap().with_expires_at(end)));
        let (provider, _) = provider(&endpoint);
        provider.init().await.unwrap();
        assert_eq!(provider.current().unwrap().expires_at(), None);
        for _ in 0..3 {
            pass(100 * YEAR / 3).await;
            assert_eq!(secret(&provider).await, "late");
            provider.refresh().await.unwrap();
        }
        assert_eq!(endpoint.fetches(), 4);
        assert_eq!(logs.warnings().len(), 1, "{:#?}", logs.warnings());
        assert!(logs.warnings()[0].contains("an expiry that cannot be"));
    }
    let endpoint = Endpoint::hourly();
    let seed = Token::opaque("old").unwrap().with_expires_at(SystemTime::UNIX_EPOCH - HOUR);
    let provider = builder().0.seed(seed).build(endpoint.source()).unwrap();
    assert_eq!(secret(&provider).await, "t1");
}

/// Another time at each reading.
struct Wild {
    reads: AtomicUsize,
    start: std::time::Instant,
}

impl Clock for Wild {
    fn wall(&self) -> SystemTime {
        let epoch = SystemTime::UNIX_EPOCH;
        let times = [epoch + 56 * YEAR, epoch - 9 * YEAR, epoch + 20_000 * YEAR, epoch, epoch + 57 * YEAR];
        times[self.reads.fetch_add(1, Ordering::Relaxed) % times.len()]
    }

    fn monotonic(&self) -> std::time::Instant {
        let times = [self.start + YEAR, self.start, self.start + 3 * YEAR, self.start - HOUR];
        times[self.reads.fetch_add(1, Ordering::Relaxed) % times.len()]
    }
}

// Scenario 86.
#[tokio::test(start_paused = true)]
async fn clocks_that_show_another_time_at_each_reading_break_nothing() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetches);
    let source = service_fn(move |_: TokenRequest| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(SECOND / 10).await;
            let token = Token::opaque(format!("t{number}"))?;
            Ok::<_, BoxError>(match number % 3 {
                0 => token.with_expires_in(HOUR),
                1 => token.with_expires_at(SystemTime::UNIX_EPOCH + 56 * YEAR + HOUR),
                _ => token.with_refresh_after(MINUTE),
            })
        }
    });
    let start = std::time::Instant::now() + 24 * HOUR;
    let clock = Wild { reads: AtomicUsize::new(0), start };
    let provider = TokenProvider::builder().clock(clock).build(source).unwrap();
    let _ = provider.init().await;
    let mut served = 0;
    for _ in 0..300 {
        let before = Instant::now();
        served += usize::from(provider.token().await.is_ok());
        let _ = provider.token_valid_for(MINUTE).await;
        let _ = provider.refresh().await;
        assert!(before.elapsed() <= 3 * 31 * SECOND, "{:?}", before.elapsed());
        pass(SECOND).await;
    }
    assert!(served > 150, "{served}");
    assert!((10..=1000).contains(&fetches.load(Ordering::Relaxed)), "{fetches:?}");
}
