//! What a server can do to a source that asks it for a token: refuse, break, hang, lie. For every source that asks by HTTP.
//!
//! Stands beside `support/exchange.rs`, which the test file names `server`.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use crate::server::{Server, Step, answer, chain, is_permanent, ok, printed};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tower::{BoxError, Service};
use tower_jwt_refresh::{Token, TokenError, TokenProvider, TokenRequest, clock::ManualClock, source::EndpointError};

/// Whatever the servers here write holds it, and so does the credential that they are to be shown.
pub const SECRET: &str = "s3cr3t";

const TINY: Duration = Duration::from_millis(50);
const MINUTE: Duration = Duration::from_secs(60);

/// A source under test.
pub struct Subject<'a, S> {
    /// Makes one that asks at this URL, with a credential that holds [`SECRET`], and gives up after this long.
    pub make: &'a dyn Fn(&str, Duration) -> S,
    /// An answer that it takes: JSON, with `"t"` as the token.
    pub good: &'static str,
}

/// One thing that a server can do.
pub struct Case {
    pub name: String,
    does: Does,
    /// What becomes of it.
    end: End,
}

enum Does {
    /// Nobody listens.
    Nobody,
    /// A connection ends before a byte of the request was read, by a reset or not.
    Unread { reset: bool },
    /// The request's first bytes are read, and then the connection is reset.
    HalfRead,
    /// After the request.
    Steps(Vec<Step>),
}

impl Case {
    /// What comes after a whole request; none where none is read.
    pub fn steps(&self) -> Option<&[Step]> {
        match &self.does {
            Does::Steps(steps) => Some(steps),
            Does::Nobody | Does::Unread { .. } | Does::HalfRead => None,
        }
    }

    /// The answer never ends.
    pub fn hangs(&self) -> bool {
        matches!(self.end, End::Error { kind: Kind::TimedOut, .. })
    }
}

#[derive(Clone, Copy)]
pub enum End {
    Token,
    Error { kind: Kind, says: &'static str, permanent: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Connect,
    /// [`Connect`](Self::Connect) or [`Broken`](Self::Broken): what the kernel saw first.
    Cut,
    Tls,
    Broken,
    TimedOut,
    TooLarge,
    Redirected,
    Refused,
    Status,
    Answer,
}

pub fn kind(error: &EndpointError) -> Option<Kind> {
    Some(match error {
        EndpointError::Connect { .. } => Kind::Connect,
        EndpointError::Tls { .. } => Kind::Tls,
        EndpointError::Broken { .. } => Kind::Broken,
        EndpointError::TimedOut { .. } => Kind::TimedOut,
        EndpointError::TooLarge { .. } => Kind::TooLarge,
        EndpointError::Redirected { .. } => Kind::Redirected,
        EndpointError::Refused { .. } => Kind::Refused,
        EndpointError::Status { .. } => Kind::Status,
        EndpointError::Answer { .. } => Kind::Answer,
        _ => return None,
    })
}

/// The token is the member `token` of a good answer.
pub fn table(token: &str) -> Vec<Case> {
    [statuses(), refusals(), lies(token), unreadable(), broken(), late()].into_iter().flatten().collect()
}

/// Asks a server that does it, and then the same server when it is well again.
pub async fn endure<S>(case: &Case, subject: &Subject<'_, S>)
where
    S: Service<TokenRequest, Response = Token, Error = BoxError> + Send + 'static,
    S::Future: Send + 'static,
{
    let good = ok(subject.good);
    let server = match &case.does {
        Does::Nobody => Server::listen().await.0,
        Does::Unread { reset } => serve_after(0, *reset, good).await,
        Does::HalfRead => serve_after(1, true, good).await,
        Does::Steps(steps) => {
            let steps = steps.clone();
            Server::new(move |count| if count == 0 { steps.clone() } else { good.clone() }).await
        }
    };
    let source = (subject.make)(&server.url(), if case.hangs() { TINY } else { MINUTE });
    let clock = ManualClock::new();
    let provider = TokenProvider::builder().clock(clock.clone()).build(source).unwrap();
    let outcome = provider.token().await;
    assert!(server.asked().len() <= 1, "{}: no retry inside a flight", case.name);
    match case.end {
        End::Token => assert_eq!(outcome.expect(&case.name).expose_secret(), "t", "{}", case.name),
        End::Error { kind, says, permanent } => {
            let error = outcome.expect_err(&case.name);
            judge(case, &error, kind);
            let text = printed(&error);
            assert!(text.contains(says) && text.contains(&server.url()), "{}: {says} not in {text}", case.name);
            assert_eq!(is_permanent(&error), permanent, "{}: {text}", case.name);
            if matches!(case.does, Does::Nobody) {
                return;
            }
            // The longest wait there is while no token lives.
            clock.advance(MINUTE * 5);
            assert_eq!(provider.token().await.expect(&case.name).expose_secret(), "t", "{}: it heals", case.name);
        }
    }
}

fn judge(case: &Case, error: &TokenError, expected: Kind) {
    let text = printed(error);
    assert!(!text.contains(SECRET), "{}: {text}", case.name);
    let found = chain(error).find_map(|error| error.downcast_ref()).and_then(kind);
    let cut = expected == Kind::Cut && matches!(found, Some(Kind::Connect | Kind::Broken));
    assert!(found == Some(expected) || cut, "{}: {text}", case.name);
}

/// A server whose first connection ends after so many bytes; to all others it answers.
async fn serve_after(bytes: usize, reset: bool, good: Vec<Step>) -> Server {
    let (server, listener) = Server::listen().await;
    let this = server.clone();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut vec![0; bytes]).await.unwrap();
        if reset {
            stream.set_zero_linger().unwrap();
        }
        drop(stream);
        while let Ok((stream, _)) = listener.accept().await {
            this.serve_one(stream, &good).await;
        }
    });
    server
}

fn raw(text: impl AsRef<[u8]>) -> Step {
    Step::Send(text.as_ref().to_vec())
}

fn error(kind: Kind, says: &'static str) -> End {
    End::Error { kind, says, permanent: false }
}

fn refused(kind: Kind, says: &'static str) -> End {
    End::Error { kind, says, permanent: true }
}

fn case(name: impl Into<String>, steps: Vec<Step>, end: End) -> Case {
    Case { name: name.into(), does: Does::Steps(steps), end }
}

/// Every status there is, with a body that no source can use.
fn statuses() -> Vec<Case> {
    let with = |status: u16| {
        let echo = format!("www-authenticate: Bearer realm=\"echoes {SECRET}\"\r\n");
        answer(&format!("{status} {SECRET}"), &echo, &format!("echoes {SECRET}"))
    };
    let end = |status: u16| match status {
        // Not the last answer, which then does not come. hyper takes 101, the switch to another protocol, for one.
        100 | 102..=199 => error(Kind::Broken, "gave no whole answer: the connection broke"),
        204 => error(Kind::Answer, "is empty"),
        200..=299 => error(Kind::Answer, "is no JSON object"),
        300..=399 => error(Kind::Redirected, "the credential is not sent there"),
        401 | 403 => refused(Kind::Refused, "refuses the credential"),
        404 | 405 | 410 => error(Kind::Status, "is this the URL of the token endpoint?"),
        407 => error(Kind::Status, "that is a proxy"),
        408 | 425 | 429 | 503 => error(Kind::Status, "asked again later"),
        400..=499 => error(Kind::Status, "does not understand the request"),
        500..=599 => error(Kind::Status, "it is in trouble"),
        _ => error(Kind::Status, "that is no answer of a token endpoint"),
    };
    (100..=600).chain([999]).map(|status| case(format!("status {status}"), with(status), end(status))).collect()
}

/// The errors of RFC 6749 section 5.2, and what resembles them.
fn refusals() -> Vec<Case> {
    let json = |status: &str, headers: &str, code: &str| {
        answer(status, headers, &format!(r#"{{"error":"{code}","error_description":"echoes {SECRET}"}}"#))
    };
    let later = "retry-after: 200\r\n";
    [
        (
            json("400 x", "", "invalid_grant"),
            refused(Kind::Refused, "(400 Bad Request, invalid_grant): replace or repair it"),
        ),
        (json("401 x", "", "invalid_client"), refused(Kind::Refused, "(401 Unauthorized, invalid_client)")),
        (json("400 x", "", SECRET), error(Kind::Status, "it does not understand")),
        (json("400 x", "", "temporarily_unavailable"), error(Kind::Status, "it does not understand")),
        (json("503 x", "", "invalid_client"), error(Kind::Status, "asked again later")),
        (json("429 x", later, "invalid_grant"), error(Kind::Status, "asked again later")),
        (json("403 x", later, "invalid_grant"), error(Kind::Status, "asked again later")),
        (json("503 x", "retry-after: 99999999999999999999999\r\n", "x"), error(Kind::Status, "asked again later")),
        (json("503 x", "retry-after: -1\r\n", "x"), error(Kind::Status, "asked again later")),
        (json("200 x", "", SECRET), error(Kind::Answer, "an error in spite of its status:")),
        (json("200 x", "", "invalid_grant"), refused(Kind::Answer, "an error in spite of its status (invalid_grant)")),
    ]
    .into_iter()
    .enumerate()
    .map(|(count, (steps, end))| case(format!("refusal {count}"), steps, end))
    .collect()
}

/// Answers of another kind than promised, under a status of success.
fn lies(token: &str) -> Vec<Case> {
    let deep = format!(r#"{{"{token}":{}"{SECRET}"{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    let none = "no token at";
    [
        ("", "is empty"),
        (" \r\n\t", "is empty"),
        ("<!doctype html><title>Sign in</title>SECRET", "is no JSON object"),
        ("SECRET", "is no JSON object"),
        ("\u{feff}{\"TOKEN\":\"SECRET\"}", "is no JSON object"),
        ("\0\0\0\0SECRET", "is no JSON object"),
        ("null", "is no JSON object"),
        ("1e999", "is no JSON object"),
        (r#"["SECRET"]"#, "is no JSON object"),
        (r#"{"TOKEN":"SECRET""#, "is no JSON object"),
        (r#"{"TOKEN":"SECRET"}{}"#, "is no JSON object"),
        (r#"{"TOKEN":'SECRET'}"#, "is no JSON object"),
        ("{}", none),
        (r#"{"message":"SECRET"}"#, none),
        (r#"{"TOKEN":null}"#, none),
        (r#"{"TOKEN":7}"#, "something else than a string"),
        (r#"{"TOKEN":1e999}"#, "something else than a string"),
        (r#"{"TOKEN":true}"#, "something else than a string"),
        (r#"{"TOKEN":["SECRET"]}"#, "something else than a string"),
        (r#"{"TOKEN":{"SECRET":1}}"#, "something else than a string"),
        (&deep, "something else than a string"),
        (r#"{"TOKEN":"\ud800SECRET"}"#, "something else than a string"),
        (r#"{"TOKEN":""}"#, "of no use"),
        (r#"{"TOKEN":"SECRET\r\nx-admin: 1"}"#, "of no use"),
        (r#"{"TOKEN":"SECRET\u0000"}"#, "of no use"),
        (r#"{"TOKEN":"SECRET\u00fc"}"#, "of no use"),
        (r#"{"TOKEN":"Bearer SECRET"}"#, "of no use"),
        (r#"{"TOKEN":"SECRET","TOKEN":"SECRET2"}"#, "twice"),
        (r#"{"TOKEN":"SECRET","expires_in":1,"expires_in":2}"#, "twice"),
    ]
    .into_iter()
    .map(|(body, says)| {
        let body = body.replace("TOKEN", token).replace("SECRET", SECRET);
        let name = format!("the answer {}", body.chars().take(60).collect::<String>());
        case(name, ok(&body), error(Kind::Answer, says))
    })
    .collect()
}

/// What is no HTTP/1.1, or no legal one.
fn unreadable() -> Vec<Case> {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: s3cr3t\r\n".repeat(5000));
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", SECRET.repeat(200_000));
    [
        "s3cr3t\r\n\r\n",
        "SSH-2.0-s3cr3t\r\n",
        "\x15\x03\x03\x00\x02\x02\x28",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP/1.1 99 s3cr3t\r\n\r\n",
        "HTTP/1.1 2000 s3cr3t\r\n\r\n",
        "HTTP/1.1 OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx s3cr3t\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: s3cr3t\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\ns3cr3t",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\ns3cr3t",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\ns3cr3t",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\ns3cr3t\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\ns3cr3t",
        &many,
        &long,
    ]
    .into_iter()
    .map(|text| {
        let name = format!("no HTTP: {:?}", text.chars().take(80).collect::<String>());
        case(name, vec![raw(text)], error(Kind::Broken, "it does not speak HTTP/1.1"))
    })
    .collect()
}

/// A connection that ends, by a close or a reset, at each stage (googleapis/google-cloud-rust#5864).
fn broken() -> Vec<Case> {
    let connection = "the connection broke";
    let mut cases = vec![
        Case { name: "nobody listens".into(), does: Does::Nobody, end: error(Kind::Connect, "no connection to") },
        Case {
            name: "closed unread".into(),
            does: Does::Unread { reset: false },
            end: error(Kind::Broken, connection),
        },
        Case { name: "reset unread".into(), does: Does::Unread { reset: true }, end: error(Kind::Cut, "connection") },
        Case { name: "reset amid the request".into(), does: Does::HalfRead, end: error(Kind::Broken, connection) },
    ];
    let (head, chunked) =
        ("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    for (stage, sent) in [
        ("after the request", String::new()),
        ("amid the status", "HTTP/1.1 20".into()),
        ("after the status", "HTTP/1.1 200 OK\r\n".into()),
        ("amid the headers", format!("{head}x-name: s3cr")),
        ("after the headers", format!("{head}\r\n")),
        ("amid the body", format!("{head}\r\n{{\"x\":\"{SECRET}\"")),
        ("amid a chunk's length", format!("{chunked}1")),
        ("amid a chunk", format!("{chunked}5\r\n{{\"x")),
        ("between chunks", format!("{chunked}1\r\n{{\r\n")),
        ("before the trailers' end", format!("{chunked}1\r\n{{\r\n0\r\n")),
    ] {
        let end = error(Kind::Broken, connection);
        cases.push(case(format!("closed {stage}"), vec![raw(&sent)], end));
        cases.push(case(format!("reset {stage}"), vec![raw(&sent), Step::Reset], end));
    }
    // The status says enough.
    let torn = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 99\r\n\r\ns3cr3t";
    let end = refused(Kind::Refused, "refuses the credential");
    cases.push(case("closed amid a refusal", vec![raw(torn)], end));
    cases
}

/// Answers that have no end, or none in time (scenarios 33 and 62).
fn late() -> Vec<Case> {
    let slow = "gave no whole answer within 50.0ms";
    let (head, chunked) =
        ("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    let megabytes = format!(r#"{{"x":"{}"}}"#, SECRET.repeat(2 << 20));
    let chunk = format!("{:x}\r\n{megabytes}\r\n0\r\n\r\n", megabytes.len());
    let large = "over 1048576 bytes";
    [
        ("no answer", vec![Step::Hang], error(Kind::TimedOut, slow)),
        ("half a status", vec![raw("HTTP/1.1 2"), Step::Hang], error(Kind::TimedOut, slow)),
        ("half the headers", vec![raw(head), Step::Hang], error(Kind::TimedOut, slow)),
        ("half a body", vec![raw(format!("{head}\r\n{{")), Step::Hang], error(Kind::TimedOut, slow)),
        ("headers that drip", vec![raw("HTTP/1.1 200 OK\r\n"), Step::Drip("x: y\r\n")], error(Kind::TimedOut, slow)),
        ("a body that drips", vec![raw(chunked), Step::Drip("1\r\n \r\n")], error(Kind::TimedOut, slow)),
        ("interim answers for ever", vec![Step::Drip("HTTP/1.1 100 Continue\r\n\r\n")], error(Kind::TimedOut, slow)),
        ("a long answer", ok(&megabytes), error(Kind::TooLarge, large)),
        ("a long answer in chunks", vec![raw(chunked), raw(chunk)], error(Kind::TooLarge, large)),
        (
            "a long answer until it closes",
            vec![raw("HTTP/1.1 200 OK\r\n\r\n"), raw(&megabytes)],
            error(Kind::TooLarge, large),
        ),
        (
            "an answer without end",
            vec![raw("HTTP/1.1 200 OK\r\n\r\n"), Step::Flood("s3cr3t")],
            error(Kind::TooLarge, large),
        ),
        (
            "a long answer that is announced",
            vec![raw("HTTP/1.1 200 OK\r\ncontent-length: 10485760\r\n\r\n"), Step::Hang],
            error(Kind::TooLarge, large),
        ),
    ]
    .map(|(name, steps, end)| case(name, steps, end))
    .into()
}

/// Lifetimes that cannot be (scenario 101), beside a token that can: it is taken, and nothing about its end believed.
pub fn absurd_lifetimes(good: &str) -> Vec<Case> {
    [
        r#""expires_in":null"#,
        r#""expires_in":-1"#,
        r#""expires_in":0"#,
        r#""expires_in":1e20"#,
        r#""expires_in":1e400"#,
        r#""expires_in":"NaN""#,
        r#""expires_in":true"#,
        r#""expires_in":{}"#,
        r#""expires_at":"0001-01-01T00:00:00Z""#,
        r#""expires_at":"tomorrow""#,
        r#""expires_at":1e300"#,
        r#""expires_at":[]"#,
    ]
    .map(|lifetime| case(lifetime, ok(&format!("{},{lifetime}}}", good.trim_end_matches('}'))), End::Token))
    .into()
}
