//! Parses the AMQP addresses that a service hands out, as pika parses them.

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use reqwest::Url;
use thiserror::Error;

use super::frame_check::FRAME_LIMIT;

/// How long opening a connection may take, in milliseconds.
const CONNECTION_TIMEOUT: u64 = 15_000;
/// Seconds between heartbeats, unless the address or the broker asks for fewer.
const HEARTBEAT: u16 = 60;

/// A broker's address with our credentials. The `Debug` form leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(AMQPUri);

/// Why a text is no AMQP address. It does not quote the text, which may contain a password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadAddress {
    #[error("not a URL")]
    NotAUrl,
    #[error("the scheme is neither amqp nor amqps")]
    Scheme,
    #[error("no host")]
    NoHost,
    #[error("{0} is not a number that fits")]
    Query(&'static str),
}

impl Address {
    /// Parses an address; `port` replaces the port in it.
    pub fn parse(text: &str, port: Option<u16>) -> Result<Self, BadAddress> {
        let url = Url::parse(text).map_err(|_| BadAddress::NotAUrl)?;
        let scheme = match url.scheme() {
            "amqp" => AMQPScheme::AMQP,
            "amqps" => AMQPScheme::AMQPS,
            _ => return Err(BadAddress::Scheme),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(BadAddress::NoHost)?;
        let port = port.or(url.port()).unwrap_or_else(|| scheme.default_port());
        let or_guest = |text: &str| if text.is_empty() { "guest".to_owned() } else { unescape(text) };
        let userinfo = AMQPUserInfo {
            username: or_guest(url.username()),
            password: or_guest(url.password().unwrap_or("")),
        };
        // pika: no path and an empty path both mean the default virtual host.
        let vhost = match url.path().strip_prefix('/').unwrap_or("") {
            "" => "/".to_owned(),
            path => unescape(path),
        };
        let query = AMQPQueryString {
            // Without heartbeats, the silence of a dead broker would never be noticed.
            heartbeat: Some(number(&url, "heartbeat")?.unwrap_or(HEARTBEAT)),
            // Without a limit of ours, the broker could make us allocate buffers of any size.
            frame_max: Some(
                number(&url, "frame_max")?.filter(|most| *most > 0).unwrap_or(FRAME_LIMIT).min(FRAME_LIMIT),
            ),
            channel_max: number(&url, "channel_max")?,
            connection_timeout: Some(CONNECTION_TIMEOUT),
            auth_mechanism: None,
        };
        let authority = AMQPAuthority { userinfo, host: host.trim_matches(['[', ']']).to_owned(), port };
        Ok(Self(AMQPUri { scheme, authority, vhost, query }))
    }

    /// The host and the port.
    pub fn target(&self) -> (String, u16) {
        (self.0.authority.host.clone(), self.0.authority.port)
    }

    pub(crate) fn uri(&self) -> AMQPUri {
        self.0.clone()
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let AMQPUri { scheme, authority, vhost, .. } = &self.0;
        write!(
            f,
            "{scheme}://{}:***@{}:{}/{vhost}",
            authority.userinfo.username, authority.host, authority.port
        )
    }
}

/// A number in the query. Options that only pika knows are ignored.
fn number<T: std::str::FromStr>(url: &Url, name: &'static str) -> Result<Option<T>, BadAddress> {
    match url.query_pairs().find(|(key, _)| key == name) {
        Some((_, value)) => value.parse().map(Some).map_err(|_| BadAddress::Query(name)),
        None => Ok(None),
    }
}

/// Decodes percent-encoding; leaves malformed escapes as they are.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits make a byte"));
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> AMQPUri {
        Address::parse(text, None).unwrap().0
    }

    #[test]
    fn addresses_are_parsed_as_pika_parses_them() {
        let uri = parsed("amqps://ep.x.1:p%2Fw%40@broker.example:443/?heartbeat=30&connection_attempts=7");
        assert_eq!(uri.scheme, AMQPScheme::AMQPS);
        assert_eq!((uri.authority.host.as_str(), uri.authority.port), ("broker.example", 443));
        assert_eq!(
            uri.authority.userinfo,
            AMQPUserInfo { username: "ep.x.1".into(), password: "p/w@".into() }
        );
        assert_eq!(uri.vhost, "/");
        assert_eq!(uri.query.heartbeat, Some(30));
        for (text, vhost) in [
            ("amqp://h", "/"),
            ("amqp://h/", "/"),
            ("amqp://h/%2F", "/"),
            ("amqp://h/site", "site"),
            ("amqp://h/a%20b", "a b"),
        ] {
            assert_eq!(parsed(text).vhost, vhost, "{text}");
        }
        assert_eq!(parsed("amqp://h").authority.port, 5672);
        assert_eq!(parsed("amqps://h").authority.port, 5671);
        assert_eq!(parsed("amqp://[::1]:5/").authority.host, "::1");
        assert_eq!(parsed("amqp://127.0.0.1:5/").authority.host, "127.0.0.1");
    }

    #[test]
    fn amqp_port_overrides_the_address() {
        assert_eq!(Address::parse("amqps://h:5671/", Some(443)).unwrap().0.authority.port, 443);
        assert_eq!(Address::parse("amqps://h/", Some(443)).unwrap().0.authority.port, 443);
    }

    #[test]
    fn invalid_addresses_are_refused() {
        for (text, why) in [
            ("", BadAddress::NotAUrl),
            ("http://h/", BadAddress::Scheme),
            ("amqp:///", BadAddress::NoHost),
            ("amqp://h/?heartbeat=soon", BadAddress::Query("heartbeat")),
            ("amqp://h/?heartbeat=70000", BadAddress::Query("heartbeat")),
        ] {
            assert_eq!(Address::parse(text, None), Err(why), "{text:?}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let address = Address::parse("amqp://user:secret@h/", None).unwrap();
        assert_eq!(format!("{address:?}"), "amqp://user:***@h:5672//");
    }
}
