//! A streaming body through the layer, sent again at random moments, against a model that knows each byte.
//!
//! The input says what the source gives (frames of any size, trailers, pauses, an error), how much may be recorded, and then what happens, one byte an
//! event: a reader is polled or dropped, the answer comes (again, or accepted), the caller goes away; in the middle of a poll of the source as
//! well. What must hold of each reader: its frames are those of the source from the first on, byte for byte; it ends cleanly only if it had
//! them all; once another took over it ends with an error, and is woken to say so; nobody waits for ever; nothing is kept beyond the
//! limit, nor once the answer is accepted.

#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use libfuzzer_sys::fuzz_target;
use std::{
    collections::VecDeque,
    fmt,
    future::{Future, Ready, poll_fn, ready},
    pin::Pin,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};
use tower::{Layer, Service, retry::Policy, service_fn};
use tower_jwt_refresh::{Attempt, BoxError, JwtRefreshLayer, Token, TokenProvider, TokenRequest};

fuzz_target!(|data: &[u8]| {
    let [form, limit, rest @ ..] = data else { return };
    let (form, limit) = (*form, usize::from(limit % 48));
    let steps = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let events = rest.get(steps + 1..).unwrap_or_default();
    let steps = &rest[..steps.min(64)];
    if form & 1 == 0 {
        play::<BoxError>(form, limit, steps, events, true, || "the body broke".into());
    } else {
        play::<Mute>(form, limit, steps, events, false, || Mute);
    }
});

/// An error that cannot say that the body is sent again.
#[derive(Debug)]
struct Mute;

impl fmt::Display for Mute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken")
    }
}

impl std::error::Error for Mute {}

#[derive(Clone, Debug)]
enum Step {
    Data(Vec<u8>),
    Trailers,
    Pending,
    Error,
}

impl Step {
    /// What it takes of the limit.
    fn size(&self) -> usize {
        match self {
            Self::Data(data) => data.len().max(1),
            _ => 1,
        }
    }

    fn bytes(&self) -> usize {
        if let Self::Data(data) = self { data.len() } else { 0 }
    }
}

type Sent<E> = UnsyncBoxBody<Bytes, E>;
type Answer = Pin<Box<dyn Future<Output = Result<Response<()>, BoxError>> + Send>>;

struct Reader<E> {
    /// None while it is polled, and once it was dropped.
    body: Option<Sent<E>>,
    flag: Arc<Flag>,
    got: usize,
    over: bool,
    dropped: bool,
}

struct World<E> {
    can_cut: bool,
    error: fn() -> E,
    tells_end: bool,
    exact: bool,
    limit: usize,
    steps: VecDeque<Step>,
    /// All that the source gave.
    given: Vec<Step>,
    /// It said that there is no more.
    ended: bool,
    broken: bool,
    /// Of what came to a reader that was the newest then, and of all.
    counted: usize,
    all: usize,
    source_waits: Option<Waker>,
    live: Arc<AtomicUsize>,
    readers: Vec<Reader<E>>,
    /// Of each sending.
    answers: Vec<Option<u16>>,
    /// None while it is polled, and once it is over.
    answer: Option<Answer>,
    accepted: bool,
    /// Nothing can be sent again any more.
    given_up: bool,
    events: VecDeque<u8>,
}

type Shared<E> = Arc<Mutex<World<E>>>;

fn lock<E>(world: &Shared<E>) -> MutexGuard<'_, World<E>> {
    world.lock().expect("no panic is survived")
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Bytes that are counted while anybody holds them.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

struct Source<E>(Shared<E>);

impl<E: fmt::Debug + 'static> Body for Source<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        // In the middle of the poll, things happen elsewhere.
        let event = lock(&self.0).events.pop_front().unwrap_or_default();
        if event >= 0xc0 {
            for _ in 0..event & 3 {
                let event = lock(&self.0).events.pop_front().unwrap_or_default();
                happen(&self.0, event);
            }
        }
        let mut world = lock(&self.0);
        let Some(step) = world.steps.pop_front() else {
            world.ended = true;
            return Poll::Ready(None);
        };
        match &step {
            Step::Pending => {
                world.source_waits = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Step::Error => {
                world.broken = true;
                return Poll::Ready(Some(Err((world.error)())));
            }
            Step::Data(_) | Step::Trailers => {}
        }
        world.given.push(step.clone());
        world.ended = world.tells_end && world.steps.is_empty();
        Poll::Ready(Some(Ok(match step {
            Step::Data(data) => {
                world.live.fetch_add(data.len(), Ordering::Relaxed);
                Frame::data(Bytes::from_owner(Counted(data, Arc::clone(&world.live))))
            }
            _ => Frame::trailers(trailers()),
        })))
    }

    fn is_end_stream(&self) -> bool {
        let world = lock(&self.0);
        world.tells_end && world.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let world = lock(&self.0);
        if !world.exact {
            return SizeHint::default();
        }
        SizeHint::with_exact(world.steps.iter().map(Step::bytes).sum::<usize>() as u64)
    }
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("sum".parse().expect("legal"), HeaderValue::from_static("1"))])
}

/// Sends again whatever is answered with 503.
#[derive(Clone)]
struct Again(usize);

impl Policy<Attempt<Request<Sent<BoxError>>>, Response<()>, BoxError> for Again {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Attempt<Request<Sent<BoxError>>>,
        result: &mut Result<Response<()>, BoxError>,
    ) -> Option<Ready<()>> {
        (result.as_ref().ok()?.status() == 503).then(|| ready(()))
    }

    fn clone_request(
        &mut self,
        attempt: &Attempt<Request<Sent<BoxError>>>,
    ) -> Option<Attempt<Request<Sent<BoxError>>>> {
        Some(attempt.keep(self.0))
    }
}

impl Policy<Attempt<Request<Sent<Mute>>>, Response<()>, BoxError> for Again {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Attempt<Request<Sent<Mute>>>,
        result: &mut Result<Response<()>, BoxError>,
    ) -> Option<Ready<()>> {
        (result.as_ref().ok()?.status() == 503).then(|| ready(()))
    }

    fn clone_request(&mut self, attempt: &Attempt<Request<Sent<Mute>>>) -> Option<Attempt<Request<Sent<Mute>>>> {
        Some(attempt.keep(self.0))
    }
}

/// It holds a token without an end: nothing here waits for one.
static PROVIDER: LazyLock<TokenProvider> = LazyLock::new(|| {
    let never = service_fn(|_: TokenRequest| async { Err::<Token, BoxError>("never asked".into()) });
    TokenProvider::builder().seed(Token::opaque("token").expect("legal")).build(never).expect("legal settings")
});

fn play<E>(form: u8, limit: usize, steps: &[u8], events: &[u8], can_cut: bool, error: fn() -> E)
where
    Again: Policy<Attempt<Request<Sent<E>>>, Response<()>, BoxError, Future = Ready<()>>,
    Sent<E>: Send,
    E: fmt::Debug + Send + 'static,
{
    let mut steps: VecDeque<_> = steps
        .iter()
        .enumerate()
        .map(|(nth, byte)| match byte {
            b'p' => Step::Pending,
            b't' => Step::Trailers,
            b'e' => Step::Error,
            size => Step::Data(vec![nth as u8; usize::from(size % 24)]),
        })
        .collect();
    // Neither comes after an end.
    if let Some(last) = steps.iter().position(|step| matches!(step, Step::Trailers | Step::Error)) {
        steps.truncate(last + 1);
    }
    // A source that tells its end does not pause before it.
    while form & 4 != 0 && matches!(steps.back(), Some(Step::Pending)) {
        steps.pop_back();
    }
    let fails = matches!(steps.back(), Some(Step::Error));
    let total = steps.iter().map(Step::bytes).sum::<usize>();
    let exact = form & 2 != 0 && !fails;
    let world = Arc::new(Mutex::new(World {
        can_cut,
        error,
        tells_end: form & 4 != 0,
        exact,
        limit,
        ended: form & 4 != 0 && steps.is_empty(),
        steps,
        given: Vec::new(),
        broken: false,
        counted: 0,
        all: 0,
        source_waits: None,
        live: Arc::default(),
        readers: Vec::new(),
        answers: Vec::new(),
        answer: None,
        accepted: false,
        given_up: exact && total > limit,
        events: events.iter().copied().take(200).collect(),
    }));
    let inner = Arc::clone(&world);
    let client = service_fn(move |request: Request<Sent<E>>| {
        let mut world = lock(&inner);
        let number = world.answers.len();
        world.answers.push(None);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        world.readers.push(Reader { body: Some(request.into_body()), flag, got: 0, over: false, dropped: false });
        let inner = Arc::clone(&inner);
        poll_fn(move |_| match lock(&inner).answers[number] {
            None => Poll::Pending,
            Some(status) => {
                Poll::Ready(Ok::<_, BoxError>(Response::builder().status(status).body(()).expect("a status")))
            }
        })
    });
    let body = Sent::new(Source(Arc::clone(&world)));
    let request = Request::post("https://api.example.com/").body(body).expect("legal");
    let mut client = JwtRefreshLayer::new(PROVIDER.clone()).retry(Again(limit)).layer(client);
    let answer: Answer = Box::pin(client.call(request));
    drop(client);
    lock(&world).answer = Some(answer);

    while let Some(event) = { lock(&world).events.pop_front() } {
        happen(&world, event);
        check(&world);
    }
    drain(&world);

    let live = Arc::clone(&lock(&world).live);
    let (readers, answer) = {
        let mut world = lock(&world);
        (std::mem::take(&mut world.readers), world.answer.take())
    };
    drop((readers, answer));
    assert_eq!(live.load(Ordering::Relaxed), 0, "everybody is gone, and what was recorded is not");
}

fn happen<E: fmt::Debug + 'static>(world: &Shared<E>, event: u8) {
    let nth = usize::from(event & 7);
    match event >> 3 & 7 {
        // The newest is polled more often than others.
        0..=2 => {
            let newest = lock(world).readers.len() - 1;
            poll(world, newest);
        }
        3 => {
            let readers = lock(world).readers.len();
            poll(world, nth % readers);
        }
        4 => answered(world, 503),
        5 if nth == 0 => answered(world, 200),
        5 if nth == 1 => {
            let answer = lock(world).answer.take();
            // A caller that goes away keeps nothing.
            if answer.is_some() {
                lock(world).given_up = true;
            }
            drop(answer);
        }
        5 if nth == 2 => {
            let body = {
                let mut world = lock(world);
                let nth = usize::from(event >> 6) % world.readers.len();
                let reader = &mut world.readers[nth];
                reader.dropped |= reader.body.is_some();
                reader.body.take()
            };
            drop(body);
        }
        _ => {
            let waits = lock(world).source_waits.take();
            if let Some(waker) = waits {
                waker.wake();
            }
        }
    }
}

/// The server answers the newest sending.
fn answered<E: 'static>(world: &Shared<E>, status: u16) {
    let (mut answer, before, must, may) = {
        let mut world = lock(world);
        let Some(answer) = world.answer.take() else { return };
        *world.answers.last_mut().expect("one was sent") = Some(status);
        let may = status == 503 && !world.given_up && !world.broken && world.counted <= world.limit;
        let may = may && (world.can_cut || world.ended);
        let must = may && world.all <= world.limit;
        (answer, world.answers.len(), must, may)
    };
    let polled = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let mut world = lock(world);
    let again = world.answers.len() > before;
    assert!(again == polled.is_pending() && (again || !must) && (may || !again), "again: {again}, {must} {may}");
    match polled {
        Poll::Pending => world.answer = Some(answer),
        Poll::Ready(response) => {
            assert_eq!(response.expect("the client never fails").status(), status);
            world.accepted = true;
            world.given_up = true;
        }
    }
}

fn poll<E: fmt::Debug + 'static>(world: &Shared<E>, nth: usize) {
    let (mut body, flag, was_over, was_moved, given) = {
        let mut world = lock(world);
        let moved = nth + 1 < world.readers.len();
        let given = world.given.len();
        let reader = &mut world.readers[nth];
        let Some(body) = reader.body.take() else { return };
        (body, Arc::clone(&reader.flag), reader.over, moved, given)
    };
    flag.0.store(false, Ordering::Relaxed);
    let waker = Waker::from(Arc::clone(&flag));
    let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker));
    let mut guard = lock(world);
    let world = &mut *guard;
    let moved = nth + 1 < world.readers.len();
    // What the source gave during this poll, to whom it counts: one frame at most, since nobody else can poll it meanwhile.
    for step in &world.given[given..] {
        world.all += step.size();
        world.counted += if moved && world.can_cut { 0 } else { step.size() };
    }
    let reader = &mut world.readers[nth];
    let ended = world.ended && reader.got == world.given.len();
    match &polled {
        Poll::Pending => assert!(!(was_over || moved && world.can_cut), "a void reader waits"),
        Poll::Ready(None) => {
            assert!(was_over || ended && !(moved && world.can_cut), "a truncated body ends cleanly");
            reader.over = true;
        }
        Poll::Ready(Some(Err(error))) => {
            assert!(!was_over && (world.broken || moved && world.can_cut), "{error:?} out of nothing");
            reader.over = true;
        }
        Poll::Ready(Some(Ok(frame))) => {
            assert!(!(was_over || moved && world.can_cut), "a void reader reads on (void before: {was_moved})");
            match &world.given[reader.got] {
                Step::Data(data) => assert_eq!(frame.data_ref().map(|frame| &frame[..]), Some(&data[..])),
                _ => assert_eq!(frame.trailers_ref(), Some(&trailers())),
            }
            reader.got += 1;
            flag.0.store(true, Ordering::Relaxed);
        }
    }
    reader.body = Some(body);
}

/// What holds between any two events.
fn check<E: 'static>(shared: &Shared<E>) {
    let world = lock(shared);
    let live = world.live.load(Ordering::Relaxed);
    // What an overtaken poll brought is kept whatever the limit.
    assert!(live <= world.limit + (world.all - world.counted), "{live} bytes are kept, {} may be", world.limit);
    let newest = world.readers.len() - 1;
    if world.given_up && world.can_cut && world.readers[newest].body.is_some() {
        let left: usize = world.given[world.readers[newest].got..].iter().map(Step::bytes).sum();
        assert!(live <= left, "{live} bytes are kept, {left} are left to replay");
    }
    let readers = world.readers.len();
    drop(world);
    (0..readers).for_each(|nth| check_reader(shared, nth));
}

fn check_reader<E: 'static>(shared: &Shared<E>, nth: usize) {
    let mut world = lock(shared);
    let moved = nth + 1 < world.readers.len() && world.can_cut;
    let Some(body) = world.readers[nth].body.take() else { return };
    // A source that is sent as it is asks for the lock.
    drop(world);
    let (ends, hint) = (body.is_end_stream(), body.size_hint());
    let mut world = lock(shared);
    world.readers[nth].body = Some(body);
    let reader = &world.readers[nth];
    if reader.over {
        return;
    }
    if ends {
        assert!(world.ended && reader.got == world.given.len() && !moved, "a truncated body says that it has ended");
    }
    if world.exact {
        let given: usize = world.given[..reader.got].iter().map(Step::bytes).sum();
        let total: usize = world.given.iter().chain(&world.steps).map(Step::bytes).sum();
        assert_eq!(hint.exact(), Some((total - given) as u64));
    }
}

/// Polls only who was woken, until nobody is: then nobody may be left who waits.
fn drain<E: fmt::Debug + 'static>(world: &Shared<E>) {
    loop {
        let woken = {
            let world = lock(world);
            let waits =
                |reader: &Reader<E>| reader.body.is_some() && !reader.over && reader.flag.0.load(Ordering::Relaxed);
            world.readers.iter().position(waits)
        };
        if let Some(nth) = woken {
            poll(world, nth);
            check(world);
            continue;
        }
        let Some(waker) = ({ lock(world).source_waits.take() }) else { break };
        waker.wake();
    }
    let world = lock(world);
    // Who polled the source last and was dropped takes the wake-up along, but only if nobody took over from it.
    let newest = world.readers.len() - 1;
    for (nth, reader) in world.readers.iter().enumerate() {
        assert!(reader.over || reader.dropped, "reader {nth} of {newest} waits for ever");
    }
}
