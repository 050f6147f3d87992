//! The configuration of the site's identity providers: the section `identity`.
//!
//! ```yaml
//! identity:
//!   site_name: Farcall at Example University
//!   upstreams:
//!     - name: campus                        # part of URLs: /v2/web/upstream/campus/callback
//!       title: Example University           # the button says: Sign in with …
//!       issuer: https://idp.example.edu
//!       client_id: farcall
//!       client_secret_file: /etc/farcall/campus-secret
//!       domains: [example.edu]              # the only domains whose identities it may vouch for
//!       username_claim: preferred_username
//!       accounts: open                      # or known: only people whom an administrator has added
//! ```

use std::collections::HashSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The domain of client identities, for which no upstream may vouch.
const CLIENTS: &str = "clients.auth.globus.org";

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The site's name for its service.
    pub site_name: String,
    pub upstreams: Vec<UpstreamSettings>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { site_name: "Farcall".to_owned(), upstreams: Vec::new() }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    /// Lower-case letters, digits and hyphens.
    pub name: String,
    /// Its name for people.
    pub title: String,
    pub issuer: String,
    pub client_id: String,
    /// In a file of its own, because the configuration is printed and readable by more people.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    #[serde(default = "usual_scopes")]
    pub scopes: Vec<String>,
    /// The claim that names the person: with a domain, or without, which is then the first of `domains`.
    #[serde(default = "usual_claim")]
    pub username_claim: String,
    /// The domains whose identities it may vouch for.
    pub domains: Vec<String>,
    #[serde(default)]
    pub accounts: Accounts,
}

/// Who may sign in.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Accounts {
    /// Anybody for whom the upstream vouches; identities are added at the first sign-in.
    #[default]
    Open,
    /// Only people whom an administrator has added.
    Known,
}

fn usual_scopes() -> Vec<String> {
    ["openid", "profile", "email"].map(str::to_owned).to_vec()
}

fn usual_claim() -> String {
    "preferred_username".to_owned()
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("identity.upstreams: {0:?} is no name: lower-case letters, digits and hyphens")]
    Name(String),
    #[error("identity.upstreams: {0} is there twice")]
    Twice(String),
    #[error(
        "identity.upstreams: {name}: {issuer} is no issuer: an https URL without query (http only on this machine)"
    )]
    Issuer { name: String, issuer: String },
    #[error("identity.upstreams: {name}: {domain:?} is no domain that it could vouch for")]
    Domain { name: String, domain: String },
    #[error("identity.upstreams: {name}: it vouches for no domain, so nobody could sign in")]
    NoDomain { name: String },
    #[error(
        "identity.upstreams: the domain {domain} belongs to {first} and to {second}: only one may vouch for it"
    )]
    Shared { domain: String, first: String, second: String },
    #[error("identity.upstreams: {name}: cannot read {path}: {error}")]
    Secret { name: String, path: PathBuf, error: std::io::Error },
}

impl Settings {
    /// Refuses settings that cannot work, or that would let one upstream vouch for another's people.
    pub fn check(&self) -> Result<(), SettingsError> {
        let mut names = HashSet::new();
        let mut owners: Vec<(String, &str)> = Vec::new();
        for upstream in &self.upstreams {
            let name = &upstream.name;
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty() || name.len() > 40 || !name.chars().all(plain) {
                return Err(SettingsError::Name(name.clone()));
            }
            if !names.insert(name) {
                return Err(SettingsError::Twice(name.clone()));
            }
            if !is_safe(&upstream.issuer) || upstream.issuer.contains(['?', '#']) {
                return Err(SettingsError::Issuer { name: name.clone(), issuer: upstream.issuer.clone() });
            }
            if upstream.domains.is_empty() {
                return Err(SettingsError::NoDomain { name: name.clone() });
            }
            for domain in &upstream.domains {
                let lower = domain.to_lowercase();
                let known = crate::people::username(&format!("x@{lower}"));
                if known.is_none() || lower == CLIENTS {
                    return Err(SettingsError::Domain { name: name.clone(), domain: domain.clone() });
                }
                if let Some((_, first)) = owners.iter().find(|(owned, _)| *owned == lower) {
                    let (first, second) = (first.to_string(), name.clone());
                    return Err(SettingsError::Shared { domain: lower, first, second });
                }
                owners.push((lower, name));
            }
        }
        Ok(())
    }
}

impl UpstreamSettings {
    /// Reads the secret from its file.
    pub fn secret(&self) -> Result<Option<String>, SettingsError> {
        let Some(path) = &self.client_secret_file else { return Ok(None) };
        match std::fs::read_to_string(path) {
            Ok(secret) => Ok(Some(secret.trim().to_owned())),
            Err(error) => Err(SettingsError::Secret { name: self.name.clone(), path: path.clone(), error }),
        }
    }
}

/// Whether secrets may be sent to `url`: over https, or without leaving this machine.
pub fn is_safe(url: &str) -> bool {
    match reqwest::Url::parse(url) {
        Ok(url) => match url.scheme() {
            "https" => url.has_host() && url.username().is_empty(),
            "http" => matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost")),
            _ => false,
        },
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(name: &str, issuer: &str, domains: &[&str]) -> UpstreamSettings {
        UpstreamSettings {
            name: name.to_owned(),
            title: name.to_owned(),
            issuer: issuer.to_owned(),
            client_id: "farcall".to_owned(),
            client_secret_file: None,
            scopes: usual_scopes(),
            username_claim: usual_claim(),
            domains: domains.iter().map(|domain| domain.to_string()).collect(),
            accounts: Accounts::Open,
        }
    }

    #[test]
    fn what_could_not_work_or_would_be_unsafe_is_refused() {
        let idp = "https://idp.example";
        for (what, upstreams, said) in [
            ("good", vec![upstream("a", idp, &["a.example"]), upstream("b", idp, &["b.example"])], None),
            ("local", vec![upstream("a", "http://127.0.0.1:80/x", &["a.example"])], None),
            ("name", vec![upstream("a/b", idp, &["a.example"])], Some("no name")),
            ("twice", vec![upstream("a", idp, &["a.x"]), upstream("a", idp, &["b.x"])], Some("twice")),
            ("http", vec![upstream("a", "http://idp.example", &["a.example"])], Some("no issuer")),
            ("trick", vec![upstream("a", "http://localhost.evil.example", &["a.x"])], Some("no issuer")),
            ("query", vec![upstream("a", "https://idp.example?x", &["a.example"])], Some("no issuer")),
            ("no domain", vec![upstream("a", idp, &[])], Some("nobody")),
            ("star", vec![upstream("a", idp, &["*"])], Some("no domain")),
            ("clients", vec![upstream("a", idp, &["Clients.auth.globus.org"])], Some("no domain")),
            ("shared", vec![upstream("a", idp, &["x.y"]), upstream("b", idp, &["X.Y"])], Some("only one")),
        ] {
            let settings = Settings { upstreams, ..Settings::default() };
            match (settings.check(), said) {
                (Ok(()), None) => {}
                (Err(error), Some(said)) => assert!(error.to_string().contains(said), "{what}: {error}"),
                other => panic!("{what}: {other:?}"),
            }
        }
    }
}
