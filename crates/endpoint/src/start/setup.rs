//! Sets an endpoint up in the process that will run it: scripts, checks, registration, and the `exec` of the running endpoint.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use daemon::stop::DeferredSignals;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wire::queue::Registration;
use wire::{EndpointId, FunctionId};

use super::background::{self, inherit, inherit_number};
use super::long_set_up::{self, Reporting};
use super::{Launch, announced_parent, refuse_if_active, register, registration, script, teardown};
use crate::account::{AccountSettings, credentials};
use crate::config::{BadConfig, Config};
use crate::console::{complain, say};
use crate::directory::unwritable;
use crate::exit::{CommandResult, Failure, block_on, status};

/// What the running process gets on its standard input, so that no secret is in a command line or a file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunDocument {
    pub(crate) directory: PathBuf,
    pub(crate) registration: Registration,
    /// The configuration as it was read.
    pub(crate) config: String,
    /// From the manager, for heartbeats.
    pub(crate) ep_info: Map<String, Value>,
    /// From the manager, instead of the configuration's list.
    pub(crate) allowed_functions: Option<Vec<FunctionId>>,
    /// Stop when this process is no longer the parent.
    pub(crate) parent: Option<i32>,
    /// The memory file in which a manager writes new credentials, and the key they are encrypted with.
    pub(crate) renewed_credentials: Option<(i32, String)>,
    /// The pipe to which audit records are written, from a high-assurance manager.
    pub(crate) audit_pipe: Option<i32>,
    /// The configuration comes from a manager.
    pub(crate) rendered: bool,
    /// The descriptor on which a `start` waits for the report.
    pub(crate) report_fd: Option<i32>,
    /// Log more; log to the console, too.
    pub(crate) debug: bool,
    pub(crate) console: bool,
    /// Colour the console's lines, if it is a terminal.
    pub(crate) colours: bool,
    /// Authorities to trust in addition to the system's, as PEM.
    pub(crate) authorities: Option<String>,
    /// The directory of endpoints, for those that can register again: not with credentials from a manager.
    pub(crate) registers: Option<PathBuf>,
    /// The client identity for that, unless a stored login is used.
    pub(crate) client: Option<ClientIdentity>,
}

impl RunDocument {
    /// Reads the configuration; errors name it `file`.
    pub(crate) fn read_config(&self, file: &str) -> Result<Config, BadConfig> {
        if self.rendered {
            Config::read_rendered(file, &self.config)
        } else {
            Config::read(file, &self.config)
        }
    }
}

/// The credentials of a client identity. The `Debug` form leaves the secret out.
#[derive(Serialize, Deserialize)]
pub(crate) struct ClientIdentity {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.id)
    }
}

/// Sets the endpoint up and becomes the running process; returns only if that fails.
pub(super) fn set_up(launch: Launch, report: Option<OwnedFd>) -> CommandResult {
    // Files written from here on belong to the user alone.
    umask(Mode::from_bits_truncate(0o077));
    if let Some(report) = &report {
        // The waiting `start` reads this pipe to its end; the scripts must not inherit it.
        inherit(report, false).map_err(Failure::error)?;
        // A new session: signals of the terminal must not reach the endpoint. This fails only for a session's leader.
        let _ = nix::unistd::setsid();
    }
    let Launch { config, request, endpoint, .. } = &launch;
    let announced = launch.document.as_ref().and_then(announced_parent);
    let parent =
        request.die_with_parent.then(|| announced.unwrap_or_else(|| nix::unistd::getppid().as_raw()));
    teardown::run_owed(endpoint, parent);
    if let Some(script) = &config.endpoint_setup {
        match launch.document.as_ref().and_then(|document| document.amqp_creds.clone()) {
            Some(credentials) => {
                let settings = AccountSettings {
                    endpoint: Some((&launch.endpoint, config.common.service())),
                    ..AccountSettings::of(&launch.base)
                };
                let authorities = settings.trust()?.pem;
                let port = config.common.amqp_port;
                long_set_up::run(script, parent, Reporting { credentials, port, authorities })?;
            }
            None => script::run("endpoint_setup", script, parent)?,
        }
    }
    let owed = teardown::owe(endpoint, config);
    // A signal between the registration and the `exec` must not be lost, nor end the process without `endpoint_teardown`.
    let signals = DeferredSignals::begin().map_err(Failure::error);
    let ended = owed
        .and_then(|()| signals.as_ref().map_err(Failure::clone))
        .and_then(|signals| register_and_exec(&launch, report.as_ref(), parent, signals));
    let Err(failure) = ended;
    // A failure after `endpoint_setup` undoes what that did.
    if let Err(also) = teardown::tear_down(&launch.endpoint, &launch.config, parent) {
        complain(also.text);
    }
    Err(failure)
}

/// The steps after `endpoint_setup`; returns only a failure.
fn register_and_exec(
    launch: &Launch,
    report: Option<&OwnedFd>,
    parent: Option<i32>,
    signals: &DeferredSignals,
) -> Result<Infallible, Failure> {
    let Launch { base, endpoint, config, text, document, request } = launch;
    for path in [endpoint.spool(), endpoint.journal()] {
        can_be_a_directory(&path).map_err(|error| unwritable(&path, &error))?;
    }
    let known = endpoint.registered_id().or(request.endpoint_uuid);
    let settings =
        AccountSettings { endpoint: Some((endpoint, config.common.service())), ..AccountSettings::of(base) };
    let given = document.as_ref().and_then(|document| document.amqp_creds.clone());
    let registers = given.is_none().then(|| base.path().to_owned());
    let registration = match given {
        Some(registration) => registration,
        None => block_on(async {
            let registering = async {
                let account = settings.account().await?;
                // `endpoint_setup` may have taken long enough for another start to be done.
                refuse_if_active(endpoint, &config.common)?;
                let registration =
                    register(&account, &registration::body(endpoint, config, text), known).await?;
                crate::account::remember(endpoint, account.service.address())
                    .map_err(|error| unwritable(endpoint.path(), &error))?;
                Ok(registration)
            };
            tokio::select! {
                biased;
                // A stop during the registration leaves everything as it was.
                received = signals.received() => {
                    Err(received.map_or_else(Failure::error, |()| Failure::new(status::GENERIC, "Aborted!")))
                }
                registration = registering => registration,
            }
        })?,
    };
    registration::check(&registration, known)?;
    let id = registration.endpoint_id;
    endpoint.remember_id(id).map_err(|error| unwritable(&endpoint.path().join("endpoint.json"), &error))?;
    for warning in &registration.warnings {
        say(warning);
    }
    say(format_args!("Starting endpoint; registered ID: {id}"));
    let given_by_manager = document.as_ref();
    let document = RunDocument {
        directory: endpoint.path().to_owned(),
        registration,
        config: text.clone(),
        ep_info: document
            .as_ref()
            .and_then(|document| document.ep_info.as_ref())
            .map(wire::json::FreeForm::to_object)
            .unwrap_or_default(),
        allowed_functions: document.as_ref().and_then(|document| document.allowed_functions.clone()),
        parent,
        renewed_credentials: given_by_manager.and_then(|it| Some((it.mem_fd?, it.enckey.clone()?))),
        audit_pipe: given_by_manager.and_then(|it| it.audit_fd),
        rendered: given_by_manager.is_some_and(|it| it.config.is_some()),
        report_fd: report.map(AsRawFd::as_raw_fd),
        debug: config.common.debug || request.debug,
        console: request.log_to_console && report.is_none(),
        colours: request.colours(config.common.debug),
        authorities: settings.trust()?.pem,
        registers,
        client: credentials()?.map(|(credentials, _)| ClientIdentity {
            id: credentials.client_id,
            secret: credentials.client_secret,
        }),
    };
    let title = title(id, &endpoint.name(), config.common.environment.as_deref());
    if let Some(report) = report {
        inherit(report, true).map_err(Failure::error)?;
    }
    let error = become_runner(&document, &title, config.pass_client_identity);
    Err(Failure::new(status::SOFTWARE, format!("Error: {error}")))
}

/// Executes the running endpoint in this process. Its environment is that of its tasks.
fn become_runner(document: &RunDocument, title: &str, pass_client_identity: bool) -> io::Error {
    let prepared = serde_json::to_vec(document)
        .map_err(io::Error::other)
        .and_then(|bytes| background::memory_file(&bytes));
    let input = match prepared {
        Ok(input) => input,
        Err(error) => return error,
    };
    let renewed = document.renewed_credentials.as_ref().map(|(descriptor, _)| *descriptor);
    if let Some(Err(error)) = document.audit_pipe.map(|number| inherit_number(number, true)) {
        return error.into();
    }
    keep_only(document.report_fd.into_iter().chain(renewed).chain(document.audit_pipe));
    // Until it has claimed the endpoint it prints to our standard error; then it has a log.
    let mut command = Command::new("/proc/self/exe");
    if !pass_client_identity {
        // Both or neither: with the id alone, the SDK in a task asks for a login.
        for name in crate::account::CLIENT_IDENTITY {
            command.env_remove(name);
        }
    }
    command
        .arg0(title)
        .arg("_run")
        .arg(crate::title::room())
        .stdin(Stdio::from(input))
        .current_dir(&document.directory)
        .exec()
}

/// Closes inherited descriptors (a terminal, a pipe that another process reads) at the `exec`, except these.
pub(crate) fn keep_only(kept: impl IntoIterator<Item = i32>) {
    const FIRST: libc::c_uint = 3;
    let close = |first: libc::c_uint, last: libc::c_uint| {
        if first <= last {
            // SAFETY: it only sets close-on-exec flags. A kernel without the call leaves the descriptors as they are.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
        }
    };
    let mut kept: Vec<_> =
        kept.into_iter().filter_map(|number| libc::c_uint::try_from(number).ok()).collect();
    kept.sort_unstable();
    let mut next = FIRST;
    for number in kept.into_iter().filter(|number| *number >= FIRST) {
        close(next, number.saturating_sub(1));
        next = number.saturating_add(1);
    }
    close(next, libc::c_uint::MAX);
}

/// The title of the process in process lists.
fn title(id: EndpointId, name: &str, environment: Option<&str>) -> String {
    let environment = environment.map(|name| format!(" - {name}")).unwrap_or_default();
    let line: Vec<_> = std::env::args().collect();
    format!("Globus Compute Endpoint ({id}, {name}){environment} [{}]", line.join(" ")).replace('\0', " ")
}

/// Checks, without writing, that `path` is a directory that can be written, or that it can be created.
fn can_be_a_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(path);
    let found = match path.metadata() {
        Ok(found) if found.is_dir() => path,
        Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => parent,
        Err(error) => return Err(error),
    };
    Ok(access(found, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles() {
        let id: EndpointId = "e58b2276-b397-4246-b1a2-607d8e3b5838".parse().unwrap();
        let shown = title(id, "ep", Some("local"));
        assert!(
            shown.starts_with("Globus Compute Endpoint (e58b2276-b397-4246-b1a2-607d8e3b5838, ep) - local ["),
            "{shown}"
        );
    }
}
