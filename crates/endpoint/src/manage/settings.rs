//! From a manager's configuration to the settings of its decisions.

use std::path::PathBuf;
use std::time::Duration;

use manager::core::{LaunchSettings, Settings};
use manager::launch::ManagerFiles;
use wire::{EndpointId, IdentityId};

use crate::account::CLIENT_IDENTITY;
use crate::config::ManagerConfig;
use crate::directory::EndpointDir;
use crate::{environment, host};

/// How long a start may take: longer than its slow steps (looking up the user, PAM, rendering) take together.
const LAUNCH_TIME: Duration = Duration::from_secs(120);

/// The settings of the manager in this directory.
pub(super) fn settings(
    id: EndpointId,
    endpoint: &EndpointDir,
    config: &ManagerConfig,
    owners: Option<&[IdentityId]>,
    program_directory: PathBuf,
) -> Settings {
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    Settings {
        manager: id,
        own_user: host::user_name(),
        owners: owners.map(|owners| owners.iter().copied().collect()),
        grace_period: config.grace_period,
        starts_at_a_time: count(config.max_concurrent_starts),
        launch_time: LAUNCH_TIME,
        most_user_endpoints: count(config.max_user_endpoints),
        launch: LaunchSettings {
            files: ManagerFiles {
                template: config.template(endpoint),
                schema: config.schema(endpoint),
                environment: endpoint.user_environment(),
                program_directory,
            },
            parent_config: config.resolved(),
            allowed_functions: config.common.allowed_functions.clone(),
            high_assurance: config.high_assurance,
            pam_service: config.pam_service.clone(),
            inherited_environment: if owners.is_some() { inherited() } else { Vec::new() },
        },
    }
}

/// The environment for user endpoints of a personal manager: all but the client identity, which is the manager's.
fn inherited() -> Vec<(String, String)> {
    environment::variables()
        .into_iter()
        .filter(|(name, _)| !CLIENT_IDENTITY.contains(&name.as_str()))
        .collect()
}
