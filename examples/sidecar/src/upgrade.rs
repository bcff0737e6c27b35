//! WebSockets: after a 101 the bytes of both sides are copied until both have ended.
//!
//! No other protocol is let through: `h2c`, above all, would be a way past everything that is decided for each request.

use crate::{drain::Work, fields};
use http::{HeaderMap, Method, Request, Version, header::UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, select};

/// Does it ask for a WebSocket (RFC 6455 section 4.1)?
pub(crate) fn is_wanted<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET && request.version() == Version::HTTP_11 && is_websocket(request.headers())
}

pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(UPGRADE).iter();
    fields::options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"))
        && protocols.next().is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && protocols.next().is_none()
}

/// Ends with either connection, or when patience does: a WebSocket knows no other end.
pub(crate) async fn copy(client: OnUpgrade, upstream: OnUpgrade, mut work: Work) {
    let copied = async {
        let (client, upstream) = tokio::try_join!(client, upstream).ok()?;
        copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await.ok()
    };
    select! {
        _ = copied => {}
        () = work.over() => {}
    }
}
