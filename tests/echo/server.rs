//! The server: says back what it hears, unless it does not like the token.

use super::{
    EchoClient, Word,
    generated::echo_server::{Echo, EchoServer},
    soon,
};
use futures_util::{Stream, StreamExt, stream};
use http::HeaderMap;
use std::{
    collections::HashSet,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    net::TcpListener,
    sync::{Barrier, Notify},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status, Streaming, async_trait,
    codec::CompressionEncoding,
    transport::{Channel, Endpoint},
};
use tower::Layer;
use tower_jwt_refresh::{JwtRefresh, JwtRefreshLayer, Origin, TokenProvider};

type Words = Pin<Box<dyn Stream<Item = Result<Word, Status>> + Send>>;
type Judge = dyn FnMut(&Seen) -> Option<Status> + Send;

/// A call as the server saw it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub method: &'static str,
    /// Without the prefix; `-` where there was none.
    pub token: String,
    pub headers: HeaderMap,
    /// What it was told, so far.
    pub words: Vec<String>,
    /// All was said.
    pub whole: bool,
}

/// What a refused token looks like.
pub fn refusal() -> Status {
    Status::unauthenticated("invalid token")
}

/// Refuses no token and those that were revoked. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// A call came, or the gate was opened.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    revoked: HashSet<String>,
    judge: Option<Box<Judge>>,
    late: Option<Status>,
    reads_first: bool,
    shut: bool,
    meeting: Option<Arc<Barrier>>,
    seen: Vec<Seen>,
}

impl Server {
    /// Ends with the runtime.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let server = Self { address, state: Arc::default(), changed: Arc::default() };
        let echo = EchoServer::new(server.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        let serve = tonic::transport::Server::builder()
            .max_concurrent_streams(1000)
            .add_service(echo)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serve);
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(self.url()).expect("a valid URI")
    }

    /// The layer, told where the channel goes.
    pub fn layer(&self, provider: &TokenProvider) -> JwtRefreshLayer {
        JwtRefreshLayer::new(provider.clone()).assume_origin(Origin::parse(&self.url()).expect("an origin"))
    }

    /// What most users have: the layer around a channel, in a generated client.
    pub fn client(&self, provider: &TokenProvider) -> EchoClient<JwtRefresh<Channel>> {
        EchoClient::new(self.layer(provider).layer(self.endpoint().connect_lazy()))
    }

    /// This token is refused from now on.
    pub fn revoke(&self, token: &str) {
        self.state().revoked.insert(token.to_owned());
    }

    /// Asked first, before a call has begun; what it gives ends the call.
    pub fn judge_by(&self, judge: impl FnMut(&Seen) -> Option<Status> + Send + 'static) {
        self.state().judge = Some(Box::new(judge));
    }

    /// Streams end with this after their first word.
    pub fn end_late_with(&self, status: Status) {
        self.state().late = Some(status);
    }

    /// A stream of the client's is read to its end before the token is judged.
    pub fn read_first(&self) {
        self.state().reads_first = true;
    }

    /// Calls are judged once so many have come: until then they wait.
    pub fn meet(&self, calls: usize) {
        self.state().meeting = Some(Arc::new(Barrier::new(calls)));
    }

    /// Calls wait until [`open`](Self::open).
    pub fn shut(&self) {
        self.state().shut = true;
    }

    pub fn open(&self) {
        self.state().shut = false;
        self.changed.notify_waiters();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// The tokens of all calls, in order.
    pub fn tokens(&self) -> Vec<String> {
        self.state().seen.iter().map(|seen| seen.token.clone()).collect()
    }

    /// Resolves once this is so, looking whenever something happens.
    pub async fn until(&self, so: impl Fn(&[Seen]) -> bool) {
        soon(self.wait(|state| so(&state.seen))).await;
    }

    async fn wait(&self, so: impl Fn(&State) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on nothing is missed.
            changed.as_mut().enable();
            if so(&self.state()) {
                return;
            }
            changed.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrived<T>(&self, method: &'static str, request: &Request<T>) -> usize {
        let headers = request.metadata().clone().into_headers();
        let value = ["authorization", "x-api-key"].iter().find_map(|name| headers.get(*name)?.to_str().ok());
        let token = value.map_or("-", |value| value.rsplit(' ').next().unwrap_or(value)).to_owned();
        crate::support::whole_run::secret(&token);
        let number = {
            let mut state = self.state();
            state.seen.push(Seen { method, token, headers, ..Seen::default() });
            state.seen.len() - 1
        };
        self.changed.notify_waiters();
        number
    }

    fn hears(&self, number: usize, word: Option<&str>) {
        match (&mut self.state().seen[number], word) {
            (seen, Some(word)) => seen.words.push(word.to_owned()),
            (seen, None) => seen.whole = true,
        }
        self.changed.notify_waiters();
    }

    /// The one word of a call that has no more.
    fn hears_all(&self, number: usize, word: &Word) {
        self.hears(number, Some(&word.text));
        self.hears(number, None);
    }

    async fn judge(&self, number: usize) -> Result<(), Status> {
        self.wait(|state| !state.shut).await;
        let (meeting, refused) = {
            let mut state = self.state();
            let seen = state.seen[number].clone();
            let revoked = seen.token == "-" || state.revoked.contains(&seen.token);
            let judged = state.judge.as_mut().and_then(|judge| judge(&seen));
            (state.meeting.clone(), judged.or_else(|| revoked.then(refusal)))
        };
        if let (Some(meeting), Some(_)) = (meeting, &refused) {
            soon(meeting.wait()).await;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Ends the stream if that is to come.
    fn next(&self, said: &mut usize, word: Result<Word, Status>) -> Result<Word, Status> {
        *said += 1;
        match self.state().late.clone() {
            Some(late) if *said > 1 => Err(late),
            _ => word,
        }
    }
}

#[async_trait]
impl Echo for Server {
    type SplitStream = Words;
    type TalkStream = Words;

    async fn say(&self, request: Request<Word>) -> Result<Response<Word>, Status> {
        let number = self.arrived("Say", &request);
        self.hears_all(number, request.get_ref());
        self.judge(number).await?;
        Ok(Response::new(request.into_inner()))
    }

    async fn gather(&self, request: Request<Streaming<Word>>) -> Result<Response<Word>, Status> {
        let number = self.arrived("Gather", &request);
        let reads_first = self.state().reads_first;
        if !reads_first {
            self.judge(number).await?;
        }
        let mut words = request.into_inner();
        while let Some(word) = words.message().await? {
            self.hears(number, Some(&word.text));
        }
        self.hears(number, None);
        if reads_first {
            self.judge(number).await?;
        }
        let text = self.state().seen[number].words.concat();
        Ok(Response::new(Word { text }))
    }

    async fn split(&self, request: Request<Word>) -> Result<Response<Words>, Status> {
        let number = self.arrived("Split", &request);
        self.hears_all(number, request.get_ref());
        self.judge(number).await?;
        let text = request.into_inner().text;
        let words: Vec<_> = text.split(' ').map(|word| Ok(Word { text: word.to_owned() })).collect();
        let (server, mut said) = (self.clone(), 0);
        let words = stream::iter(words).map(move |word| server.next(&mut said, word));
        Ok(Response::new(Box::pin(words)))
    }

    async fn talk(&self, request: Request<Streaming<Word>>) -> Result<Response<Words>, Status> {
        let number = self.arrived("Talk", &request);
        self.judge(number).await?;
        let (server, mut said) = (self.clone(), 0);
        let words = request.into_inner().map(move |word| {
            if let Ok(word) = &word {
                server.hears(number, Some(&word.text));
            }
            server.next(&mut said, word)
        });
        Ok(Response::new(Box::pin(words)))
    }
}
