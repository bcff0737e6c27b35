//! What a key costs: memory, and nothing that is allocated for a request.

use allocation_counter::measure;
use std::time::Duration;
use tokio::runtime::Builder;
use tower::{BoxError, service_fn};
use tower_jwt_refresh::{Token, TokenProvider, TokenProviders, TokenRequest};

const KEYS: u64 = 1000;
const HOUR: Duration = Duration::from_secs(3600);

async fn use_all(providers: &TokenProviders<String>, keys: &[String]) {
    for key in keys {
        let token = providers.get(key).unwrap().token().await.unwrap();
        assert_eq!(token.expose_secret(), "a-token-like-any-other");
    }
}

// The goal: 2 KiB beyond what the source holds, which is nothing here.
#[test]
fn a_key_takes_less_than_2_kib_and_gives_all_of_it_back() {
    // One thread, which is what the counter counts.
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let keys: Vec<_> = (0..KEYS).map(|key| format!("tenant-{key:032}")).collect();
    let providers: TokenProviders<String> = TokenProviders::new(|_: &String| {
        let source = service_fn(|_: TokenRequest| async {
            Ok::<_, BoxError>(Token::opaque("a-token-like-any-other")?.with_expires_in(2 * HOUR))
        });
        Ok(TokenProvider::new(source))
    });
    // What the runtime itself grows by.
    runtime.block_on(async { tokio::spawn(async {}).await.unwrap() });

    let made = measure(|| runtime.block_on(use_all(&providers, &keys)));
    let each = made.bytes_current / i64::try_from(KEYS).unwrap();
    println!("{each} bytes a key");
    assert!((1000..2048).contains(&each), "{each} bytes a key");

    let got = measure(|| keys.iter().for_each(|key| drop(providers.get(key).unwrap())));
    assert_eq!(got.count_total, 0, "a provider that is kept is found without an allocation");

    let left = measure(|| {
        runtime.block_on(async { tokio::time::sleep(2 * HOUR).await });
        assert!(providers.is_empty());
    });
    let left = (made.bytes_current + left.bytes_current) / i64::try_from(KEYS).unwrap();
    println!("{left} bytes a key are left when they are gone");
    assert!(left < 8, "{left} bytes a key");

    let again = measure(|| {
        runtime.block_on(async {
            use_all(&providers, &keys).await;
            tokio::time::sleep(2 * HOUR).await;
        });
    });
    assert!(again.bytes_current.abs() < 4096, "{} bytes more than after the first round", again.bytes_current);
}
