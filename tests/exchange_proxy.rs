//! The way through a proxy: what it learns, and whose fault a failure is.

#[path = "support/authority.rs"]
mod authority;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/exchange.rs"]
mod server;

use authority::Authority;
use proxy::{Does, Proxy, socks};
use server::{Server, Step, exchange_error, is_permanent, ok, once, printed};
use std::{process::Command, time::Duration};
use tower_jwt_refresh::{
    TokenProvider,
    source::{EndpointError, Exchange, ExchangeBuilder},
};

// No name of the world (RFC 6761 section 6.2): whoever gets there was led by the proxy.
const HOST: &str = "api.example.test";

fn token() -> Vec<Step> {
    ok(r#"{"jwt":"t"}"#)
}

async fn endpoint(authority: &Authority) -> Server {
    authority.server(HOST, token()).await
}

fn exchange(authority: &Authority) -> ExchangeBuilder {
    Exchange::post(format!("https://{HOST}/token")).bearer("durable-s3cr3t").root_certificates(&authority.pem)
}

#[tokio::test]
async fn https_goes_through_a_tunnel_in_which_the_proxy_reads_nothing() {
    let authority = Authority::new("ours");
    let server = endpoint(&authority).await;
    let proxy = Proxy::new(Does::Tunnel(server.port)).await;
    // Once with the host's name and no scheme, as many write it.
    for url in [format!("http://127.0.0.1:{}", proxy.port), format!("localhost:{}", proxy.port)] {
        assert_eq!(once(exchange(&authority).proxy(url)).await.unwrap().expose_secret(), "t");
    }
    for head in proxy.heads() {
        assert!(head.starts_with("CONNECT api.example.test:443 HTTP/1.1\r\n"), "{head}");
        assert!(!head.contains("s3cr3t") && !head.to_lowercase().contains("authorization"), "{head}");
    }
    assert_eq!(proxy.heads().len(), 2);
    let request = server.asked().remove(0);
    assert!(request.starts_with("POST /token HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nauthorization: Bearer durable-s3cr3t\r\n"), "{request}");
}

#[tokio::test]
async fn the_user_and_password_are_shown_to_the_proxy_alone() {
    let authority = Authority::new("ours");
    let server = endpoint(&authority).await;
    let proxy = Proxy::new(Does::Tunnel(server.port)).await;
    once(exchange(&authority).proxy(format!("http://Aladdin:open%20sesame@127.0.0.1:{}", proxy.port))).await.unwrap();
    let head = proxy.heads().remove(0);
    assert!(head.contains("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"), "{head}");
    assert!(!server.asked()[0].to_lowercase().contains("proxy-authorization"), "{}", server.asked()[0]);
}

#[tokio::test]
async fn plaintext_that_is_allowed_goes_in_absolute_form() {
    let server = Server::new(|_| token()).await;
    let proxy = Proxy::new(Does::Forward(server.port)).await;
    let url = format!("http://u:p@127.0.0.1:{}", proxy.port);
    let source = Exchange::post(format!("http://{HOST}/token?a=b")).bearer("durable").allow_plaintext().proxy(url);
    assert_eq!(once(source).await.unwrap().expose_secret(), "t");
    let head = proxy.heads().remove(0);
    assert!(head.starts_with("POST http://api.example.test/token?a=b HTTP/1.1\r\n"), "{head}");
    for line in ["host: api.example.test", "proxy-authorization: Basic dTpw", "authorization: Bearer durable"] {
        assert!(head.lines().any(|it| it == line), "{line} in {head}");
    }
}

#[tokio::test]
async fn an_endpoint_on_this_machine_is_asked_without_the_proxy() {
    let server = Server::new(|_| token()).await;
    let proxy = Proxy::new(Does::Says("")).await;
    once(Exchange::post(server.url()).proxy(format!("http://127.0.0.1:{}", proxy.port))).await.unwrap();
    assert!(proxy.heads().is_empty());
}

#[tokio::test]
async fn a_proxy_that_gives_no_connection_is_named_and_its_password_is_not() {
    let authority = Authority::new("ours");
    let quick = Duration::from_millis(50);
    for (does, says) in [
        (Does::Says("HTTP/1.1 407 Proxy Authentication Required\r\nx: s3cr3t\r\n\r\n"), "proxy authorization required"),
        (Does::Says("HTTP/1.1 502 Bad Gateway\r\n\r\ns3cr3t"), "unsuccessful"),
        (Does::Says("HTTP/1.1 403 Forbidden\r\n\r\n"), "unsuccessful"),
        (Does::Says("s3cr3t s3cr3t s3cr3t\r\n\r\n"), "unsuccessful"),
        (Does::Says(""), "unexpected end of file"),
        (Does::Hangs, "within 50.0ms"),
    ] {
        let proxy = Proxy::new(does).await;
        let url = format!("http://user:s3cr3t@127.0.0.1:{}", proxy.port);
        let source = exchange(&authority).proxy(url);
        let source = if matches!(does, Does::Hangs) { source.connect_timeout(quick) } else { source };
        let error = once(source).await.unwrap_err();
        let text = printed(&error);
        assert!(matches!(exchange_error(&error), EndpointError::Proxy { .. }), "{text}");
        let both = format!("no connection to https://{HOST}/token through http://127.0.0.1:{}:", proxy.port);
        assert!(text.contains(&both) && text.contains(says), "{says}: {text}");
        assert!(!text.contains("s3cr3t") && !is_permanent(&error), "{text}");
    }
    let nobody = server::nobody().await.replace("/api/v1/auth/token", "");
    let error = once(exchange(&authority).proxy(&nobody)).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Proxy { .. }), "{error:?}");
    assert!(printed(&error).contains("ConnectionRefused"), "{error:?}");
}

// In absolute form it answers in the endpoint's place.
#[tokio::test]
async fn a_proxy_that_wants_a_password_for_plaintext_says_so() {
    let proxy = Proxy::new(Does::Says("HTTP/1.1 407 x\r\ncontent-length: 0\r\n\r\n")).await;
    let source = Exchange::post(format!("http://{HOST}")).allow_plaintext();
    let error = once(source.proxy(format!("127.0.0.1:{}", proxy.port))).await.unwrap_err();
    assert!(printed(&error).contains("that is a proxy, which wants a user and password"), "{error:?}");
    assert!(!is_permanent(&error));
}

#[tokio::test]
async fn a_proxy_that_reads_along_is_found_out() {
    let (authority, proxys) = (Authority::new("ours"), Authority::new("the proxy's"));
    let server = endpoint(&proxys).await;
    let proxy = Proxy::new(Does::Tunnel(server.port)).await;
    let error = once(exchange(&authority).proxy(format!("127.0.0.1:{}", proxy.port))).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Tls { .. }), "{error:?}");
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_proxy_may_be_spoken_to_in_tls_and_proves_its_own_name() {
    let authority = Authority::new("ours");
    let server = endpoint(&authority).await;
    let proxy = Proxy::with_tls(Does::Tunnel(server.port), authority.acceptor("localhost")).await;
    let by = |name| exchange(&authority).proxy(format!("https://{name}:{}", proxy.port));
    assert_eq!(once(by("localhost")).await.unwrap().expose_secret(), "t");
    let error = once(by("127.0.0.1")).await.unwrap_err();
    assert!(matches!(exchange_error(&error), EndpointError::Proxy { .. }), "not the endpoint's: {error:?}");
    assert!(printed(&error).contains("NotValidForName"), "{error:?}");

    // An endpoint in plaintext, the way to the proxy not.
    let plain = Server::new(|_| token()).await;
    let proxy = Proxy::with_tls(Does::Forward(plain.port), authority.acceptor("localhost")).await;
    let source = Exchange::post(format!("http://{HOST}")).allow_plaintext().root_certificates(&authority.pem);
    assert_eq!(once(source.proxy(format!("https://localhost:{}", proxy.port))).await.unwrap().expose_secret(), "t");
}

#[tokio::test]
async fn a_socks_proxy_gets_the_name_and_opens_the_way() {
    let authority = Authority::new("ours");
    let server = endpoint(&authority).await;
    for scheme in ["socks5", "socks5h"] {
        let (port, asked) = socks(server.port, Some(("user", "pass word"))).await;
        let by = |login| exchange(&authority).proxy(format!("{scheme}://{login}127.0.0.1:{port}"));
        assert_eq!(once(by("user:pass%20word@")).await.unwrap().expose_secret(), "t");
        assert_eq!(*asked.lock().unwrap(), ["api.example.test:443"]);
        for refused in ["", "user:s3cr3t@"] {
            let error = once(by(refused)).await.unwrap_err();
            assert!(matches!(exchange_error(&error), EndpointError::Proxy { .. }), "{error:?}");
            assert!(!printed(&error).contains("s3cr3t"), "{error:?}");
        }
    }
    let plain = Server::new(|_| token()).await;
    let (port, asked) = socks(plain.port, None).await;
    let source = Exchange::post(format!("http://{HOST}")).allow_plaintext();
    assert_eq!(once(source.proxy(format!("socks5://127.0.0.1:{port}"))).await.unwrap().expose_secret(), "t");
    assert_eq!(*asked.lock().unwrap(), ["api.example.test:80"], "the scheme's own port");
}

const CHILD: &str = "EXCHANGE_IN_A_CHILD";

/// What the child process prints: its environment is its own.
fn child(pem: &str, variables: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "the_proxy_that_the_environment_names_is_used", "--nocapture"]).env(CHILD, pem);
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"] {
        child.env_remove(name).env_remove(name.to_lowercase());
    }
    let output = child.envs(variables.iter().copied()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_that_the_environment_names_is_used() {
    if let Ok(pem) = std::env::var(CHILD) {
        let source = Exchange::post(format!("https://{HOST}/token")).root_certificates(pem).build();
        let token = match source {
            Ok(source) => TokenProvider::new(source).token().await.map_err(|error| printed(&error)),
            Err(error) => Err(format!("not built: {error}")),
        };
        println!("{:?}", token.map(|token| token.expose_secret().to_owned()));
        return;
    }
    let authority = Authority::new("ours");
    let server = endpoint(&authority).await;
    let proxy = Proxy::new(Does::Tunnel(server.port)).await;
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let ask = async |variables: &[(&str, &str)]| tokio::task::block_in_place(|| child(&authority.pem, variables));
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let said = ask(&[(name, &url)]).await;
        assert!(said.contains("Ok(\"t\")"), "{name}: {said}");
    }
    assert_eq!(proxy.heads().len(), 3);
    let said = ask(&[("HTTPS_PROXY", "quic://user:s3cr3t@127.0.0.1")]).await;
    assert!(said.contains("not built: the proxy in the variable HTTPS_PROXY is no URL of a proxy"), "{said}");
    assert!(!said.contains("s3cr3t"), "{said}");
}
