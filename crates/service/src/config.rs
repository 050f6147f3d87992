//! The configuration: `farcall.yaml`, then `FARCALL_SECTION__KEY` from the environment, then flags; the later wins.
//!
//! A key that does not exist is refused wherever it stands: a misspelt limit that is ignored is worse than none.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::limits::Limits;

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub http: Http,
    pub amqp: Amqp,
    pub limits: Limits,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    pub listen: SocketAddr,
    /// Further names, `host:port`, under which clients reach us through a proxy.
    pub public_names: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Amqp {
    pub listen: SocketAddr,
    /// The host in connection URLs. Absent: the address at which the request reached us.
    pub public_host: Option<String>,
}

impl Default for Http {
    fn default() -> Self {
        Http { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 5000)), public_names: Vec::new() }
    }
}

impl Default for Amqp {
    fn default() -> Self {
        Amqp { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 5672)), public_host: None }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{path}: {error}")]
    File { path: PathBuf, error: String },
    #[error("{variable}: {error}")]
    Variable { variable: String, error: String },
    #[error("the configuration is not valid: {0}")]
    Invalid(#[from] serde_json::Error),
}

/// What the environment and the flags set: a path of keys, and the value.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub section: String,
    pub key: String,
    pub value: Value,
}

impl Config {
    /// Reads `file` (which may be absent) and lays `settings` over it, in their order.
    pub fn load(file: &Path, settings: impl IntoIterator<Item = Setting>) -> Result<Config, ConfigError> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(ConfigError::Read { path: file.to_owned(), error }),
        };
        let mut document = Value::Object(Map::new());
        if !text.trim().is_empty() {
            // Read once as what it must be, for an error that shows the line; then as what can be laid over.
            let refused = |error: serde_saphyr::Error| ConfigError::File {
                path: file.to_owned(),
                error: error.to_string(),
            };
            serde_saphyr::from_str::<Config>(&text).map_err(refused)?;
            let read: Value = serde_saphyr::from_str(&text).map_err(refused)?;
            // A file of comments only is no document.
            document = if read.is_null() { document } else { read };
        }
        for setting in settings {
            let root = document.as_object_mut();
            let section =
                root.map(|root| root.entry(setting.section).or_insert_with(|| Value::Object(Map::new())));
            if let Some(Value::Object(section)) = section {
                section.insert(setting.key, setting.value);
            }
        }
        Ok(serde_json::from_value(document)?)
    }
}

/// The settings among `variables`: those named `FARCALL_SECTION__KEY`. Others of ours have no double underscore.
pub fn from_environment(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Setting>, ConfigError> {
    let mut settings = Vec::new();
    for (variable, text) in variables {
        let Some((section, key)) = variable.strip_prefix("FARCALL_").and_then(|name| name.split_once("__"))
        else {
            continue;
        };
        // A value that is not a list is taken as it stands.
        let value = if text.trim_start().starts_with('[') {
            serde_saphyr::from_str(&text).map_err(|error| ConfigError::Variable {
                variable: variable.clone(),
                error: error.to_string(),
            })?
        } else {
            Value::String(text)
        };
        settings.push(Setting { section: section.to_lowercase(), key: key.to_lowercase(), value });
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, settings: Vec<Setting>) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("farcall.yaml");
        std::fs::write(&file, text).unwrap();
        Config::load(&file, settings)
    }

    fn environment(pairs: &[(&str, &str)]) -> Vec<Setting> {
        from_environment(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string()))).unwrap()
    }

    #[test]
    fn the_later_wins() {
        let file =
            "http:\n  listen: 127.0.0.1:1\namqp:\n  listen: 127.0.0.1:2\n  public_host: amqp.example.org\n";
        let mut settings = environment(&[
            ("FARCALL_HTTP__LISTEN", "127.0.0.1:3"),
            ("FARCALL_AMQP__LISTEN", "127.0.0.1:4"),
            ("FARCALL_HTTP__PUBLIC_NAMES", "[compute.example.org:443]"),
            ("FARCALL_LOG", "debug"),
            ("PATH", "/bin"),
        ]);
        settings.push(Setting { section: "amqp".into(), key: "listen".into(), value: "127.0.0.1:5".into() });
        let config = load(file, settings).unwrap();
        assert_eq!(config.http.listen.port(), 3);
        assert_eq!(config.amqp.listen.port(), 5);
        assert_eq!(config.amqp.public_host.as_deref(), Some("amqp.example.org"));
        assert_eq!(config.http.public_names, ["compute.example.org:443"]);
    }

    #[test]
    fn without_a_file_the_defaults_hold() {
        let config = Config::load(Path::new("/nonexistent/farcall.yaml"), []).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(load("\n# nothing\n", Vec::new()).unwrap(), Config::default());
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        assert!(load("http:\n  lisen: 127.0.0.1:1\n", Vec::new()).unwrap_err().to_string().contains("lisen"));
        assert!(load("htp: {}\n", Vec::new()).is_err());
        assert!(load("- http\n", Vec::new()).is_err());
        assert!(load("", environment(&[("FARCALL_HTTP__LISEN", "127.0.0.1:1")])).is_err());
        assert!(load("", environment(&[("FARCALL_HTP__LISTEN", "127.0.0.1:1")])).is_err());
        assert!(load("", environment(&[("FARCALL_HTTP__LISTEN", "here")])).is_err());
    }
}
