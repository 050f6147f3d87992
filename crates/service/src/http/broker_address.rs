//! The address of the broker that the service gives to clients, and the headers about it.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::HeaderName;
use identity::http::arrival::Arrival;

/// A header of requests that come by `farcall connect`: the port, on the client's own machine, that leads to the broker.
pub const FORWARDER_PORT: HeaderName = HeaderName::from_static("farcall-amqp-port");
/// The header of the answer to such a request: where the broker is, as `amqps://host:port`.
pub const BROKER: HeaderName = HeaderName::from_static("farcall-amqp");

/// Where the broker is reached from outside. What is not said follows from how the request arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerAddress {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub tls: Option<bool>,
    /// The ports we listen on, without TLS and with it.
    pub plain_port: Option<u16>,
    pub tls_port: Option<u16>,
}

impl BrokerAddress {
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
        let host = self.host.clone().unwrap_or_else(|| local(arrival.at.ip(), tls));
        format!("{}://{host}:{port}", if tls { "amqps" } else { "amqp" })
    }
}

/// The host where the request arrived. Without TLS always by number: `localhost` may have two addresses, and the credential is
/// nothing for another program that listens on the other one. With TLS the certificate shows who answers, and names the host.
fn local(arrival: IpAddr, tls: bool) -> String {
    match arrival {
        ip if tls && ip.is_loopback() => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    #[test]
    fn the_host_is_the_public_one_or_where_we_were_reached() {
        let peer = "192.0.2.9:1".parse().unwrap();
        let arrival = |at: &str, tls| Arrival { tls, ..Arrival::new(at.parse().unwrap(), peer, false) };
        let plain = BrokerAddress { plain_port: Some(4444), ..BrokerAddress::default() };
        let both = BrokerAddress { tls_port: Some(443), ..plain.clone() };
        let named = BrokerAddress { host: Some("amqp.example.org".into()), ..both.clone() };
        let behind = BrokerAddress { port: Some(443), tls: Some(true), ..plain.clone() };
        let table = [
            (&plain, "127.0.0.1:80", false, "amqp://127.0.0.1:4444"),
            (&plain, "[::1]:80", false, "amqp://[::1]:4444"),
            (&plain, "192.0.2.1:80", false, "amqp://192.0.2.1:4444"),
            (&plain, "[2001:db8::1]:80", false, "amqp://[2001:db8::1]:4444"),
            (&plain, "[::ffff:127.0.0.1]:80", false, "amqp://127.0.0.1:4444"),
            (&plain, "[::ffff:192.0.2.1]:80", false, "amqp://192.0.2.1:4444"),
            (&plain, "127.0.0.1:443", true, "amqp://127.0.0.1:4444"),
            (&both, "127.0.0.1:443", true, "amqps://localhost:443"),
            (&both, "127.0.0.1:80", false, "amqp://127.0.0.1:4444"),
            (&named, "127.0.0.1:80", false, "amqp://amqp.example.org:4444"),
            (&named, "127.0.0.1:80", true, "amqps://amqp.example.org:443"),
            (&behind, "127.0.0.1:80", false, "amqps://localhost:443"),
        ];
        for (address, at, tls, expected) in table {
            assert_eq!(address.base(arrival(at, tls)), expected, "{address:?} {at} {tls}");
        }
        let forwarded = Arrival { forwarder: NonZeroU16::new(41_000), ..arrival("192.0.2.1:443", true) };
        assert_eq!(named.base(forwarded), "amqp://127.0.0.1:41000");
    }
}
