use super::*;
use crate::body::{KeptBody, ReplayBody, Split};
use http_body_util::{BodyExt, combinators::BoxBody};
use std::{
    convert::Infallible,
    future::poll_fn,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::Wake,
};

/// What a source gives, poll by poll.
enum Step {
    Data(&'static str),
    Trailers,
    Pending,
    Error,
    Panic,
    /// Something happens in the middle of the poll, then comes this frame, or nothing yet.
    Meanwhile(Box<dyn FnOnce() + Send + Sync>, Option<&'static str>),
}

struct Steps<E> {
    steps: VecDeque<Step>,
    length: Option<u64>,
    error: fn() -> E,
}

impl<E> Body for Steps<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        let frame = match self.steps.pop_front() {
            None => return Poll::Ready(None),
            Some(Step::Pending) => return Poll::Pending,
            Some(Step::Error) => return Poll::Ready(Some(Err((self.error)()))),
            Some(Step::Panic) => panic!("the source has a bug"),
            Some(Step::Data(data)) => Frame::data(Bytes::from(data)),
            Some(Step::Trailers) => {
                Frame::trailers([("sum".parse().unwrap(), "1".parse().unwrap())].into_iter().collect())
            }
            Some(Step::Meanwhile(act, data)) => {
                act();
                let Some(data) = data else { return Poll::Pending };
                Frame::data(Bytes::from(data))
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<E> Unpin for Steps<E> {}

type Boxed = BoxBody<Bytes, BoxError>;

fn boxed(steps: impl IntoIterator<Item = Step>) -> Boxed {
    BoxBody::new(Steps { steps: steps.into_iter().collect(), length: None, error: || "the body broke".into() })
}

fn split(body: Boxed, limit: usize) -> (Boxed, KeptBody<Boxed>) {
    let Split { send, keep } = body.split(limit);
    (send, keep.expect("recorded"))
}

fn again(kept: KeptBody<Boxed>) -> Option<Boxed> {
    kept.again().map(|(body, _)| body)
}

/// One poll, in a few words.
fn poll<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> String
where
    B::Error: fmt::Display,
{
    match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => "pending".into(),
        Poll::Ready(None) => "end".into(),
        Poll::Ready(Some(Err(error))) => format!("error: {error}"),
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(data) => String::from_utf8(data.to_vec()).unwrap(),
            Err(frame) => format!("{:?}", frame.trailers_ref().unwrap()),
        },
    }
}

fn rest<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Vec<String>
where
    B::Error: fmt::Display,
{
    let mut all = vec![poll(body)];
    while !matches!(all.last().map(String::as_str), Some("end" | "pending")) {
        all.push(poll(body));
    }
    all
}

const MOVED: &str = "error: the server refused the token before it read the whole body, which is now sent again";

fn abc() -> [Step; 4] {
    [Step::Data("a"), Step::Data("bb"), Step::Data("ccc"), Step::Trailers]
}

const TRAILERS: &str = r#"{"sum": "1"}"#;

#[test]
fn a_body_that_was_read_is_replayed_frame_by_frame_with_its_trailers() {
    let (mut first, kept) = split(boxed(abc()), 100);
    assert_eq!(rest(&mut first), ["a", "bb", "ccc", TRAILERS, "end"]);
    assert!(kept.is_whole());
    assert_eq!(rest(&mut again(kept).unwrap()), ["a", "bb", "ccc", TRAILERS, "end"]);
}

#[test]
fn a_half_read_body_is_replayed_and_read_on_and_its_first_sending_ends_in_an_error() {
    let (mut first, kept) = split(boxed(abc()), 100);
    assert_eq!((poll(&mut first), poll(&mut first)), ("a".into(), "bb".into()));
    let mut second = again(kept).unwrap();
    assert_eq!(poll(&mut second), "a");
    assert_eq!(rest(&mut first), [MOVED, "end"]);
    assert_eq!(rest(&mut second), ["bb", "ccc", TRAILERS, "end"]);
}

#[test]
fn a_first_sending_is_void_even_where_the_whole_body_is_on_record() {
    let (mut first, kept) = split(boxed(abc()), 100);
    assert_eq!(poll(&mut first), "a");
    let (mut second, _kept) = kept.again().unwrap();
    assert_eq!(rest(&mut second), ["a", "bb", "ccc", TRAILERS, "end"]);
    assert_eq!(rest(&mut first), [MOVED, "end"]);

    let (mut first, kept) = split(boxed(abc()), 100);
    assert_eq!([(); 4].map(|()| poll(&mut first)), ["a", "bb", "ccc", TRAILERS]);
    assert!(first.is_end_stream());
    let (mut second, _kept) = kept.again().unwrap();
    rest(&mut second);
    assert!(!first.is_end_stream(), "who asks this and nothing else would take it for whole");
    assert_eq!(rest(&mut first), [MOVED, "end"]);
}

#[test]
fn a_third_sending_reads_the_same_record() {
    let (mut first, kept) = split(boxed(abc()), 100);
    poll(&mut first);
    let (mut second, keeper) = kept.again().unwrap();
    assert_eq!((poll(&mut second), poll(&mut second)), ("a".into(), "bb".into()));
    let mut third = again(keeper.unwrap()).unwrap();
    assert_eq!(rest(&mut second), [MOVED, "end"]);
    assert_eq!(rest(&mut third), ["a", "bb", "ccc", TRAILERS, "end"]);
}

#[test]
fn exactly_the_limit_is_kept_and_one_byte_more_is_sent_once_with_its_memory_freed() {
    let body = || boxed([Step::Data("a"), Step::Data("bb"), Step::Data("ccc")]);
    let (mut first, kept) = split(body(), 6);
    rest(&mut first);
    assert!(kept.is_whole());

    let (mut first, kept) = split(body(), 5);
    assert_eq!((poll(&mut first), poll(&mut first), kept.is_whole()), ("a".into(), "bb".into(), true));
    assert_eq!(rest(&mut first), ["ccc", "end"], "sent whole");
    assert!(!kept.is_whole());
    assert!(again(kept).is_none());
}

#[test]
fn empty_frames_count_so_that_they_cannot_fill_memory() {
    let (mut first, kept) = split(boxed((0..11).map(|_| Step::Data(""))), 10);
    assert_eq!(rest(&mut first).len(), 12);
    assert!(!kept.is_whole());
}

#[test]
fn a_body_that_says_it_is_too_long_is_never_recorded() {
    let body = |length| Steps { steps: VecDeque::new(), length: Some(length), error: || BoxError::from("") };
    assert!(BoxBody::new(body(11)).split(10).keep.is_none());
    assert!(BoxBody::new(body(10)).split(10).keep.is_some());
}

#[test]
fn a_body_that_breaks_says_so_as_before_and_is_not_sent_again() {
    let (mut first, kept) = split(boxed([Step::Data("a"), Step::Error]), 100);
    assert_eq!(rest(&mut first), ["a", "error: the body broke", "end"]);
    assert!(!kept.is_whole());
    assert!(again(kept).is_none());
}

#[test]
fn a_body_whose_error_cannot_say_that_it_moved_is_sent_again_only_if_it_was_read_whole() {
    let body = || -> BoxBody<Bytes, Infallible> {
        BoxBody::new(Steps { steps: [Step::Data("a"), Step::Data("b")].into(), length: None, error: || unreachable!() })
    };
    let Split { send: mut first, keep } = body().split(100);
    let kept = keep.unwrap();
    poll(&mut first);
    assert!(!kept.is_whole(), "half of it would look whole");
    assert_eq!(poll(&mut first), "b");
    assert!(kept.is_whole(), "the end is known from the last frame, nobody need poll for it");
    let (mut second, _) = kept.again().unwrap();
    assert_eq!(rest(&mut second), ["a", "b", "end"]);
}

fn split_mute(steps: impl IntoIterator<Item = Step>) -> (Mute, KeptBody<Mute>) {
    let steps = steps.into_iter().collect();
    let Split { send, keep } = BoxBody::new(Steps { steps, length: None, error: || unreachable!() }).split(100);
    (send, keep.expect("recorded"))
}

/// Its error can say nothing at all.
type Mute = BoxBody<Bytes, Infallible>;

#[test]
fn an_overtaken_replay_whose_error_cannot_say_so_goes_on_to_its_end() {
    for accepted_early in [true, false] {
        let (mut first, kept) = split_mute([Step::Data("a"), Step::Data("b"), Step::Data("c")]);
        assert_eq!(rest(&mut first), ["a", "b", "c", "end"]);
        let (mut second, kept) = kept.again().unwrap();
        assert_eq!(poll(&mut second), "a");
        let (mut third, kept) = kept.unwrap().again().unwrap();
        let kept = kept.filter(|_| !accepted_early);
        assert_eq!((poll(&mut third), poll(&mut third)), ("a".into(), "b".into()));
        drop(kept);
        assert!(!second.is_end_stream());
        assert_eq!(rest(&mut second), ["b", "c", "end"], "half of it would look whole");
        assert_eq!(rest(&mut third), ["c", "end"]);
    }
}

#[test]
fn a_replay_under_way_loses_nothing_when_its_answer_is_accepted_early() {
    let (mut first, kept) = split(boxed(abc()), 100);
    assert_eq!((poll(&mut first), poll(&mut first)), ("a".into(), "bb".into()));
    let (mut second, kept) = kept.again().unwrap();
    assert_eq!(poll(&mut second), "a");
    drop(kept);
    assert_eq!(rest(&mut second), ["bb", "ccc", TRAILERS, "end"]);
}

#[test]
fn a_source_that_panics_and_is_polled_again_does_not_end_early_where_no_error_can_say_so() {
    let (first, kept) = split_mute([Step::Data("a"), Step::Panic, Step::Data("b")]);
    let slot = Arc::new(Mutex::new(first));
    let panicking = Arc::clone(&slot);
    assert!(std::thread::spawn(move || rest(&mut *panicking.lock().unwrap())).join().is_err());
    assert!(!kept.is_whole());
    assert_eq!(rest(&mut *slot.lock().unwrap_or_else(PoisonError::into_inner)), ["b", "end"], "as without us");
}

#[test]
fn framing_is_the_same_in_both_sendings() {
    let body = BoxBody::new(Steps {
        steps: [Step::Data("a"), Step::Data("bb")].into(),
        length: Some(3),
        error: || BoxError::from(""),
    });
    let (mut first, kept) = split(body, 100);
    assert_eq!(first.size_hint().exact(), Some(3));
    poll(&mut first);
    assert_eq!((first.size_hint().exact(), first.is_end_stream()), (Some(2), false));
    poll(&mut first);
    assert_eq!((first.size_hint().exact(), first.is_end_stream()), (Some(0), true));
    let mut second = again(kept).unwrap();
    assert_eq!((second.size_hint().exact(), second.is_end_stream()), (Some(3), false));
    rest(&mut second);
    assert!(second.is_end_stream());
}

/// The keeper, where a step of the source can reach it.
type Slot = Arc<Mutex<Option<KeptBody<Boxed>>>>;

fn take_over(slot: &Slot) -> (Boxed, Option<KeptBody<Boxed>>) {
    slot.lock().unwrap().take().unwrap().again().unwrap()
}

// Scenario 115, made to happen.
#[test]
fn a_reader_that_is_overtaken_in_the_middle_of_a_poll_records_its_frame_whatever_the_limit() {
    let slot = Slot::default();
    let second: Arc<Mutex<Option<Boxed>>> = Arc::default();
    let meanwhile = {
        let (slot, second) = (Arc::clone(&slot), Arc::clone(&second));
        move || {
            let (mut body, _) = take_over(&slot);
            assert_eq!(
                (poll(&mut body), poll(&mut body)),
                ("a".into(), "pending".into()),
                "the source is being polled"
            );
            *second.lock().unwrap() = Some(body);
        }
    };
    let steps = [Step::Data("a"), Step::Meanwhile(Box::new(meanwhile), Some("long beyond the limit")), Step::Data("c")];
    let (mut first, kept) = split(boxed(steps), 2);
    *slot.lock().unwrap() = Some(kept);
    assert_eq!(poll(&mut first), "a");
    assert_eq!(rest(&mut first), [MOVED, "end"]);
    let mut second = second.lock().unwrap().take().unwrap();
    assert_eq!(rest(&mut second), ["long beyond the limit", "c", "end"]);
}

struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_reader_that_waits_for_the_source_is_woken_when_it_is_overtaken() {
    let (mut first, kept) = split(boxed([Step::Pending, Step::Data("a")]), 10);
    let woken = Arc::new(Counter(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    assert!(Pin::new(&mut first).poll_frame(&mut Context::from_waker(&waker)).is_pending());
    let second = again(kept);
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert_eq!(poll(&mut first), MOVED);
    assert_eq!(rest(&mut second.unwrap()), ["a", "end"]);
}

#[test]
fn who_found_the_source_gone_is_woken_when_the_overtaken_reader_got_nothing_from_it() {
    let (slot, woken) = (Slot::default(), Arc::new(Counter(AtomicUsize::new(0))));
    let second: Arc<Mutex<Option<Boxed>>> = Arc::default();
    let meanwhile = {
        let (slot, second, waker) = (Arc::clone(&slot), Arc::clone(&second), Waker::from(Arc::clone(&woken)));
        move || {
            let (mut body, _) = take_over(&slot);
            assert!(Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker)).is_pending());
            *second.lock().unwrap() = Some(body);
        }
    };
    let (mut first, kept) = split(boxed([Step::Meanwhile(Box::new(meanwhile), None), Step::Data("a")]), 10);
    *slot.lock().unwrap() = Some(kept);
    assert_eq!(poll(&mut first), MOVED);
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert_eq!(rest(second.lock().unwrap().as_mut().unwrap()), ["a", "end"]);
}

#[test]
fn a_source_that_panics_leaves_an_error_and_nobody_waiting() {
    let (first, kept) = split(boxed([Step::Data("a"), Step::Panic]), 100);
    let slot = Arc::new(Mutex::new(first));
    let panicking = Arc::clone(&slot);
    let panicked = std::thread::spawn(move || rest(&mut *panicking.lock().unwrap())).join();
    assert!(panicked.is_err());
    assert!(!kept.is_whole() && again(kept).is_none());
    let mut first = slot.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(rest(&mut *first), ["error: the body failed while it was being sent the first time", "end"]);
}

fn record_is_freed(resent: bool) {
    struct Owned(Arc<[u8]>);
    impl AsRef<[u8]> for Owned {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let alive: Arc<[u8]> = Arc::from(*b"abc");
    let data = Bytes::from_owner(Owned(Arc::clone(&alive)));
    let stream = http_body_util::StreamBody::new(futures_util::stream::iter([
        Ok::<_, BoxError>(Frame::data(data)),
        Ok(Frame::data(Bytes::from("d"))),
    ]));
    let (mut first, kept) = split(BoxBody::new(stream), 100);
    poll(&mut first);
    assert_eq!(Arc::strong_count(&alive), 2, "on record");
    if !resent {
        drop(kept);
        assert_eq!(Arc::strong_count(&alive), 1, "an accepted answer frees it before its body is read");
        assert_eq!(rest(&mut first), ["d", "end"]);
        return;
    }
    let (mut second, kept) = kept.again().unwrap();
    poll(&mut second);
    assert_eq!(Arc::strong_count(&alive), 2, "it may be sent a third time");
    drop(kept);
    assert_eq!(Arc::strong_count(&alive), 1, "an accepted answer frees what the resend is through with");
    assert_eq!(rest(&mut second), ["d", "end"]);
}

#[test]
fn the_record_is_freed_when_nobody_can_ask_for_it_any_more() {
    record_is_freed(false);
}

#[test]
fn the_record_of_a_resend_under_way_is_freed_when_its_answer_is_accepted_early() {
    record_is_freed(true);
}

/// A source that other threads pull at.
struct Numbers {
    next: u32,
    end: u32,
}

impl Body for Numbers {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.next == self.end {
            return Poll::Ready(None);
        }
        if self.next % 3 == 1 {
            std::thread::yield_now();
        }
        if self.next % 5 == 4 {
            cx.waker().wake_by_ref();
        }
        self.next += 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&self.next.to_be_bytes())))))
    }
}

// Scenario 115: real threads, 50,000 times.
#[test]
fn fifty_thousand_takeovers_lose_and_double_no_byte() {
    const ROUNDS: u32 = 50_000;
    const FRAMES: u32 = 12;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let want: Vec<u8> = (1..=FRAMES).flat_map(u32::to_be_bytes).collect();
        let mut moved = 0;
        for round in 0..ROUNDS {
            let (mut first, kept) = split(BoxBody::new(Numbers { next: 0, end: FRAMES }), 1024);
            let reader = tokio::spawn(async move {
                let mut read = Vec::new();
                while let Some(frame) = first.frame().await {
                    match frame {
                        Ok(frame) => read.extend_from_slice(frame.data_ref().unwrap()),
                        Err(_) => return Err(read),
                    }
                }
                Ok(read)
            });
            for _ in 0..round % 7 {
                std::hint::spin_loop();
            }
            if round % 2 == 0 {
                tokio::task::yield_now().await;
            }
            let mut second = again(kept).expect("whole");
            let mut replay = Vec::new();
            {
                let mut second = pin!(&mut second);
                while let Some(frame) = poll_fn(|cx| second.as_mut().poll_frame(cx)).await {
                    replay.extend_from_slice(frame.unwrap().data_ref().unwrap());
                }
            }
            assert_eq!(replay, want, "round {round}");
            match reader.await.unwrap() {
                Ok(read) => assert_eq!(read, want, "round {round}: a clean end is the whole body"),
                Err(read) => {
                    assert!(want.starts_with(&read), "round {round}");
                    moved += 1;
                }
            }
        }
        assert!(moved > 0, "no takeover ever hit a reader: the test tests nothing");
    });
}
