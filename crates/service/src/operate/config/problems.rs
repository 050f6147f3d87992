//! Checks a configuration for what its types can't: values that contradict each other or make no sense. The service doesn't
//! start with any. Pure functions; what depends on the machine is in `start_problems`.

use std::str::FromStr as _;

use daemon::logging::{self, FilterError};
use rustls::pki_types::ServerName;
use serde_json::{Map, Value};

use super::Config;
use crate::limits::Limits;
use identity::providers::settings::SettingsError;
use store::{Servers, UrlError};

/// Limits for which 0 makes sense: none of it, or switched off. For any other, 0 would refuse everything.
const MAY_BE_ZERO: &[&str] = &[
    "file_from_bytes",
    "resent_seconds",
    "idempotency_hours",
    "expired_days",
    "lock_seconds",
    "restarts",
    "body_bytes_per_second",
];
/// A hundred years. With more, some times could not be represented.
const MOST_DAYS: u64 = 36_500;

#[derive(Debug, thiserror::Error)]
pub enum ConfigProblem {
    #[error("{present} needs {missing}: name both files, or neither")]
    HalfCertificate { present: &'static str, missing: &'static str },
    #[error("{0} needs tls.certificate and tls.key: name their files, or leave {0} out")]
    NoCertificate(&'static str),
    #[error(
        "http.listen and http.tls_listen are empty: nobody could reach the service. Give one of them an address"
    )]
    NoHttp,
    #[error(
        "amqp.listen and amqp.tls_listen are empty: no endpoint could reach the service. Give one of them an address"
    )]
    NoAmqp,
    #[error(
        "amqp.public_host: {value:?} is no host name: write {instead}; the port goes into amqp.public_port"
    )]
    Host { value: String, instead: String },
    #[error("http.public_names: {value:?} is not a name and a port: write {instead}")]
    Name { value: String, instead: String },
    #[error("{key}: 0 means nothing here: write a number from 1 on, or leave it out{usual}")]
    Zero { key: String, usual: String },
    #[error("{key}: {value} is too long: write {most} at most, a hundred years")]
    TooLong { key: String, value: u64, most: u64 },
    #[error("{0}")]
    Limits(String),
    #[error("log.filter: {0}")]
    Filter(FilterError),
    #[error("store.url: {0}")]
    Database(UrlError),
    #[error(transparent)]
    Identity(SettingsError),
}

/// Finds everything that is wrong in `config`.
pub(super) fn find(config: &Config) -> Vec<ConfigProblem> {
    let mut found = Vec::new();
    addresses(config, &mut found);
    names(config, &mut found);
    numbers(config, &mut found);
    found.extend(logging::filter(&config.log.filter).err().map(ConfigProblem::Filter));
    let database = config.store.url.as_deref().and_then(|url| Servers::from_str(url).err());
    found.extend(database.map(ConfigProblem::Database));
    found.extend(config.identity.check().err().map(ConfigProblem::Identity));
    found
}

fn addresses(config: &Config, found: &mut Vec<ConfigProblem>) {
    let (certificate, key) = ("tls.certificate", "tls.key");
    match (&config.tls.certificate, &config.tls.key) {
        (Some(_), None) => found.push(ConfigProblem::HalfCertificate { present: certificate, missing: key }),
        (None, Some(_)) => found.push(ConfigProblem::HalfCertificate { present: key, missing: certificate }),
        (Some(_), Some(_)) => {}
        (None, None) => {
            let lists =
                [("http.tls_listen", &config.http.tls_listen), ("amqp.tls_listen", &config.amqp.tls_listen)];
            let wanted = lists.into_iter().filter(|(_, addresses)| !addresses.0.is_empty());
            found.extend(wanted.map(|(name, _)| ConfigProblem::NoCertificate(name)));
        }
    }
    if config.http.listen.0.is_empty() && config.http.tls_listen.0.is_empty() {
        found.push(ConfigProblem::NoHttp);
    }
    if config.amqp.listen.0.is_empty() && config.amqp.tls_listen.0.is_empty() {
        found.push(ConfigProblem::NoAmqp);
    }
}

fn names(config: &Config, found: &mut Vec<ConfigProblem>) {
    if let Some(value) = config.amqp.public_host.as_ref().filter(|host| !is_host(host)) {
        let instead = parts(value).map_or("one such as compute.example.org".to_owned(), |(host, _)| host);
        found.push(ConfigProblem::Host { value: value.clone(), instead });
    }
    for value in &config.http.public_names {
        let named = value
            .rsplit_once(':')
            .filter(|(host, port)| is_host(host) && port.parse::<u16>().is_ok_and(|port| port != 0));
        if named.is_none() {
            let instead = parts(value)
                .map_or("one such as compute.example.org:443".to_owned(), |(host, port)| {
                    format!("{host}:{}", port.unwrap_or(443))
                });
            found.push(ConfigProblem::Name { value: value.clone(), instead });
        }
    }
}

/// `name`, `192.0.2.1` or `[2001:db8::1]`.
fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[').map(|rest| rest.strip_suffix(']').unwrap_or_default());
    match (ServerName::try_from(bare.unwrap_or(text)), bare) {
        (Ok(ServerName::IpAddress(_)), bare) => bare.is_some() == text.contains(':'),
        (Ok(_), bare) => bare.is_none(),
        (Err(_), _) => false,
    }
}

/// The host, and the port if one is said, in what may be a URL.
fn parts(text: &str) -> Option<(String, Option<u16>)> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let usual = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority.rsplit('@').next()?;
    if is_host(place) {
        return Some((place.to_owned(), usual));
    }
    let bracketed = format!("[{place}]");
    if is_host(&bracketed) {
        return Some((bracketed, usual));
    }
    let (host, port) = place.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0);
    is_host(host).then(|| (host.to_owned(), port.or(usual)))
}

/// The limits by name.
fn table(limits: Limits) -> Map<String, Value> {
    match serde_json::to_value(limits) {
        Ok(Value::Object(limits)) => limits,
        _ => Map::new(),
    }
}

fn numbers(config: &Config, found: &mut Vec<ConfigProblem>) {
    if config.amqp.public_port == Some(0) {
        found.push(ConfigProblem::Zero { key: "amqp.public_port".into(), usual: String::new() });
    }
    let before = found.len();
    let usual = table(Limits::default());
    for (name, value) in table(config.limits) {
        let key = format!("limits.{name}");
        let Some(value) = value.as_u64() else { continue };
        if value == 0 && !MAY_BE_ZERO.contains(&name.as_str()) {
            let usual = usual.get(&name).map(|usual| format!(" (then it is {usual})")).unwrap_or_default();
            found.push(ConfigProblem::Zero { key: key.clone(), usual });
        }
        let most = match name.rsplit('_').next() {
            Some("days") => MOST_DAYS,
            Some("hours") => MOST_DAYS * 24,
            _ => u64::MAX,
        };
        if value > most {
            found.push(ConfigProblem::TooLong { key, value, most });
        }
    }
    // What a number means beside the others is asked once each means something.
    if found.len() == before {
        found.extend(config.limits.check().err().map(ConfigProblem::Limits));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::config::layers::Setting;

    /// The problems of the default configuration with these settings over it.
    fn with(settings: &[&str]) -> Vec<String> {
        let settings = settings.iter().map(|text| Setting::from_flag(text).unwrap());
        let directory = tempfile::tempdir().unwrap();
        match Config::load(&directory.path().join("farcall.yaml"), settings) {
            Ok(_) => Vec::new(),
            Err(crate::operate::config::ConfigError::Invalid(found)) => {
                found.0.iter().map(ToString::to_string).collect()
            }
            Err(other) => panic!("{settings:?}: {other}", settings = other.to_string()),
        }
    }

    /// Settings, and the beginning of what is said of each thing that is wrong with them.
    #[test]
    fn problems_are_found_all_at_once() {
        const TLS: [&str; 2] = ["tls.certificate=c", "tls.key=k"];
        let table: &[(&[&str], &[&str])] = &[
            (&[], &[]),
            (&["tls.key=k"], &["tls.key needs tls.certificate: "]),
            (&["tls.certificate=c"], &["tls.certificate needs tls.key: "]),
            (&["http.tls_listen=127.0.0.1:443"], &["http.tls_listen needs tls.certificate and tls.key: "]),
            (&["amqp.tls_listen=127.0.0.1:443"], &["amqp.tls_listen needs tls.certificate and tls.key: "]),
            (&["amqp.tls_listen=127.0.0.1:443", TLS[0], TLS[1]], &[]),
            (&["http.listen=[]"], &["http.listen and http.tls_listen are empty: nobody"]),
            (&["amqp.listen=[]"], &["amqp.listen and amqp.tls_listen are empty: no endpoint"]),
            // Everything at once.
            (
                &["amqp.listen=[]", "limits.payload_bytes=0", "log.filter=inof"],
                &["amqp.listen", "limits.p", "log.f"],
            ),
            (&["amqp.public_host=compute.example.org"], &[]),
            (&["amqp.public_host=192.0.2.1"], &[]),
            (&["amqp.public_host='[2001:db8::1]'"], &[]),
            (
                &["amqp.public_host=''"],
                &["amqp.public_host: \"\" is no host name: write one such as compute."],
            ),
            (&["amqp.public_host=a:1"], &["amqp.public_host: \"a:1\" is no host name: write a; "]),
            (
                &["amqp.public_host='[::1]:5'"],
                &["amqp.public_host: \"[::1]:5\" is no host name: write [::1]; "],
            ),
            (
                &["amqp.public_host='2001:db8::1'"],
                &["amqp.public_host: \"2001:db8::1\" is no host name: write [2001:db8::1]; "],
            ),
            (
                &["amqp.public_host='amqps://me@a.example/x'"],
                &["amqp.public_host: \"amqps://me@a.example/x\" is no host name: write a.example; "],
            ),
            (&["amqp.public_host='a b'"], &["amqp.public_host: \"a b\" is no host name: write one such as"]),
            (&["http.public_names=['compute.example.org:443', '[2001:db8::1]:443', '192.0.2.1:80']"], &[]),
            (
                &["http.public_names=['https://compute.example.org/']"],
                &[
                    "http.public_names: \"https://compute.example.org/\" is not a name and a port: write compute.example.org:443",
                ],
            ),
            (
                &["http.public_names=['http://compute.example.org:8080']"],
                &[
                    "http.public_names: \"http://compute.example.org:8080\" is not a name and a port: write compute.example.org:8080",
                ],
            ),
            (
                &["http.public_names=[compute.example.org]"],
                &[
                    "http.public_names: \"compute.example.org\" is not a name and a port: write compute.example.org:443",
                ],
            ),
            (
                &["http.public_names=['a:0', 'b:70000', '*.c:1']"],
                &[
                    "http.public_names: \"a:0\" is not a name and a port: write a:443",
                    "http.public_names: \"b:70000\"",
                    "http.public_names: \"*.c:1\"",
                ],
            ),
            (
                &["amqp.public_port=0"],
                &["amqp.public_port: 0 means nothing here: write a number from 1 on, or leave it out"],
            ),
            (
                &["limits.payload_bytes=0"],
                &[
                    "limits.payload_bytes: 0 means nothing here: write a number from 1 on, or leave it out (then it is 67108864)",
                ],
            ),
            (
                &["limits.requests_per_second=0", "limits.result_days=0"],
                &["limits.requests_per_second: 0", "limits.result_days: 0"],
            ),
            (&["limits.restarts=0", "limits.expired_days=0", "limits.file_from_bytes=0"], &[]),
            // No minimum.
            (&["limits.body_bytes_per_second=0"], &[]),
            (
                &["limits.bodies_in_flight_bytes=67108864"],
                &["limits.bodies_in_flight_bytes: an identity may"],
            ),
            (&["limits.amqp_connections=7"], &["limits.http_connections, limits.amqp_connections: must be"]),
            (&["limits.result_days=36500"], &[]),
            (&["limits.result_days=36501"], &["limits.result_days: 36501 is too long: write 36500 at most"]),
            (&["limits.idempotency_hours=4000000000"], &["limits.idempotency_hours: 4000000000 is too long"]),
            (&["log.filter=debug,hyper=info"], &[]),
            (&["log.filter=inof"], &["log.filter: \"inof\" is no level: write trace"]),
            (&["log.filter=hyper=loud"], &["log.filter: \"hyper=loud\" is no filter"]),
            (
                &["identity.upstreams=[{name: A, title: a, issuer: b, client_id: c, domains: [d.e]}]"],
                &["identity.upstreams: \"A\" is no name"],
            ),
            (
                &[
                    "identity.upstreams=[{name: a, title: a, issuer: idp.example.edu, client_id: c, domains: [d.e]}]",
                ],
                &["identity.upstreams: a: idp.example.edu is no issuer: an https URL"],
            ),
        ];
        for (settings, expected) in table {
            let found = with(settings);
            let fits = found.len() == expected.len()
                && found.iter().zip(*expected).all(|(found, expected)| found.starts_with(expected));
            assert!(fits, "{settings:?}\nfound: {found:#?}\nexpected: {expected:#?}");
        }
    }

    #[test]
    fn every_limit_that_may_be_zero_is_one() {
        let limits = table(Limits::default());
        assert!(MAY_BE_ZERO.iter().all(|name| limits.contains_key(*name)), "{limits:?}");
    }
}
