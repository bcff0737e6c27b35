//! Whatever a client sends, the upstream gets the sidecar's own, living token.

mod support;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use support::{Client, Service, body, sidecar, streamed, world};

#[tokio::test]
async fn a_request_without_credentials_arrives_with_a_token() {
    let (service, _sidecar, mut client) = world().await;
    let answer = client.get("/jobs/1?state=done").await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "here you are"));
    let seen = service.seen();
    assert_eq!(seen[0].target, "/jobs/1?state=done");
    assert_eq!(seen[0].headers[header::AUTHORIZATION], "Bearer token-1");
    assert_eq!(format!("http://{}", seen[0].headers[header::HOST].to_str().unwrap()), service.url());
    assert_eq!(service.minted(), 1);
}

#[tokio::test]
async fn a_clients_own_credentials_are_replaced() {
    let (service, _sidecar, mut client) = world().await;
    let own = [
        ("authorization", "Bearer stolen"),
        ("authorization", "Basic c3RvbGVu"),
        ("proxy-authorization", "Basic c3RvbGVu"),
        ("cookie", "session=stolen"),
    ];
    assert_eq!(client.get_with("/", &own).await.status, StatusCode::OK);
    let headers = &service.seen()[0].headers;
    assert_eq!(headers.get_all(header::AUTHORIZATION).iter().collect::<Vec<_>>(), ["Bearer token-1"]);
    assert!(!format!("{headers:?}").contains("stolen") && !headers.contains_key(header::COOKIE), "{headers:?}");
    assert!(!headers.contains_key(header::PROXY_AUTHORIZATION));
}

#[tokio::test]
async fn a_token_header_by_name_holds_the_token_and_authorization_goes() {
    let service = Service::start().await;
    let sidecar = sidecar(&service, &["--token-header", "X-API-Key"]).await;
    let own = [("authorization", "Bearer stolen"), ("x-api-key", "stolen"), ("x-api-key", "stolen too")];
    assert_eq!(sidecar.client().await.get_with("/", &own).await.status, StatusCode::OK);
    let headers = &service.seen()[0].headers;
    assert_eq!(headers.get_all("x-api-key").iter().collect::<Vec<_>>(), ["token-1"]);
    assert!(!headers.contains_key(header::AUTHORIZATION));
}

#[tokio::test]
async fn cookies_pass_when_they_are_let_through_and_else_end_here_both_ways() {
    for (more, passed) in [(&[][..], false), (&["--pass-cookies"][..], true)] {
        let service = Service::start().await;
        service.answers_with("set-cookie", "session=theirs");
        let sidecar = sidecar(&service, more).await;
        let answer = sidecar.client().await.get_with("/", &[("cookie", "session=mine")]).await;
        assert_eq!(answer.headers.contains_key(header::SET_COOKIE), passed);
        assert_eq!(service.seen()[0].headers.contains_key(header::COOKIE), passed);
    }
}

#[tokio::test]
async fn a_refused_token_is_replaced_and_the_request_sent_again() {
    let (service, _sidecar, mut client) = world().await;
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    service.revoke();
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    assert_eq!(service.seen()[1].headers[header::AUTHORIZATION], "Bearer token-2");
    assert_eq!(service.minted(), 2);
}

#[tokio::test]
async fn many_requests_refused_at_once_cost_one_fetch() {
    let (service, sidecar, mut client) = world().await;
    client.get("/").await;
    service.revoke();
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(sidecar.client().await);
    }
    let asked = clients.iter_mut().map(|client| client.get("/"));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert_eq!(service.minted(), 2);
}

#[tokio::test]
async fn a_streamed_body_that_was_refused_is_sent_again_byte_for_byte() {
    let (service, _sidecar, mut client) = world().await;
    client.get("/").await;
    service.revoke();
    let (chunks, body) = streamed();
    let upload = tokio::spawn(async move {
        for part in 0..8u8 {
            chunks.send(Bytes::from(vec![part; 8 * 1024])).await.unwrap();
        }
    });
    let request = Request::post("/refused-late").body(body).unwrap();
    assert_eq!(client.answer(request).await.status, StatusCode::OK);
    upload.await.unwrap();
    let whole: Vec<u8> = (0..8u8).flat_map(|part| vec![part; 8 * 1024]).collect();
    let bodies = service.bodies();
    assert_eq!(bodies.len(), 2, "refused, and sent again");
    assert!(bodies.iter().all(|body| *body == whole));
}

#[tokio::test]
async fn a_body_over_the_limit_gets_its_401_and_the_next_request_is_healed() {
    let (service, _sidecar, mut client) = world().await;
    client.get("/").await;
    service.revoke();
    let large = || Request::post("/refused-late").body(body(vec![7; 128 * 1024 + 1])).unwrap();
    let answer = client.answer(large()).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::UNAUTHORIZED, "Invalid JWT"), "the server's own answer");
    assert_eq!(service.bodies().len(), 1, "it cannot be sent again");
    assert_eq!(client.answer(large()).await.status, StatusCode::OK);
    assert_eq!(service.minted(), 2);
}

#[tokio::test]
async fn both_bodies_stream_at_once() {
    let (_service, _sidecar, mut client) = world().await;
    let (chunks, body) = streamed();
    chunks.send("one".into()).await.unwrap();
    let mut answer = client.send(Request::post("/echo").body(body).unwrap()).await;
    let mut heard = Bytes::new();
    for next in ["one", "two", "three"] {
        // Each is heard before the next is said.
        if next != "one" {
            chunks.send(next.into()).await.unwrap();
        }
        heard = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(heard, next);
    }
    drop(chunks);
    assert!(answer.frame().await.is_none(), "{heard:?}");
}

#[tokio::test]
async fn a_stream_that_is_refused_early_goes_on_with_the_new_token() {
    let (service, _sidecar, mut client) = world().await;
    client.get("/").await;
    service.revoke();
    let (chunks, body) = streamed();
    chunks.send("one".into()).await.unwrap();
    let mut answer = client.send(Request::post("/echo").body(body).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "one", "said once, heard by the second");
    chunks.send("two".into()).await.unwrap();
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "two");
    drop(chunks);
    assert!(answer.frame().await.is_none());
    assert_eq!(service.seen()[1].headers[header::AUTHORIZATION], "Bearer token-2");
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_request_at_the_upstream_and_nobody_elses() {
    let (service, sidecar, mut client) = world().await;
    let request = Request::get("/held").body(support::empty()).unwrap();
    let asking = tokio::spawn(async move { client.answer(request).await });
    service.reached.notified().await;
    asking.abort();
    service.left.notified().await;
    assert_eq!(sidecar.client().await.get("/").await.status, StatusCode::OK);
    assert_eq!(service.minted(), 1);
}

#[tokio::test]
async fn without_a_token_the_answer_is_503_and_says_why_and_when() {
    let service = Service::start().await;
    service.endpoint_answers(StatusCode::SERVICE_UNAVAILABLE);
    let sidecar = sidecar(&service, &[]).await;
    let answer = sidecar.client().await.get("/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().starts_with("sidecar: no token: "), "{}", answer.text());
    assert!(answer.text().contains("503 Service Unavailable"), "the cause: {}", answer.text());
    assert!(!answer.text().contains(support::CREDENTIAL));
    let wait: u64 = answer.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!(wait >= 1);
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn a_refused_credential_is_told_as_such() {
    let service = Service::start().await;
    service.endpoint_answers(StatusCode::UNAUTHORIZED);
    let sidecar = sidecar(&service, &[]).await;
    let answer = sidecar.client().await.get("/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().contains("repair the credential"), "{}", answer.text());
}

#[tokio::test]
async fn a_living_token_serves_while_its_endpoint_is_down() {
    let (service, _sidecar, mut client) = world().await;
    client.get("/").await;
    service.endpoint_answers(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(client.get("/").await.status, StatusCode::OK);
    service.revoke();
    let answer = client.get("/").await;
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::UNAUTHORIZED, "Invalid JWT"),
        "the server's word goes first"
    );
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_502() {
    let service = Service::start().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let sidecar = sidecar(&service, &["--upstream", &upstream]).await;
    let answer = Client::tcp(sidecar.host()).await.get("/").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.text().starts_with("sidecar: the upstream gave no answer: "), "{}", answer.text());
}
