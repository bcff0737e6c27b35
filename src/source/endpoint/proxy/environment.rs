//! The proxy that the environment names, by curl's conventions.

use super::Proxy;
use crate::{ConfigError, scope::is_loopback};
use http::{Uri, uri::Scheme};
use hyper_util::client::proxy::matcher::Matcher;
use std::ffi::OsString;
use zeroize::Zeroizing;

/// Reads a variable.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Which proxy for which target.
pub(in crate::source::endpoint) struct Proxies {
    /// A mistake is told to who would have used it.
    https: Result<Option<Proxy>, ConfigError>,
    http: Result<Option<Proxy>, ConfigError>,
    /// Finds what is to go through a proxy.
    except: Option<Matcher>,
}

impl Proxies {
    pub(in crate::source::endpoint) fn none() -> Self {
        Self { https: Ok(None), http: Ok(None), except: None }
    }

    pub(in crate::source::endpoint) fn named(url: &str) -> Self {
        let proxy = Proxy::parse(url, "`proxy`").map(Some);
        Self { https: proxy.clone(), http: proxy, except: None }
    }

    pub(in crate::source::endpoint) fn of_environment(environment: Environment<'_>) -> Self {
        // In a CGI program `HTTP_PROXY` is a header of whoever asks it (httpoxy, CVE-2016-5385). So curl never believes it; elsewhere
        // most other programs do, and so do we.
        let of_http: &[_] =
            if environment("REQUEST_METHOD").is_some() { &["http_proxy"] } else { &["http_proxy", "HTTP_PROXY"] };
        let all = || first(&["all_proxy", "ALL_PROXY"], environment);
        let found = |names: &[&'static str]| {
            let own = first(names, environment)?;
            let Some((name, url)) = (if own.is_some() { own } else { all()? }) else { return Ok(None) };
            Proxy::parse(&url, &format!("the variable {name}")).map(Some)
        };
        let mut proxies = Self { https: found(&["https_proxy", "HTTPS_PROXY"]), http: found(of_http), except: None };
        match first(&["no_proxy", "NO_PROXY"], environment) {
            // One that finds all but these.
            Ok(Some((_, no))) => proxies.except = Some(Matcher::builder().all("http://-").no(no.as_str()).build()),
            Ok(None) => {}
            Err(mistake) => (proxies.https, proxies.http) = (Err(mistake.clone()), Err(mistake)),
        }
        proxies
    }

    /// The proxy for this target, if it is to have one.
    pub(in crate::source::endpoint) fn of(&self, target: &Uri) -> Result<Option<&Proxy>, ConfigError> {
        // Nobody else reaches this machine by such a name.
        let local = target.host().is_none_or(is_loopback);
        if local || self.except.as_ref().is_some_and(|except| except.intercept(target).is_none()) {
            return Ok(None);
        }
        let proxy = if target.scheme() == Some(&Scheme::HTTPS) { &self.https } else { &self.http };
        proxy.as_ref().map(Option::as_ref).map_err(Clone::clone)
    }
}

/// The first of these that is set, and not to nothing. It may hold a password.
fn first(
    names: &[&'static str],
    environment: Environment<'_>,
) -> Result<Option<(&'static str, Zeroizing<String>)>, ConfigError> {
    let mut set = names.iter().filter_map(|name| Some((*name, environment(name)?)));
    let blank = |value: &OsString| value.to_str().is_some_and(|value| value.trim().is_empty());
    let Some((name, value)) = set.find(|(_, value)| !blank(value)) else { return Ok(None) };
    let value = value.into_string().map(Zeroizing::new).map_err(|_| ConfigError::IllegalProxy {
        place: format!("the variable {name}"),
        problem: "is no text (UTF-8)",
    })?;
    Ok(Some((name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The proxy's name, for this endpoint in this environment.
    fn proxy(endpoint: &str, variables: &[(&str, &str)]) -> Result<Option<String>, ConfigError> {
        let environment =
            |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| OsString::from(value));
        let proxies = Proxies::of_environment(&environment);
        Ok(proxies.of(&endpoint.parse().unwrap())?.map(|proxy| proxy.name().to_string()))
    }

    fn named(endpoint: &str, variables: &[(&str, &str)]) -> Option<String> {
        proxy(endpoint, variables).unwrap()
    }

    const HTTPS: &str = "https://api.example.com/token";
    const HTTP: &str = "http://api.example.com/token";

    #[test]
    fn each_scheme_has_its_own_variable_in_both_cases_and_one_is_for_all() {
        for (name, https, http) in [
            ("HTTPS_PROXY", true, false),
            ("https_proxy", true, false),
            ("HTTP_PROXY", false, true),
            ("http_proxy", false, true),
            ("ALL_PROXY", true, true),
            ("all_proxy", true, true),
            ("PROXY", false, false),
        ] {
            let variables = [(name, "http://proxy:3128")];
            assert_eq!(
                (named(HTTPS, &variables).is_some(), named(HTTP, &variables).is_some()),
                (https, http),
                "{name}"
            );
        }
        assert_eq!(named(HTTPS, &[]), None);
        assert_eq!(named(HTTPS, &[("HTTPS_PROXY", "one"), ("ALL_PROXY", "two")]).unwrap(), "http://one");
        assert_eq!(named(HTTPS, &[("HTTPS_PROXY", ""), ("ALL_PROXY", "two")]).unwrap(), "http://two");
        assert_eq!(named(HTTPS, &[("HTTPS_PROXY", "u:p@one:1")]).unwrap(), "http://one:1", "no password in a name");
    }

    #[test]
    fn small_letters_go_before_capitals_and_an_empty_variable_hides_no_other() {
        for (capitals, small) in
            [("HTTPS_PROXY", "https_proxy"), ("HTTP_PROXY", "http_proxy"), ("ALL_PROXY", "all_proxy")]
        {
            let endpoint = if capitals == "HTTP_PROXY" { HTTP } else { HTTPS };
            for (capital, lower, wins) in
                [("one", "two", "http://two"), ("one", " ", "http://one"), ("", "two", "http://two")]
            {
                let found = named(endpoint, &[(capitals, capital), (small, lower)]);
                assert_eq!(found.as_deref(), Some(wins), "{capitals}={capital} {small}={lower}");
            }
        }
        let no = |capitals, small| {
            named(HTTPS, &[("https_proxy", "one"), ("NO_PROXY", capitals), ("no_proxy", small)]).is_none()
        };
        assert!(no("*", "") && no("other.org", "*") && !no("*", "other.org"));
    }

    #[test]
    fn a_mistake_is_told_to_who_would_have_used_it() {
        let variables = [("HTTPS_PROXY", "quic://x"), ("HTTP_PROXY", "http://proxy"), ("NO_PROXY", "other.org")];
        assert!(proxy(HTTPS, &variables).is_err());
        assert_eq!(named(HTTP, &variables).unwrap(), "http://proxy");
        for straight in ["https://localhost/token", "https://127.0.0.1", "https://[::1]:1", "https://other.org"] {
            assert_eq!(named(straight, &variables), None, "{straight}");
        }
    }

    // CVE-2016-5385.
    #[test]
    fn in_a_cgi_program_the_requests_proxy_header_names_no_proxy() {
        let cgi = ("REQUEST_METHOD", "GET");
        assert_eq!(named(HTTP, &[cgi, ("HTTP_PROXY", "http://evil")]), None);
        assert_eq!(named(HTTP, &[cgi, ("HTTP_PROXY", "http://evil"), ("http_proxy", "good")]).unwrap(), "http://good");
        assert_eq!(named(HTTPS, &[cgi, ("HTTPS_PROXY", "good")]).unwrap(), "http://good");
    }

    #[test]
    fn hosts_in_no_proxy_are_asked_straight() {
        let to = |endpoint: &str, no: &str| named(endpoint, &[("ALL_PROXY", "quic.proxy"), ("NO_PROXY", no)]).is_none();
        for no in ["*", "example.com", ".example.com", "other.org, api.example.com", "EXAMPLE.com"] {
            assert!(to(HTTPS, no) && to(HTTP, no), "{no}");
        }
        for no in ["", "other.org", "pi.example.com", "example.com.org"] {
            assert!(!to(HTTPS, no), "{no}");
        }
        assert!(to("https://10.1.2.3", "10.0.0.0/8") && !to("https://11.1.2.3", "10.0.0.0/8"));
        assert_eq!(
            named(HTTPS, &[("https_proxy", "quic://x"), ("no_proxy", "example.com")]),
            None,
            "then it matters not"
        );
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_refused_and_not_passed_by() {
        for bad in [
            "quic://s3cr3t",
            "s3cr3t s3cr3t",
            "http://",
            "http://u:s3cr3t@",
            "socks4://s3cr3t",
            "/s3cr3t",
            "\u{fc}",
            // What a password may hold, and a URL's own signs.
            "http://user@corp:s3cr3t@proxy:3128",
            "http://user:p@s3cr3t@proxy:3128",
            "https://user:p@s3cr3t@proxy",
            "socks5://user@corp:s3cr3t@proxy:1080",
            "socks5h://user:p@s3cr3t@proxy",
            "user:p@s3cr3t@proxy",
            "http://user:s3cr3t/@proxy:3128",
            "http://user:s3cr3t?x@proxy",
            "http://user:s3cr3t#x@proxy",
            "http://user:12/s3cr3t@proxy",
            "http://s3cr3t?x@proxy",
            "socks5://s3cr3t#x@proxy",
            // Whoever forgot the host, or the end of the password.
            "http://user:s3cr3t",
            "user:s3cr3t",
            "socks5://user:s3cr3t",
        ] {
            let refused = proxy(HTTPS, &[("HTTPS_PROXY", bad)]).unwrap_err();
            assert!(matches!(refused, ConfigError::IllegalProxy { .. }), "{bad}");
            let text = format!("{refused} {refused:?}");
            assert!(text.contains("the variable HTTPS_PROXY") && !text.contains("s3cr3t"), "{text}");
        }
        assert_eq!(named(HTTPS, &[("HTTPS_PROXY", "http://user%40corp:p%40%2F@proxy:1")]).unwrap(), "http://proxy:1");
        assert_eq!(named(HTTPS, &[("HTTPS_PROXY", "http://[::1]:1")]).unwrap(), "http://[::1]:1");
        let long = format!("socks5://user:{}@proxy", "x".repeat(256));
        assert!(proxy(HTTPS, &[("ALL_PROXY", &long)]).is_err());
    }
}
