//! `_manage --check-state`: whether this program can take the place of a running manager. It changes nothing.

use manager::mapping::{Settings as MappingSettings, watch};

use super::document::ManageDocument;
use super::registration;
use crate::config::{Configuration, ManagerConfig};
use crate::directory::EndpointDir;
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
    if host::changes_user() {
        let path = config.identity_mapping_config_path.as_ref().ok_or_else(|| {
            Failure::new(status::OSFILE, "Identity mapping required.  (Hint: identity_mapping_config_path)")
        })?;
        let settings = MappingSettings { connector: String::new(), gateway: String::new() };
        watch::load(path, &settings).map_err(|error| Failure::new(error.exit_status(), error.to_string()))?;
    }
    Ok(())
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
