//! Providers that are told what other processes store. Each provider here is a process.

#[path = "support/store.rs"]
mod store;
mod support;

use std::time::Duration;
use store::{Answer, Fault, Issuer, Memory, Step, builder, process, secret};
use support::{Endpoint, HOUR, MINUTE, SECOND, pass, settle};
use tokio::{runtime::Handle, sync::Notify, time::timeout};
use tower::{Layer, Service};
use tower_jwt_refresh::{
    BoxError, Token, TokenError, TokenProvider, TokenProviderBuilder, TokenRequest,
    clock::{Clock, ManualClock},
    store::{BoxFuture, Loaded, StoreError, StoreLayer, StoreLock, TokenStore},
};

/// A process that follows.
fn following<S>(store: impl TokenStore, source: S, builder: TokenProviderBuilder, clock: &ManualClock) -> TokenProvider
where
    S: Service<TokenRequest, Response = Token, Error: Into<BoxError>, Future: Send + 'static> + Send + 'static,
{
    let shared = StoreLayer::new(store).clock(clock.clone()).layer(source);
    let provider = builder.build(shared.clone()).unwrap();
    shared.follow(&provider);
    provider
}

/// What it holds, without asking for it.
fn held(provider: &TokenProvider) -> Option<String> {
    provider.current().map(|token| token.expose_secret().to_owned())
}

async fn replaced(provider: &TokenProvider) -> String {
    let rejected = provider.token().await.unwrap();
    provider.replace(&rejected).await.unwrap().expose_secret().to_owned()
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

fn start() -> (Endpoint, Memory, ManualClock) {
    (Endpoint::hourly(), Memory::default(), ManualClock::following_tokio())
}

#[tokio::test(start_paused = true)]
async fn a_process_that_follows_has_each_new_token_without_asking() {
    let (endpoint, memory, clock) = start();
    let other = following(memory.clone(), endpoint.source(), builder(&clock), &clock);
    let one = process(&memory, endpoint.source(), &clock);
    assert_eq!(secret(&one).await, "t1");
    settle().await;
    assert_eq!(held(&other).as_deref(), Some("t1"));
    for number in 2..5 {
        pass(MINUTE).await;
        assert_eq!(replaced(&one).await, format!("t{number}"));
        settle().await;
        assert_eq!(held(&other), Some(format!("t{number}")));
    }
    let ends = other.current().unwrap().expires_at().unwrap().duration_since(clock.wall()).unwrap();
    assert!(ends <= HOUR && ends > HOUR - MINUTE, "{ends:?}");
    assert_eq!(memory.count(Step::Lock), 4, "who is told takes no lock");
    assert_eq!(endpoint.fetches(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_already_is_given_too() {
    let (endpoint, memory, clock) = start();
    assert_eq!(secret(&process(&memory, endpoint.source(), &clock)).await, "t1");
    let other = following(memory.clone(), endpoint.source(), builder(&clock), &clock);
    settle().await;
    assert_eq!((held(&other).as_deref(), endpoint.fetches()), (Some("t1"), 1));
}

// Without it the request finds t2 after its refusal, which is refused as well.
#[tokio::test(start_paused = true)]
async fn a_request_survives_that_all_tokens_so_far_are_withdrawn() {
    let (endpoint, memory, clock) = start();
    let one = process(&memory, endpoint.source(), &clock);
    let other = following(memory.clone(), endpoint.source(), builder(&clock), &clock);
    for process in [&one, &other] {
        assert_eq!(secret(process).await, "t1");
    }
    pass(MINUTE).await;
    assert_eq!(replaced(&one).await, "t2");
    pass(MINUTE).await;
    let serve = async |token: Token| if token.expose_secret() == "t3" { 200 } else { 401 };
    assert_eq!(other.run(serve, |status| *status == 401).await.unwrap(), 200);
    assert_eq!(endpoint.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn to_follow_fetches_nothing() {
    let (endpoint, memory, clock) = start();
    let other = following(memory.clone(), endpoint.source(), builder(&clock), &clock);
    for _ in 0..10 {
        pass(HOUR).await;
        memory.tell();
    }
    settle().await;
    assert_eq!((held(&other), endpoint.fetches(), memory.count(Step::Lock)), (None, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_provider() {
    let (endpoint, memory, clock) = start();
    let before = tasks();
    let other = following(memory.clone(), endpoint.source(), builder(&clock), &clock);
    settle().await;
    assert_eq!(tasks(), before + 1);
    drop(other);
    settle().await;
    assert_eq!(tasks(), before, "with its last handle");
    let other = following(memory.clone(), endpoint.source(), builder(&clock), &clock);
    other.shutdown().await;
    settle().await;
    assert_eq!(tasks(), before, "shut down");
}

#[test]
fn without_a_runtime_it_does_nothing() {
    let (endpoint, memory) = (Endpoint::hourly(), Memory::default());
    let provider = following(memory, endpoint.source(), TokenProvider::builder(), &ManualClock::new());
    assert_eq!(held(&provider), None);
}

#[tokio::test(start_paused = true)]
async fn who_is_signed_out_stays_so_and_a_login_is_not_undone() {
    let (endpoint, memory, clock) = start();
    let other = following(memory.clone(), endpoint.source(), builder(&clock), &clock);
    other.clear();
    let one = process(&memory, endpoint.source(), &clock);
    assert_eq!(secret(&one).await, "t1");
    settle().await;
    assert_eq!(held(&other), None);
    assert!(matches!(other.token().await, Err(TokenError::SignedOut)));
    other.set(Token::opaque("pushed").unwrap());
    memory.tell();
    settle().await;
    assert_eq!(held(&other).as_deref(), Some("pushed"), "what was there before it comes back no more");
    pass(MINUTE).await;
    assert_eq!(replaced(&one).await, "t2");
    settle().await;
    assert_eq!(held(&other).as_deref(), Some("t2"), "what comes after it does");
    other.set(Token::opaque("again").unwrap());
    memory.tell();
    settle().await;
    assert_eq!(held(&other).as_deref(), Some("again"));
}

#[tokio::test(start_paused = true)]
async fn what_was_given_once_does_not_come_back() {
    let (endpoint, memory, clock) = start();
    let pushed = || Token::opaque("pushed").unwrap().with_expires_in(HOUR / 2);

    // By a fetch of its own, and then it follows.
    let shared = StoreLayer::new(memory.clone()).clock(clock.clone()).layer(endpoint.source());
    let late = builder(&clock).build(shared.clone()).unwrap();
    assert_eq!(secret(&late).await, "t1");
    late.set(pushed());
    shared.follow(&late);
    settle().await;
    assert_eq!(held(&late).as_deref(), Some("pushed"));

    // By following, and then it fetches.
    let other = following(memory.clone(), endpoint.source(), builder(&clock), &clock);
    settle().await;
    assert_eq!(held(&other).as_deref(), Some("t1"));
    other.set(pushed());
    pass(MINUTE).await;
    assert_eq!(replaced(&other).await, "t2");
}

#[tokio::test(start_paused = true)]
async fn of_two_that_nobody_knows_the_order_of_the_one_that_lives_longer_stays() {
    let (endpoint, memory, clock) = start();
    let one = process(&memory, endpoint.source(), &clock);
    assert_eq!(secret(&one).await, "t1");
    let seeded = |life| {
        let seed = Token::opaque("seed").unwrap().with_expires_in(life);
        following(memory.clone(), endpoint.source(), builder(&clock).seed(seed), &clock)
    };
    let (long, short) = (seeded(HOUR * 2), seeded(HOUR / 2));
    settle().await;
    assert_eq!((held(&long).as_deref(), held(&short).as_deref()), (Some("seed"), Some("t1")));
    pass(MINUTE).await;
    assert_eq!(replaced(&one).await, "t2");
    settle().await;
    assert_eq!(held(&long).as_deref(), Some("t2"), "this one was surely later");
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_during_a_fetch_that_fails_is_given_after_it() {
    let (issuer, memory, clock) = (Issuer::new(), Memory::default(), ManualClock::following_tokio());
    let other = following(memory.clone(), issuer.source(), builder(&clock), &clock);
    issuer.next(Answer::Fail);
    issuer.shut();
    let asking = tokio::spawn({
        let other = other.clone();
        async move { secret(&other).await }
    });
    issuer.shown_times(1).await;
    // It is slow, and another process takes its lock over.
    memory.end_lock();
    issuer.let_others_pass();
    assert_eq!(secret(&process(&memory, issuer.source(), &clock)).await, "t1");
    settle().await;
    assert_eq!(held(&other), None, "its own fetch goes on");
    issuer.open();
    drop(asking.await);
    settle().await;
    assert_eq!(held(&other).as_deref(), Some("t1"));
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_while_a_fetch_landed_an_older_one_is_given_after_it() {
    let (endpoint, memory, clock) = start();
    let one = process(&memory, endpoint.source(), &clock);
    assert_eq!(secret(&one).await, "t1");
    let mut stored = vec![memory.value().unwrap()];
    for number in 2..4 {
        pass(MINUTE).await;
        assert_eq!(replaced(&one).await, format!("t{number}"));
        stored.push(memory.value().unwrap());
    }
    memory.put(&stored[0]);
    let other = following(memory.clone(), endpoint.source(), builder(&clock), &clock);
    settle().await;
    assert_eq!(held(&other).as_deref(), Some("t1"));
    pass(MINUTE).await;

    // From here on a look sees what is stored when it ends.
    memory.break_down(Step::Load, Fault::Slow(SECOND));
    let refreshing = tokio::spawn({
        let other = other.clone();
        async move { other.refresh().await.unwrap().expose_secret().to_owned() }
    });
    pass(SECOND / 2).await;
    memory.tell();
    memory.put(&stored[1]);
    pass(SECOND * 3 / 4).await;
    assert_eq!(refreshing.await.unwrap(), "t2");
    memory.put(&stored[2]);
    pass(MINUTE).await;
    assert_eq!((held(&other).as_deref(), endpoint.fetches()), (Some("t3"), 3));
}

#[tokio::test(start_paused = true)]
async fn what_is_about_to_die_is_not_given() {
    let (endpoint, memory, clock) = start();
    assert_eq!(secret(&process(&memory, endpoint.source(), &clock)).await, "t1");
    pass(MINUTE * 59 + SECOND).await;
    let other = following(memory.clone(), endpoint.source(), builder(&clock), &clock);
    settle().await;
    assert_eq!(held(&other), None);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_tells_nothing_is_followed_in_vain() {
    struct Silent(Memory);
    impl TokenStore for Silent {
        fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
            self.0.load()
        }
        fn lock(&self, wait: Duration) -> BoxFuture<'_, Result<Box<dyn StoreLock>, StoreError>> {
            self.0.lock(wait)
        }
    }
    let (endpoint, memory, clock) = start();
    let other = following(Silent(memory.clone()), endpoint.source(), builder(&clock), &clock);
    assert_eq!(secret(&process(&memory, endpoint.source(), &clock)).await, "t1");
    pass(HOUR).await;
    assert_eq!(held(&other), None);
}

#[tokio::test(start_paused = true)]
async fn what_stands_before_a_store_passes_on_what_it_tells() {
    let memory = Memory::default();
    let shared: std::sync::Arc<dyn TokenStore> = std::sync::Arc::new(memory.clone());
    let key = tower_jwt_refresh::store::SealKey::new(&[7; 32]).unwrap();
    let sealed = tower_jwt_refresh::store::Sealed::new(shared, key, "test");
    let changed = Notify::new();
    let told = async {
        for _ in 0..2 {
            timeout(HOUR, changed.notified()).await.expect("it tells");
            memory.tell();
        }
    };
    tokio::select! {
        () = sealed.watch(&changed) => panic!("it ended"),
        () = told => {}
    }
}
