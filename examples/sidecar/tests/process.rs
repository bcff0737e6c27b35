//! The program: where it listens, what it refuses, how it ends.

mod support;

use http::{Request, StatusCode};
use sidecar::Sidecar;
use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::PathBuf,
    process::{Output, Stdio},
};
use support::{CREDENTIAL, Client, Service, empty};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpStream, UnixListener},
    process::{Child, ChildStdout, Command},
};

fn program(arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sidecar"));
    program.args(arguments).env("SIDECAR_CREDENTIAL", CREDENTIAL).kill_on_drop(true);
    program.stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

async fn refused(arguments: &[&str]) -> String {
    let mut child = program(arguments).spawn().unwrap();
    // Its end, or the word that it listens.
    let told = BufReader::new(child.stdout.take().unwrap()).lines().next_line().await.unwrap();
    assert_eq!(told, None, "{arguments:?}");
    let Output { status, stderr, .. } = child.wait_with_output().await.unwrap();
    assert_eq!(status.code(), Some(1), "{arguments:?}");
    String::from_utf8(stderr).unwrap()
}

struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl Process {
    async fn start(service: &Service, listen: &str) -> Self {
        Self::start_with(service, listen, &[]).await
    }

    async fn start_with(service: &Service, listen: &str, more: &[&str]) -> Self {
        let (upstream, token_url) = (service.url(), service.token_url());
        let arguments = ["--upstream", &upstream, "--token-url", &token_url, "--listen", listen];
        let mut child = program(&arguments).args(more).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().expect("it says where it listens");
        let address = first.strip_prefix("sidecar: listening on ").unwrap().to_owned();
        Self { child, lines, address }
    }

    async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
    }
}

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        // A socket's path is short.
        let path = std::env::temp_dir().join(format!("sidecar-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn addresses_that_others_can_reach_are_refused() {
    for address in ["0.0.0.0:0", "[::]:0", "10.0.0.1:0", "[::ffff:127.0.0.1]:0"] {
        let told = refused(&["--upstream", "https://a", "--token-url", "https://a", "--listen", address]).await;
        assert!(told.contains("refusing") && told.contains("write 127.0.0.1:PORT"), "{address}: {told}");
    }
}

#[tokio::test]
async fn plaintext_to_another_machine_is_refused_unless_it_is_allowed_by_name() {
    let far = "http://api.example.com";
    let told = refused(&["--upstream", far, "--token-url", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"]).await;
    assert!(told.contains("--allow-plaintext api.example.com"), "{told}");
    let told = refused(&["--upstream", "http://127.0.0.1:1", "--token-url", far, "--listen", "127.0.0.1:0"]).await;
    assert!(told.contains("--allow-plaintext api.example.com"), "{told}");
    let urls = ["--upstream", far, "--token-url", far, "--listen", "127.0.0.1:0"];
    let allowed = [&urls[..], &["--allow-plaintext", "api.example.com"]].concat();
    assert!(Sidecar::bind(&support::options(&allowed).unwrap()).await.is_ok());
    let another = [&urls[..], &["--allow-plaintext", "example.com"]].concat();
    assert!(support::options(&another).unwrap_err().contains("in plaintext"));
}

#[tokio::test]
async fn an_upstream_that_is_the_sidecar_itself_is_refused() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (listen, upstream) = (free.to_string(), format!("http://localhost:{}", free.port()));
    let told = refused(&["--upstream", &upstream, "--token-url", "http://127.0.0.1:1", "--listen", &listen]).await;
    assert!(told.contains("round for ever"), "{told}");
}

#[tokio::test]
async fn a_credential_on_the_command_line_is_refused_and_not_repeated() {
    for arguments in [&["--credential=s3cr3t"][..], &["s3cr3t"], &["--pass-cookies=s3cr3t"]] {
        let told = refused(arguments).await;
        assert!(!told.contains("s3cr3t"), "{told}");
    }
    let mut program = program(&["--upstream", "http://127.0.0.1:1", "--token-url", "http://127.0.0.1:1"]);
    let Output { status, stderr, .. } = program.env_remove("SIDECAR_CREDENTIAL").output().await.unwrap();
    let told = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && told.contains("set the environment variable SIDECAR_CREDENTIAL"), "{told}");
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_alone_and_gone_in_the_end() {
    let service = Service::start().await;
    let directory = Directory::new("own");
    let path = directory.0.join("api.sock");
    let mut process = Process::start(&service, &format!("unix:{}", path.display())).await;
    let found = fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "and nothing beside it");

    let mut client = Client::unix(&path).await;
    assert_eq!(client.get("/").await.text(), "here you are");
    assert_eq!(client.get_with("/", &[("host", "evil.example")]).await.status, StatusCode::MISDIRECTED_REQUEST);

    process.signal("INT").await;
    assert!(process.child.wait().await.unwrap().success());
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_in_use_and_a_file_are_left_alone_and_a_dead_socket_is_replaced() {
    let service = Service::start().await;
    let directory = Directory::new("old");
    let path = directory.0.join("api.sock");
    let listen = format!("unix:{}", path.display());
    let arguments = ["--upstream", "http://127.0.0.1:1", "--token-url", "http://127.0.0.1:1", "--listen", &listen];

    fs::write(&path, "precious").unwrap();
    assert!(refused(&arguments).await.contains("no socket"));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();

    let other = UnixListener::bind(&path).unwrap();
    assert!(refused(&arguments).await.contains("somebody listens there"));
    drop(other);
    assert!(path.exists(), "the socket of a process that died stays behind");
    let _process = Process::start(&service, &listen).await;
    assert_eq!(Client::unix(&path).await.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_signal_ends_it_after_the_requests_under_way() {
    for signal in ["TERM", "INT"] {
        let service = Service::start().await;
        let mut process = Process::start(&service, "127.0.0.1:0").await;
        let host = process.address.strip_prefix("http://").unwrap().to_owned();
        let _idle = Client::tcp(&host).await;
        let mut client = Client::tcp(&host).await;
        let held = tokio::spawn(async move { client.answer(Request::get("/held").body(empty()).unwrap()).await });
        service.reached.notified().await;

        process.signal(signal).await;
        let told = process.lines.next_line().await.unwrap().unwrap();
        assert!(told.starts_with("sidecar: ending"), "{told}");
        // Nobody new comes in, as soon as the program has got as far as that.
        while TcpStream::connect(&host).await.is_ok() {
            tokio::task::yield_now().await;
        }
        service.release.notify_one();
        assert_eq!(held.await.unwrap().text(), "held until now");
        assert!(process.child.wait().await.unwrap().success());
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let service = Service::start().await;
    let mut process = Process::start(&service, "127.0.0.1:0").await;
    let host = process.address.strip_prefix("http://").unwrap().to_owned();
    let mut held = TcpStream::connect(&host).await.unwrap();
    held.write_all(format!("GET /held HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    service.reached.notified().await;
    process.signal("TERM").await;
    process.lines.next_line().await.unwrap().unwrap();
    process.signal("TERM").await;
    assert_eq!(process.child.wait().await.unwrap().code(), Some(1));
}

#[tokio::test]
async fn what_outlasts_the_draining_is_cut() {
    let service = Service::start().await;
    let mut process = Process::start_with(&service, "127.0.0.1:0", &["--drain-seconds", "0"]).await;
    let host = process.address.strip_prefix("http://").unwrap().to_owned();
    let mut socket = TcpStream::connect(&host).await.unwrap();
    let handshake = format!(
        "GET /ws HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: a\r\n\r\n"
    );
    socket.write_all(handshake.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    process.signal("TERM").await;
    assert!(process.child.wait().await.unwrap().success(), "a WebSocket holds nobody up for ever");
}
