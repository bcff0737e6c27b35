//! Sources made of others: one whose own client needs a token of another provider, and several tried in order.

#[path = "support/files.rs"]
mod files;
mod support;

use files::{Folder, jwt};
use futures_util::future::join_all;
use http::StatusCode;
use std::{
    error::Error,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, builder, get, pass, post};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tower::{
    BoxError, Layer, Service, ServiceExt,
    limit::{ConcurrencyLimit, GlobalConcurrencyLimitLayer},
    service_fn,
};
use tower_jwt_refresh::{
    FetchError, JwtRefresh, JwtRefreshLayer, SourceError, Token, TokenError, TokenProvider, TokenRequest,
    clock::{Clock, ManualClock},
    source::{Reason, TokenFile},
};

type Client = JwtRefresh<ConcurrencyLimit<Api>>;

/// An API, and two providers for it: the first's tokens open `/token`, which gives the second's, and those open all else. All go through one client with one
/// permit.
struct Stages {
    api: Api,
    permits: Arc<Semaphore>,
    endpoint: Endpoint,
    first: TokenProvider,
    second: TokenProvider,
    client: Client,
    minted: Arc<AtomicUsize>,
}

impl Stages {
    fn new(endpoint: &Endpoint, first_timeout: Duration) -> Self {
        let (api, permits, minted) = (Api::new(), Arc::new(Semaphore::new(1)), Arc::new(AtomicUsize::new(0)));
        let inner = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits)).layer(api.clone());
        let first = builder().0.fetch_timeout(first_timeout).build(endpoint.source()).unwrap();
        let to_token = JwtRefreshLayer::new(first.clone()).layer(inner.clone());
        let count = Arc::clone(&minted);
        let second = service_fn(move |_: TokenRequest| {
            let (client, count) = (to_token.clone(), Arc::clone(&count));
            async move {
                let status = client.oneshot(post("https://api.example.com/token", "")).await?.status();
                if status != StatusCode::OK {
                    return Err(BoxError::from(status.to_string()));
                }
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                Ok::<_, BoxError>(Token::opaque(format!("s{number}"))?.with_expires_in(10 * MINUTE))
            }
        });
        let second = builder().0.build(second).unwrap();
        let client = JwtRefreshLayer::new(second.clone()).layer(inner);
        Self { api, permits, endpoint: endpoint.clone(), first, second, client, minted }
    }

    async fn send(&self) -> Result<StatusCode, BoxError> {
        Ok(self.client.clone().oneshot(get("https://api.example.com/jobs/1")).await?.status())
    }
}

fn find<E: Error + 'static>(error: &TokenError) -> Vec<&E> {
    let chain = std::iter::successors(Some(error as &(dyn Error + 'static)), |error| (*error).source());
    chain.filter_map(|error| error.downcast_ref()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_source_with_a_provider_of_its_own_works_under_one_permit_for_all() {
    let set = Stages::new(&Endpoint::hourly().taking(SECOND), 30 * SECOND);
    set.api.set_delay(SECOND / 10);
    for round in 1..=180 {
        let answers = timeout(MINUTE, join_all((0..20).map(|_| set.send()))).await.expect("no deadlock");
        assert!(answers.iter().all(|answer| matches!(answer, Ok(StatusCode::OK))), "{round}: {answers:?}");
        pass(MINUTE).await;
        assert_eq!(set.permits.available_permits(), 1, "{round}");
        // One of them, the other, or both at once.
        if round % 7 == 0 {
            set.api.revoke(set.second.current().unwrap().expose_secret());
        }
        if round % 11 == 0 {
            set.api.revoke(set.first.current().unwrap().expose_secret());
        }
    }
    // Every tenth minute at least the second needs a token, and every eleventh the first's is refused then.
    assert!(set.endpoint.fetches() >= 180 / 11 - 3, "{}", set.endpoint.fetches());
    assert!(set.minted.load(Ordering::Relaxed) >= 18, "{:?}", set.minted);
    assert_eq!(set.endpoint.most_at_once(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_the_first_stage_is_down_the_seconds_token_is_sent_and_nothing_holds_the_permit() {
    let endpoint = Endpoint::hourly();
    let set = Stages::new(&endpoint, 30 * SECOND);
    assert_eq!(set.send().await.unwrap(), 200);
    endpoint.usually(Reply::Hang);
    set.first.set(Token::opaque("dead").unwrap().with_expires_in(Duration::ZERO));
    // The second's token is stale from its fifth minute on; its flight waits for the first's, and no request does.
    for _ in 0..8 {
        pass(MINUTE).await;
        let before = Instant::now();
        assert_eq!(set.send().await.unwrap(), 200);
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert_eq!(set.permits.available_permits(), 1);
    }
    assert!(endpoint.fetches() > 1, "it was asked, in vain");
}

// linkerd/linkerd2#13136: whose renewal needs the credential that expired is locked out. The first stage's source holds what does not expire.
#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_every_token_lives_is_over_when_the_first_stage_is() {
    let endpoint = Endpoint::hourly();
    let set = Stages::new(&endpoint, 30 * SECOND);
    assert_eq!(set.send().await.unwrap(), 200);
    endpoint.usually(Reply::Fail);
    pass(3 * HOUR).await;
    set.send().await.unwrap_err();
    endpoint.usually(Reply::New(HOUR));
    pass(2 * MINUTE).await;
    assert_eq!(set.send().await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_first_stage_with_the_shorter_timeout_is_named_in_the_seconds_error() {
    let set = Stages::new(&Endpoint::new(Reply::Hang), 10 * SECOND);
    let before = Instant::now();
    let error = set.second.token().await.unwrap_err();
    assert_eq!(before.elapsed(), 10 * SECOND);
    assert!(matches!(find(&error)[..], [TokenError::Unavailable { .. }, TokenError::Unavailable { .. }]), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_of_the_first_stage_is_one_of_the_second() {
    let set = Stages::new(&Endpoint::new(Reply::Refuse), 30 * SECOND);
    let error = set.second.token().await.unwrap_err();
    assert!(
        matches!(find(&error)[..], [TokenError::NeedsCredential { .. }, TokenError::NeedsCredential { .. }]),
        "{error:?}"
    );
}

// Scenario 39.
#[tokio::test(start_paused = true)]
async fn two_providers_that_ask_each_other_both_end_at_the_timeout_and_the_error_names_recursion() {
    let providers: Arc<[OnceLock<TokenProvider>; 2]> = Arc::default();
    for (own, other) in [(0, 1), (1, 0)] {
        let asked = Arc::clone(&providers);
        let source = service_fn(move |_: TokenRequest| {
            let other = asked[other].get().unwrap().clone();
            async move { other.token().await }
        });
        providers[own].set(builder().0.build(source).unwrap()).unwrap();
    }
    let before = Instant::now();
    let error = providers[0].get().unwrap().token().await.unwrap_err();
    assert_eq!(before.elapsed(), 30 * SECOND);
    let TokenError::Unavailable { error, .. } = error else { panic!("{error}") };
    assert!(matches!(*error, FetchError::TimedOut { .. }) && error.to_string().contains("recursion"), "{error}");
    pass(2 * SECOND).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "nobody waits on");
}

/// As the page on sources shows it: the token that was named, the file's, and where there is none, or it was refused or is at its end, the endpoint's.
fn in_order(
    named: Option<Token>,
    folder: &Folder,
    endpoint: &Endpoint,
    clock: &ManualClock,
) -> (TokenProvider, JwtRefresh<Api>, Api) {
    let (file, endpoint, now) = (TokenFile::new(folder.path()), endpoint.clone(), clock.clone());
    let mut refused: Vec<Token> = Vec::new();
    let source = service_fn(move |request: TokenRequest| {
        if request.reason() == Reason::Rejected {
            refused.splice(..0, request.previous().cloned());
            refused.truncate(8);
        }
        let (named, file, endpoint, refused) = (named.clone(), file.clone(), endpoint.clone(), refused.clone());
        let soon = now.wall() + MINUTE;
        async move {
            let usable = |token: &Token| {
                token.expires_at().is_none_or(|end| end > soon)
                    && refused.iter().all(|it| it.expose_secret() != token.expose_secret())
            };
            if let Some(token) = named.filter(usable) {
                return Ok(token);
            }
            match file.oneshot(request.clone()).await {
                Ok(token) if usable(&token) => Ok(token),
                _ => endpoint.source().call(request).await,
            }
        }
    });
    let (provider, api) = (TokenProvider::builder().clock(clock.clone()).build(source).unwrap(), Api::new());
    let client = JwtRefreshLayer::new(provider.clone()).layer(api.clone());
    (provider, client, api)
}

async fn status(client: &JwtRefresh<Api>) -> StatusCode {
    client.clone().oneshot(get("https://api.example.com/")).await.unwrap().status()
}

async fn fetched(provider: &TokenProvider, clock: &ManualClock) -> String {
    clock.advance(2 * SECOND);
    provider.refresh().await.unwrap().expose_secret().to_owned()
}

#[tokio::test]
async fn of_sources_tried_in_order_the_first_that_has_a_token_gives_it_and_the_last_ones_error_counts() {
    let (folder, endpoint, clock) = (Folder::new(), Endpoint::new(Reply::Refuse), ManualClock::new());
    let (provider, ..) = in_order(None, &folder, &endpoint, &clock);
    let error = provider.token().await.unwrap_err();
    assert!(matches!(error, TokenError::NeedsCredential { .. }), "{error}");
    assert_eq!(find::<SourceError>(&error).len(), 1);

    folder.rename("in-the-file");
    endpoint.usually(Reply::New(HOUR));
    assert_eq!(fetched(&provider, &clock).await, "in-the-file");
    let (provider, ..) = in_order(Some(Token::opaque("named").unwrap()), &folder, &endpoint, &clock);
    assert_eq!(provider.token().await.unwrap().expose_secret(), "named");
    assert_eq!(endpoint.fetches(), 1);
}

#[tokio::test]
async fn of_sources_tried_in_order_one_whose_token_was_refused_is_passed_over_until_it_has_another() {
    let (folder, endpoint, clock) = (Folder::new(), Endpoint::hourly(), ManualClock::new());
    folder.rename("in-the-file");
    let (provider, client, api) = in_order(Some(Token::opaque("named").unwrap()), &folder, &endpoint, &clock);
    assert_eq!(status(&client).await, 200);
    for dead in ["named", "in-the-file"] {
        clock.advance(30 * SECOND);
        api.revoke(dead);
        assert_eq!(status(&client).await, 200);
    }
    assert_eq!(api.tokens(), ["named", "named", "in-the-file", "in-the-file", "t1"]);
    // Nothing was refused this time, and what was is not back.
    assert_eq!(fetched(&provider, &clock).await, "t2");
    folder.rename("in-the-file-2");
    assert_eq!(fetched(&provider, &clock).await, "in-the-file-2");
}

#[tokio::test]
async fn of_sources_tried_in_order_one_whose_token_is_at_its_end_is_passed_over() {
    let (folder, endpoint, clock) = (Folder::new(), Endpoint::hourly(), ManualClock::new());
    let named = jwt(&clock, 1);
    let (provider, client, api) = in_order(Some(Token::from_jwt(&*named).unwrap()), &folder, &endpoint, &clock);
    assert_eq!(status(&client).await, 200);
    clock.advance(HOUR);
    assert_eq!(status(&client).await, 200);
    assert_eq!(api.tokens(), [&*named, "t1"]);
    assert_eq!(fetched(&provider, &clock).await, "t2");
}
