//! From the command `start` to the running manager: checks, login, registration, `exec`.

use std::convert::Infallible;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use daemon::stop::DeferredSignals;
use manager::mapping::{Settings as MappingSettings, watch};
use nix::sys::stat::{Mode, umask};
use wire::{EndpointId, IdentityId};

use super::document::ManageDocument;
use super::{check, registration};
use crate::account::{Account, AccountSettings, credentials};
use crate::config::ManagerConfig;
use crate::console::{complain, note, say};
use crate::directory::{Base, EndpointDir, unwritable};
use crate::exit::{CommandResult, Failure, block_on, status};
use crate::start::{
    ClientIdentity, Request, inherit, keep_only, log_in_once, memory_file, refuse_if_active, register,
};
use crate::{environment, host, title};

/// Starts a manager; returns only if it could not be started.
pub(crate) fn begin(
    base: &Base,
    endpoint: &EndpointDir,
    config: &ManagerConfig,
    text: &str,
    request: &Request,
    report: Option<OwnedFd>,
) -> CommandResult {
    note("Endpoint Manager initialization");
    // Files written from here on belong to the user alone.
    umask(Mode::from_bits_truncate(0o077));
    refuse_if_active(endpoint, &config.common)?;
    if let Some(report) = &report {
        inherit(report, false).map_err(Failure::error)?;
        // A new session: signals of the terminal must not reach the manager. This fails only for a session's leader.
        let _ = nix::unistd::setsid();
    }
    check_mapping(config)?;
    check::needs(config)?;
    check::exposed_files(config, endpoint)?.iter().for_each(complain);
    let body = registration::body(endpoint, config, text)?;
    let settings =
        AccountSettings { endpoint: Some((endpoint, config.common.service())), ..AccountSettings::of(base) };
    if report.is_none() {
        log_in_once(&settings)?;
    }
    let signals = DeferredSignals::begin().map_err(Failure::error)?;
    let known = endpoint.registered_id().or(request.endpoint_uuid);
    let (registration, owners) = block_on(async {
        let registering = async {
            let account = settings.account().await?;
            let owners = if host::changes_user() { None } else { Some(owners(&account).await?) };
            refuse_if_active(endpoint, &config.common)?;
            let registration = register(&account, &body, known).await?;
            crate::account::remember(endpoint, account.service.address())
                .map_err(|error| unwritable(endpoint.path(), &error))?;
            Ok((registration, owners))
        };
        tokio::select! {
            biased;
            received = signals.received() => {
                Err(received.map_or_else(Failure::error, |()| Failure::new(status::GENERIC, "Aborted!")))
            }
            registered = registering => registered,
        }
    })?;
    registration::check(&registration, known)?;
    let id = registration.endpoint_id;
    endpoint.remember_id(id).map_err(|error| unwritable(&endpoint.path().join("endpoint.json"), &error))?;
    for warning in &registration.warnings {
        say(warning);
    }
    let command_line: Vec<_> =
        environment::arguments().iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let document = ManageDocument {
        base: base.path().to_owned(),
        directory: endpoint.path().to_owned(),
        config: text.to_owned(),
        registration,
        registered: body,
        unregistered: false,
        program: environment::path_as_started(request.started_as.as_deref()).map_err(Failure::error)?,
        command_line: command_line.join(" "),
        debug: config.common.debug || request.debug,
        console: request.log_to_console && report.is_none(),
        colours: request.colours(config.common.debug),
        authorities: settings.trust()?.pem,
        owners,
        client: credentials()?.map(|(credentials, _)| ClientIdentity {
            id: credentials.client_id,
            secret: credentials.client_secret,
        }),
        report_fd: report.as_ref().map(|report| report.as_raw_fd()),
        open_files: None,
        not_executed: None,
        state: None,
    };
    if let Some(report) = &report {
        inherit(report, true).map_err(Failure::error)?;
    }
    keep_only(document.report_fd);
    let Err(error) = execute(&document, config);
    Err(Failure::new(status::SOFTWARE, format!("Error: {error}")))
}

/// Executes the running manager in this process.
pub(super) fn execute(document: &ManageDocument, config: &ManagerConfig) -> std::io::Result<Infallible> {
    execute_as(&document.program, document, config)
}

/// Executes it from this file.
pub(super) fn execute_as(
    program: &Path,
    document: &ManageDocument,
    config: &ManagerConfig,
) -> std::io::Result<Infallible> {
    let bytes = serde_json::to_vec(document)?;
    let input = memory_file(&bytes)?;
    let name = document.directory.file_name().unwrap_or_default().to_string_lossy();
    let title = manager_title(
        document.registration.endpoint_id,
        &name,
        config.common.environment.as_deref(),
        &document.command_line,
    );
    Err(Command::new(program)
        .arg0(title)
        .arg("_manage")
        .arg(title::room())
        .stdin(input)
        .current_dir(&document.directory)
        .exec())
}

/// The title of the process in process lists.
fn manager_title(id: EndpointId, name: &str, environment: Option<&str>, command_line: &str) -> String {
    let environment = environment.map(|name| format!(" - {name}")).unwrap_or_default();
    format!("Globus Compute Endpoint *({id}, {name}){environment} [{command_line}]").replace('\0', " ")
}

/// Checks the identity mapping, and whether it can be followed, before anything is registered.
fn check_mapping(config: &ManagerConfig) -> CommandResult {
    let path = config.identity_mapping_config_path.as_ref();
    if !host::changes_user() {
        if let Some(path) = path {
            complain(mapping_ignored(path));
        }
        return Ok(());
    }
    if host::is_bound_root() {
        return Err(Failure::new(
            status::NOPERM,
            "Error: this process is root without the capabilities CAP_SETUID and CAP_SETGID, so it can't start user \
             endpoints as their users. Give it both, or start the manager as an ordinary user",
        ));
    }
    let Some(path) = path else {
        return Err(Failure::new(
            status::OSFILE,
            "Identity mapping required.  (Hint: identity_mapping_config_path)",
        ));
    };
    // The id does not matter to this check: only external programs are told it, and none is run.
    let settings = MappingSettings { connector: String::new(), gateway: String::new() };
    match watch::load(path, &settings) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(
            error.exit_status(),
            format!("Unable to read identity mapping configuration: {error}"),
        )),
    }
}

/// Warns that a mapping has no effect.
pub(super) fn mapping_ignored(path: &Path) -> String {
    format!(
        "`identity_mapping_config_path` specified, but process is not privileged (e.g., not `root`) -- identity mapping \
         configuration will be ignored; only requests from identities that match the identity that registered this \
         endpoint will be honored.\n    (ignored) '{}'",
        path.display()
    )
}

/// The linked identities of the person who registers.
async fn owners(account: &Account) -> Result<Vec<IdentityId>, Failure> {
    let undetermined = |problem: String| {
        Failure::new(
            status::NOPERM,
            format!("{problem}\n    Failed to determine identity set; try `whoami` command?"),
        )
    };
    let failed = |error| undetermined(account.failed(error).text);
    let token = account.service.auth_token().await.map_err(failed)?;
    let user = account.service.auth().user_info(&token).await.map_err(failed)?;
    let linked = user.identity_set.iter().map(|linked| linked.sub.as_str());
    let owners: Vec<IdentityId> =
        linked.chain([user.sub.as_str()]).filter_map(|id| id.parse().ok()).collect();
    if owners.is_empty() {
        return Err(undetermined("(LookupError) No authorized identities found".to_owned()));
    }
    Ok(owners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles() {
        let id: EndpointId = "e58b2276-b397-4246-b1a2-607d8e3b5838".parse().unwrap();
        assert_eq!(
            manager_title(id, "mep", Some("local"), "globus-compute-endpoint start mep"),
            "Globus Compute Endpoint *(e58b2276-b397-4246-b1a2-607d8e3b5838, mep) - local [globus-compute-endpoint start \
             mep]"
        );
    }
}
