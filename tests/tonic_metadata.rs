//! What a call carries besides its token is the same on both sends.

mod echo;
mod support;

use echo::{EchoClient, Server, refusal, soon, word};
use http::HeaderMap;
use support::{Endpoint, SECOND, settle};
use tonic::{Request, codec::CompressionEncoding, metadata::MetadataValue, transport::Channel};
use tower_jwt_refresh::{JwtRefresh, NoToken, UseToken};

/// The headers of both sends of a call, without their tokens.
fn both(server: &Server) -> [HeaderMap; 2] {
    assert_eq!(server.tokens(), ["old", "t1"]);
    let headers: Vec<_> = server.seen().into_iter().map(|seen| seen.headers).collect();
    let mut both: [HeaderMap; 2] = headers.try_into().unwrap();
    for headers in &mut both {
        assert!(headers.remove("authorization").is_some());
    }
    both
}

async fn refused_once() -> (Server, EchoClient<JwtRefresh<Channel>>) {
    let server = Server::start().await;
    let (provider, _) = echo::provider(&Endpoint::hourly());
    server.revoke("old");
    let client = server.client(&provider);
    (server, client)
}

#[tokio::test]
async fn metadata_in_text_and_in_bytes_is_the_same_on_both_sends() {
    let (server, mut client) = refused_once().await;
    let mut request = Request::new(word("hello"));
    let metadata = request.metadata_mut();
    metadata.append("x-trace", "a".parse().unwrap());
    metadata.append("x-trace", "b".parse().unwrap());
    metadata.insert_bin("x-proof-bin", MetadataValue::from_bytes(b"\0\xff\x80"));
    client.say(request).await.unwrap();
    let [first, second] = both(&server);
    assert_eq!(first, second);
    assert_eq!(second.get_all("x-trace").iter().collect::<Vec<_>>(), ["a", "b"]);
    let proof = tonic::metadata::MetadataMap::from_headers(second);
    assert_eq!(proof.get_bin("x-proof-bin").unwrap().to_bytes().unwrap().as_ref(), b"\0\xff\x80");
}

#[tokio::test]
async fn a_deadline_is_the_same_on_both_sends() {
    let (server, mut client) = refused_once().await;
    let mut request = Request::new(word("hello"));
    request.set_timeout(30 * SECOND);
    client.say(request).await.unwrap();
    let [first, second] = both(&server);
    assert_eq!(first["grpc-timeout"], "30000000u");
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_compressed_call_is_compressed_on_both_sends_and_so_is_its_answer() {
    let (server, client) = refused_once().await;
    let mut client = client.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
    let long = "hello ".repeat(10_000);
    let answer = client.say(word(long.clone())).await.unwrap();
    assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert_eq!(answer.into_inner().text, long);
    let [first, second] = both(&server);
    assert_eq!(
        (&first["grpc-encoding"], &first["grpc-accept-encoding"]),
        (&"gzip".parse().unwrap(), &"gzip,identity".parse().unwrap())
    );
    assert_eq!(first, second);
    assert!(server.seen().iter().all(|seen| seen.words == [long.as_str()]));
}

#[tokio::test]
async fn a_call_with_another_tenants_token_refuses_that_one_in_its_trailers_too() {
    let server = Server::start().await;
    let (ours, theirs) = (Endpoint::hourly(), Endpoint::hourly());
    let ((provider, _), (tenant, _)) = (echo::provider(&ours), echo::provider(&theirs));
    let mut client = server.client(&provider);
    server.end_late_with(refusal());
    let mut request = Request::new(word("a b"));
    request.extensions_mut().insert(UseToken(tenant));
    let mut words = client.split(request).await.unwrap().into_inner();
    words.message().await.unwrap();
    words.message().await.unwrap_err();
    soon(theirs.asked_times(1)).await;
    settle().await;
    assert_eq!(ours.fetches(), 0);
}

#[tokio::test]
async fn a_call_that_wants_no_token_gets_none_and_its_refusal_is_its_own() {
    let server = Server::start().await;
    let endpoint = Endpoint::hourly();
    let (provider, _) = echo::provider(&endpoint);
    let mut request = Request::new(word("login"));
    request.extensions_mut().insert(NoToken);
    assert_eq!(server.client(&provider).say(request).await.unwrap_err().message(), refusal().message());
    settle().await;
    assert_eq!((server.tokens(), endpoint.fetches()), (vec!["-".to_owned()], 0));
}
