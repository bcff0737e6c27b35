//! A source that says when to look again, and has nothing new while the token it gave runs out: a file that its writer is late for.

mod support;

use std::time::Duration;
use support::{Endpoint, HOUR, MINUTE, Reply, SECOND, pass, provider};
use tokio::time::Instant;
use tower_jwt_refresh::{Token, TokenProvider, TokenStatus, clock::Clock};

/// A token of ten minutes, which are stale from the fifth on, in a file that is worth a look each minute.
async fn file(endpoint: &Endpoint, looped: bool) -> TokenProvider {
    let (provider, clock) = provider(endpoint);
    let token = Token::opaque("file").unwrap().with_expires_at(clock.wall() + 10 * MINUTE);
    endpoint.usually(Reply::This(token.with_refresh_after(MINUTE)));
    if looped {
        provider.init().await.unwrap();
    } else {
        provider.token().await.unwrap();
    }
    provider
}

/// Callers for so long, none of whom waits.
async fn pressed(provider: &TokenProvider, span: Duration) {
    let start = Instant::now();
    while start.elapsed() < span {
        let before = Instant::now();
        assert_eq!(provider.token().await.unwrap().expose_secret(), "file");
        assert_eq!(before.elapsed(), Duration::ZERO);
        pass(SECOND / 4).await;
    }
}

// Scenarios 67 and 136; apache/arrow-rs#6625.
#[tokio::test(start_paused = true)]
async fn a_file_whose_token_runs_out_is_looked_at_ever_more_seldom_though_it_said_when() {
    for looped in [true, false] {
        let endpoint = Endpoint::hourly();
        let provider = file(&endpoint, looped).await;
        pressed(&provider, 4 * MINUTE + SECOND).await;
        assert_eq!(endpoint.fetches(), 5, "each minute while it is fresh");
        pressed(&provider, 5 * MINUTE).await;
        assert_eq!(*provider.subscribe().borrow(), TokenStatus::Stale, "no failure");
        let gaps = endpoint.gaps();
        assert!(gaps.iter().all(|gap| *gap >= SECOND), "{gaps:?}");
        // The waits double to half a minute at least, and at the end to no more than half of what is left.
        assert!((12..=25).contains(&gaps.len()), "{looped}: {} {gaps:?}", gaps.len());
    }
}

// Scenario 136: the writer comes at last.
#[tokio::test(start_paused = true)]
async fn a_file_that_changes_late_is_noticed_by_half_of_what_its_old_token_has_left_and_all_is_as_before() {
    // Jitter decides when the looks are: ten of them, so that none is on time by luck alone.
    for _ in 0..10 {
        let endpoint = Endpoint::hourly();
        let provider = file(&endpoint, true).await;
        pass(10 * MINUTE - 40 * SECOND).await;
        let new = Token::opaque("new").unwrap().with_expires_in(HOUR).with_refresh_after(MINUTE);
        endpoint.usually(Reply::This(new));
        pass(20 * SECOND + SECOND / 10).await;
        assert_eq!(provider.current().unwrap().expose_secret(), "new");
        assert_eq!(*provider.subscribe().borrow(), TokenStatus::Fresh);
        let before = endpoint.fetches();
        pass(10 * MINUTE + SECOND).await;
        assert_eq!(endpoint.fetches(), before + 10, "each minute again");
    }
}
