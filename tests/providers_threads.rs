//! Keyed providers under many threads: first uses that meet, and gets against everything that takes providers away.

mod support;

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Barrier,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use support::Endpoint;
use tokio::{runtime::Builder, task::yield_now};
use tower_jwt_refresh::{BoxError, Token, TokenProvider, TokenProviders, TokenRequest};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn first_uses_that_meet_cost_one_provider_and_one_fetch() {
    const CALLERS: usize = 6;
    for _ in 0..100 {
        let (endpoint, calls) = (Endpoint::hourly(), Arc::new(AtomicUsize::new(0)));
        let providers: TokenProviders<String> = TokenProviders::new({
            let (endpoint, calls) = (endpoint.clone(), Arc::clone(&calls));
            move |_: &String| {
                calls.fetch_add(1, Ordering::Relaxed);
                // The others arrive meanwhile.
                thread::yield_now();
                Ok(TokenProvider::builder().build(endpoint.source())?)
            }
        });
        let together = Arc::new(Barrier::new(CALLERS));
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (providers, together) = (providers.clone(), Arc::clone(&together));
                thread::spawn(move || {
                    together.wait();
                    providers.get("one").unwrap()
                })
            })
            .collect();
        for caller in callers {
            assert_eq!(caller.join().unwrap().token().await.unwrap().expose_secret(), "t1");
        }
        assert_eq!((calls.load(Ordering::Relaxed), endpoint.fetches(), providers.len()), (1, 1, 1));
    }
}

/// The factory of `slow` hangs until it is told. Another thread that wants `slow` waits for it; who wants anything else does not.
#[test]
fn a_factory_that_hangs_holds_up_its_own_key_alone() {
    for fails in [false, true] {
        let (started, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let calls = Arc::new(AtomicUsize::new(0));
        let providers: TokenProviders<String> = TokenProviders::new({
            let (started, go, calls) = (Arc::clone(&started), Arc::clone(&go), Arc::clone(&calls));
            move |tenant: &String| {
                if tenant == "slow" && calls.fetch_add(1, Ordering::Relaxed) == 0 {
                    started.wait();
                    go.wait();
                    assert!(!fails, "the factory has a bug");
                }
                Ok(TokenProvider::new(Endpoint::hourly().source()))
            }
        });
        let get = |key: &'static str| {
            let providers = providers.clone();
            thread::spawn(move || providers.get(key).map(drop).is_ok())
        };
        let first = get("slow");
        started.wait();
        let second = get("slow");
        for key in ["other", "another"] {
            assert!(get(key).join().unwrap());
        }
        assert_eq!((providers.len(), calls.load(Ordering::Relaxed)), (2, 1));
        go.wait();
        assert_eq!((first.join().is_err(), second.join().unwrap()), (fails, true));
        assert_eq!((providers.len(), calls.load(Ordering::Relaxed)), (3, 1 + usize::from(fails)));
    }
}

const KEYS: u32 = 8;

/// What must never happen for any key: two fetches at once. That is two providers which both live.
#[derive(Default)]
struct Watch {
    busy: [AtomicU32; KEYS as usize],
    fetches: AtomicU32,
    twice: AtomicU32,
    made: AtomicU32,
}

impl Watch {
    /// A provider that already holds its name, `key/number`.
    fn provider(self: &Arc<Self>, key: u32) -> Result<TokenProvider, BoxError> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        match number % 37 {
            35 => return Err("the factory fails".into()),
            // A panic without the words on the screen.
            36 => resume_unwind(Box::new("the factory panics")),
            _ => {}
        }
        let (watch, name) = (Arc::clone(self), format!("{key}/{number}"));
        let seed = Token::opaque(name.as_str())?;
        let source = tower::service_fn(move |_: TokenRequest| {
            let (watch, name) = (Arc::clone(&watch), name.clone());
            async move {
                let busy = &watch.busy[key as usize];
                watch.twice.fetch_add(u32::from(busy.fetch_add(1, Ordering::SeqCst) > 0), Ordering::SeqCst);
                for _ in 0..100 {
                    yield_now().await;
                }
                busy.fetch_sub(1, Ordering::SeqCst);
                watch.fetches.fetch_add(1, Ordering::Relaxed);
                Ok::<_, BoxError>(Token::opaque(name)?)
            }
        });
        Ok(TokenProvider::builder().seed(seed).min_interval(Duration::from_micros(1)).build(source)?)
    }
}

fn name(provider: &TokenProvider) -> String {
    provider.current().expect("seeded").expose_secret().to_owned()
}

/// What a thread holds, by key.
type Held = HashMap<u32, TokenProvider>;

/// Everything that a thread may do, drawn by lot.
async fn act(providers: &TokenProviders<u32>, held: &mut Held, dice: &mut fastrand::Rng, removes: bool) {
    let key = dice.u32(..KEYS);
    let get = |key: &u32| catch_unwind(AssertUnwindSafe(|| providers.get(key))).ok()?.ok();
    let Some(provider) = get(&key) else { return };
    assert!(name(&provider).starts_with(&format!("{key}/")), "another key's provider");
    if let Some(held) = held.get(&key).filter(|_| !removes) {
        assert_eq!(name(held), name(&provider), "a second provider beside one that is held");
    }
    match dice.u8(..16) {
        0 | 1 => drop(held.insert(key, provider)),
        2..7 => drop(held.remove(&key)),
        7 if removes => drop(providers.remove(&key)),
        8 | 9 => drop(provider.refresh().await),
        // Begins a fetch, leaves, uses others, and comes back.
        10..14 => {
            let refresh = tokio::spawn(async move { provider.refresh().await });
            for _ in 0..dice.u8(..20) {
                yield_now().await;
            }
            refresh.abort();
            drop(refresh.await);
            for other in 1..KEYS {
                drop(get(&((key + other) % KEYS)));
            }
            if let Some(provider) = get(&key) {
                drop(provider.refresh().await);
            }
        }
        // Beside its loop.
        14 => drop(provider.init().await),
        _ => {}
    }
}

fn many_threads(removes: bool) -> Arc<Watch> {
    let watch = Arc::new(Watch::default());
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let providers = TokenProviders::builder().capacity(3).idle_after(Duration::from_millis(1)).build({
        let watch = Arc::clone(&watch);
        move |key: &u32| watch.provider(*key)
    });
    let providers = providers.unwrap();
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            let (providers, runtime) = (providers.clone(), runtime.handle().clone());
            thread::spawn(move || {
                let (mut dice, mut held) = (fastrand::Rng::with_seed(seed), Held::new());
                runtime.block_on(async {
                    for _ in 0..1_000 {
                        act(&providers, &mut held, &mut dice, removes).await;
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    drop(providers);
    // Fetches end, loops and the sweep go.
    while runtime.metrics().num_alive_tasks() > 0 {
        thread::yield_now();
    }
    watch
}

#[test]
fn under_many_threads_no_key_ever_has_two_providers_that_live() {
    let watch = many_threads(false);
    let (made, fetches) = (watch.made.load(Ordering::Relaxed), watch.fetches.load(Ordering::Relaxed));
    assert_eq!(watch.twice.load(Ordering::SeqCst), 0, "{made} made, {fetches} fetches");
    assert!(made > 200 && fetches > 200, "{made} made, {fetches} fetches: this shows nothing");
}

#[test]
fn under_many_threads_nothing_is_left_where_keys_are_removed_as_well() {
    let watch = many_threads(true);
    assert!(watch.made.load(Ordering::Relaxed) > 200);
}
