//! A source that sends through the very client it feeds: an error, never a deadlock.

mod support;

use http::StatusCode;
use http_body_util::Full;
use std::{
    error::Error,
    sync::{Arc, OnceLock},
    time::Duration,
};
use support::{Api, HOUR, MINUTE, SECOND, builder, get, pass};
use tokio::time::Instant;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, buffer::BufferLayer, service_fn, util::BoxCloneSyncService};
use tower_jwt_refresh::{FetchError, JwtRefreshLayer, Token, TokenError, TokenProvider, TokenRequest};

type Request = http::Request<Full<bytes::Bytes>>;
type Client = BoxCloneSyncService<Request, http::Response<Full<bytes::Bytes>>, BoxError>;

const URI: &str = "https://api.example.com/token";

/// A provider whose source sends through a client that waits for it; `wrap` puts the client together.
fn recursive(wrap: impl FnOnce(&TokenProvider) -> Client) -> TokenProvider {
    let client = Arc::new(OnceLock::<Client>::new());
    let source = Arc::clone(&client);
    let source = service_fn(move |_: TokenRequest| {
        let client = source.get().expect("the client is made").clone();
        async move {
            let status = client.oneshot(get(URI)).await?.status();
            if status != StatusCode::OK {
                return Err(BoxError::from(status.to_string()));
            }
            Ok::<_, BoxError>(Token::opaque("t")?.with_expires_in(HOUR))
        }
    });
    let provider = builder().0.build(source).unwrap();
    assert!(client.set(wrap(&provider)).is_ok());
    provider
}

fn directly(api: &Api) -> impl FnOnce(&TokenProvider) -> Client {
    let api = api.clone();
    move |provider| BoxCloneSyncService::new(JwtRefreshLayer::new(provider.clone()).layer(api))
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| error.downcast_ref())
}

// Scenario 39; Alamofire/Alamofire#3509.
#[tokio::test(start_paused = true)]
async fn a_source_that_sends_through_its_own_layer_is_told_so_at_once() {
    let api = Api::new();
    let provider = recursive(directly(&api));
    let before = Instant::now();
    let error = provider.token().await.unwrap_err();
    assert_eq!(before.elapsed(), Duration::ZERO);
    let TokenError::Unavailable { error, .. } = &error else { panic!("{error}") };
    let FetchError::Source(error) = &**error else { panic!("{error}") };
    assert!(matches!(find(&**error), Some(TokenError::Recursive)), "{error}");
    assert!(api.seen().is_empty());
}

// Scenario 39: each way to want a token from inside the flight that brings it.
#[tokio::test(start_paused = true)]
async fn every_wait_for_the_flight_inside_it_is_recursive() {
    let provider = Arc::new(OnceLock::<TokenProvider>::new());
    let source = Arc::clone(&provider);
    let source = service_fn(move |request: TokenRequest| {
        let provider = source.get().unwrap().clone();
        async move {
            let errors = [
                provider.token().await.unwrap_err(),
                provider.refresh().await.unwrap_err(),
                provider.token_valid_for(MINUTE).await.unwrap_err(),
                match request.previous() {
                    Some(previous) => provider.replace(previous).await.unwrap_err(),
                    None => TokenError::Recursive,
                },
            ];
            let next = request.previous().map_or("t1", |_| "t2");
            assert!(errors.iter().all(|error| matches!(error, TokenError::Recursive)), "{errors:?}");
            Ok::<_, BoxError>(Token::opaque(next)?.with_expires_in(MINUTE))
        }
    });
    provider.set(builder().0.build(source).unwrap()).unwrap();
    let provider = provider.get().unwrap();
    let before = Instant::now();
    provider.token().await.unwrap();
    pass(MINUTE).await;
    provider.token().await.unwrap();
    assert_eq!(before.elapsed(), MINUTE);
}

// Scenario 39: what is told from outside meanwhile does not hide who asks.
#[tokio::test(start_paused = true)]
async fn a_source_that_pushes_a_token_and_then_waits_for_its_own_flight_is_told_so_at_once() {
    let provider = Arc::new(OnceLock::<TokenProvider>::new());
    let told = Arc::new(OnceLock::new());
    let (source, tell) = (Arc::clone(&provider), Arc::clone(&told));
    let source = service_fn(move |_: TokenRequest| {
        let (provider, tell) = (source.get().unwrap().clone(), Arc::clone(&tell));
        async move {
            provider.set(Token::opaque("pushed")?.with_expires_in(HOUR));
            tell.set(provider.refresh().await).unwrap();
            Ok::<_, BoxError>(Token::opaque("t")?.with_expires_in(HOUR))
        }
    });
    provider.set(builder().0.build(source).unwrap()).unwrap();
    assert_eq!(provider.get().unwrap().token().await.unwrap().expose_secret(), "pushed");
    pass(SECOND).await;
    let told = told.get().expect("within a second").as_ref().unwrap_err();
    assert!(matches!(told, TokenError::Recursive), "{told}");
}

// Scenario 39: while a token lives the source gets that, like anybody.
#[tokio::test(start_paused = true)]
async fn a_source_that_sends_through_its_own_layer_works_while_the_token_lives() {
    let api = Api::new();
    let provider = recursive(directly(&api));
    provider.set(Token::opaque("pushed").unwrap().with_expires_in(HOUR));
    for passed in [HOUR - 2 * MINUTE, HOUR - 30 * SECOND] {
        pass(passed).await;
        let before = Instant::now();
        assert_eq!(provider.refresh().await.unwrap().expose_secret(), "t");
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
    assert_eq!(api.tokens(), ["pushed", "t"]);
}

// ktorio/ktor#2864: the endpoint's own 401 is an error, and starts nothing.
#[tokio::test(start_paused = true)]
async fn a_token_endpoint_that_answers_401_to_its_own_client_is_one_error() {
    let api = Api::new();
    let provider = recursive(directly(&api));
    provider.set(Token::opaque("pushed").unwrap().with_expires_in(HOUR));
    pass(MINUTE).await;
    api.refuse_all(true);
    let before = Instant::now();
    let error = provider.refresh().await.unwrap_err();
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert!(matches!(error, TokenError::Unavailable { .. }), "{error}");
    assert_eq!(api.tokens(), ["pushed"]);
}

// Scenario 39: a task in between hides who asks.
#[tokio::test(start_paused = true)]
async fn across_a_buffer_both_end_at_the_timeout_and_the_error_names_recursion() {
    let api = Api::new();
    let provider = recursive(|provider| {
        let layer = JwtRefreshLayer::new(provider.clone());
        BoxCloneSyncService::new(ServiceBuilder::new().layer(BufferLayer::new(8)).layer(layer).service(api.clone()))
    });
    let before = Instant::now();
    let error = provider.token().await.unwrap_err();
    assert_eq!(before.elapsed(), 30 * SECOND);
    let TokenError::Unavailable { error: fetch, .. } = &error else { panic!("{error}") };
    assert!(matches!(**fetch, FetchError::TimedOut { .. }), "{fetch}");
    assert!(fetch.to_string().contains("recursion"), "{fetch}");
    pass(SECOND).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 1, "the buffer's worker alone is left");
    assert!(api.seen().is_empty());
}
