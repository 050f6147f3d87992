//! Everything between the command and the running endpoint, in the process that will run it.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::stat::{Mode, umask};
use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wire::queue::Registration;
use wire::{EndpointId, FunctionId};

use super::background::{self, inherit};
use super::{Launch, refuse_if_active, register, registration};
use crate::account::{AccountSettings, credentials};
use crate::config::Config;
use crate::console::{complain, say};
use crate::directory::unwritable;
use crate::exit::{CommandResult, Failure, block_on, status};

/// All that the running process is told, on its standard input: no secret stands in a command line or a file.
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
    /// Stop when this process is our parent no more.
    pub(crate) parent: Option<i32>,
    /// Where somebody waits for word that we run.
    pub(crate) report_fd: Option<i32>,
    /// Log more; log to the console, too.
    pub(crate) debug: bool,
    pub(crate) console: bool,
    /// Authorities to trust beside the system's, as PEM.
    pub(crate) authorities: Option<String>,
    /// Where endpoints are kept, when we can register again by ourselves: not with credentials from a manager.
    pub(crate) registers: Option<PathBuf>,
    /// Who we are then, unless a person logged in.
    pub(crate) client: Option<ClientIdentity>,
}

/// The credentials of a client identity, on their way from one image of this program to the next.
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

/// Sets up and becomes the running endpoint; returns only if that fails.
pub(super) fn set_up(launch: Launch, report: Option<OwnedFd>) -> CommandResult {
    // Who started us has told nobody else: what we write is the user's alone.
    umask(Mode::from_bits_truncate(0o077));
    if let Some(report) = &report {
        // Whoever waits for our word waits for everybody who has this descriptor: a script of `endpoint_setup` shall not.
        inherit(report, false).map_err(Failure::error)?;
        // A session of our own: what happens to the terminal is not our affair. It fails for a session's leader only.
        let _ = nix::unistd::setsid();
    }
    let Launch { config, request, .. } = &launch;
    let parent = request.die_with_parent.then(|| nix::unistd::getppid().as_raw());
    if let Some(script) = &config.endpoint_setup {
        shell("endpoint_setup", script)?;
    }
    let Err(failure) = go_on(&launch, report.as_ref(), parent);
    // What `endpoint_setup` made is undone, whatever stood in the way after it.
    if let Err(also) = tear_down(&launch.config) {
        complain(also.text);
    }
    Err(failure)
}

/// What follows `endpoint_setup`; it ends in this process's becoming the endpoint, or in a failure.
fn go_on(launch: &Launch, report: Option<&OwnedFd>, parent: Option<i32>) -> Result<Infallible, Failure> {
    let Launch { base, endpoint, config, text, document, request } = launch;
    for path in [endpoint.spool(), endpoint.journal()] {
        can_be_a_directory(&path).map_err(|error| unwritable(&path, &error))?;
    }
    let known = endpoint.registered_id().or(request.endpoint_uuid);
    let settings = AccountSettings { endpoint: Some((endpoint, config)), ..AccountSettings::of(base) };
    let given = document.as_ref().and_then(|document| document.amqp_creds.clone());
    let registers = given.is_none().then(|| base.path().to_owned());
    let registration = match given {
        Some(registration) => registration,
        None => block_on(async {
            // Whoever stops us now finds everything as it was before.
            let (_trigger, stop) = daemon::stop::on_signals().map_err(Failure::error)?;
            let registering = async {
                let account = settings.account().await?;
                // `endpoint_setup` may have taken long enough for another start to be done.
                refuse_if_active(endpoint, config)?;
                let registration = register(&account, endpoint, config, text, known).await?;
                crate::account::remember(endpoint, account.service.address())
                    .map_err(|error| unwritable(endpoint.path(), &error))?;
                Ok(registration)
            };
            tokio::select! {
                biased;
                () = stop.begun() => Err(Failure::new(status::GENERIC, "Aborted!")),
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
        report_fd: report.map(AsRawFd::as_raw_fd),
        debug: config.debug || request.debug,
        console: request.log_to_console && report.is_none(),
        authorities: settings.trust()?.pem,
        registers,
        client: credentials()?.map(|(credentials, _)| ClientIdentity {
            id: credentials.client_id,
            secret: credentials.client_secret,
        }),
    };
    let title = title(id, &endpoint.name(), config.environment.as_deref());
    if let Some(report) = report {
        inherit(report, true).map_err(Failure::error)?;
    }
    let error = become_runner(&document, &title, config.pass_client_identity);
    Err(Failure::new(status::SOFTWARE, format!("Error: {error}")))
}

/// Runs `endpoint_teardown`, once at the end of every endpoint that got past its `endpoint_setup`.
pub(crate) fn tear_down(config: &Config) -> CommandResult {
    config.endpoint_teardown.as_deref().map_or(Ok(()), |script| shell("endpoint_teardown", script))
}

/// Replaces this process by the running endpoint, whose environment is that of its tasks.
fn become_runner(document: &RunDocument, title: &str, pass_client_identity: bool) -> io::Error {
    let prepared = serde_json::to_vec(document)
        .map_err(io::Error::other)
        .and_then(|bytes| background::memory_file(&bytes));
    let input = match prepared {
        Ok(input) => input,
        Err(error) => return error,
    };
    keep_only(document.report_fd);
    // What it says until it has the endpoint to itself goes to where we speak; then it has a log.
    let mut command = Command::new("/proc/self/exe");
    if !pass_client_identity {
        // Both or neither: with the id alone, the SDK in a task asks for a login.
        for name in crate::account::CLIENT_IDENTITY {
            command.env_remove(name);
        }
    }
    command.arg0(title).arg("_run").stdin(Stdio::from(input)).current_dir(&document.directory).exec()
}

/// Closes what we inherited by accident when the new image begins: a terminal, a pipe somebody waits on.
fn keep_only(descriptor: Option<i32>) {
    const FIRST: libc::c_uint = 3;
    let close = |first: libc::c_uint, last: libc::c_uint| {
        if first <= last {
            // SAFETY: it only sets close-on-exec flags. A kernel without the call leaves the descriptors as they are.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
        }
    };
    match descriptor.and_then(|number| libc::c_uint::try_from(number).ok()) {
        Some(kept) => {
            close(FIRST, kept.saturating_sub(1));
            close(kept.saturating_add(1).max(FIRST), libc::c_uint::MAX);
        }
        None => close(FIRST, libc::c_uint::MAX),
    }
}

/// How the process is called in lists of processes.
fn title(id: EndpointId, name: &str, environment: Option<&str>) -> String {
    let environment = environment.map(|name| format!(" - {name}")).unwrap_or_default();
    let line: Vec<_> = std::env::args().collect();
    format!("Globus Compute Endpoint ({id}, {name}){environment} [{}]", line.join(" ")).replace('\0', " ")
}

/// Runs a script of the configuration; its last words are told when it fails.
fn shell(what: &str, script: &str) -> CommandResult {
    let output =
        Command::new("/bin/sh").arg("-c").arg(script).stdin(Stdio::null()).output().map_err(|error| {
            Failure::new(status::CONFIG, format!("Error: {what} could not be run: {error}"))
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<_> = said.lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
    Err(Failure::new(status::CONFIG, format!("Error: {what} failed ({}):\n  {last}", output.status)))
}

/// Whether something may be written below `path`, as far as looking tells: nothing is written yet.
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
    fn a_failing_script_is_told_with_its_last_words() {
        assert_eq!(shell("endpoint_setup", "exit 0"), Ok(()));
        let failure = shell("endpoint_setup", "echo out; echo err >&2; exit 3").unwrap_err();
        assert_eq!(failure.status, 78);
        assert_eq!(failure.text, "Error: endpoint_setup failed (exit status: 3):\n  out\n  err");
    }

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
