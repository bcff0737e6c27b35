//! Who may come in.

mod support;

use http::{Method, Request, StatusCode};
use support::{Service, empty, sidecar, world};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn a_host_that_is_not_its_own_is_misdirected() {
    let (service, sidecar, mut client) = world().await;
    let port = sidecar.host().rsplit_once(':').unwrap().1.to_owned();
    let foreign = [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        format!("user@localhost:{port}"),
        "localhost".to_owned(),
        "localhost:1".to_owned(),
        "127.0.0.1".to_owned(),
        format!("127.0.0.2:{port}"),
        service.url().replace("http://", ""),
        String::new(),
    ];
    for host in foreign {
        for path in ["/", "/.sidecar/health"] {
            let answer = client.get_with(path, &[("host", &host)]).await;
            assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{host} {path}");
            assert!(answer.text().contains("this answers to 127.0.0.1:"), "{}", answer.text());
        }
    }
    assert!(service.seen().is_empty());
    for ours in [format!("localhost:{port}"), format!("LOCALHOST:{port}"), format!("127.0.0.1:{port}")] {
        assert_eq!(client.get_with("/", &[("host", &ours)]).await.status, StatusCode::OK, "{ours}");
    }
}

#[tokio::test]
async fn a_request_has_one_host() {
    let (service, sidecar, mut client) = world().await;
    let twice = [("host", sidecar.host()), ("host", sidecar.host())];
    assert_eq!(client.get_with("/", &twice).await.status, StatusCode::BAD_REQUEST);
    let mut bare = TcpStream::connect(sidecar.host()).await.unwrap();
    bare.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    bare.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 400"), "{answer}");
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn a_target_with_a_foreign_host_is_misdirected_whatever_the_host_field_says() {
    let (service, sidecar, mut client) = world().await;
    let answer = client.get("http://evil.example/").await;
    assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST);
    assert!(service.seen().is_empty());
    assert_eq!(client.get(&format!("http://{}/a", sidecar.host())).await.status, StatusCode::OK);
    assert_eq!(service.seen()[0].target, "/a");
}

#[tokio::test]
async fn pages_of_other_origins_and_sites_are_forbidden() {
    let (service, sidecar, mut client) = world().await;
    let own = sidecar.address.clone();
    let pages: [&[(&str, &str)]; 8] = [
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "")],
        &[("origin", &own)],
        &[("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
    ];
    for page in pages {
        for path in ["/", "/.sidecar/health"] {
            let answer = client.get_with(path, page).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{page:?} {path}");
            assert!(answer.text().starts_with("sidecar: a page of another "), "{}", answer.text());
        }
    }
    assert!(service.seen().is_empty());
    for typed in ["none", "same-origin"] {
        assert_eq!(client.get_with("/", &[("sec-fetch-site", typed)]).await.status, StatusCode::OK, "{typed}");
    }
}

#[tokio::test]
async fn an_origin_allowed_by_name_comes_in_and_no_other() {
    let service = Service::start().await;
    let sidecar = sidecar(&service, &["--allow-browser-origin", "http://localhost:3000"]).await;
    let mut client = sidecar.client().await;
    let allowed = ("origin", "http://localhost:3000");
    let answer = client.get_with("/", &[allowed, ("sec-fetch-site", "cross-site")]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(service.seen()[0].headers["origin"], "http://localhost:3000", "CORS is the upstream's to answer");
    for other in ["http://localhost:3001", "https://localhost:3000", "http://localhost:3000.evil.example", "null"] {
        assert_eq!(client.get_with("/", &[("origin", other)]).await.status, StatusCode::FORBIDDEN, "{other}");
        assert_eq!(client.get_with("/", &[allowed, ("origin", other)]).await.status, StatusCode::FORBIDDEN, "{other}");
    }
    let hidden = client.get_with("/", &[("sec-fetch-site", "cross-site")]).await;
    assert_eq!(hidden.status, StatusCode::FORBIDDEN, "without its name nobody is allowed");
}

#[tokio::test]
async fn methods_that_would_show_the_token_or_lead_elsewhere_are_not_forwarded() {
    let (service, sidecar, mut client) = world().await;
    let trace = Request::builder().method(Method::TRACE).uri("/").body(empty()).unwrap();
    assert_eq!(client.answer(trace).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let connect = Request::builder().method(Method::CONNECT).uri(sidecar.host()).body(empty()).unwrap();
    assert_eq!(client.answer(connect).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let all = Request::builder().method(Method::OPTIONS).uri("*").body(empty()).unwrap();
    assert_eq!(sidecar.client().await.answer(all).await.status, StatusCode::BAD_REQUEST);
    assert!(service.seen().is_empty());
}
