//! What the server does with a request: refuses it, early or late, breaks it off, or carries it out.

use crate::{
    book::{Verdict, number},
    content,
    ledger::{Entry, MOST_SENDS},
    reading::{Read, Reading, Word},
    report::SERVER,
    world::{Phase, Stack, World},
};
use bytes::Bytes;
use fastrand::Rng;
use h2::Reason;
use http::{HeaderMap, Request, Response, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Incoming;
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower_jwt_refresh::BoxError;

pub type Body = BoxBody<Bytes, BoxError>;

/// Which call, which send of it, when it was sent (in microseconds by the run's clock), and how long its body is.
pub const ID: &str = "x-id";
pub const SEND: &str = "x-send";
pub const SENT: &str = "x-sent";
pub const LENGTH: &str = "x-length";
/// Refused for ever, whatever the token.
pub const FORBIDDEN: &str = "/forbidden";
const TALK: &str = "/echo.Echo/Talk";

/// Between the layer's look at the clock and that of what stands under it another thread may have had this core.
const SLACK: Duration = Duration::from_millis(100);

struct Call {
    world: Arc<World>,
    id: u64,
    send: usize,
    length: u64,
    token: String,
    http2: bool,
    grpc: bool,
    talk: bool,
    rng: Rng,
}

fn number_in(headers: &HeaderMap, name: &str) -> u64 {
    headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or_default()
}

pub async fn answer(
    world: Arc<World>,
    foreign: bool,
    connection: u32,
    request: Request<Incoming>,
) -> Result<Response<Body>, BoxError> {
    let (head, body) = request.into_parts();
    let token = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|token| token.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
    let path = head.uri.path();
    let (id, send) = (number_in(&head.headers, ID), number_in(&head.headers, SEND));
    let send = usize::try_from(send).expect("a small number").clamp(1, MOST_SENDS) - 1;
    if foreign {
        world.report.count(SERVER, "requests to a foreign origin");
        if head.headers.contains_key(header::AUTHORIZATION) {
            world.breaks("the token goes to nobody but the API", format!("{id} took it to {path}"));
        }
        return Ok(Response::builder().status(StatusCode::UNAUTHORIZED).body(Body::default())?);
    }
    let mut call = Call {
        rng: Rng::with_seed(world.seed ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ send as u64),
        id,
        send,
        length: number_in(&head.headers, LENGTH),
        token,
        http2: head.version == Version::HTTP_2,
        grpc: path.starts_with("/echo.Echo/"),
        talk: path == TALK,
        world,
    };
    let forbidden = path == FORBIDDEN;
    let body = Reading::new(Arc::clone(&call.world), (id, send), head.version, call.length, body, call.grpc);
    if call.http2 && call.strikes(300) {
        call.note(|entry| entry.nacks += 1);
        call.world.report.count(SERVER, "streams refused unread");
        return Err(h2::Error::from(Reason::REFUSED_STREAM).into());
    }
    call.arrives(connection);
    let sent = Duration::from_micros(number_in(&head.headers, SENT));
    let verdict = call.looks_at_token(sent);
    tokio::time::sleep(Duration::from_millis(call.rng.u64(0..10))).await;
    if verdict != Verdict::Good || forbidden {
        return Ok(call.refuse(body).await);
    }
    if call.strikes(200) {
        return Err(call.breaks_off("streams reset before an answer"));
    }
    if call.talk { Ok(call.talks(body)) } else { call.carry_out(body).await }
}

impl Call {
    /// One in so many, while there is chaos.
    fn strikes(&mut self, one_in: u32) -> bool {
        self.rng.u32(0..one_in) == 0 && self.world.phase() == Phase::Chaos
    }

    fn note<T>(&self, change: impl FnOnce(&mut Entry) -> T) -> T {
        self.world.ledger.entry(self.id, change)
    }

    fn arrives(&self, connection: u32) {
        let (arrivals, nacks) = self.note(|entry| {
            entry.connections[self.send] = connection;
            entry.arrivals[self.send] += 1;
            (entry.arrivals[self.send], entry.nacks)
        });
        self.world.report.count(SERVER, if self.send == 0 { "first sends" } else { "resends" });
        // What was refused unread may be repeated below the layer, by the client itself.
        if arrivals > 1 + nacks {
            self.world.breaks("each send arrives once", format!("{} came {arrivals} times", self.id));
        }
    }

    fn looks_at_token(&self, sent: Duration) -> Verdict {
        let (world, id) = (&self.world, self.id);
        let now = world.now();
        let verdict = world.book.judge(&self.token, now);
        if verdict == Verdict::Unknown {
            world.breaks(
                "every request carries a token of the issuer",
                format!("{id} carries {:?}", number(&self.token)),
            );
        }
        if world.book.dead_for(&self.token, now) > Duration::ZERO {
            world.report.count(SERVER, "tokens that died on their way");
            let when_sent = world.book.dead_for(&self.token, sent);
            if when_sent > SLACK {
                world.breaks("no token is sent that is known to be dead", format!("{id}: dead for {when_sent:.2?}"));
            }
        }
        verdict
    }

    fn breaks_off(&mut self, how: &'static str) -> BoxError {
        self.note(|entry| entry.broken = true);
        self.world.report.count(SERVER, how);
        let reason = if self.rng.bool() { Reason::CANCEL } else { Reason::INTERNAL_ERROR };
        h2::Error::from(reason).into()
    }

    /// 401, after the body, in the middle of it, or at once; what is not read then is read on, or never.
    async fn refuse(mut self, mut body: Reading) -> Response<Body> {
        let early = self.length > 0 && self.rng.u8(0..3) > 0 && self.world.phase() == Phase::Chaos;
        if early {
            if !self.http2 {
                // The connection ends with it, and somebody else may have taken it already.
                self.world.trouble(Stack::Hyper1, "a body was left unread");
            }
            for _ in 0..self.rng.u8(0..4) {
                body.next().await;
            }
        } else {
            body.rest().await;
        }
        let now = self.world.now();
        self.note(|entry| {
            entry.early |= early;
            entry.refused += 1;
            if entry.refused == 1 {
                entry.refused_at = now;
            }
        });
        self.world.report.count(SERVER, if early { "refused before the body's end" } else { "refused after the body" });
        if early && self.rng.bool() {
            tokio::spawn(async move { body.rest().await });
        }
        let answer = self.head();
        if self.grpc {
            return answer.header("grpc-status", "16").body(Body::default()).expect("a legal answer");
        }
        answer.status(StatusCode::UNAUTHORIZED).body(full("refused".into())).expect("a legal answer")
    }

    fn head(&self) -> http::response::Builder {
        let answer = Response::builder().header(SEND, self.send + 1);
        if self.grpc { answer.header(header::CONTENT_TYPE, "application/grpc") } else { answer }
    }

    /// It was accepted, and has come whole.
    fn executes(&self) {
        let times = self.note(|entry| {
            entry.executed += 1;
            entry.executed_send = self.send + 1;
            entry.executed
        });
        self.world.report.count(SERVER, "carried out");
        if times > 1 {
            self.world.breaks("no request is carried out twice", format!("{} was, {times} times", self.id));
        }
    }

    async fn carry_out(mut self, mut body: Reading) -> Result<Response<Body>, BoxError> {
        if !body.rest().await {
            return Ok(self.head().status(StatusCode::BAD_REQUEST).body(Body::default())?);
        }
        self.executes();
        let answer = self.head();
        if self.grpc {
            let (speak, said) = mpsc::channel(2);
            speak.try_send(Ok(Frame::data(Word::framed(self.id.to_string()).into())))?;
            speak.try_send(Ok(Frame::trailers(trailers("0"))))?;
            return Ok(answer.body(stream(said))?);
        }
        let length = content::draw_length(&mut self.rng) / 4;
        let answer = answer.header(LENGTH, length);
        let bytes = content::bytes(content::of_answer(self.id), 0, length);
        if self.strikes(200) {
            let (speak, said) = mpsc::channel(2);
            speak.try_send(Ok(Frame::data(bytes.slice(..bytes.len() / 2))))?;
            speak.try_send(Err(self.breaks_off("streams reset after an answer had begun")))?;
            return Ok(answer.body(stream(said))?);
        }
        Ok(answer.body(full(bytes))?)
    }

    /// Says back each word as it comes. The token may die meanwhile: then the end says so.
    fn talks(self, mut body: Reading) -> Response<Body> {
        let answer = self.head();
        let (speak, said) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let frame = match body.next().await {
                    // An empty frame for each half of a word would look like an attack to the client.
                    Read::Some(words) if words.is_empty() => continue,
                    Read::Some(words) => Frame::data(words.into_iter().flat_map(Word::framed).collect()),
                    Read::Broken => {
                        let _ = speak.send(Err(h2::Error::from(Reason::CANCEL).into())).await;
                        return;
                    }
                    Read::End if self.world.book.judge(&self.token, self.world.now()) == Verdict::Good => {
                        self.executes();
                        Frame::trailers(trailers("0"))
                    }
                    Read::End => {
                        self.note(|entry| entry.refused += 1);
                        self.world.report.count(SERVER, "refused at a stream's end");
                        Frame::trailers(trailers("16"))
                    }
                };
                let over = frame.is_trailers();
                if speak.send(Ok(frame)).await.is_err() || over {
                    return;
                }
            }
        });
        answer.body(stream(said)).expect("a legal answer")
    }
}

fn trailers(status: &'static str) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().expect("a name"), status.parse().expect("a value"))])
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn stream(said: mpsc::Receiver<Result<Frame<Bytes>, BoxError>>) -> Body {
    BodyExt::boxed(StreamBody::new(ReceiverStream::new(said)))
}
