//! A refused token: one refresh, one resend.

mod support;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use std::time::Duration;
use support::{Api, Endpoint, HOUR, MINUTE, Reply, SECOND, get, pass, post, provider, settle};
use tokio::time::Instant;
use tower::{BoxError, Layer, ServiceExt};
use tower_jwt_refresh::{JwtRefreshLayer, TokenProvider, source::Reason};

const URI: &str = "https://api.example.com/jobs/1";

type Answered = Result<Response<Full<Bytes>>, BoxError>;

async fn send(provider: &TokenProvider, api: &Api, request: Request<Full<Bytes>>) -> Answered {
    JwtRefreshLayer::new(provider.clone()).layer(api.clone()).oneshot(request).await
}

async fn body(response: Response<Full<Bytes>>) -> String {
    String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()).into_owned()
}

// Scenario 16; bitwarden/sdk-internal#1098, kubernetes-sigs/headlamp#7482, emdash-cms/emdash#2556, base44/cli#250.
#[tokio::test(start_paused = true)]
async fn a_401_leads_to_one_refresh_and_one_resend_and_the_caller_sees_the_second_answer() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    api.revoke("t1");
    let response = send(&provider, &api, post(URI, "hello")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
    assert!(api.seen().iter().all(|seen| seen.body == "hello"), "both sends carry the body");
}

// Scenario 17; ktorio/ktor#2676.
#[tokio::test(start_paused = true)]
async fn a_hundred_rejections_of_one_generation_cost_one_refresh_and_a_hundred_resends() {
    let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    api.revoke("t1");
    api.set_delay(SECOND);
    let all = (0..100).map(|_| send(&provider, &api, get(URI)));
    for response in futures_util::future::join_all(all).await {
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(endpoint.fetches(), 2);
    assert_eq!(api.tokens().iter().filter(|token| *token == "t1").count(), 100);
    assert_eq!(api.tokens().iter().filter(|token| *token == "t2").count(), 100);
}

// Scenario 20; basecamp/hey-sdk#138.
#[tokio::test(start_paused = true)]
async fn a_401_on_the_resend_too_is_the_callers_with_its_body() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    api.refuse_all(true);
    let response = send(&provider, &api, get(URI)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(body(response).await, "refused");
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 18; ktorio/ktor#3460.
#[tokio::test(start_paused = true)]
async fn a_late_401_for_an_old_token_is_resent_with_the_newer_one_and_fetches_nothing() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    api.revoke("t1");
    api.set_delay(5 * SECOND);
    let slow = tokio::spawn({
        let (provider, api) = (provider.clone(), api.clone());
        async move { send(&provider, &api, get(URI)).await }
    });
    pass(SECOND).await;
    api.set_delay(Duration::ZERO);
    provider.refresh().await.unwrap();
    let response = slow.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    settle().await;
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 97; DuendeArchive/Duende.AccessTokenManagement#12, icerockdev/moko-network#24.
#[tokio::test(start_paused = true)]
async fn who_reports_an_old_token_after_the_flight_has_ended_gets_the_new_one_without_a_fetch() {
    let endpoint = Endpoint::hourly();
    let (provider, _) = provider(&endpoint);
    let old = provider.token().await.unwrap();
    pass(MINUTE).await;
    let new = provider.replace(&old).await.unwrap();
    let again = provider.replace(&old).await.unwrap();
    assert_eq!((new.expose_secret(), again.expose_secret()), ("t2", "t2"));
    assert_eq!(new.generation(), again.generation());
    settle().await;
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 19.
#[tokio::test(start_paused = true)]
async fn a_401_that_arrives_while_a_flight_is_under_way_joins_it() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    api.revoke("t1");
    endpoint.set_delay(5 * SECOND);
    let refresh = tokio::spawn({
        let provider = provider.clone();
        async move { provider.refresh().await }
    });
    pass(SECOND).await;
    let sent = Instant::now();
    assert_eq!(send(&provider, &api, get(URI)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(sent.elapsed(), 4 * SECOND, "what was left of the flight");
    assert_eq!(refresh.await.unwrap().unwrap().expose_secret(), "t2");
    assert_eq!((endpoint.fetches(), endpoint.most_at_once()), (2, 1));
}

// Scenario 17; AlexAegis/auth#382, DuendeArchive/Support#966: the refresh token can be used once.
#[tokio::test(start_paused = true)]
async fn a_batch_of_late_and_early_401s_uses_a_one_use_refresh_token_once() {
    let (endpoint, api) = (Endpoint::hourly().taking(SECOND), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    api.revoke("t1");
    endpoint.next(Reply::New(HOUR));
    endpoint.usually(Reply::Refuse);
    // Their 401s come before, while and after the flight is under way.
    let mut sent = Vec::new();
    for at in 0..30 {
        api.set_delay(SECOND / 10 * at);
        let (provider, api) = (provider.clone(), api.clone());
        sent.push(tokio::spawn(async move { send(&provider, &api, get(URI)).await }));
        settle().await;
    }
    api.set_delay(Duration::ZERO);
    for one in sent {
        assert_eq!(one.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(endpoint.fetches(), 2);
}

// Scenario 29.
#[tokio::test(start_paused = true)]
async fn one_revocation_after_the_other_costs_one_refresh_each_and_generations_grow() {
    let (endpoint, api) = (Endpoint::hourly(), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    let mut last = provider.current().unwrap().generation();
    for cycle in 1..=10 {
        pass(MINUTE).await;
        api.revoke(provider.current().unwrap().expose_secret());
        for _ in 0..3 {
            assert_eq!(send(&provider, &api, get(URI)).await.unwrap().status(), StatusCode::OK);
        }
        assert_eq!(endpoint.fetches(), 1 + cycle);
        let generation = provider.current().unwrap().generation();
        assert!(generation > last);
        last = generation;
    }
}

// Scenario 98; bazelbuild/bazel#12106.
#[tokio::test(start_paused = true)]
async fn a_token_that_died_in_the_queue_of_the_inner_service_is_healed_by_its_401() {
    let (endpoint, api) = (Endpoint::new(Reply::New(MINUTE)), Api::new());
    let (provider, _) = provider(&endpoint);
    let queued = tower::service_fn({
        let api = api.clone();
        let mut queue = Some(2 * MINUTE);
        move |request| {
            let (api, queue) = (api.clone(), queue.take().unwrap_or_default());
            async move {
                pass(queue).await;
                api.oneshot(request).await
            }
        }
    });
    let dies = Instant::now() + MINUTE;
    api.judge_by(move |seen| {
        (seen.token.as_deref() == Some("t1") && Instant::now() >= dies).then(|| support::answer(401, "expired"))
    });
    // The queue is the service's own: a clone would start with it again.
    let queued = tower::buffer::Buffer::new(queued, 8);
    let response = JwtRefreshLayer::new(provider.clone()).layer(queued).oneshot(post(URI, "hello")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["t1", "t2"]);
    assert_eq!(endpoint.fetches(), 2);
}

// aws/aws-sdk-java-v2#5545, apache/arrow-rs-object-store#805: the wrong identity, cached for hours.
#[tokio::test(start_paused = true)]
async fn a_rejection_replaces_even_a_token_that_has_hours_to_live() {
    let (endpoint, api) = (Endpoint::new(Reply::New(12 * HOUR)), Api::new());
    let (provider, _) = provider(&endpoint);
    provider.init().await.unwrap();
    pass(MINUTE).await;
    api.revoke("t1");
    assert_eq!(send(&provider, &api, get(URI)).await.unwrap().status(), StatusCode::OK);
    assert_eq!(provider.current().unwrap().expose_secret(), "t2");
    assert_eq!(endpoint.asked()[1].reason, Reason::Rejected);
    assert_eq!(endpoint.asked()[1].previous.as_deref(), Some("t1"));
}

// Scenario 139.
#[tokio::test(start_paused = true)]
async fn opaque_tokens_that_die_every_30_seconds_heal_each_time_and_only_uploads_see_a_401() {
    let (endpoint, api) = (Endpoint::new(Reply::Opaque), Api::new());
    let (provider, _) = provider(&endpoint);
    let once = JwtRefreshLayer::new(provider.clone()).replay_none().layer(api.clone());
    let mut seen = 0;
    for second in 0..600 {
        if second % 30 == 29 {
            api.revoke(provider.current().unwrap().expose_secret());
        }
        if second % 60 == 29 {
            seen += usize::from(once.clone().oneshot(post(URI, "upload")).await.unwrap().status() != StatusCode::OK);
        }
        assert_eq!(send(&provider, &api, get(URI)).await.unwrap().status(), StatusCode::OK);
        pass(SECOND).await;
    }
    assert_eq!(endpoint.fetches(), 1 + 20);
    assert_eq!(seen, 10, "what cannot be sent again, and came first");
}
