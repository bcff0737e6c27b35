//! Keyed providers are bounded, and idle ones dropped; what is in use is not.

mod support;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use support::{Endpoint, HOUR, MINUTE, SECOND, pass, settle};
use tokio::runtime;
use tower_jwt_refresh::{ConfigError, TokenProviders};

/// Each key has an endpoint, which stays when its provider goes.
#[derive(Clone, Default)]
struct Tenants(Arc<Mutex<HashMap<u32, Endpoint>>>);

impl Tenants {
    fn endpoint(&self, key: u32) -> Endpoint {
        self.0.lock().unwrap().entry(key).or_insert_with(Endpoint::hourly).clone()
    }

    fn providers(&self, capacity: usize, idle_after: Duration) -> TokenProviders<u32, ConfigError> {
        let tenants = self.clone();
        TokenProviders::builder()
            .capacity(capacity)
            .idle_after(idle_after)
            .build(move |key: &u32| support::builder().0.build(tenants.endpoint(*key).source()))
            .unwrap()
    }

    fn fetches(&self, key: u32) -> usize {
        self.endpoint(key).fetches()
    }
}

async fn use_once(providers: &TokenProviders<u32, ConfigError>, key: u32) {
    providers.get(&key).unwrap().token().await.unwrap();
    // The flight's task is over as well.
    settle().await;
}

/// A fetch is under way, and nobody waits for it.
async fn ask_and_leave(providers: &TokenProviders<u32, ConfigError>, key: u32, endpoint: &Endpoint) {
    endpoint.shut();
    tokio::select! {
        _ = async { providers.get(&key).unwrap().token().await } => unreachable!("no token comes"),
        () = endpoint.asked_times(1) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn for_one_more_the_one_idle_longest_gives_way() {
    let tenants = Tenants::default();
    let providers = tenants.providers(3, HOUR);
    for key in [1, 2, 3, 1, 4] {
        use_once(&providers, key).await;
    }
    assert_eq!(providers.len(), 3);
    for key in [1, 3, 4] {
        use_once(&providers, key).await;
    }
    assert_eq!([1, 2, 3, 4].map(|key| tenants.fetches(key)), [1; 4], "only the one of 2 has gone");
    use_once(&providers, 2).await;
    assert_eq!((providers.len(), tenants.fetches(2)), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn when_all_are_in_use_none_gives_way_until_one_is_free() {
    let tenants = Tenants::default();
    let providers = tenants.providers(2, HOUR);
    let mut held: Vec<_> = [1, 2, 3].map(|key| providers.get(&key).unwrap()).into();
    for provider in &held {
        provider.token().await.unwrap();
    }
    settle().await;
    assert_eq!(providers.len(), 3);
    for key in [1, 2, 3] {
        use_once(&providers, key).await;
    }
    assert_eq!([1, 2, 3].map(|key| tenants.fetches(key)), [1; 3], "no key has a second provider");
    drop(held.swap_remove(1));
    use_once(&providers, 4).await;
    assert_eq!(providers.len(), 3);
    drop(held);
    use_once(&providers, 4).await;
    assert_eq!(providers.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_whose_fetch_is_under_way_stays_though_nobody_waits_for_it() {
    let tenants = Tenants::default();
    let providers = tenants.providers(1, MINUTE);
    ask_and_leave(&providers, 1, &tenants.endpoint(1)).await;
    // A refresh token may have been spent for this: a second provider would show it again.
    use_once(&providers, 2).await;
    pass(10 * SECOND).await;
    tenants.endpoint(1).open();
    settle().await;
    use_once(&providers, 1).await;
    assert_eq!(tenants.fetches(1), 1);
    pass(3 * MINUTE).await;
    assert!(providers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn idle_ones_are_dropped_though_nobody_asks_any_more_and_no_task_is_left() {
    let tenants = Tenants::default();
    let providers = tenants.providers(10, 10 * MINUTE);
    let tasks = || runtime::Handle::current().metrics().num_alive_tasks();
    for _ in 0..2 {
        use_once(&providers, 1).await;
        pass(6 * MINUTE).await;
        use_once(&providers, 2).await;
        pass(5 * MINUTE).await;
        assert_eq!((providers.len(), tasks()), (1, 1));
        pass(5 * MINUTE).await;
        assert_eq!((providers.len(), tasks()), (0, 0));
        pass(24 * HOUR).await;
    }
    assert_eq!([1, 2].map(|key| tenants.fetches(key)), [2; 2]);
}

// smithy-lang/smithy-rs#4607: what was cached for one client's settings was never dropped, nor were its tasks.
#[tokio::test(start_paused = true)]
async fn a_dropped_key_takes_its_loop_and_its_source_along() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let (alive, endpoint) = (Arc::new(AtomicUsize::new(0)), Endpoint::hourly());
    let providers = TokenProviders::builder().idle_after(2 * HOUR).build({
        let (alive, endpoint) = (Arc::clone(&alive), endpoint.clone());
        move |_: &u32| {
            alive.fetch_add(1, Ordering::Relaxed);
            let (counted, mut source) = (Counted(Arc::clone(&alive)), endpoint.source());
            support::builder().0.build(tower::service_fn(move |request| {
                let _ = &counted;
                tower::Service::call(&mut source, request)
            }))
        }
    });
    let providers = providers.unwrap();
    let tasks = || runtime::Handle::current().metrics().num_alive_tasks();
    for _ in 0..10 {
        for key in 0..100 {
            providers.get(&key).unwrap().init().await.unwrap();
        }
        assert_eq!((tasks(), alive.load(Ordering::Relaxed)), (101, 100), "a loop each, and one that sweeps");
        pass(HOUR).await;
        providers.remove(&0).unwrap();
        pass(2 * HOUR).await;
        assert_eq!((tasks(), alive.load(Ordering::Relaxed), providers.len()), (0, 0, 0));
    }
    let fetches = endpoint.fetches();
    pass(24 * HOUR).await;
    assert_eq!(endpoint.fetches(), fetches);
    drop(providers);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_held_is_not_idle_however_long_nobody_asks_for_it() {
    let tenants = Tenants::default();
    let providers = tenants.providers(10, 10 * MINUTE);
    let held = providers.get(&1).unwrap();
    pass(5 * HOUR).await;
    held.token().await.unwrap();
    use_once(&providers, 1).await;
    assert_eq!(tenants.fetches(1), 1);
    drop(held);
    pass(20 * MINUTE + SECOND).await;
    assert!(providers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_drops_all_but_lets_fetches_end() {
    let tenants = Tenants::default();
    let providers = tenants.providers(10, 10 * MINUTE);
    for key in [1, 2] {
        use_once(&providers, key).await;
    }
    ask_and_leave(&providers, 3, &tenants.endpoint(3)).await;
    drop(providers.clone());
    let tasks = || runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!((providers.len(), tasks()), (3, 2));
    drop(providers);
    settle().await;
    assert_eq!((tasks(), tenants.endpoint(3).busy()), (1, 1), "the fetch alone");
    tenants.endpoint(3).open();
    settle().await;
    assert_eq!((tasks(), tenants.endpoint(3).busy()), (0, 0));
}

fn paused() -> runtime::Runtime {
    runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

#[test]
fn the_sweep_moves_on_when_its_runtime_goes() {
    let tenants = Tenants::default();
    let providers = tenants.providers(10, MINUTE);
    let first = paused();
    first.block_on(use_once(&providers, 1));
    drop(first);
    paused().block_on(async {
        use_once(&providers, 2).await;
        pass(2 * MINUTE).await;
        assert!(providers.is_empty());
    });
}

#[test]
fn idle_ones_are_dropped_by_whoever_asks_while_the_runtime_of_the_sweep_is_frozen() {
    let tenants = Tenants::default();
    let providers = tenants.providers(100, MINUTE);
    let frozen = paused();
    frozen.block_on(async {
        for key in 0..20 {
            use_once(&providers, key).await;
        }
    });
    let second = paused();
    second.block_on(async {
        pass(2 * MINUTE).await;
        assert_eq!(providers.len(), 20);
        for _ in 0..3 {
            use_once(&providers, 100).await;
        }
        assert_eq!(providers.len(), 1);
    });
    drop(frozen);
}

#[test]
fn without_a_runtime_providers_are_made_kept_and_bounded() {
    let tenants = Tenants::default();
    let providers = tenants.providers(2, MINUTE);
    for key in [1, 2, 3, 2] {
        assert!(providers.get(&key).unwrap().try_token().is_none());
    }
    assert_eq!(providers.len(), 2);
    paused().block_on(async {
        use_once(&providers, 2).await;
        pass(2 * MINUTE).await;
        assert!(providers.is_empty());
    });
}

/// A source that looks who is still there as it goes.
struct Curious(Arc<Mutex<Option<TokenProviders<u32, ConfigError>>>>, Arc<AtomicUsize>);

impl Drop for Curious {
    fn drop(&mut self) {
        let providers = self.0.lock().unwrap().clone();
        self.1.fetch_add(providers.map_or(0, |providers| providers.len()), Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn sources_are_dropped_where_they_may_ask_for_providers_themselves() {
    let (own, seen) = (Arc::new(Mutex::new(None)), Arc::new(AtomicUsize::new(0)));
    let providers = TokenProviders::builder().capacity(2).idle_after(MINUTE).build({
        let (own, seen) = (Arc::clone(&own), Arc::clone(&seen));
        move |_: &u32| {
            let (curious, mut source) = (Curious(Arc::clone(&own), Arc::clone(&seen)), Endpoint::hourly().source());
            support::builder().0.build(tower::service_fn(move |request| {
                let _ = &curious;
                tower::Service::call(&mut source, request)
            }))
        }
    });
    let providers = providers.unwrap();
    *own.lock().unwrap() = Some(providers.clone());
    for key in [1, 2, 3] {
        use_once(&providers, key).await;
    }
    assert_eq!(seen.load(Ordering::Relaxed), 2, "one gave way");
    drop(providers.remove(&2));
    assert_eq!(seen.load(Ordering::Relaxed), 3, "one was removed");
    pass(2 * MINUTE).await;
    assert_eq!((seen.load(Ordering::Relaxed), providers.len()), (3, 0), "one was idle");
    own.lock().unwrap().take();
}
