//! Merges the sources of the configuration: defaults, file, environment, flags. Later sources override earlier ones.
//!
//! What exists is read off the default configuration, so there is no second list of names to keep. Every value is
//! checked as it is laid, so that what is wrong is told with where it stands.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Config, ConfigProblem, passwords, problems};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    File(PathBuf),
    Variable(String),
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Variable(name) => f.write_str(name),
            Source::Flag(name) => f.write_str(name),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{path}: {error}")]
    File { path: PathBuf, error: String },
    #[error("{source_of_it}: there is no {name}{}", or_perhaps(.nearest))]
    Unknown { source_of_it: Source, name: String, nearest: Option<String> },
    #[error("{source_of_it}: {name}: {error}")]
    Value { source_of_it: Source, name: String, error: String },
    #[error("{0}: expected SECTION.KEY=VALUE")]
    Flag(String),
    #[error(
        "--set {section}.{key}: it holds a password, which every user of this machine could see: leave it out and have it in \
         ~/.pgpass of the service's user (mode 0600), or put the whole into farcall.yaml or {variable} (in a systemd unit by \
         EnvironmentFile=, since everybody can read Environment=)"
    )]
    Password { section: String, key: String, variable: String },
    #[error(transparent)]
    Invalid(#[from] ConfigProblems),
}

/// The errors of a configuration, at least one.
#[derive(Debug, thiserror::Error)]
pub struct ConfigProblems(pub Vec<ConfigProblem>);

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            let before = if number == 0 { "" } else { "\n" };
            write!(f, "{before}{problem}")?;
        }
        Ok(())
    }
}

fn or_perhaps(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// One value, from the environment or a flag.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub section: String,
    pub key: String,
    pub value: Value,
    pub source: Source,
}

impl Setting {
    /// Parses text, as YAML where it is more than a word.
    fn from_text(section: &str, key: &str, text: &str, source: Source) -> Setting {
        let value = serde_saphyr::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
        Setting { section: section.to_lowercase(), key: key.to_lowercase(), value, source }
    }

    /// Parses the value of `--set`: `section.key=value`.
    pub fn from_flag(text: &str) -> Result<Setting, ConfigError> {
        let parts = text.split_once('=').and_then(|(name, value)| Some((name.split_once('.')?, value)));
        let Some(((section, key), value)) = parts else {
            return Err(ConfigError::Flag(passwords::hide(text)));
        };
        let setting = Setting::from_text(section, key, value, Source::Flag(format!("--set {section}.{key}")));
        // Both as it was written and as YAML understands it.
        if passwords::has_password(value) || setting.value.as_str().is_some_and(passwords::has_password) {
            let variable = format!("FARCALL_{}__{}", section.to_uppercase(), key.to_uppercase());
            return Err(ConfigError::Password { section: section.to_owned(), key: key.to_owned(), variable });
        }
        Ok(setting)
    }
}

/// The settings among `variables`: those named `FARCALL_SECTION__KEY`. Farcall's other variables have no double underscore.
pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Vec<Setting> {
    let settings = variables.into_iter().filter_map(|(variable, text)| {
        let (section, key) = variable.strip_prefix("FARCALL_")?.split_once("__")?;
        Some(Setting::from_text(section, key, &text, Source::Variable(variable.clone())))
    });
    settings.collect()
}

/// A configuration, and where each of its values comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: Config,
    document: Map<String, Value>,
    sources: BTreeMap<(String, String), Source>,
}

impl Config {
    /// Reads `file`, which may be absent. Then each of `settings` overrides what was before it.
    pub fn load(file: &Path, settings: impl IntoIterator<Item = Setting>) -> Result<Loaded, ConfigError> {
        let mut loaded = Loaded::default();
        for setting in read(file)?.into_iter().chain(settings) {
            loaded.lay(setting)?;
        }
        let problems = problems::find(&loaded.config);
        if problems.is_empty() { Ok(loaded) } else { Err(ConfigProblems(problems).into()) }
    }
}

impl Default for Loaded {
    fn default() -> Self {
        let config = Config::default();
        let document = match serde_json::to_value(&config) {
            Ok(Value::Object(document)) => document,
            _ => Map::new(),
        };
        Loaded { config, document, sources: BTreeMap::new() }
    }
}

impl Loaded {
    fn lay(&mut self, setting: Setting) -> Result<(), ConfigError> {
        let Setting { section, key, value, source } = setting;
        let name = format!("{section}.{key}");
        if self.document.get(&section).is_none_or(|section| section.get(&key).is_none()) {
            let nearest = self.nearest(&name);
            return Err(ConfigError::Unknown { source_of_it: source, name, nearest });
        }
        let text = match (&value, &source) {
            // `public_host: 10` in the environment may as well be a word that looks like a number.
            (Value::Number(_) | Value::Bool(_), Source::Variable(_) | Source::Flag(_)) => {
                Some(value.to_string())
            }
            _ => None,
        };
        let laid = self.with(&section, &key, value);
        let laid = match (laid, text) {
            (Err(error), Some(text)) => self.with(&section, &key, Value::String(text)).map_err(|_| error),
            (laid, _) => laid,
        };
        match laid {
            Ok((document, config)) => {
                (self.document, self.config) = (document, config);
                self.sources.insert((section, key), source);
                Ok(())
            }
            Err(error) => Err(ConfigError::Value {
                source_of_it: source,
                name,
                error: passwords::hide_in_lines(&error.to_string()),
            }),
        }
    }

    fn with(
        &self,
        section: &str,
        key: &str,
        value: Value,
    ) -> Result<(Map<String, Value>, Config), serde_json::Error> {
        let mut document = self.document.clone();
        if let Some(Value::Object(section)) = document.get_mut(section) {
            section.insert(key.to_owned(), value);
        }
        let config: Config = serde_json::from_value(Value::Object(document.clone()))?;
        // As it was understood: one address becomes a list of one.
        if let Value::Object(understood) = serde_json::to_value(&config)? {
            document = understood;
        }
        Ok((document, config))
    }

    /// The most similar known name, if one is similar enough.
    fn nearest(&self, name: &str) -> Option<String> {
        let known = self.values().into_iter().map(|(section, key, ..)| format!("{section}.{key}"));
        let near = known.map(|known| (distance(name, &known), known)).min()?;
        (near.0 <= 3).then_some(near.1)
    }

    /// Every section, key and value, and where it comes from. Passwords are hidden.
    pub fn values(&self) -> Vec<(&str, &str, Value, Source)> {
        let sections = self.document.iter().filter_map(|(name, section)| Some((name, section.as_object()?)));
        let values = sections.flat_map(|(section, keys)| {
            keys.iter().map(move |(key, value)| {
                let source = self.sources.get(&(section.clone(), key.clone()));
                let value = match value {
                    Value::String(text) => Value::String(passwords::hide(text)),
                    other => other.clone(),
                };
                (section.as_str(), key.as_str(), value, source.cloned().unwrap_or(Source::Default))
            })
        });
        values.collect()
    }
}

/// The settings of a file: sections of keys.
fn read(path: &Path) -> Result<Vec<Setting>, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ConfigError::Read { path: path.to_owned(), error }),
    };
    // It may show values of the file.
    let refused =
        |error: String| ConfigError::File { path: path.to_owned(), error: passwords::hide_in_lines(&error) };
    let document: Value = match text.trim().is_empty() {
        true => Value::Null,
        // An error says the line and the column. It does not show the line, which may be cropped to the end of a password, with
        // nothing left of the URL before it.
        false => serde_saphyr::from_str_with_options(&text, serde_saphyr::options! { with_snippet: false })
            .map_err(|error| refused(error.to_string()))?,
    };
    let sections = match document {
        Value::Null => return Ok(Vec::new()),
        Value::Object(sections) => sections,
        _ => return Err(refused("expected sections of keys, such as `http:`".into())),
    };
    let mut settings = Vec::new();
    for (section, keys) in sections {
        match keys {
            Value::Null => {}
            Value::Object(keys) => settings.extend(keys.into_iter().map(|(key, value)| Setting {
                section: section.clone(),
                key,
                value,
                source: Source::File(path.to_owned()),
            })),
            _ => return Err(refused(format!("{section}: expected keys below it"))),
        }
    }
    Ok(settings)
}

/// How many letters have to be added, dropped or replaced to turn one word into the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, theirs) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *theirs);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::config::LogForm;

    fn load(text: &str, settings: Vec<Setting>) -> Result<Loaded, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("farcall.yaml");
        std::fs::write(&file, text).unwrap();
        Config::load(&file, settings)
    }

    fn environment(pairs: &[(&str, &str)]) -> Vec<Setting> {
        from_environment(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())))
    }

    #[test]
    fn the_later_wins_and_says_where_it_stands() {
        let file = "http:\n  listen: 127.0.0.1:1\namqp:\n  listen: [127.0.0.1:2, '[::1]:2']\n  \
                    public_host: amqp.example.org\n  public_port: 443\n";
        let mut settings = environment(&[
            ("FARCALL_HTTP__LISTEN", "127.0.0.1:3"),
            ("FARCALL_AMQP__LISTEN", "[::1]:4"),
            ("FARCALL_IDENTITY__SITE_NAME", "443"),
            ("FARCALL_HTTP__PUBLIC_NAMES", "[compute.example.org:443]"),
            ("FARCALL_LOG__FORM", "json"),
            ("FARCALL_LOG", "debug"),
            ("PATH", "/bin"),
        ]);
        settings.push(Setting::from_flag("amqp.listen=127.0.0.1:5").unwrap());
        let loaded = load(file, settings).unwrap();
        let config = &loaded.config;
        assert_eq!(config.http.listen.0, ["127.0.0.1:3".parse().unwrap()]);
        assert_eq!(config.amqp.listen.0, ["127.0.0.1:5".parse().unwrap()]);
        assert_eq!(config.identity.site_name, "443", "a word, though it looks like a number");
        assert_eq!(config.amqp.public_port, Some(443));
        assert_eq!(config.http.public_names, ["compute.example.org:443"]);
        assert_eq!(config.log.form, LogForm::Json);
        let source = |name: &str| {
            let values = loaded.values();
            let found = values.iter().find(|(section, key, ..)| format!("{section}.{key}") == name);
            found.map(|(.., source)| source.to_string()).unwrap_or_default()
        };
        assert!(source("amqp.public_port").ends_with("farcall.yaml"));
        assert_eq!(source("http.listen"), "FARCALL_HTTP__LISTEN");
        assert_eq!(source("amqp.listen"), "--set amqp.listen");
        assert_eq!(source("tls.key"), "default");
    }

    #[test]
    fn without_a_file_the_defaults_hold() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::load(&directory.path().join("farcall.yaml"), []).unwrap().config;
        assert_eq!(config, Config::default());
        for empty in ["", "\n# nothing\n", "http:\n"] {
            assert_eq!(load(empty, Vec::new()).unwrap().config, Config::default(), "{empty:?}");
        }
    }

    #[test]
    fn what_does_not_exist_is_refused_with_the_nearest_name() {
        let refused = |text: &str, settings: Vec<Setting>| load(text, settings).unwrap_err().to_string();
        let misspelt = refused("http:\n  lisen: 127.0.0.1:1\n", Vec::new());
        assert!(misspelt.ends_with("there is no http.lisen; did you mean http.listen?"), "{misspelt}");
        let misspelt = refused("", environment(&[("FARCALL_HTP__LISTEN", "127.0.0.1:1")]));
        let expected = "FARCALL_HTP__LISTEN: there is no htp.listen; did you mean http.listen?";
        assert_eq!(misspelt, expected);
        let flag = refused("", vec![Setting::from_flag("weather.tomorrow=fine").unwrap()]);
        assert_eq!(flag, "--set weather.tomorrow: there is no weather.tomorrow");
        assert!(Setting::from_flag("listen").is_err());
    }

    #[test]
    fn a_wrong_value_is_refused_with_where_it_stands() {
        let refused = |text: &str, settings: Vec<Setting>| load(text, settings).unwrap_err().to_string();
        let here = refused("", environment(&[("FARCALL_HTTP__LISTEN", "here")]));
        assert_eq!(
            here,
            "FARCALL_HTTP__LISTEN: http.listen: \"here\" is not an address such as 127.0.0.1:5000"
        );
        assert!(refused("amqp:\n  public_port: 70000\n", Vec::new()).contains("amqp.public_port"));
        assert!(refused("http:\n  listen: 5\n", Vec::new()).contains("expected an address"));
        for text in ["- http\n", "http: 1\n", "http:\n listen: [\n"] {
            assert!(load(text, Vec::new()).is_err(), "{text:?}");
        }
        assert!(refused("tls:\n  key: a\n", Vec::new()).contains("tls.certificate"));
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        for url in
            ["postgres://farcall:it's@db/farcall", "postgres://farcall:S e\"c@db/farcall?password=p@ss"]
        {
            let loaded =
                load("", environment(&[("FARCALL_STORE__URL", &format!("'{}'", url.replace('\'', "''")))]));
            let loaded = loaded.unwrap();
            assert_eq!(loaded.config.store.url.as_deref(), Some(url));
            let shown = format!("{:?} {:?}", loaded.values(), loaded.config);
            assert!(!["it's", "S e", "p@ss"].iter().any(|password| shown.contains(password)), "{shown}");
            let refused = Setting::from_flag(&format!("store.url={url}")).unwrap_err();
            assert!(matches!(refused, ConfigError::Password { .. }), "{refused}");
        }
        let escaped = Setting::from_flag(r#"store.url="postgres:\/\/farcall:secret@db/farcall""#);
        assert!(matches!(escaped, Err(ConfigError::Password { .. })), "{escaped:?}");
        // An error in a long line, with the password near it and the scheme far away.
        let name = "u".repeat(100);
        let line = format!("store: {{url: 'postgres://{name}:secret@db/farcall', urll: [}}\n");
        let error = load(&line, Vec::new()).unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn what_the_documentation_shows_is_right() {
        let page = include_str!("../../../../../docs/operation.md");
        let shown = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let config = load(shown, Vec::new()).unwrap().config;
        assert_eq!(config.http.tls_listen, config.amqp.tls_listen, "one port");
    }

    #[test]
    fn distances() {
        for (one, other, expected) in
            [("", "", 0), ("a", "", 1), ("lisen", "listen", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(one, other), expected);
            assert_eq!(distance(other, one), expected);
        }
    }
}
