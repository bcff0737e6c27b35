//! Which answer means that the token was refused, and whether the request is sent again.

pub(crate) mod challenge;

use crate::{
    BoxError, Generation, Origin, TokenProvider,
    body::KeptBody,
    clock::Now,
    layer::Route,
    provider::Rejection,
    request::{RejectableResponse, ReplayRequest},
};
use http::{HeaderMap, HeaderName, Method, StatusCode, header::CONTENT_TYPE};
use std::{
    borrow::Cow,
    fmt,
    future::{Ready, ready},
    sync::Arc,
};
use tower::retry::Policy;

/// One sending of a request, as a [`tower::retry::Policy`] sees it.
///
/// The layer asks the policy twice:
/// - before a request is sent, [`clone_request`](Policy::clone_request) with the [`request`](Self::request) in it. The answer is
///   [`keep`](Self::keep), or none where it will never be resent; the layer then takes the body apart, so a policy needs no `Clone`;
/// - with every outcome, copy or not, [`retry`](Policy::retry). There the policy says [`reject_token`](Self::reject_token) if the token was
///   refused, and returns a future if the request is to be sent again. The two are independent: a refused token is replaced for the next
///   request even if this one cannot be resent, and "again" without a rejection resends with the current token.
///
/// A resend happens only if [`can_resend`](Self::can_resend); otherwise the answer goes to the caller whatever the policy returned.
pub struct Attempt<R: ReplayRequest> {
    hold: Hold<R>,
    /// The record of a body that is being resent, which would keep it for another time.
    keeper: Option<KeptBody<R::Body>>,
    sent: Option<Sent>,
    refused: Option<Refused>,
    /// None in an answer of `clone_request`.
    route: Option<Route>,
    /// Sendings before this one that a server answered by refusing the token.
    pub(crate) replaced: u32,
}

enum Hold<R: ReplayRequest> {
    Whole(R),
    /// The policy's wish for a copy.
    Asked(usize),
    Kept(R::Head, KeptBody<R::Body>),
    Nothing,
}

/// What is remembered of a sending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) generation: Generation,
    /// Without a copy, what its answer is compared with.
    origin: Option<u64>,
    /// Which thing is asked for: of a resend, which is to be remembered if it is refused, and of all while any is.
    pub(crate) resource: Option<u64>,
    /// When it was sent, while any resource is remembered.
    pub(crate) watched: Option<Now>,
}

#[derive(Debug, Default)]
pub(crate) struct Refused {
    pub(crate) challenge: Option<Arc<str>>,
}

impl<R: ReplayRequest> Attempt<R> {
    pub(crate) fn new(request: R, route: Route) -> Self {
        Self { hold: Hold::Whole(request), keeper: None, sent: None, refused: None, route: Some(route), replaced: 0 }
    }

    /// The request before it is sent, without the token. None afterwards.
    #[must_use]
    pub fn request(&self) -> Option<&R> {
        match &self.hold {
            Hold::Whole(request) => Some(request),
            _ => None,
        }
    }

    /// The answer of [`clone_request`](Policy::clone_request) that asks for a copy. At most `limit` bytes of the body are copied; a
    /// body that would need more is sent without a copy.
    #[must_use]
    pub fn keep(&self, limit: usize) -> Self {
        let replaced = self.replaced;
        Self { hold: Hold::Asked(limit), keeper: None, sent: None, refused: None, route: None, replaced }
    }

    /// The request's method, while the request or a copy of it is here.
    #[must_use]
    pub fn method(&self) -> Option<&Method> {
        match &self.hold {
            Hold::Whole(request) => Some(request.method()),
            Hold::Kept(head, _) => Some(R::head_method(head)),
            Hold::Asked(_) | Hold::Nothing => None,
        }
    }

    /// Is there a copy to send again?
    #[must_use]
    pub fn can_resend(&self) -> bool {
        matches!(&self.hold, Hold::Kept(_, body) if body.is_whole())
    }

    /// The copy's headers, to mark a resend. They never hold the token.
    pub fn headers_mut(&mut self) -> Option<&mut HeaderMap> {
        match &mut self.hold {
            Hold::Kept(head, _) => Some(R::head_headers_mut(head)),
            _ => None,
        }
    }

    /// Which token the request carried. None before it was sent.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.sent.map(|sent| sent.generation)
    }

    /// How many resends because of a refused token came before this sending.
    #[must_use]
    pub fn resends(&self) -> u32 {
        self.replaced
    }

    /// The server refused the token that this request carried.
    pub fn reject_token(&mut self) {
        self.refused.get_or_insert_default();
    }

    /// The same, with the challenge for [`TokenRequest::challenge`](crate::TokenRequest::challenge): the answer's `WWW-Authenticate`.
    pub fn reject_token_with_challenge(&mut self, headers: &HeaderMap) {
        self.refused.get_or_insert_default().challenge = challenge::raw(headers);
    }

    /// To refuse the token once this answer has been given away.
    fn late_rejection(&self) -> Option<LateRejection> {
        Some(LateRejection {
            provider: self.route.as_ref()?.provider().clone(),
            generation: self.generation()?,
            rejection: self.rejection(None),
        })
    }

    // For the layer.

    pub(crate) fn route(&self) -> &Route {
        self.route.as_ref().expect("only an answer of `clone_request` has no route, and it is never sent")
    }

    /// What the provider is told of a refusal.
    pub(crate) fn rejection(&self, challenge: Option<Arc<str>>) -> Rejection {
        Rejection { resent: self.replaced > 0, resource: self.resource(), challenge, ..Rejection::default() }
    }

    /// The wish of an answer of `clone_request`.
    pub(crate) fn wish(&self) -> Option<usize> {
        match self.hold {
            Hold::Asked(limit) => Some(limit),
            _ => None,
        }
    }

    pub(crate) fn take_request(&mut self) -> Option<R> {
        match std::mem::replace(&mut self.hold, Hold::Nothing) {
            Hold::Whole(request) => Some(request),
            other => {
                self.hold = other;
                None
            }
        }
    }

    /// The copy becomes the request. False: there is none that is whole.
    pub(crate) fn again(&mut self) -> bool {
        let Hold::Kept(head, body) = std::mem::replace(&mut self.hold, Hold::Nothing) else { return false };
        let Some((body, keeper)) = body.again() else { return false };
        self.hold = Hold::Whole(R::assemble(head, body));
        self.keeper = keeper;
        self.sent = None;
        self.refused = None;
        true
    }

    /// What keeps the body already, from a sending before.
    pub(crate) fn take_keeper(&mut self) -> Option<KeptBody<R::Body>> {
        self.keeper.take()
    }

    pub(crate) fn keeps(&mut self, head: R::Head, body: KeptBody<R::Body>) {
        self.hold = Hold::Kept(head, body);
    }

    /// It is sent now. `request` is what goes out.
    pub(crate) fn sends(&mut self, generation: Generation, request: &R, watch: Option<Now>) {
        let kept = matches!(self.hold, Hold::Kept(..));
        self.sent = Some(Sent {
            generation,
            origin: (!kept).then(|| request.target().key(None)),
            resource: (watch.is_some() || self.replaced > 0).then(|| request.target().key(Some(request.method()))),
            watched: watch,
        });
    }

    pub(crate) fn sent(&self) -> Option<Sent> {
        self.sent
    }

    pub(crate) fn take_refused(&mut self) -> Option<Refused> {
        self.refused.take()
    }

    /// Which thing was asked for, if that is still known.
    pub(crate) fn resource(&self) -> Option<u64> {
        match (&self.hold, self.sent) {
            (_, Some(Sent { resource: Some(key), .. })) => Some(key),
            (Hold::Kept(head, _), _) => Some(R::head_target(head).key(Some(R::head_method(head)))),
            _ => None,
        }
    }

    /// Did the token go there?
    fn went_to(&self, origin: &Origin) -> bool {
        match (&self.hold, self.sent) {
            (Hold::Kept(head, _), _) => origin.holds(&R::head_target(head)),
            (_, Some(sent)) => sent.origin == Some(origin.target().key(None)),
            _ => false,
        }
    }
}

/// A refusal that may still come, with the trailers.
struct LateRejection {
    provider: TokenProvider,
    generation: Generation,
    rejection: Rejection,
}

impl LateRejection {
    fn reject(self, trailers: &HeaderMap) {
        let rejection = Rejection { challenge: challenge::raw(trailers), ..self.rejection };
        drop(self.provider.rejected(self.generation, rejection));
    }
}

impl<R: ReplayRequest> fmt::Debug for Attempt<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("generation", &self.generation())
            .field("can_resend", &self.can_resend())
            .field("refused", &self.refused.is_some())
            .finish_non_exhaustive()
    }
}

/// An answer, as [`RetryPolicy::reject_when`] sees it.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    status: StatusCode,
    headers: &'a HeaderMap,
}

impl<'a> Answer<'a> {
    /// Its HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// Code and message of a gRPC answer that ends with its headers ("trailers-only"), as every refusal before the first message does.
    #[must_use]
    pub fn grpc(&self) -> Option<(i32, Cow<'a, str>)> {
        let code = self.headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        let message = self.headers.get("grpc-message").map_or(&b""[..], |message| message.as_bytes());
        Some((code, percent_decoded(message)))
    }
}

impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// gRPC over HTTP/2, "Responses": messages are percent-encoded, and what is encoded badly is to be shown as it is.
fn percent_decoded(text: &[u8]) -> Cow<'_, str> {
    if !text.contains(&b'%') {
        return String::from_utf8_lossy(text);
    }
    let digit = |at: usize| text.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("two hex digits"));
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

type Judge = dyn Fn(&Answer<'_>) -> bool + Send + Sync;

const UNAUTHENTICATED: i32 = 16;

/// The policy that most will want: a refused token is replaced, and the request sent once more.
///
/// Refused means 401 (but for a `Bearer` challenge that blames the request, RFC 6750 section 3.1: `insufficient_scope`, `invalid_request`),
/// gRPC status 16 in the headers, and what [`reject_when`](Self::reject_when) adds. A refused request was not processed, so the method does
/// not matter: a POST is resent as well.
///
/// ```
/// use http::StatusCode;
/// use tower_jwt_refresh::RetryPolicy;
///
/// // A server that answers 419 to a dead token.
/// let policy = RetryPolicy::default().reject_when(|answer| answer.status().as_u16() == 419);
/// // etcd: code 3, and only the message tells.
/// let etcd = RetryPolicy::default()
///     .reject_when(|answer| matches!(answer.grpc(), Some((3, message)) if message.contains("invalid auth token")));
/// ```
#[derive(Clone)]
pub struct RetryPolicy {
    resends: u32,
    limit: usize,
    reject_when: Option<Arc<Judge>>,
}

impl Default for RetryPolicy {
    /// One resend: if the token that was just minted is refused too, a third one would be. Bodies of which up to 128 KiB must be
    /// copied are kept: a client on HTTP/2 has sent 80 KiB before the server's first word can stop it, so 64 would miss an
    /// early refusal.
    fn default() -> Self {
        Self { resends: 1, limit: 128 * 1024, reject_when: None }
    }
}

impl RetryPolicy {
    /// Never resends, and keeps no copy. A refused token is still replaced for the next request.
    #[must_use]
    pub fn none() -> Self {
        Self { resends: 0, ..Self::default() }
    }

    /// At most so many resends of a request. Each takes a token that is newer than the refused one, so more than one resend helps only
    /// where tokens are revoked while requests are under way.
    #[must_use]
    pub fn max_resends(self, resends: u32) -> Self {
        Self { resends, ..self }
    }

    /// What else means that the token was refused, on top of 401 and gRPC's 16. The brakes against a server that refuses everything are the same.
    ///
    /// With the feature `tonic` it is also shown the trailers of a gRPC stream that had begun, as an answer with status 200: what it refuses there is too late for
    /// this request, and replaces the token for the next.
    #[must_use]
    pub fn reject_when(self, judge: impl Fn(&Answer<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self { reject_when: Some(Arc::new(judge)), ..self }
    }

    /// How many bytes of a body may be copied or recorded for a resend. Bodies that need more are sent all the same, and not resent; what is
    /// merely shared, such as `Full<Bytes>`, does not count.
    #[must_use]
    pub fn body_limit(self, bytes: usize) -> Self {
        Self { limit: bytes, ..self }
    }

    /// A stream that has begun may still end with a refusal: too late for this request, but not for the next.
    fn watch<R: ReplayRequest, Res: RejectableResponse>(
        &self,
        attempt: &Attempt<R>,
        result: &mut Result<Res, BoxError>,
    ) {
        let Some(late) = attempt.late_rejection() else { return };
        let policy = self.clone();
        let hook = move |trailers: &HeaderMap| {
            let answer = Answer { status: StatusCode::OK, headers: trailers };
            if policy.refuses(&answer) {
                late.reject(trailers);
            }
        };
        // For a moment there is no answer: nobody sees this error.
        if let Ok(response) = std::mem::replace(result, Err(Box::new(fmt::Error))) {
            *result = Ok(response.watch(hook));
        }
    }

    #[inline]
    fn refuses(&self, answer: &Answer<'_>) -> bool {
        match answer.status {
            StatusCode::UNAUTHORIZED if challenge::wants_new_token(answer.headers) => return true,
            // Reading `grpc-status` only where gRPC answers: with 200.
            StatusCode::OK if grpc_refuses(answer.headers) => return true,
            _ => {}
        }
        self.reject_when.as_ref().is_some_and(|judge| judge(answer))
    }
}

#[inline]
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// A name that is ready-made: as a string it would be parsed for each answer.
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

#[inline]
fn grpc_refuses(headers: &HeaderMap) -> bool {
    headers
        .get(&GRPC_STATUS)
        .is_some_and(|code| code.to_str().ok().and_then(|code| code.parse().ok()) == Some(UNAUTHENTICATED))
}

impl<R: ReplayRequest, Res: RejectableResponse> Policy<Attempt<R>, Res, BoxError> for RetryPolicy {
    type Future = Ready<()>;

    fn retry(&mut self, attempt: &mut Attempt<R>, result: &mut Result<Res, BoxError>) -> Option<Ready<()>> {
        let response = result.as_ref().ok()?;
        let answer = Answer { status: response.status(), headers: response.headers() };
        if !self.refuses(&answer) {
            if is_grpc(answer.headers) {
                self.watch(attempt, result);
            }
            return None;
        }
        if response.answered_by().is_some_and(|origin| !attempt.went_to(&origin)) {
            return None;
        }
        attempt.reject_token_with_challenge(answer.headers);
        if !attempt.can_resend() || attempt.replaced >= self.resends {
            return None;
        }
        Some(ready(()))
    }

    fn clone_request(&mut self, attempt: &Attempt<R>) -> Option<Attempt<R>> {
        (attempt.replaced < self.resends).then(|| attempt.keep(self.limit))
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("resends", &self.resends)
            .field("limit", &self.limit)
            .field("reject_when", &self.reject_when.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(policy: &RetryPolicy, status: u16, headers: &[(&'static str, &str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect();
        policy.refuses(&Answer { status: StatusCode::from_u16(status).unwrap(), headers: &headers })
    }

    #[test]
    fn a_401_and_grpcs_16_refuse_the_token_and_nothing_else_does() {
        let policy = RetryPolicy::default();
        assert!(refuses(&policy, 401, &[]));
        assert!(refuses(&policy, 200, &[("grpc-status", "16")]));
        for status in [101, 200, 204, 302, 400, 403, 404, 407, 419, 429, 500, 503] {
            assert!(!refuses(&policy, status, &[]), "{status}");
        }
        assert!(!refuses(&policy, 200, &[("grpc-status", "7")]));
        assert!(!refuses(&policy, 200, &[("grpc-status", "0")]));
        assert!(!refuses(&policy, 401, &[("www-authenticate", "Bearer error=\"insufficient_scope\"")]));
    }

    #[test]
    fn debug_says_what_it_does() {
        let shown = format!("{:?}", RetryPolicy::default().max_resends(3).reject_when(|_| true));
        assert_eq!(shown, "RetryPolicy { resends: 3, limit: 131072, reject_when: true }");
    }

    #[test]
    fn a_judge_adds_to_the_rules() {
        let policy = RetryPolicy::default().reject_when(|answer| {
            answer.status().as_u16() == 419 || matches!(answer.grpc(), Some((3, m)) if m == "invalid auth token: ü")
        });
        assert!(refuses(&policy, 419, &[]) && refuses(&policy, 401, &[]));
        assert!(refuses(&policy, 200, &[("grpc-status", "3"), ("grpc-message", "invalid auth token: %C3%BC")]));
        assert!(!refuses(&policy, 200, &[("grpc-status", "3"), ("grpc-message", "other")]));
    }

    #[test]
    fn a_badly_encoded_grpc_message_is_read_as_it_is() {
        assert_eq!(percent_decoded(b"100%"), "100%");
        assert_eq!(percent_decoded(b"%zz%4"), "%zz%4");
        assert_eq!(percent_decoded(b"%41%ff"), "A\u{fffd}");
    }
}
