//! Who may come in. The port is open to every program of this machine, and browsers are programs that strangers write pages for: a page must neither
//! send with the token (`Origin`, `Sec-Fetch-Site`), nor become our origin by a name that it points to this machine (`Host`).

use http::{HeaderMap, Method, Request, StatusCode, header, uri::Authority};
use tower_jwt_refresh::Origin;

pub(crate) struct Gate {
    hosts: Vec<(String, u16)>,
    origins: Vec<Origin>,
}

/// Why not.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) why: String,
}

impl Gate {
    pub(crate) fn new(hosts: Vec<(String, u16)>, origins: Vec<Origin>) -> Self {
        Self { hosts, origins }
    }

    /// The name by which the client knows us.
    pub(crate) fn admit<B>(&self, request: &Request<B>) -> Result<String, Refusal> {
        let host = self.host(request)?;
        self.browser(request.headers())?;
        // A TRACE would come back with the token in it (RFC 9110 section 9.3.8); CONNECT leads elsewhere.
        if [Method::TRACE, Method::CONNECT].contains(request.method()) {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, format!("{} is not forwarded", request.method()));
        }
        Ok(host)
    }

    fn host<B>(&self, request: &Request<B>) -> Result<String, Refusal> {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return refuse(StatusCode::BAD_REQUEST, "a request has one Host (RFC 9112 section 3.2)".to_owned());
        };
        // The target's own host goes before the header (RFC 9112 section 3.2.2), so neither may be foreign.
        let header = host.to_str().ok().filter(|host| host.parse().is_ok_and(|host| self.is_ours(&host)));
        match header {
            Some(host) if request.uri().authority().is_none_or(|target| self.is_ours(target)) => Ok(host.to_owned()),
            _ => {
                let names: Vec<_> = self.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
                let names = names.join(" and ");
                refuse(
                    StatusCode::MISDIRECTED_REQUEST,
                    format!("the request's Host is another's; this answers to {names}"),
                )
            }
        }
    }

    fn is_ours(&self, host: &Authority) -> bool {
        let port = host.port_u16().unwrap_or(80);
        !host.as_str().contains('@')
            && self.hosts.iter().any(|(ours, at)| ours.eq_ignore_ascii_case(host.host()) && *at == port)
    }

    fn browser(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut origins = headers.get_all(header::ORIGIN).iter().peekable();
        // What is no text or no origin, `null` for one, is nobody that could be allowed.
        let known = |origin: &str| Origin::parse(origin).is_ok_and(|origin| self.origins.contains(&origin));
        if origins.peek().is_some() {
            return if origins.all(|origin| origin.to_str().is_ok_and(known)) {
                Ok(())
            } else {
                refuse(
                    StatusCode::FORBIDDEN,
                    "a page of another origin may not send with this token, unless it is allowed by name with --allow-browser-origin"
                        .to_owned(),
                )
            };
        }
        // A browser leaves Origin out where a page embeds, navigates or sends `no-cors`. `same-site` is any other port of this machine.
        let harmless = |site: &[u8]| [&b"none"[..], b"same-origin"].contains(&site);
        if headers.get_all("sec-fetch-site").iter().any(|site| !harmless(site.as_bytes())) {
            return refuse(StatusCode::FORBIDDEN, "a page of another site may not send with this token".to_owned());
        }
        Ok(())
    }
}

fn refuse<T>(status: StatusCode, why: String) -> Result<T, Refusal> {
    Err(Refusal { status, why })
}
