//! From the command `start` to a running endpoint.
//!
//! ```text
//! start ── log in, if nobody has ──► in the background: spawns `start --report-fd`, waits for its report, exits
//!   │                                                        │
//!   └── in the foreground ───────────────────────────────────┴──► setup ──► exec `_run`, with all it needs on its
//!                                                                           standard input
//! ```
//!
//! Setup registers last, so that no endpoint is registered that can't work. Until the broker has granted the task queue to the
//! running process, no file of an earlier run is changed: another process may still run the endpoint. The running process is this
//! program, executed again under the endpoint's title; no process forks while it has threads. A user endpoint that can't be
//! started reports the reason to the service, with the credentials from its manager.

mod audit_pipe;
mod background;
mod document;
mod failure_report;
mod last_lines;
mod long_set_up;
mod registration;
mod script;
mod setup;
mod teardown;

use std::io::IsTerminal as _;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;

use wire::EndpointId;
use wire::start_document::StartDocument;

use crate::account::AccountSettings;
use crate::config::{Common, Config, Configuration, ManagerConfig};
use crate::console::say;
use crate::directory::{Base, EndpointDir, unwritable};
use crate::environment;
use crate::exit::{CommandResult, Failure, block_on, status};
use crate::login::log_in;
use crate::pid::{self, ProcessState};

pub(crate) use background::{inherit, inherit_number, memory_file, report};
pub(crate) use failure_report::{send as report_failure, send_notice};
pub(crate) use registration::{body as registration_body, register};
pub(crate) use setup::{ClientIdentity, RunDocument, keep_only};
pub(crate) use teardown::tear_down;

/// The options of `start`.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) name: String,
    pub(crate) endpoint_uuid: Option<EndpointId>,
    /// Stop when the parent process ends; implies the foreground.
    pub(crate) die_with_parent: bool,
    pub(crate) foreground: bool,
    /// Run in the background, whatever the configuration says.
    pub(crate) detach: bool,
    /// This is the background process of another `start`, which waits for a report on this descriptor.
    pub(crate) report_fd: Option<i32>,
    /// The path by which that `start` was called, for a manager: another program may be there at its next hot restart.
    pub(crate) started_as: Option<PathBuf>,
    pub(crate) debug: bool,
    pub(crate) log_to_console: bool,
    pub(crate) no_color: bool,
}

impl Request {
    /// Whether lines on the console may have colours. `debug`: the configuration asks for the longer log.
    pub(crate) fn colours(&self, debug: bool) -> bool {
        (self.debug || debug) && !self.no_color
    }
}

/// What a start needs after its checks.
struct Launch {
    base: Base,
    endpoint: EndpointDir,
    config: Config,
    /// The text the configuration was read from.
    text: String,
    document: Option<StartDocument>,
    request: Request,
}

/// `manage::begin`: starts a manager from its configuration and the text that it was read from.
pub(crate) type BeginManager =
    fn(&Base, &EndpointDir, &ManagerConfig, &str, &Request, Option<OwnedFd>) -> CommandResult;

/// Starts an endpoint. In the foreground this returns only if it could not be started.
pub(crate) fn start(base: &Base, request: Request, begin_manager: BeginManager) -> CommandResult {
    // SAFETY: the `start` that spawned this process made the descriptor for it alone.
    let report = request.report_fd.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    let document = document::read(request.die_with_parent)?;
    if let (Some(document), None) = (&document, &report) {
        refuse_another_parent(document)?;
    }
    let given = document.as_ref().and_then(|it| Some((it.amqp_creds.clone()?, it.config.clone())));
    let endpoint = base.named(&request.name);
    let outcome = prepare(base, request, document, report, begin_manager);
    // A background process reports to the `start` that waits for it, which has the same document and reports to the service. An
    // endpoint that runs already has not failed: the report would make it count as offline.
    if let (Err(failure), Some((credentials, text))) = (&outcome, given)
        && failure.status != status::ALREADY_ACTIVE
    {
        let config = text.and_then(|text| Config::read_rendered("", &text).ok());
        let settings = AccountSettings {
            endpoint: config.as_ref().map(|config| (&endpoint, config.common.service())),
            ..AccountSettings::of(base)
        };
        let authorities = settings.trust().ok().and_then(|trust| trust.pem);
        failure_report::send(credentials, config.as_ref(), authorities, failure);
    }
    outcome
}

/// Refuses to run below another process than the manager that wrote the document: that manager has ended, and nothing would
/// end this user endpoint.
fn refuse_another_parent(document: &StartDocument) -> CommandResult {
    let parent = nix::unistd::getppid().as_raw();
    match announced_parent(document) {
        Some(announced) if announced != parent => Err(Failure::new(
            status::TEMPFAIL,
            format!(
                "Error: this user endpoint was started by process {announced}, but its parent is {parent}: that process has ended"
            ),
        )),
        _ => Ok(()),
    }
}

/// The process that the manager announced as the parent: its own, or that which holds the PAM session.
fn announced_parent(document: &StartDocument) -> Option<i32> {
    let info = document.ep_info.as_ref().map(wire::json::FreeForm::to_object).unwrap_or_default();
    info.get("posix_ppid").and_then(serde_json::Value::as_i64).map(|pid| i32::try_from(pid).unwrap_or(-1))
}

fn prepare(
    base: &Base,
    request: Request,
    document: Option<StartDocument>,
    report: Option<OwnedFd>,
    begin_manager: BeginManager,
) -> CommandResult {
    if let Some(number) = document.as_ref().and_then(|document| document.audit_fd) {
        check_audit_pipe(number)?;
    }
    let rendered = document.as_ref().and_then(|document| document.config.as_deref());
    let (endpoint, config, text) = match rendered {
        Some(text) => {
            let endpoint = base.named(&request.name);
            base.create().map_err(|error| unwritable(endpoint.path(), &error))?;
            endpoint.create().map_err(|error| unwritable(endpoint.path(), &error))?;
            (endpoint, Config::read_rendered("the configuration on standard input", text)?, text.to_owned())
        }
        None => {
            let endpoint = base.find(&request.name)?;
            match Configuration::load(&endpoint)? {
                (Configuration::Tasks(config), text) => (endpoint, *config, text),
                (Configuration::Manager(_), _) if request.detach && report.is_none() => {
                    say(format_args!("> Endpoint <{}> starting in detached mode.", endpoint.name()));
                    let started_as = Some(environment::path_as_started(None).map_err(Failure::error)?);
                    let request = Request { started_as, ..request };
                    return background::spawn(&endpoint, &request, document.as_ref());
                }
                (Configuration::Manager(config), text) => {
                    return begin_manager(base, &endpoint, &config, &text, &request, report);
                }
            }
        }
    };
    if let Err(why) = config.engine.runnable() {
        return Err(Failure::new(status::CONFIG, format!("Error: {why}")));
    }
    refuse_if_active(&endpoint, &config.common)?;
    let given = document.as_ref().is_some_and(|document| document.amqp_creds.is_some());
    if report.is_none() && !given {
        log_in_once(&AccountSettings {
            endpoint: Some((&endpoint, config.common.service())),
            ..AccountSettings::of(base)
        })?;
    }
    let detach = request.detach || config.detach_endpoint && !request.die_with_parent && !request.foreground;
    if request.detach {
        say(format_args!("> Endpoint <{}> starting in detached mode.", endpoint.name()));
    }
    let launch = Launch { base: base.clone(), endpoint, config, text, document, request };
    match report {
        Some(report) => setup::set_up(launch, Some(report)),
        None if detach => background::spawn(&launch.endpoint, &launch.request, launch.document.as_ref()),
        None => setup::set_up(launch, None),
    }
}

/// Checks the audit pipe that a manager of high assurance passes: without it nothing may run. No script of the configuration
/// inherits it: what a script leaves running would keep it open.
fn check_audit_pipe(number: RawFd) -> CommandResult {
    audit_pipe::check(number)
        .and_then(|()| Ok(background::inherit_number(number, false)?))
        .map_err(|error| Failure::new(status::CANTCREAT, format!("Error: the manager's audit pipe: {error}")))
}

/// Logs in if nobody has, provided that there is a terminal.
pub(crate) fn log_in_once(settings: &AccountSettings<'_>) -> CommandResult {
    block_on(async {
        let account = settings.account().await?;
        if !account.personal || account.service.logged_in().await.map_err(|error| account.failed(error))? {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            return Err(account.failed(client::Error::NotLoggedIn));
        }
        log_in(&account).await
    })
}

/// Refuses an endpoint that another process runs. Asked again before every registration that precedes the claim of the
/// PID file: the new credentials would invalidate those of the other process.
pub(crate) fn refuse_if_active(endpoint: &EndpointDir, config: &Common) -> CommandResult {
    match pid::process_state(endpoint) {
        ProcessState::Alive(_) => Err(already_active(endpoint, config)),
        ProcessState::Elsewhere(host) => Err(active_elsewhere(endpoint, &host)),
        ProcessState::Absent | ProcessState::Silent(_) | ProcessState::Dead => Ok(()),
    }
}

pub(crate) fn already_active(endpoint: &EndpointDir, config: &Common) -> Failure {
    let name = config.display_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| endpoint.name());
    Failure::new(status::ALREADY_ACTIVE, format!("Endpoint '{name}' is already active"))
}

pub(crate) fn active_elsewhere(endpoint: &EndpointDir, host: &str) -> Failure {
    Failure::new(
        status::ALREADY_ACTIVE,
        format!("Endpoint '{}' is already active, on {host}", endpoint.name()),
    )
}
