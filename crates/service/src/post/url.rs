//! The URL under which an endpoint or a client reaches the broker, and its user name there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use wire::{EndpointId, IdentityId};

use crate::config::Amqp;
use crate::front::Reached;
use crate::store::Holder;

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
    /// The URL for whoever reached us over HTTP at `reached`. `amqp.listen` carries the port we really have.
    pub fn at(&self, amqp: &Amqp, reached: Reached) -> String {
        let user = User { holder: self.holder, number: self.number };
        let host = amqp.public_host.clone().unwrap_or_else(|| local(reached.0));
        format!("amqp://{user}:{}@{host}:{}/%2F", self.secret, amqp.listen.port())
    }
}

fn local(reached: SocketAddr) -> String {
    match reached.ip() {
        ip if ip.is_loopback() => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
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
        let url = ConnectionUrl { holder: HOLDER, number: 3, secret: "s" };
        let mut amqp = Amqp { listen: "127.0.0.1:4444".parse().unwrap(), public_host: None };
        let at = |amqp: &Amqp, reached: &str| url.at(amqp, Reached(reached.parse().unwrap()));
        let user = "ep.00000000-0000-0000-0000-000000000001.3";
        assert_eq!(at(&amqp, "127.0.0.1:80"), format!("amqp://{user}:s@localhost:4444/%2F"));
        assert_eq!(at(&amqp, "192.0.2.1:80"), format!("amqp://{user}:s@192.0.2.1:4444/%2F"));
        assert_eq!(at(&amqp, "[2001:db8::1]:80"), format!("amqp://{user}:s@[2001:db8::1]:4444/%2F"));
        amqp.public_host = Some("amqp.example.org".into());
        assert_eq!(at(&amqp, "127.0.0.1:80"), format!("amqp://{user}:s@amqp.example.org:4444/%2F"));
    }
}
