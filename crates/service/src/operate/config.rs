//! The configuration: `farcall.yaml`, then `FARCALL_SECTION__KEY` from the environment, then flags. Later sources override
//! earlier ones.
//!
//! The structures of this file are the one table of what can be set: names, types and defaults. [`layers`] lays the
//! sources over each other. A key that does not exist is refused wherever it stands: a misspelt limit that is ignored
//! is worse than none.

pub mod layers;
pub(crate) mod passwords;
mod problems;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use layers::{ConfigError, Loaded, Setting, Source, from_environment};
pub use problems::ConfigProblem;

use crate::limits::Limits;
use identity::providers::settings::Settings as IdentitySettings;

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub http: Http,
    pub amqp: Amqp,
    pub store: StoreSettings,
    pub limits: Limits,
    pub tls: Tls,
    pub metrics: Metrics,
    pub log: Log,
    pub identity: IdentitySettings,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Without TLS.
    pub listen: Addresses,
    /// With TLS. The same address in `amqp` makes one port for both, and in `listen` one for TLS and none.
    pub tls_listen: Addresses,
    /// Further names, `host:port`, under which clients reach the service, through a proxy for example.
    pub public_names: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Amqp {
    pub listen: Addresses,
    pub tls_listen: Addresses,
    /// The host in the URLs that clients and endpoints get. Absent: the address to which the request was sent.
    pub public_host: Option<String>,
    /// The port in them. Absent: the one on which the service listens.
    pub public_port: Option<u16>,
    /// Whether they say `amqps`. Absent: as the request came.
    pub public_tls: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM files, read anew when they change or on SIGHUP; relative to the data directory. The certificate's comes
    /// with those between it and the root.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Clone, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// `postgres://USER@HOST:PORT/DATABASE`. Absent: SQLite, in the data directory. May hold a password, which is shown nowhere.
    pub url: Option<String>,
}

impl fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.as_deref().map(passwords::hide);
        f.debug_struct("StoreSettings").field("url", &url).finish()
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Addresses that serve `/metrics` to everybody. Elsewhere only this machine gets it.
    pub listen: Addresses,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub form: LogForm,
    /// What is logged, such as `info` or `debug,hyper=info`. FARCALL_LOG goes before.
    pub filter: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogForm {
    #[default]
    Text,
    Json,
}

impl Default for Http {
    fn default() -> Self {
        Http { listen: local(5000), tls_listen: Addresses::default(), public_names: Vec::new() }
    }
}

impl Default for Amqp {
    fn default() -> Self {
        Amqp {
            listen: local(5672),
            tls_listen: Addresses::default(),
            public_host: None,
            public_port: None,
            public_tls: None,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { form: LogForm::Text, filter: "info".to_owned() }
    }
}

fn local(port: u16) -> Addresses {
    Addresses(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))])
}

/// One address or a list of them; an empty list listens nowhere.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(try_from = "OneOrMany", into = "Vec<SocketAddr>")]
pub struct Addresses(pub Vec<SocketAddr>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected an address such as 127.0.0.1:5000, or a list of them")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl TryFrom<OneOrMany> for Addresses {
    type Error = String;

    fn try_from(text: OneOrMany) -> Result<Addresses, String> {
        let texts = match text {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        };
        let parse = |text: &String| {
            text.parse().map_err(|_| format!("{text:?} is not an address such as 127.0.0.1:5000"))
        };
        Ok(Addresses(texts.iter().map(parse).collect::<Result<_, _>>()?))
    }
}

impl From<Addresses> for Vec<SocketAddr> {
    fn from(addresses: Addresses) -> Self {
        addresses.0
    }
}
