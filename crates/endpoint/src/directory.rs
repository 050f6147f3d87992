//! The directories and files of endpoints.
//!
//! ```text
//! ~/.globus_compute/          the base: -c, else GLOBUS_COMPUTE_USER_DIR
//!   storage.db                tokens, shared with the stock SDK; for a service that is named by its address, in
//!                             ~/.farcall/HOST instead, unless the base was chosen explicitly
//!   NAME/                     one endpoint
//!     config.yaml             its configuration
//!     user_config_template.yaml.j2, user_config_schema.json, user_environment.yaml
//!                             of a manager: what its user endpoints are configured with
//!     endpoint.json           the id it is registered under
//!     daemon.pid              the process that runs it
//!     daemon.host             which process that is: its host, its boot, its start
//!     service.json            where it is registered
//!     failure.json            why its last run failed, if it did
//!     teardown.owed           its `endpoint_teardown`, until that has run
//!     endpoint.log
//!     journal/                which tasks began and ended
//!     unacked_results/        results the broker has not confirmed
//! ```

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use client::service_address::TokenLocation;
use serde::{Deserialize, Serialize};
use wire::EndpointId;

use crate::environment;
use crate::exit::{Failure, status};

/// The directory of all endpoints of a user.
#[derive(Clone, Debug)]
pub(crate) struct Base(PathBuf);

/// One endpoint's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointDir {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Registered {
    endpoint_id: EndpointId,
}

/// The name of a manager's template.
const TEMPLATE: &str = "user_config_template.yaml.j2";

fn home() -> Result<PathBuf, Failure> {
    let home = environment::variable("HOME");
    home.map(PathBuf::from).ok_or_else(|| Failure::error("no home directory: set HOME"))
}

fn default_base() -> Result<PathBuf, Failure> {
    Ok(home()?.join(".globus_compute"))
}

impl Base {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The directory given, else the one the environment names, else the usual one.
    pub(crate) fn choose(given: Option<PathBuf>) -> Result<Self, Failure> {
        let chosen = given
            .or_else(|| environment::variable("GLOBUS_COMPUTE_USER_DIR").map(PathBuf::from))
            .or_else(|| default_base().ok())
            .ok_or_else(|| Failure::error("no home directory: set HOME, or say where with --config-dir"))?;
        std::path::absolute(&chosen)
            .map(Self)
            .map_err(|error| Failure::error(format!("{}: {error}", chosen.display())))
    }

    /// The directory of an endpoint of this name, whether it exists or not.
    pub(crate) fn named(&self, name: &str) -> EndpointDir {
        EndpointDir { path: self.0.join(name) }
    }

    /// Whether it is the default directory.
    pub(crate) fn is_default(&self) -> bool {
        default_base().is_ok_and(|default| default == self.0)
    }

    /// The file of tokens, shared with the stock SDK, and the name of the login in it.
    pub(crate) fn token_store<'l>(&self, login: &'l TokenLocation) -> Result<(PathBuf, &'l str), Failure> {
        let (directory, name) = match login {
            TokenLocation::EndpointsDirectory(name) => (self.0.clone(), name),
            TokenLocation::ServiceDirectory { directory, name } => (home()?.join(directory), name),
        };
        Ok((directory.join("storage.db"), name))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Creates the base itself, private to its owner.
    pub(crate) fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// Every directory with a configuration, sorted by name.
    pub(crate) fn endpoints(&self) -> io::Result<Vec<EndpointDir>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            let endpoint = EndpointDir { path: entry?.path() };
            if endpoint.is_configured() {
                found.push(endpoint);
            }
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    /// Finds an endpoint by its name, or by the id it is registered under.
    pub(crate) fn find(&self, name_or_id: &str) -> Result<EndpointDir, Failure> {
        let (found, place) = match name_or_id.parse::<EndpointId>() {
            Ok(id) => {
                let known = self.endpoints().unwrap_or_default().into_iter();
                (
                    known.into_iter().find(|endpoint| endpoint.registered_id() == Some(id)),
                    format!("with ID {id}"),
                )
            }
            Err(_) => {
                let endpoint = self.named(name_or_id);
                let place = format!("at {}", endpoint.path.display());
                (endpoint.path.is_dir().then_some(endpoint), place)
            }
        };
        let name = if name_or_id.parse::<EndpointId>().is_ok() { "<ENDPOINT_NAME>" } else { name_or_id };
        found.ok_or_else(|| {
            Failure::error(format!(
                "\nThere is no endpoint configuration on this machine {place}\n\
                 \n\
                 1. Please create a configuration template with:\n    \
                 globus-compute-endpoint configure {name}\n\
                 2. Update the configuration\n\
                 3. Start the endpoint\n"
            ))
        })
    }
}

impl EndpointDir {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The endpoint's name: that of its directory.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path.join("config.yaml")
    }

    pub(crate) fn config_py(&self) -> PathBuf {
        self.path.join("config.py")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.path.join("daemon.pid")
    }

    /// Identifies the process of the PID file: PIDs are reused, and hosts share home directories.
    pub(crate) fn host_file(&self) -> PathBuf {
        self.path.join("daemon.host")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("endpoint.log")
    }

    /// The template of a manager's user endpoints. In 2.19 its name ends in `.yaml`.
    pub(crate) fn user_config_template(&self) -> PathBuf {
        let path = self.path.join(TEMPLATE);
        let older = path.with_extension("");
        if !path.exists() && older.exists() { older } else { path }
    }

    pub(crate) fn user_config_schema(&self) -> PathBuf {
        self.path.join("user_config_schema.json")
    }

    /// The environment of a manager's user endpoints.
    pub(crate) fn user_environment(&self) -> PathBuf {
        self.path.join("user_environment.yaml")
    }

    /// Whether a template lies in the directory.
    pub(crate) fn has_template(&self) -> bool {
        self.user_config_template().is_file()
    }

    /// Why the last run failed.
    pub(crate) fn failure_file(&self) -> PathBuf {
        self.path.join("failure.json")
    }

    /// The `endpoint_teardown` that is still to be run.
    pub(crate) fn owed_teardown(&self) -> PathBuf {
        self.path.join("teardown.owed")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.path.join("unacked_results")
    }

    pub(crate) fn is_configured(&self) -> bool {
        self.config().is_file() || self.config_py().is_file() || self.has_template()
    }

    /// The id in `endpoint.json`; none if the file is missing or can't be read.
    pub(crate) fn registered_id(&self) -> Option<EndpointId> {
        let text = fs::read(self.path.join("endpoint.json")).ok()?;
        serde_json::from_slice::<Registered>(&text).ok().map(|registered| registered.endpoint_id)
    }

    /// Writes `endpoint.json`, unless it contains this id already. Only its owner may read it.
    pub(crate) fn remember_id(&self, endpoint_id: EndpointId) -> io::Result<()> {
        if self.registered_id() == Some(endpoint_id) {
            return Ok(());
        }
        let text = format!("{{\"endpoint_id\": \"{endpoint_id}\"}}");
        write_private(&self.path.join("endpoint.json"), text.as_bytes())
    }

    /// Creates the directory, which only its owner may enter; false if it exists.
    pub(crate) fn create(&self) -> io::Result<bool> {
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Replaces a file atomically; only its owner may read it.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let draft = path.with_file_name(name);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

/// Checks the name of a new endpoint, with upstream's error messages.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let refuse = |why: String| Err(Failure::error(format!("Invalid endpoint name: {why}")));
    if name.parse::<EndpointId>().is_ok() {
        return Err(Failure::new(
            2,
            format!(
                "Usage: globus-compute-endpoint configure [OPTIONS] [NAME]\n\nError: Invalid value for '[NAME]': \
                 'globus-compute-endpoint configure' requires an endpoint name that is not a UUID (got: '{name}')"
            ),
        ));
    }
    let length = name.chars().count();
    if length == 0 {
        return refuse("Received no endpoint name".to_owned());
    }
    if length > 128 {
        return refuse(format!("must be less than 129 characters (length: {length})"));
    }
    let last = name.rsplit('/').next().unwrap_or_default();
    let reduced: String = last
        .trim_start_matches('.')
        .chars()
        .filter(|letter| !letter.is_whitespace() && !matches!(letter, '\\' | '\'' | '"'))
        .collect();
    let shown =
        |why: &str| format!("{why}\n  Requested:  {name}\n  Reduced to: {reduced} (*potentially* valid)");
    if name.contains('/') || name.contains("..") {
        return refuse(shown("no '..' or '/' characters"));
    }
    if reduced != name {
        return refuse(shown("no whitespace (spaces, newlines, tabs), slashes, or prefixed '.'"));
    }
    Ok(())
}

/// A failure to read or write below an endpoint's directory.
pub(crate) fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(status::CANTCREAT, format!("Error: {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_upstream_checks_them() {
        for good in ["ep1", "my_first_endpoint", "a.b", "Ü-1", &"a".repeat(128)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", " ", "a b", ".x", "a\\b", "a'b", "a\"b", "a\n", &"a".repeat(129)] {
            assert_eq!(check_name(bad).unwrap_err().status, 1, "{bad:?}");
        }
        assert_eq!(
            check_name("a/b").unwrap_err().text,
            "Error: Invalid endpoint name: no '..' or '/' characters\n  Requested:  a/b\n  Reduced to: b (*potentially* valid)"
        );
        assert_eq!(check_name("e58b2276-b397-4246-b1a2-607d8e3b5838").unwrap_err().status, 2);
    }

    #[test]
    fn an_endpoint_is_found_by_name_and_by_id() {
        let scratch = tempfile::tempdir().unwrap();
        let base = Base(scratch.path().to_owned());
        let endpoint = base.named("one");
        assert!(endpoint.create().unwrap());
        assert!(!endpoint.create().unwrap(), "a second time it is not new");
        fs::write(endpoint.config(), "").unwrap();
        let id: EndpointId = "e58b2276-b397-4246-b1a2-607d8e3b5838".parse().unwrap();
        assert_eq!(endpoint.registered_id(), None);
        endpoint.remember_id(id).unwrap();
        assert_eq!(
            fs::read_to_string(endpoint.path().join("endpoint.json")).unwrap(),
            format!("{{\"endpoint_id\": \"{id}\"}}")
        );
        assert_eq!(base.find("one").unwrap(), endpoint);
        assert_eq!(base.find(&id.to_string()).unwrap(), endpoint);
        assert_eq!(base.endpoints().unwrap(), [endpoint]);
        let missing = base.find("two").unwrap_err();
        assert!(
            missing.text.starts_with("Error: \nThere is no endpoint configuration on this machine at /"),
            "{missing:?}"
        );
        base.find("00000000-0000-4000-8000-000000000000").unwrap_err();
    }
}
