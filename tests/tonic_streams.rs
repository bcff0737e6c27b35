//! gRPC streams: sent again if they are refused before they begin, and what becomes of the token if they are refused later.

mod echo;
mod support;

use echo::{EchoClient, Server, Word, refusal, soon, word};
use futures_util::stream;
use support::{Endpoint, settle};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, metadata::MetadataMap, transport::Channel};
use tower::Layer;
use tower_jwt_refresh::{JwtRefresh, RetryPolicy, TokenProvider};

type Client = EchoClient<JwtRefresh<Channel>>;

async fn start() -> (Server, Endpoint, TokenProvider, Client) {
    let (server, endpoint) = (Server::start().await, Endpoint::hourly());
    let (provider, _) = echo::provider(&endpoint);
    let client = server.client(&provider);
    (server, endpoint, provider, client)
}

async fn collect(mut words: Streaming<Word>) -> (Vec<String>, Option<Status>) {
    let mut heard = Vec::new();
    loop {
        match words.message().await {
            Ok(Some(word)) => heard.push(word.text),
            Ok(None) => return (heard, None),
            Err(status) => return (heard, Some(status)),
        }
    }
}

/// Speaks one word, and the others when it is told to.
fn speaker() -> (mpsc::Sender<Word>, ReceiverStream<Word>) {
    let (speak, words) = mpsc::channel(8);
    speak.try_send(word("a")).unwrap();
    (speak, ReceiverStream::new(words))
}

// Scenarios 26 and 55.
#[tokio::test]
async fn a_clients_stream_that_is_refused_unread_is_sent_again_from_its_beginning() {
    let (server, endpoint, _, mut client) = start().await;
    server.revoke("old");
    let (speak, words) = speaker();
    let call = tokio::spawn(async move { client.gather(words).await });
    // The first sending is over before the stream is.
    server.until(|seen| seen.len() == 2).await;
    for text in ["b", "c"] {
        speak.send(word(text)).await.unwrap();
    }
    drop(speak);
    assert_eq!(call.await.unwrap().unwrap().into_inner().text, "abc");
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "t1".into()], 1));
    assert!(!server.seen()[0].whole, "half a stream is no whole one");
}

// Scenario 26.
#[tokio::test]
async fn a_clients_stream_that_is_refused_after_its_end_is_sent_again() {
    let (server, _, _, mut client) = start().await;
    server.revoke("old");
    server.read_first();
    let answer = client.gather(stream::iter(["a", "b", "c"].map(word))).await.unwrap();
    assert_eq!(answer.into_inner().text, "abc");
    let seen = server.seen();
    assert_eq!(server.tokens(), ["old", "t1"]);
    assert!(seen.iter().all(|seen| seen.whole && seen.words == ["a", "b", "c"]));
}

// Scenario 54.
#[tokio::test]
async fn a_clients_stream_over_the_limit_is_sent_once_and_heals_the_next_call() {
    let (server, endpoint, _, mut client) = start().await;
    server.revoke("old");
    server.read_first();
    let long = stream::iter((0..200).map(|_| word("x".repeat(1024))));
    let status = client.gather(long).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, refusal().message()));
    let seen = server.seen();
    assert!(seen[0].whole && seen[0].words.len() == 200, "nothing of it was cut off");
    client.say(word("next")).await.unwrap();
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "t1".into()], 1));
}

// Scenario 26.
#[tokio::test]
async fn a_servers_stream_that_is_refused_before_its_first_word_is_asked_for_again() {
    let (server, endpoint, _, mut client) = start().await;
    server.revoke("old");
    let words = client.split(word("a b c")).await.unwrap().into_inner();
    let (heard, end) = collect(words).await;
    assert_eq!(heard, ["a", "b", "c"]);
    assert!(end.is_none());
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "t1".into()], 1));
}

// Scenario 26.
#[tokio::test]
async fn a_conversation_that_is_refused_unheard_begins_again_and_goes_on() {
    let (server, endpoint, _, mut client) = start().await;
    server.revoke("old");
    let (speak, words) = speaker();
    let mut answers = client.talk(words).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().text, "a");
    speak.send(word("b")).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().text, "b");
    drop(speak);
    assert!(answers.message().await.unwrap().is_none());
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "t1".into()], 1));
}

// Scenario 27.
#[tokio::test]
async fn a_servers_stream_that_is_refused_in_its_trailers_is_its_callers_and_the_next_call_has_a_new_token() {
    let (server, endpoint, _, mut client) = start().await;
    let mut why = MetadataMap::new();
    why.insert("x-why", "expired".parse().unwrap());
    server.end_late_with(Status::with_metadata(Code::Unauthenticated, "too late", why));
    let (heard, end) = collect(client.split(word("a b c")).await.unwrap().into_inner()).await;
    let end = end.expect("the server's own end");
    assert_eq!(heard, ["a"], "and nothing of it twice");
    assert_eq!((end.code(), end.message()), (Code::Unauthenticated, "too late"));
    assert_eq!(end.metadata().get("x-why").unwrap(), "expired");
    assert_eq!(server.tokens(), ["old"]);
    client.say(word("next")).await.unwrap();
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "t1".into()], 1));
}

// Scenario 27.
#[tokio::test]
async fn a_conversation_that_is_refused_in_its_trailers_starts_the_refresh_then_and_there() {
    let (server, endpoint, provider, mut client) = start().await;
    server.end_late_with(refusal());
    let (speak, words) = speaker();
    let mut answers = client.talk(words).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().text, "a");
    settle().await;
    assert_eq!(endpoint.fetches(), 0, "until it ends the token is good");
    speak.send(word("b")).await.unwrap();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Unauthenticated);
    // Nobody has to call for it.
    soon(endpoint.asked_times(1)).await;
    assert_eq!(provider.token().await.unwrap().expose_secret(), "t1");
}

// Scenario 27.
#[tokio::test]
async fn a_stream_that_was_begun_with_an_older_token_touches_no_newer_one() {
    let (server, endpoint, provider, mut client) = start().await;
    server.end_late_with(refusal());
    let (speak, words) = speaker();
    let mut answers = client.talk(words).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().text, "a");
    provider.refresh().await.unwrap();
    speak.send(word("b")).await.unwrap();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Unauthenticated);
    settle().await;
    client.say(word("next")).await.unwrap();
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "t1".into()], 1));
}

// Scenario 27.
#[tokio::test]
async fn a_stream_that_ends_well_or_with_any_other_status_leaves_the_token() {
    let (server, endpoint, _, mut client) = start().await;
    let (heard, end) = collect(client.split(word("a b")).await.unwrap().into_inner()).await;
    assert!(heard == ["a", "b"] && end.is_none());
    server.end_late_with(Status::permission_denied("not you"));
    let (heard, end) = collect(client.split(word("a b")).await.unwrap().into_inner()).await;
    assert_eq!((heard.len(), end.unwrap().code()), (1, Code::PermissionDenied));
    // One that nobody hears out has no end to look at.
    server.end_late_with(refusal());
    drop(client.split(word("a b")).await.unwrap());
    settle().await;
    client.say(word("next")).await.unwrap();
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(); 4], 0));
}

// Scenarios 27 and 127: etcd's watch.
#[tokio::test]
async fn a_judge_looks_at_a_begun_streams_trailers_too() {
    let (server, endpoint, provider, _) = start().await;
    let etcd = RetryPolicy::default()
        .reject_when(|answer| matches!(answer.grpc(), Some((3, message)) if message.contains("invalid auth token")));
    let channel = server.layer(&provider).retry(etcd).layer(server.endpoint().connect_lazy());
    let mut client = EchoClient::new(channel);
    server.end_late_with(Status::invalid_argument("etcdserver: invalid auth token"));
    let (_, end) = collect(client.split(word("a b")).await.unwrap().into_inner()).await;
    assert_eq!(end.unwrap().code(), Code::InvalidArgument);
    client.say(word("next")).await.unwrap();
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "t1".into()], 1));
}

// Scenario 27; a policy that never resends still replaces the token, early or late.
#[tokio::test]
async fn without_resends_a_refused_stream_still_heals_the_next() {
    for late in [false, true] {
        let (server, endpoint, provider, _) = start().await;
        let channel = server.layer(&provider).retry(RetryPolicy::none()).layer(server.endpoint().connect_lazy());
        let mut client = EchoClient::new(channel);
        if late {
            server.end_late_with(refusal());
        } else {
            server.revoke("old");
        }
        let refused = match client.split(word("a b")).await {
            Ok(words) => collect(words.into_inner()).await.1.unwrap(),
            Err(status) => status,
        };
        assert_eq!(refused.code(), Code::Unauthenticated);
        client.say(word("next")).await.unwrap();
        assert_eq!((server.tokens(), endpoint.fetches()), (vec!["old".to_owned(), "t1".into()], 1));
    }
}
