//! Decides where a request to the proxy is sent, and which of its headers are forwarded. Pure.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, Uri, header};

use super::service_connector::Address;
use crate::http::broker_address::FORWARDER_PORT;

/// The addresses at which the stock SDK expects a self-hosted service.
const STOCK: [&str; 2] = ["localhost:5000", "127.0.0.1:5000"];

/// Headers that apply to one connection only, besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Service,
    /// Another host, by plain HTTP.
    Other(Address),
    /// Any host, by a tunnel: bytes are forwarded unchanged.
    Tunnel(Address),
    /// Not a request to a proxy.
    None,
}

impl Target {
    /// `tls` says whether the service is reached by TLS.
    pub(super) fn of(method: &Method, uri: &Uri, service: &Address, tls: bool) -> Target {
        let Some(authority) = uri.authority() else { return Target::None };
        // User names in the authority and invalid ports are refused.
        let odd = authority.port_u16().is_none() && authority.as_str() != authority.host();
        if authority.as_str().contains('@') || odd {
            return Target::None;
        }
        let host = authority.host().to_ascii_lowercase();
        if method == Method::CONNECT {
            return match authority.port_u16() {
                Some(port) => Target::Tunnel(Address { host, port }),
                None => Target::None,
            };
        }
        if uri.scheme_str() != Some("http") {
            return Target::None;
        }
        let port = authority.port_u16().unwrap_or(80);
        let same_host = host == service.host || (host == "localhost" && service.host == "127.0.0.1");
        // Nothing may go by plain HTTP to a service with TLS, whichever way somebody spells it.
        let named = same_host && (port == service.port || (tls && port == 80));
        match named || STOCK.contains(&format!("{host}:{port}").as_str()) {
            true => Target::Service,
            false => Target::Other(Address { host, port }),
        }
    }
}

/// Removes the headers that must not go to the service.
pub(super) fn for_the_service(headers: &mut HeaderMap) {
    without_hop(headers);
    headers.remove(FORWARDER_PORT);
}

/// Removes the headers that must not go to any other host.
pub(super) fn for_another(headers: &mut HeaderMap, authority: &Authority) {
    without_hop(headers);
    headers.remove(FORWARDER_PORT);
    if !headers.contains_key(header::HOST)
        && let Ok(host) = authority.as_str().parse()
    {
        headers.insert(header::HOST, host);
    }
}

/// Removes the headers that apply to one connection only.
pub(super) fn without_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_requests_go() {
        let address = |host: &str, port| Address { host: host.into(), port };
        let service = address("compute.example.org", 8443);
        let other = |host, port| Target::Other(address(host, port));
        let table = [
            ("http://localhost:5000/v2/version?service=all", Target::Service),
            ("http://LOCALHOST:5000/", Target::Service),
            ("http://127.0.0.1:5000/", Target::Service),
            ("http://compute.example.org:8443/", Target::Service),
            ("http://Compute.Example.org/", Target::Service),
            ("http://compute.example.org:9090/", other("compute.example.org", 9090)),
            ("http://localhost:5001/", other("localhost", 5001)),
            ("http://localhost/", other("localhost", 80)),
            ("http://example.com/x", other("example.com", 80)),
            ("http://localhost:5000.example.com/", Target::None),
            ("http://localhost:5000@example.com/", Target::None),
            ("http://me@localhost:5000/", Target::None),
            ("https://localhost:5000/", Target::None),
            ("ftp://example.com/", Target::None),
            ("/v2/version", Target::None),
        ];
        for (uri, expected) in table {
            let Ok(uri) = uri.parse::<Uri>() else {
                assert_eq!(expected, Target::None, "{uri}");
                continue;
            };
            assert_eq!(Target::of(&Method::GET, &uri, &service, true), expected, "{uri}");
        }
        let here = address("127.0.0.1", 41_000);
        let table = [
            ("http://localhost:5000/", Target::Service),
            ("http://127.0.0.1:41000/", Target::Service),
            ("http://localhost:41000/", Target::Service),
            ("http://127.0.0.2:41000/", other("127.0.0.2", 41_000)),
            ("http://127.0.0.1/", other("127.0.0.1", 80)),
            ("http://localhost:8000/", other("localhost", 8000)),
        ];
        for (uri, expected) in table {
            assert_eq!(Target::of(&Method::GET, &uri.parse().unwrap(), &here, false), expected, "{uri}");
        }
        let tunnel = |at: &str| Target::of(&Method::CONNECT, &at.parse().unwrap(), &service, true);
        assert_eq!(tunnel("example.com:443"), Target::Tunnel(address("example.com", 443)));
        assert_eq!(tunnel("example.com"), Target::None);
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn what_goes_along() {
        let all = || {
            headers(&[
                ("authorization", "Bearer t"),
                ("proxy-authorization", "Basic x"),
                ("connection", "close, X-Once"),
                ("x-once", "1"),
                ("proxy-connection", "keep-alive"),
                ("transfer-encoding", "chunked"),
                ("farcall-amqp-port", "9"),
                ("host", "localhost:5000"),
                ("accept", "*/*"),
            ])
        };
        let names = |headers: &HeaderMap| {
            let mut names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
            names.sort();
            names
        };
        let mut given = all();
        for_the_service(&mut given);
        assert_eq!(names(&given), ["accept", "authorization", "host"]);
        let mut given = all();
        for_another(&mut given, &"example.com".parse().unwrap());
        assert_eq!(
            names(&given),
            ["accept", "authorization", "host"],
            "`service_credentials` decides about it"
        );
    }
}
