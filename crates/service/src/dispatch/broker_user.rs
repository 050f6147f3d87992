//! The names of the broker's users, and the URLs with which they connect.

use std::fmt;

use wire::{EndpointId, IdentityId};

use store::Holder;

/// A broker user's name: `ep.<endpoint>.<n>` or `client.<identity>.<n>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct User {
    pub holder: Holder,
    pub number: i64,
}

impl User {
    /// Accepts only the spelling that the service issues.
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

/// A credential that is about to be issued, as a URL.
pub struct ConnectionUrl<'a> {
    pub holder: Holder,
    pub number: i64,
    pub secret: &'a str,
}

impl ConnectionUrl<'_> {
    /// The URL for a client that reaches the broker at `base` (see
    /// [`BrokerAddress::base`](crate::http::broker_address::BrokerAddress::base)).
    pub fn at(&self, base: &str) -> String {
        let user = User { holder: self.holder, number: self.number };
        let (scheme, place) = base.split_once("://").unwrap_or(("amqp", base));
        format!("{scheme}://{user}:{}@{place}/%2F", self.secret)
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
    fn a_url_names_user_and_secret() {
        let url = ConnectionUrl { holder: HOLDER, number: 3, secret: "s" };
        assert_eq!(
            url.at("amqps://localhost:443"),
            "amqps://ep.00000000-0000-0000-0000-000000000001.3:s@localhost:443/%2F"
        );
    }
}
