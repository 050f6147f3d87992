//! The URL under which an endpoint or a client reaches the broker, and its user name there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use axum::http::HeaderName;
use wire::{EndpointId, IdentityId};

use identity::http::arrival::Arrival;
use store::Holder;

/// A header of requests that come by `farcall connect`: the port, on the client's own machine, that leads to the broker.
pub const FORWARDER_PORT: HeaderName = HeaderName::from_static("farcall-amqp-port");
/// The header of the answer to such a request: where the broker is, as `amqps://host:port`.
pub const BROKER: HeaderName = HeaderName::from_static("farcall-amqp");

/// A broker user's name: `ep.<endpoint>.<n>` or `client.<identity>.<n>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct User {
    pub holder: Holder,
    pub number: i64,
}

impl User {
    /// Takes only the spelling that is handed out.
    pub fn parse(name: &str) -> Option<User> {
        let (kind, rest) = name.split_once('.')?;
        let (subject, number) = rest.split_once('.')?;
        let holder = match kind {
            "ep" => Holder::Endpoint(subject.parse::<EndpointId>().ok()?),
            "client" => Holder::Client(subject.parse::<IdentityId>().ok()?),
            _ => return None,
        };
        let user = User { holder, number: number.parse().ok()? };
        (user.to_string() == name).then_some(user)
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.holder {
            Holder::Endpoint(endpoint) => write!(f, "ep.{endpoint}.{}", self.number),
            Holder::Client(identity) => write!(f, "client.{identity}.{}", self.number),
        }
    }
}

/// A credential that is about to be handed out.
pub struct ConnectionUrl<'a> {
    pub holder: Holder,
    pub number: i64,
    pub secret: &'a str,
}

impl ConnectionUrl<'_> {
    /// The URL for whoever finds the broker at `base` (see [`Outside::base`]).
    pub fn at(&self, base: &str) -> String {
        let user = User { holder: self.holder, number: self.number };
        let (scheme, place) = base.split_once("://").unwrap_or(("amqp", base));
        format!("{scheme}://{user}:{}@{place}/%2F", self.secret)
    }
}

/// Where the broker is found from outside. What is not said follows from how the request arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub tls: Option<bool>,
    /// The ports we listen on, without TLS and with it.
    pub plain_port: Option<u16>,
    pub tls_port: Option<u16>,
}

impl Outside {
    /// `amqps://host:port` for a client whose HTTP request arrived as `arrival`.
    pub fn base(&self, arrival: Arrival) -> String {
        if let Some(port) = arrival.forwarder {
            // Only ever the client's own machine, whatever a request says.
            return format!("amqp://{}:{port}", Ipv4Addr::LOCALHOST);
        }
        let tls = self.tls.unwrap_or(match (self.plain_port, self.tls_port) {
            (Some(_), Some(_)) => arrival.tls,
            (_, tls) => tls.is_some(),
        });
        let listening = if tls { self.tls_port } else { self.plain_port };
        let usual = if tls { 5671 } else { 5672 };
        let port = self.port.or(listening).unwrap_or(usual);
        let host = self.host.clone().unwrap_or_else(|| local(arrival.at.ip()));
        format!("{}://{host}:{port}", if tls { "amqps" } else { "amqp" })
    }
}

fn local(arrival: IpAddr) -> String {
    match arrival {
        ip if ip.is_loopback() => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use uuid::Uuid;

    use super::*;

    const HOLDER: Holder = Holder::Endpoint(EndpointId::from_uuid(Uuid::from_u128(1)));

    #[test]
    fn users_are_read_as_they_are_written() {
        for holder in [HOLDER, Holder::Client(IdentityId::from_uuid(Uuid::from_u128(2)))] {
            let user = User { holder, number: 7 };
            assert_eq!(User::parse(&user.to_string()), Some(user));
        }
        for name in [
            "",
            "ep",
            "ep.x.1",
            "guest",
            "ep.00000000-0000-0000-0000-000000000001",
            "ep.00000000-0000-0000-0000-000000000001.",
            "ep.00000000-0000-0000-0000-000000000001.+1",
            "ep.00000000-0000-0000-0000-000000000001.01",
            "ep.00000000000000000000000000000001.1",
            "other.00000000-0000-0000-0000-000000000001.1",
        ] {
            assert_eq!(User::parse(name), None, "{name:?}");
        }
    }

    #[test]
    fn the_host_is_the_public_one_or_where_we_were_reached() {
        let peer = "192.0.2.9:1".parse().unwrap();
        let arrival =
            |at: &str, tls| Arrival { at: at.parse().unwrap(), tls, peer, metrics: false, forwarder: None };
        let plain = Outside { plain_port: Some(4444), ..Outside::default() };
        let both = Outside { tls_port: Some(443), ..plain.clone() };
        let named = Outside { host: Some("amqp.example.org".into()), ..both.clone() };
        let behind = Outside { port: Some(443), tls: Some(true), ..plain.clone() };
        let table = [
            (&plain, "127.0.0.1:80", false, "amqp://localhost:4444"),
            (&plain, "192.0.2.1:80", false, "amqp://192.0.2.1:4444"),
            (&plain, "[2001:db8::1]:80", false, "amqp://[2001:db8::1]:4444"),
            (&plain, "127.0.0.1:443", true, "amqp://localhost:4444"),
            (&both, "127.0.0.1:443", true, "amqps://localhost:443"),
            (&both, "127.0.0.1:80", false, "amqp://localhost:4444"),
            (&named, "127.0.0.1:80", false, "amqp://amqp.example.org:4444"),
            (&named, "127.0.0.1:80", true, "amqps://amqp.example.org:443"),
            (&behind, "127.0.0.1:80", false, "amqps://localhost:443"),
        ];
        for (outside, at, tls, expected) in table {
            assert_eq!(outside.base(arrival(at, tls)), expected, "{outside:?} {at} {tls}");
        }
        let forwarded = Arrival { forwarder: NonZeroU16::new(41_000), ..arrival("192.0.2.1:443", true) };
        assert_eq!(named.base(forwarded), "amqp://127.0.0.1:41000");
        let url = ConnectionUrl { holder: HOLDER, number: 3, secret: "s" };
        assert_eq!(
            url.at("amqps://localhost:443"),
            "amqps://ep.00000000-0000-0000-0000-000000000001.3:s@localhost:443/%2F"
        );
    }
}
