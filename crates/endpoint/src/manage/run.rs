//! The command `_manage`: the running manager, from its document to its end.

use std::io::Read as _;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use client::amqp;
use daemon::logging::BackgroundWriter;
use manager::launch::OpenFiles;
use manager::restart::State;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::audit_log::AuditLog;
use super::document::ManageDocument;
use super::driver::{Driver, End, Restart};
use super::mapping::{self, IdentityMapper};
use super::notice::Notices;
use super::processes::Processes;
use super::signals::{Asked, Listener, Signals};
use super::terminal::Terminals;
use super::{begin, check, ending, registration, restart, settings};
use crate::config::ManagerConfig;
use crate::directory::{EndpointDir, unwritable};
use crate::exit::{CommandResult, Failure, status};
use crate::last_failure::LastFailure;
use crate::log::{Console, DeferredLog, Log};
use crate::pid::{ClaimError, PidFile, PidFileWatch, PreviousRun};
use crate::run::fence;
use crate::start::{active_elsewhere, already_active, inherit, report};
use crate::title::Title;
use crate::{environment, host};

/// How long threads may take to end after everything else.
const THREAD_SHUTDOWN: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only say whether this program can take the place of the one that runs
    #[arg(long)]
    check_state: bool,
    /// Room for a longer title
    #[arg(hide = true)]
    room: Option<String>,
}

/// Runs the manager with the document on standard input.
pub(crate) fn main(options: &Options) -> CommandResult {
    // Before anything takes a descriptor: those that were handed over may have the numbers below the limit. It stays raised, also
    // when the program is executed again.
    let raised = daemon::open_files::raise();
    let inherited = raised.inherited().map(|it| OpenFiles { soft: it.soft(), hard: it.hard() });
    std::mem::forget(raised);
    // Before any thread exists.
    let signals = Signals::block().map_err(Failure::error)?;
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).map_err(Failure::error)?;
    let mut document: ManageDocument = serde_json::from_slice(&text).map_err(|error| {
        Failure::new(
            2,
            format!("Error: `_manage` is called by `start`, with a document on standard input: {error}"),
        )
    })?;
    drop(text);
    if options.check_state {
        return check::check(&document);
    }
    if let Ok(null) = std::fs::File::open("/dev/null") {
        // The document holds secrets.
        let _ = nix::unistd::dup2_stdin(&null);
    }
    document.open_files = document.open_files.or(inherited);
    let terminals = Terminals::keep();
    // SAFETY: the program that this process ran before `exec` passed the number; nothing else uses it.
    let report_to = document.report_fd.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    if let Some(report_to) = &report_to {
        inherit(report_to, false).map_err(Failure::error)?;
    }
    let outcome = run(document, &signals, &terminals, report_to);
    terminals.leave();
    if let Err(failure) = &outcome {
        terminals.say(&failure.text);
        return Err(Failure::new(failure.status, ""));
    }
    outcome
}

fn run(
    mut document: ManageDocument,
    signals: &Signals,
    terminals: &Terminals,
    mut report_to: Option<OwnedFd>,
) -> CommandResult {
    let endpoint = EndpointDir::at(document.directory.clone());
    let id = document.registration.endpoint_id;
    let children = document.state.as_ref().map(State::processes).unwrap_or_default();
    let deferred_log = DeferredLog::default();
    let lines = BackgroundWriter::start(deferred_log.clone());
    lines.write_line(&format!("\n========== Endpoint Manager begins: {id}"));
    let ended = crate::log::start(&lines, document.debug).and_then(|()| {
        let (config, text) = configuration(&document, &endpoint)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::error)?;
        if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
            tracing::debug!("a crypto provider was installed already");
        }
        if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
            tracing::warn!(%error, "core files could not be disabled");
        }
        let outcome = runtime.block_on(serve(
            &mut document,
            &endpoint,
            (&config, text),
            signals,
            terminals,
            &deferred_log,
            &mut report_to,
        ));
        runtime.shutdown_timeout(THREAD_SHUTDOWN);
        outcome.map(|end| (end, config))
    });
    match ended {
        Ok((End::Stopped, _)) => {
            tracing::info!("Shutdown complete.");
            lines.write_line(&format!("---------- Endpoint Manager ends: {id}\n\n"));
            deferred_log.discard();
            Ok(())
        }
        Ok((End::Restart(restart), config)) => {
            let Restart { state, processes, pid_file } = *restart;
            // What is left of the log is written first.
            drop(lines);
            document.state = Some(state);
            document.report_fd = None;
            // It stays this process's.
            std::mem::forget(pid_file);
            terminals.give_back();
            let Err(error) = restart::execute_again(&mut document, &config, &processes);
            ending::end_in_order(&document.state.as_ref().map(State::processes).unwrap_or_default());
            Err(Failure::new(status::SOFTWARE, format!("Error: {}: {error}", document.program.display())))
        }
        Err(failure) => {
            tracing::error!("{}", failure.text);
            ending::end_in_order(&children);
            lines.write_line(&format!("---------- Endpoint Manager ends: {id}\n\n"));
            deferred_log.discard();
            if let Some(report_to) = report_to.take() {
                report(Err(&failure), report_to);
            }
            Err(failure)
        }
    }
}

/// The configuration as it is now. One that became unusable since it was checked does not end a manager that has user
/// endpoints.
fn configuration(
    document: &ManageDocument,
    endpoint: &EndpointDir,
) -> Result<(ManagerConfig, String), Failure> {
    match check::load(endpoint) {
        Err(failure) if document.state.is_some() => {
            tracing::error!("the configuration of before holds: {}", failure.text);
            let config = ManagerConfig::read("the configuration", &document.config)?;
            Ok((config, document.config.clone()))
        }
        other => other,
    }
}

async fn serve(
    document: &mut ManageDocument,
    endpoint: &EndpointDir,
    (config, text): (&ManagerConfig, String),
    signals: &Signals,
    terminals: &Terminals,
    deferred_log: &DeferredLog,
    report_to: &mut Option<OwnedFd>,
) -> Result<End, Failure> {
    let listener = signals.listen().map_err(Failure::error)?;
    let resumed = document.state.take();
    let resumes = resumed.is_some();
    restart::register_changes(document, endpoint, config, text).await;
    let id = document.registration.endpoint_id;
    let mapper = match mapper(document, config) {
        Ok(mapper) => mapper,
        Err(failure) if resumes => {
            tracing::error!("nobody is mapped until the next SIGHUP: {}", failure.text);
            None
        }
        Err(failure) => return Err(failure),
    };
    let link_config =
        registration::link_config(&document.registration, config, document.authorities.clone())?;
    let (link, mut link_events) = amqp::start(link_config);
    // A manager with user endpoints must not end, because they would end with it: the driver does what it does whenever
    // there is no connection.
    let session = match resumes {
        true => None,
        false => Some(granted(&mut link_events, &listener, report_to.as_ref(), &endpoint.name()).await?),
    };
    let (directory, settled, lines, console) = (
        endpoint.clone(),
        config.clone(),
        deferred_log.clone(),
        Console::of(document.console, document.colours),
    );
    // A stalled file system must not stall the connection to the broker.
    let opened = tokio::task::spawn_blocking(move || open(&directory, &settled, &lines, console, resumes));
    let pid_file = opened.await.map_err(Failure::error)??;
    let audit = check::audit_log(config);
    let audit =
        audit.map(|path| AuditLog::open(path, id).map_err(|error| unwritable(path, &error))).transpose();
    let (audit, unfit) = match audit {
        Ok(audit) => (audit, None),
        Err(failure) if resumes => (None, Some(failure.text)),
        Err(failure) => return Err(failure),
    };
    terminals.show_id(id);
    tracing::info!(manager = %id, resumes, "the manager runs");
    tracing::debug!(configuration = %config.resolved(), program = %document.program.display(), "with these settings");
    if let (Some(path), false) = (&config.identity_mapping_config_path, host::changes_user()) {
        tracing::warn!("{}", begin::mapping_ignored(path));
    }
    for warning in check::exposed_files(config, endpoint).unwrap_or_else(|failure| vec![failure.text]) {
        tracing::warn!("{warning}");
    }
    if let Some(why) = document.not_executed.take() {
        tracing::error!("the program of before goes on, because another could not be executed: {why}");
    }
    warn_of_few_files(config.max_user_endpoints);
    let mut processes = Processes::default();
    processes.open_files = document.open_files;
    processes.allowed_functions = config.common.allowed_functions.clone();
    let state = resumed.unwrap_or_else(|| State::new(Vec::new(), Vec::new()));
    let revivals = state.revivals;
    let children = processes.resume(state.children);
    let program = environment::own_path().unwrap_or_else(|_| document.program.clone());
    let directory = program.parent().map(Path::to_owned).unwrap_or_default();
    let settings = settings::settings(id, endpoint, config, document.owners.as_deref(), directory);
    let core = manager::core::Core::new(settings, children, revivals);
    if let Some(report_to) = report_to.take() {
        report(Ok(""), report_to);
    }
    daemon::ready::serving();
    let watch = PidFileWatch::start(pid_file.claim()).map_err(Failure::error)?;
    let notices = Notices::new(config.common.amqp_port, document.authorities.clone());
    let driver = Driver {
        core,
        processes,
        notices,
        mapper,
        audit,
        unfit,
        link,
        link_events,
        listener,
        watch,
        terminals,
        title: Title::find(),
        period: Duration::from_secs(config.common.heartbeat_period),
        document,
        endpoint,
        config,
    };
    driver.run(session, pid_file).await
}

/// Each user endpoint takes descriptors: for its credentials, its reports and its audit records.
fn warn_of_few_files(most_user_endpoints: u32) {
    const EACH: u64 = 3;
    const OTHERS: u64 = 64;
    let wanted = u64::from(most_user_endpoints) * EACH + OTHERS;
    if let Ok((_, limit)) = getrlimit(Resource::RLIMIT_NOFILE)
        && limit < wanted
    {
        tracing::warn!(
            "the limit of open files is {limit}, and {most_user_endpoints} user endpoints may take {wanted}; raise it \
             (LimitNOFILE), or lower max_user_endpoints"
        );
    }
}

/// Waits until the broker grants the command queue. Until then another process may be the manager: no file is written.
async fn granted(
    events: &mut mpsc::Receiver<amqp::Event>,
    listener: &Listener<'_>,
    waiting: Option<&OwnedFd>,
    name: &str,
) -> Result<u32, Failure> {
    let (_trigger, stop) = daemon::stop::channel();
    let aborts = fence::StartAborts { stop: &stop, parent: None, waiting };
    let granted = fence::granted(events, &aborts, name, Instant::now() + fence::PATIENCE);
    let mut granted = std::pin::pin!(granted);
    loop {
        tokio::select! {
            session = &mut granted => return session.map_err(fence::NotGranted::into_failure),
            asked = listener.next() => match asked.map_err(Failure::error)? {
                Asked::Stop => return Err(Failure::new(status::GENERIC, "Aborted!")),
                Asked::Restart | Asked::Reap => {}
            },
        }
    }
}

/// The identity mapping, for a manager that can change users.
fn mapper(document: &ManageDocument, config: &ManagerConfig) -> Result<Option<IdentityMapper>, Failure> {
    let Some(path) = config.identity_mapping_config_path.as_ref().filter(|_| host::changes_user()) else {
        return Ok(None);
    };
    let settings = manager::mapping::Settings::of_manager(document.registration.endpoint_id);
    let (mapper, warnings) = IdentityMapper::open(path, settings)
        .map_err(|error| Failure::new(error.exit_status(), error.to_string()))?;
    mapping::warn(&warnings);
    Ok(Some(mapper))
}

/// Claims the endpoint and opens its log. Blocks on the file system.
fn open(
    endpoint: &EndpointDir,
    config: &ManagerConfig,
    lines: &DeferredLog,
    console: Console,
    resumes: bool,
) -> Result<PidFile, Failure> {
    let period = config.common.heartbeat_period;
    let claimed =
        if resumes { PidFile::resume(endpoint, period) } else { PidFile::acquire(endpoint, period) };
    let claimed = match claimed {
        Err(why) if resumes => {
            // The watch of these files tells if another process runs the manager.
            tracing::error!(?why, "the PID file is not written");
            PidFile::unwritten(endpoint, period).map(|it| (it, PreviousRun::Clean)).map_err(ClaimError::Io)
        }
        other => other,
    };
    let (pid_file, before) = claimed.map_err(|why| match why {
        ClaimError::Alive => already_active(endpoint, &config.common),
        ClaimError::Elsewhere(host) => active_elsewhere(endpoint, &host),
        ClaimError::Io(error) => unwritable(&endpoint.pid_file(), &error),
    })?;
    let at = |error| unwritable(&endpoint.log(), &error);
    let limit = config.common.log_size_limit;
    let log = match Log::open(&endpoint.log(), limit, console) {
        Err(error) if resumes => {
            tracing::error!(%error, "the log can't be opened; lines go to where the earlier program wrote them");
            Log::open(Path::new("/proc/self/fd/2"), 0, Console::Off)
                .or_else(|_| Log::open(Path::new("/dev/null"), 0, Console::Off))
        }
        other => other,
    };
    let log = log.map_err(at)?;
    match LastFailure::remove(endpoint).map_err(|error| unwritable(&endpoint.failure_file(), &error)) {
        Err(failure) if resumes => tracing::warn!("{}", failure.text),
        other => other?,
    }
    match log.redirect().map_err(at) {
        Err(failure) if resumes => tracing::warn!("{}", failure.text),
        other => other?,
    }
    lines.open(log);
    match before {
        PreviousRun::Clean => {}
        PreviousRun::Dead => {
            tracing::info!("A prior endpoint process ended without cleaning up; doing so now.");
        }
        PreviousRun::Silent => tracing::warn!(
            "the endpoint ran on another host, which has not been heard of for long; this process takes over"
        ),
    }
    Ok(pid_file)
}
