//! `_manage --check-state`: whether this program can take the place of a running manager. It changes nothing.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use manager::mapping::{Settings as MappingSettings, watch};

use super::document::ManageDocument;
use super::registration;
use crate::config::{Configuration, ManagerConfig};
use crate::directory::{EndpointDir, unwritable};
use crate::exit::{CommandResult, Failure, status};
use crate::host;

/// Checks the state, and every file that the manager would read.
pub(super) fn check(document: &ManageDocument) -> CommandResult {
    if let Some(state) = &document.state {
        state.check().map_err(|error| Failure::new(status::SOFTWARE, error.to_string()))?;
    }
    let endpoint = EndpointDir::at(document.directory.clone());
    let (config, text) = load(&endpoint)?;
    registration::body(&endpoint, &config, &text)?;
    registration::link_config(&document.registration, &config, document.authorities.clone())?;
    needs(&config)?;
    exposed_files(&config, &endpoint)?;
    let children = || document.state.iter().flat_map(|state| &state.children);
    let recorded = children().filter(|it| it.audit_pipe.is_some()).count();
    recording(recorded, children().count(), audit_log(&config).is_some())
        .map_err(|text| Failure::new(status::CONFIG, text))?;
    if host::changes_user() {
        let path = config.identity_mapping_config_path.as_ref().ok_or_else(|| {
            Failure::new(status::OSFILE, "Identity mapping required.  (Hint: identity_mapping_config_path)")
        })?;
        let settings = MappingSettings { connector: String::new(), gateway: String::new() };
        watch::load(path, &settings).map_err(|error| Failure::new(error.exit_status(), error.to_string()))?;
    }
    Ok(())
}

/// Refuses what would leave running user endpoints without the record that the configuration promises, or that they had.
fn recording(recorded: usize, running: usize, has_log: bool) -> Result<(), String> {
    let unrecorded = running - recorded;
    match has_log {
        false if recorded > 0 => Err(format!(
            "{recorded} user endpoints run whose tasks are recorded, and the configuration has no audit log any more"
        )),
        true if unrecorded > 0 => Err(format!(
            "{unrecorded} user endpoints run whose tasks are not recorded, and the configuration wants an audit log; restart \
             the manager, which ends them"
        )),
        _ => Ok(()),
    }
}

/// Checks that what the configuration needs of this machine is there: the library of PAM, and the audit log.
pub(super) fn needs(config: &ManagerConfig) -> CommandResult {
    if config.pam_service.is_some() && host::changes_user() {
        manager::launch::check_pam().map_err(|error| Failure::new(status::OSFILE, error.to_string()))?;
    }
    audit_log(config).map_or(Ok(()), |path| can_append(path).map_err(|error| unwritable(path, &error)))
}

/// Checks who may change the manager's files. Returns what the administrator should know about them.
pub(super) fn exposed_files(config: &ManagerConfig, endpoint: &EndpointDir) -> Result<Vec<String>, Failure> {
    if !host::changes_user() {
        return Ok(Vec::new());
    }
    let found = config.exposed_files(endpoint);
    match found.refused.first() {
        Some(refused) => Err(Failure::new(status::NOPERM, refused.to_string())),
        None => Ok(found.doubtful.iter().map(ToString::to_string).collect()),
    }
}

/// The audit log of a manager that keeps one.
pub(super) fn audit_log(config: &ManagerConfig) -> Option<&Path> {
    config.audit_log_path.as_deref().filter(|_| config.high_assurance)
}

/// Whether lines can be appended to the file, or it can be created. Writes nothing.
fn can_append(path: &Path) -> io::Result<()> {
    // A pipe without a reader must not block.
    match OpenOptions::new().append(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let wanted = nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK;
            Ok(nix::unistd::access(directory, wanted)?)
        }
        other => other.map(drop),
    }
}

/// The configuration as it is now.
pub(super) fn load(endpoint: &EndpointDir) -> Result<(ManagerConfig, String), Failure> {
    match Configuration::load(endpoint)? {
        (Configuration::Manager(config), text) => Ok((*config, text)),
        (Configuration::Tasks(_), _) => Err(Failure::new(
            status::CONFIG,
            format!("{}: it is no longer the configuration of a manager", endpoint.config().display()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_goes_on_only_as_it_was_recorded() {
        for (recorded, running, has_log, fits) in [
            (0, 0, true, true),
            (0, 3, false, true),
            (3, 3, true, true),
            (3, 3, false, false),
            (0, 3, true, false),
            (2, 3, true, false),
        ] {
            let answer = recording(recorded, running, has_log);
            assert_eq!(answer.is_ok(), fits, "{recorded} {running} {has_log}: {answer:?}");
        }
    }

    #[test]
    fn whether_the_audit_log_can_be_written_is_known_without_writing() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("audit.log");
        can_append(&path).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "before\n").unwrap();
        can_append(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\n");
        assert!(can_append(&scratch.path().join("missing/audit.log")).is_err());
        assert!(can_append(scratch.path()).is_err(), "a directory");
        let pipe = scratch.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(can_append(&pipe).is_err(), "nobody reads it");
    }
}
