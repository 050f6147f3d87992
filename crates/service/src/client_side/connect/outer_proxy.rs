//! The proxy that the client's environment names for plain HTTP. The forwarder takes its place there, and goes by it to other
//! hosts. Pure.

use std::net::IpAddr;

use axum::http::{HeaderValue, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::service_connector::Address;
use crate::client_side::environment::Proxies;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OuterProxy {
    None,
    Http {
        address: Address,
        authorization: Option<HeaderValue>,
    },
    /// Of a kind that the forwarder can't use; the URL without its password.
    Unsupported(String),
}

/// How another host is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Direct,
    Proxy { address: &'a Address, authorization: Option<&'a HeaderValue> },
    Unsupported(&'a str),
}

impl OuterProxy {
    pub(super) fn of(proxies: &Proxies) -> OuterProxy {
        let Some(url) = proxies.for_plain_http() else { return OuterProxy::None };
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let unsupported = || OuterProxy::Unsupported(format!("{scheme}://{host}"));
        let Ok(parsed) = format!("http://{host}").parse::<Uri>() else { return unsupported() };
        let Some(authority) = parsed.authority().filter(|_| scheme.eq_ignore_ascii_case("http")) else {
            return unsupported();
        };
        let address = Address { host: authority.host().to_owned(), port: authority.port_u16().unwrap_or(80) };
        OuterProxy::Http { address, authorization: user.and_then(basic) }
    }

    /// How to ask this host. Loopback addresses mean this machine, and a proxy would ask its own.
    pub(super) fn route_to(&self, target: &Address) -> Route<'_> {
        let bare = target.host.trim_start_matches('[').trim_end_matches(']');
        let loopback =
            bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
        match self {
            OuterProxy::Http { address, authorization } if !loopback => {
                Route::Proxy { address, authorization: authorization.as_ref() }
            }
            OuterProxy::Unsupported(url) if !loopback => Route::Unsupported(url),
            _ => Route::Direct,
        }
    }
}

/// `user:password`, percent-encoded as in a URL, as a header's value.
fn basic(user: &str) -> Option<HeaderValue> {
    let user = if user.contains(':') { user.to_owned() } else { format!("{user}:") };
    let mut value =
        HeaderValue::try_from(format!("Basic {}", STANDARD.encode(percent_decoded(&user)))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &after[2..];
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(url: &str) -> OuterProxy {
        OuterProxy::of(&Proxies::of(|name| (name == "http_proxy").then(|| url.to_owned())))
    }

    #[test]
    fn what_the_environment_names() {
        let http = |host: &str, port, user: Option<&str>| OuterProxy::Http {
            address: Address { host: host.into(), port },
            authorization: user.map(|user| format!("Basic {}", STANDARD.encode(user)).parse().unwrap()),
        };
        let table = [
            ("", OuterProxy::None),
            ("http://proxy:3128", http("proxy", 3128, None)),
            ("http://proxy:3128/", http("proxy", 3128, None)),
            ("HTTP://proxy", http("proxy", 80, None)),
            ("proxy:3128", http("proxy", 3128, None)),
            ("http://[2001:db8::1]:3128", http("[2001:db8::1]", 3128, None)),
            ("http://me:a%40b%zz@proxy:3128", http("proxy", 3128, Some("me:a@b%zz"))),
            ("http://me@proxy:3128", http("proxy", 3128, Some("me:"))),
            ("socks5://me:secret@proxy:1080", OuterProxy::Unsupported("socks5://proxy:1080".into())),
            ("http://", OuterProxy::Unsupported("http://".into())),
        ];
        for (url, expected) in table {
            assert_eq!(named(url), expected, "{url}");
        }
    }

    #[test]
    fn this_machine_is_asked_directly() {
        let outer = named("http://proxy:3128");
        for (host, direct) in [
            ("localhost", true),
            ("127.0.0.9", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("192.0.2.1", false),
            ("example.org", false),
        ] {
            let route = outer.route_to(&Address { host: host.into(), port: 80 });
            assert_eq!(route == Route::Direct, direct, "{host}");
        }
        let other = Address { host: "example.org".into(), port: 80 };
        assert_eq!(named("socks5://p:1").route_to(&other), Route::Unsupported("socks5://p:1"));
        assert_eq!(OuterProxy::None.route_to(&other), Route::Direct);
    }
}
