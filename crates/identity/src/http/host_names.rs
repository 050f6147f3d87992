//! Checks under which host name a request was sent.
//!
//! Clients that use the service as their `http_proxy` send absolute-form targets (`GET http://localhost:5000/v2/version`).
//! The service answers for its own names and never forwards: any other name is refused with 421.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Uri, header};

use crate::http::arrival::Arrival;

/// The port that is part of the stock SDK's one address for a self-hosted service.
const STOCK_PORT: u16 = 5000;

/// The service's names, accepted in absolute-form targets. Clones share them.
#[derive(Clone, Debug)]
pub struct Names(Arc<HashSet<String>>);

impl Names {
    /// The local names, at the port that clients expect and at the port of the listener, and the public ones.
    pub fn new(listening: impl IntoIterator<Item = SocketAddr>, public: &[String]) -> Names {
        let mut names: HashSet<String> = public.iter().map(|name| name.to_ascii_lowercase()).collect();
        let mut local = |port| {
            names.extend(["localhost", "127.0.0.1", "[::1]"].map(|host| format!("{host}:{port}")));
        };
        local(STOCK_PORT);
        let listening: Vec<_> = listening.into_iter().collect();
        listening.iter().for_each(|address| local(address.port()));
        names.extend(listening.iter().map(SocketAddr::to_string));
        Names(Arc::new(names))
    }

    /// Whether pages are shown under `host`, the value of that header. This machine's own names are accepted with any port: the
    /// port may be forwarded, and no other machine can have such a name.
    pub fn shows_pages(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let (name, port) = match host.rfind(':') {
            Some(at) if !host.ends_with(']') => host.split_at(at),
            _ => (host.as_str(), ""),
        };
        let digits = port.strip_prefix(':').unwrap_or_default().bytes().all(|c| c.is_ascii_digit());
        digits
            && (["localhost", "127.0.0.1", "[::1]"].contains(&name)
                || self.0.contains(&host)
                || (port.is_empty()
                    && ["80", "443"].iter().any(|port| self.0.contains(&format!("{name}:{port}")))))
    }

    /// Whether the service answers a request for `target`.
    pub fn own(&self, method: &Method, target: &Uri) -> bool {
        match target.authority() {
            None => method != Method::CONNECT,
            Some(authority) => {
                method != Method::CONNECT
                    && authority.as_str().rfind('@').is_none()
                    && self.0.contains(&named(authority, target.scheme_str()))
            }
        }
    }
}

fn named(authority: &Authority, scheme: Option<&str>) -> String {
    let port = authority.port_u16().unwrap_or(if scheme == Some("https") { 443 } else { 80 });
    format!("{}:{port}", authority.host().to_ascii_lowercase())
}

/// The base of the service's URLs as the client sees it, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    fn of(target: &Uri, headers: &HeaderMap, tls: bool) -> Origin {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = target.authority().map(Authority::as_str).or(host).unwrap_or("localhost:5000");
        // A client behind `http_proxy=https://…` uses http inside the tunnel.
        let scheme = target.scheme_str().unwrap_or(if tls { "https" } else { "http" });
        Origin(format!("{scheme}://{host}"))
    }
}

#[cfg(test)]
impl Origin {
    /// The origin that a browser knows us by, in a test.
    pub(crate) fn at(text: &str) -> Origin {
        Origin(text.to_owned())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<S: Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Origin, Infallible> {
        let tls = parts.extensions.get::<Arrival>().is_some_and(|arrival| arrival.tls);
        Ok(Origin::of(&parts.uri, &parts.headers, tls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_answered() {
        let names = Names::new(["127.0.0.1:41234".parse().unwrap()], &["Compute.example.org:443".to_owned()]);
        let table = [
            ("/v2/version", true),
            ("http://localhost:5000/v2/version", true),
            ("http://LOCALHOST:5000/v2/version", true),
            ("http://127.0.0.1:41234/", true),
            ("http://[::1]:41234/", true),
            ("https://compute.example.org/v2/version", true),
            ("http://compute.example.org/v2/version", false),
            ("http://localhost/", false),
            ("http://localhost:5001/", false),
            ("http://example.com:5000/", false),
            ("http://localhost:5000@example.com/", false),
            ("http://user@localhost:5000/", false),
        ];
        for (target, own) in table {
            assert_eq!(names.own(&Method::GET, &target.parse().unwrap()), own, "{target}");
        }
        assert!(!names.own(&Method::CONNECT, &"localhost:5000".parse().unwrap()));
    }

    #[test]
    fn pages_are_shown_under_our_own_names() {
        let names = Names::new(["127.0.0.1:41234".parse().unwrap()], &["compute.example.org:443".to_owned()]);
        for (host, shown) in [
            ("localhost:5000", true),
            ("LOCALHOST", true),
            ("127.0.0.1:15000", true),
            ("[::1]:5000", true),
            ("[::1]", true),
            ("compute.example.org", true),
            ("compute.example.org:443", true),
            ("compute.example.org:8443", false),
            ("localhost.example.com:5000", false),
            ("localhost:5000@example.com", false),
            ("example.com", false),
            ("", false),
        ] {
            assert_eq!(names.shows_pages(host), shown, "{host}");
        }
    }

    #[test]
    fn the_origin_is_what_the_client_named() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "127.0.0.1:7".parse().unwrap());
        assert_eq!(Origin::of(&"/x".parse().unwrap(), &headers, false).to_string(), "http://127.0.0.1:7");
        assert_eq!(Origin::of(&"/x".parse().unwrap(), &headers, true).to_string(), "https://127.0.0.1:7");
        let absolute = "http://localhost:5000/x".parse().unwrap();
        assert_eq!(Origin::of(&absolute, &headers, true).to_string(), "http://localhost:5000");
    }
}
