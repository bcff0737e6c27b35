//! tonic under a generated client: what becomes of a call, in each state of its token.

mod echo;
mod support;

use echo::{Server, refusal, soon, word};
use support::{Endpoint, HOUR, MINUTE, Reply};
use tonic::{Code, Status, metadata::MetadataMap};
use tower::Layer;
use tower_jwt_refresh::RetryPolicy;

async fn server() -> (Server, Endpoint) {
    (Server::start().await, Endpoint::hourly())
}

#[tokio::test]
async fn a_fresh_token_goes_with_the_call_and_nothing_is_fetched() {
    let (server, endpoint) = server().await;
    let (provider, _) = echo::provider(&endpoint);
    let answer = server.client(&provider).say(word("hello")).await.unwrap();
    assert_eq!(answer.into_inner().text, "hello");
    assert_eq!(server.seen()[0].headers["authorization"], "Bearer old");
    assert_eq!((server.tokens().len(), endpoint.fetches()), (1, 0));
}

#[tokio::test]
async fn an_expired_token_is_never_sent() {
    let (server, endpoint) = server().await;
    let (provider, clock) = echo::provider(&endpoint);
    clock.advance(2 * HOUR);
    server.client(&provider).say(word("hello")).await.unwrap();
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["t1".to_owned()], 1));
}

#[tokio::test]
async fn a_stale_token_is_sent_at_once_though_the_endpoint_is_silent() {
    let (server, endpoint) = server().await;
    let (provider, clock) = echo::provider(&endpoint);
    clock.advance(56 * MINUTE);
    endpoint.shut();
    server.client(&provider).say(word("hello")).await.unwrap();
    soon(endpoint.asked_times(1)).await;
    assert_eq!(server.tokens(), ["old"]);
}

// Scenario 26; grpc/grpc-java#10462, grpc/grpc-java#5856, grpc/grpc-java#7345: the resend has the new token, not the same again.
#[tokio::test]
async fn unauthenticated_leads_to_one_refresh_and_the_same_call_again_with_the_new_token() {
    let (server, endpoint) = server().await;
    let (provider, _) = echo::provider(&endpoint);
    server.revoke("old");
    let answer = server.client(&provider).say(word("hello")).await.unwrap();
    assert_eq!(answer.into_inner().text, "hello");
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "t1".into()], 1));
    assert!(server.seen().iter().all(|seen| seen.words == ["hello"] && seen.whole));
}

#[tokio::test]
async fn a_call_that_is_refused_twice_ends_with_the_servers_own_status() {
    let (server, endpoint) = server().await;
    let (provider, _) = echo::provider(&endpoint);
    server.judge_by(|seen| {
        let mut why = MetadataMap::new();
        why.insert("x-why", seen.token.parse().unwrap());
        Some(Status::with_metadata(Code::Unauthenticated, "not today", why))
    });
    let status = server.client(&provider).say(word("hello")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "not today"));
    assert_eq!(status.metadata().get("x-why").unwrap(), "t1");
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "t1".into()], 1));
}

#[tokio::test]
async fn a_refused_token_that_cannot_be_replaced_leaves_the_call_with_the_servers_status() {
    for down in [Reply::Fail, Reply::Refuse] {
        let (server, endpoint) = server().await;
        let (provider, _) = echo::provider(&endpoint);
        server.revoke("old");
        endpoint.usually(down);
        let status = server.client(&provider).say(word("hello")).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, refusal().message()));
        assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned()], 1));
    }
}

// Scenario 26.
#[tokio::test]
async fn no_other_status_refuses_the_token() {
    let (server, endpoint) = server().await;
    let (provider, _) = echo::provider(&endpoint);
    let mut client = server.client(&provider);
    for code in (1..=15).map(Code::from_i32) {
        server.judge_by(move |_| Some(Status::new(code, "invalid token")));
        let status = client.say(word("hello")).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, "invalid token"));
    }
    assert_eq!((server.tokens().len(), endpoint.fetches()), (15, 0), "PERMISSION_DENIED among them");
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_the_refresh_to_the_next_call() {
    let (server, endpoint) = server().await;
    let (provider, _) = echo::provider(&endpoint);
    server.revoke("old");
    endpoint.shut();
    let mut client = server.client(&provider);
    let call = tokio::spawn({
        let mut client = client.clone();
        async move { client.say(word("hello")).await }
    });
    soon(endpoint.asked_times(1)).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    endpoint.open();
    client.say(word("again")).await.unwrap();
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "t1".into()], 1));
}

#[tokio::test]
async fn two_hundred_calls_refused_at_once_cost_one_refresh() {
    let (server, endpoint) = server().await;
    let (provider, _) = echo::provider(&endpoint);
    server.revoke("old");
    server.meet(200);
    let client = server.client(&provider);
    let calls = (0..200).map(|number| {
        let mut client = client.clone();
        async move { (number.to_string(), client.say(word(number.to_string())).await) }
    });
    for (text, answer) in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap().into_inner().text, text);
    }
    for token in ["old", "t1"] {
        assert_eq!(server.tokens().iter().filter(|sent| *sent == token).count(), 200, "{token}");
    }
    assert_eq!((endpoint.fetches(), endpoint.most_at_once()), (1, 1));
}

// Scenario 127.
#[tokio::test]
async fn a_judge_tells_etcds_dead_token_by_its_message() {
    let (server, endpoint) = server().await;
    let (provider, _) = echo::provider(&endpoint);
    let etcd = RetryPolicy::default()
        .reject_when(|answer| matches!(answer.grpc(), Some((3, message)) if message.contains("invalid auth token")));
    let channel = server.layer(&provider).retry(etcd).layer(server.endpoint().connect_lazy());
    let mut client = echo::EchoClient::new(channel);
    server.judge_by(|seen| match seen.words[0].as_str() {
        "bad" => Some(Status::invalid_argument("etcdserver: key is not provided")),
        _ => (seen.token == "old").then(|| Status::invalid_argument("etcdserver: invalid auth token")),
    });
    assert_eq!(client.say(word("bad")).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!((server.tokens().len(), endpoint.fetches()), (1, 0));
    client.say(word("good")).await.unwrap();
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "old".into(), "t1".into()], 1));
}

// Scenario 127; googleapis/java-bigtable-hbase#1204: no more than the brake lets through.
#[tokio::test]
async fn a_server_that_refuses_every_token_is_braked_however_it_says_so() {
    for code in [Code::Unauthenticated, Code::InvalidArgument] {
        let (server, endpoint) = server().await;
        let (provider, clock) = echo::provider(&endpoint);
        let policy = RetryPolicy::default().reject_when(|answer| matches!(answer.grpc(), Some((3, _))));
        let channel = server.layer(&provider).retry(policy).layer(server.endpoint().connect_lazy());
        let mut client = echo::EchoClient::new(channel);
        server.judge_by(move |_| Some(Status::new(code, "no")));
        for _ in 0..60 {
            assert_eq!(client.say(word("hello")).await.unwrap_err().code(), code);
            clock.advance(MINUTE / 60);
        }
        let fetches = endpoint.fetches();
        assert!((1..=6).contains(&fetches), "{fetches} fetches in a minute of one refused call a second");
    }
}
