//! The running endpoint: passes events to the interchange and performs its decisions.
//!
//! Everything runs on one thread, except file access and the AMQP library: a slow file system delays no heartbeat. This file
//! builds the parts, once the broker has granted the endpoint's queue ([`fence`]); [`driver`] is the event loop.

mod allowed_functions;
mod countdown;
mod driver;
mod ending;
pub(crate) mod fence;
mod first_node;
mod inputs;
mod leftovers;
mod parent;
mod ready;
mod recorder;
mod renewal;
mod renewed_credentials;
mod storage;

use std::io::Read as _;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use client::amqp::{self, LinkConfig};
use daemon::logging::BackgroundWriter;
use daemon::stop::{Stop, Trigger};
use engine::{Engine, EngineConfig};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::RunId;
use wire::queue::Registration;

use crate::config::Config;
use crate::directory::EndpointDir;
use crate::exit::{CommandResult, Failure, status};
use crate::heartbeat::Heartbeat;
use crate::interchange::{self, Idle, Interchange, Leftovers, Settings};
use crate::last_failure::LastFailure;
use crate::log::{self, Console, DeferredLog};
use crate::pid::PreviousRun;
use crate::start::{RunDocument, inherit, inherit_number, report_failure};
use crate::{clock, host, random};
use allowed_functions::{AllowedFunctions, AllowedFunctionsWatch};
use countdown::Countdown;
use fence::NotGranted;
use first_node::FirstNodeWait;
use ready::{ReadyReport, Terminal};
use recorder::Recorder;
use renewal::Renewal;
use renewed_credentials::RenewedCredentials;
use storage::Storage;

/// The memory limit for the bodies of tasks.
const WINDOW_BYTES: usize = 64 << 20;
/// The smallest prefetch window for tasks.
const MIN_PREFETCH: u32 = 1_000;
/// How many results may await the broker's confirmation.
const RESULTS_IN_FLIGHT: usize = 1_024;

/// How long threads may take to end after everything else.
const THREAD_SHUTDOWN: Duration = Duration::from_millis(500);

/// How often a start registers again when the broker refuses the credentials of a registration. It is less often than for a running
/// endpoint, because a person may wait for it.
const REGISTRATIONS_AT_START: u32 = 3;

/// The command `_run`: what `start` becomes.
pub(crate) fn main() -> CommandResult {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).map_err(Failure::error)?;
    let document: RunDocument = serde_json::from_slice(&text).map_err(|error| {
        Failure::new(
            2,
            format!("Error: `_run` is called by `start`, with a document on standard input: {error}"),
        )
    })?;
    // SAFETY: the program that this process ran before `exec` passed the number; nothing else uses it.
    let report = document.report_fd.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    if let Some(report) = &report {
        inherit(report, false).map_err(Failure::error)?;
    }
    if let Some(number) = document.audit_pipe {
        inherit_number(number, false).map_err(Failure::error)?;
    }
    let mut ready = ReadyReport { report };
    let endpoint = EndpointDir::at(document.directory.clone());
    let terminal = Terminal::keep(ready.is_sent());
    let outcome = run(&endpoint, &document, &mut ready);
    if let Err(failure) = &outcome {
        let on_our_own = ready.is_sent();
        // A `start` that waits has the credentials too, and reports the failure itself. An endpoint that runs elsewhere has not
        // failed.
        if on_our_own && document.registers.is_none() && failure.status != status::ALREADY_ACTIVE {
            let config = document.read_config("").ok();
            let authorities = document.authorities.clone();
            report_failure(document.registration.clone(), config.as_ref(), authorities, failure);
        }
        ready.send(Err(failure));
        // A `start` that waits prints the failure. Otherwise it belongs on the terminal, even if standard error is redirected by now.
        if on_our_own {
            terminal.say(&failure.text);
        }
        return Err(Failure::new(failure.status, ""));
    }
    outcome
}

fn run(endpoint: &EndpointDir, document: &RunDocument, ready: &mut ReadyReport) -> CommandResult {
    let config = document.read_config("the configuration")?;
    let deferred_log = DeferredLog::default();
    let lines = BackgroundWriter::start(deferred_log.clone());
    let outcome = run_configured(endpoint, document, &config, ready, (&deferred_log, &lines));
    if let Err(failure) = &outcome {
        tracing::error!("{}", failure.text);
    }
    // A user endpoint must not outlive its manager. The next start runs the script.
    if !parent::is_gone(document.parent)
        && let Err(failure) = crate::start::tear_down(endpoint, &config, document.parent)
    {
        tracing::error!("{}", failure.text);
    }
    let lost = lines.lost_lines();
    if lost > 0 {
        tracing::warn!(lines = lost, "lines of this log were lost while it could not be written");
    }
    lines.write_line(&format!("---------- Endpoint shutdown: {}", document.registration.endpoint_id));
    deferred_log.discard();
    outcome
}

fn run_configured(
    endpoint: &EndpointDir,
    document: &RunDocument,
    config: &Config,
    ready: &mut ReadyReport,
    (deferred_log, lines): (&DeferredLog, &BackgroundWriter),
) -> CommandResult {
    lines.write_line(&format!("\n========== Endpoint begins: {}", document.registration.endpoint_id));
    log::start(lines, document.debug)?;
    // As upstream's daemon: the group may write what tasks create. No core files: they may contain credentials.
    umask(Mode::from_bits_truncate(0o002));
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!(%error, "core files could not be disabled");
    }
    // Undone when it is dropped: `endpoint_teardown` gets the user's limit.
    let raised = daemon::open_files::raise();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a crypto provider was installed already");
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::error)?;
    let open_files = raised.inherited().map(|inherited| inherited.soft());
    let outcome = runtime.block_on(serve(endpoint, document, config, open_files, ready, deferred_log));
    // A thread may still wait for a service or a file system that does not answer; dropping the runtime would wait for it.
    runtime.shutdown_timeout(THREAD_SHUTDOWN);
    outcome
}

async fn serve(
    endpoint: &EndpointDir,
    document: &RunDocument,
    config: &Config,
    open_files: Option<u64>,
    ready: &mut ReadyReport,
    deferred_log: &DeferredLog,
) -> CommandResult {
    let (trigger, stop) = daemon::stop::on_signals().map_err(Failure::error)?;
    stop_on_hangup(trigger.clone())?;
    let registration = &document.registration;
    let run = random::run_id();
    let options =
        config.engine.runnable().map_err(|why| Failure::new(status::CONFIG, format!("Error: {why}")))?;
    let aborts = fence::StartAborts { stop: &stop, parent: document.parent, waiting: ready.report.as_ref() };
    // What the manager has to say later.
    let renewed = document.renewed_credentials.as_ref();
    let renewed = renewed.and_then(|(file, key)| RenewedCredentials::open(*file, key)).map(Arc::new);
    let mut renewal = Renewal::new(endpoint, config, &options, document, renewed.as_ref());
    let mut registrations = REGISTRATIONS_AT_START;
    let mut link_config = link_config(registration, config, &options, document.authorities.clone())?;
    let (name, deadline) = (endpoint.name(), Instant::now() + fence::PATIENCE);
    let (link, link_events, session) = loop {
        let (link, mut events) = amqp::start(link_config);
        let refused = match fence::granted(&mut events, &aborts, &name, deadline).await {
            Ok(session) => break (link, events, session),
            Err(NotGranted::Final(failure)) => return Err(failure),
            Err(NotGranted::CredentialsRefused(failure)) => failure,
        };
        if registrations == 0 || !renewal.begin(0) {
            return Err(refused);
        }
        registrations -= 1;
        tracing::warn!("{}; registering again", refused.text);
        link_config = fence::renewed(renewal.done(), &aborts, &name, deadline).await?;
    };
    renewal.accepted();
    let (directory, settings, lines, console) = (
        endpoint.clone(),
        config.clone(),
        deferred_log.clone(),
        Console::of(document.console, document.colours),
    );
    // A stalled file system must not stall the connection to the broker.
    let opened =
        tokio::task::spawn_blocking(move || storage::open(&directory, &settings, run, &lines, console));
    let disk = opened.await.map_err(Failure::error)??;
    let claim = disk.pid_file.claim();
    renewal.claimed(disk.pid_file.claim());
    let lists = AllowedFunctions {
        of_manager: document.allowed_functions.clone(),
        own: config.common.allowed_functions.clone(),
    };
    let held = OwnedEndpoint {
        run,
        options,
        open_files,
        disk,
        link,
        link_events,
        session,
        renewal,
        allowed_functions: AllowedFunctionsWatch::new(lists, renewed),
        trigger,
        stop,
    };
    let outcome = Box::pin(work(endpoint, document, config, held, ready)).await;
    if let Err(failure) = &outcome
        && claim.holds()
        && let Err(error) = LastFailure::write(endpoint, failure)
    {
        tracing::error!(%error, "the reason why the endpoint ends could not be recorded for `list`");
    }
    outcome
}

/// What a run has once the endpoint is claimed.
struct OwnedEndpoint {
    run: RunId,
    options: engine::Options,
    /// The user's limit of open files.
    open_files: Option<u64>,
    disk: Storage,
    link: amqp::Handle,
    link_events: mpsc::Receiver<amqp::Event>,
    session: u32,
    renewal: Renewal,
    allowed_functions: AllowedFunctionsWatch,
    trigger: Trigger,
    stop: Stop,
}

/// Runs the claimed endpoint.
async fn work(
    endpoint: &EndpointDir,
    document: &RunDocument,
    config: &Config,
    held: OwnedEndpoint,
    ready: &mut ReadyReport,
) -> CommandResult {
    let OwnedEndpoint {
        run,
        options,
        open_files,
        disk,
        link,
        link_events,
        session,
        renewal,
        allowed_functions,
        trigger,
        stop,
    } = held;
    let Storage { pid_file, watch, journal, spool_thread, earlier_runs, spooled, before } = disk;
    let id = document.registration.endpoint_id;
    let now = clock::since_epoch();
    let engine_config = EngineConfig {
        endpoint: id,
        run_dir: endpoint.path().to_owned(),
        node_command: node_command()?,
        open_files,
        reports_blocks: document.audit_pipe.is_some(),
        options: options.clone(),
    };
    let recorder = Recorder::open(document.audit_pipe).map_err(|error| {
        Failure::new(status::CANTCREAT, format!("Error: the manager's audit pipe can't be written: {error}"))
    })?;
    for (option, why) in engine_config.options.without_effect() {
        tracing::warn!("the option {option} has no effect: {why}");
    }
    let (engine, engine_events) = Engine::start(engine_config).await.map_err(|error| {
        Failure::new(status::CONFIG, format!("Error: the engine could not be started: {error}"))
    })?;

    let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let host_name = host::host_name();
    let lost: Vec<_> = earlier_runs
        .open
        .iter()
        .filter(|task| spooled.binary_search(task).is_err())
        .map(|task| (*task, interchange::lost(*task, id, &host_name, nanos)))
        .collect();
    tracing::info!(endpoint = %id, %run, lost = lost.len(), unsent = spooled.len(), "the endpoint runs");
    let settings = Settings {
        endpoint: id,
        allowed: allowed_functions.effective(),
        bytes: WINDOW_BYTES,
        in_flight: RESULTS_IN_FLIGHT,
        grace: Duration::from_secs(config.shutdown_grace),
        idle: Idle { soft: config.idle_heartbeats_soft, hard: config.idle_heartbeats_hard },
        audited: document.audit_pipe.is_some(),
    };
    let mut actions = Vec::new();
    let left =
        Leftovers { spooled, lost, ended: earlier_runs.filter, awaited: before == PreviousRun::Silent };
    let interchange = Interchange::new(settings, left, &mut actions);
    let start = clock::local_time();
    let heartbeat = Heartbeat::new(
        id,
        run,
        document.ep_info.clone(),
        &document.config,
        config.common.heartbeat_period,
        &start,
    );
    let driver = driver::Driver {
        interchange,
        link,
        link_events,
        engine,
        engine_events: Some(engine_events),
        journal,
        recorder,
        spool_thread,
        watch,
        heartbeat,
        report: engine::Report::default(),
        period: Duration::from_secs(config.common.heartbeat_period),
        stop,
        stop_began: None,
        parent: document.parent,
        orphaned: false,
        next_session: 0,
        renewal,
        allowed_functions,
        first: FirstNodeWait::new(&options, endpoint.name()),
        superseded: false,
        engine_failure: None,
        audit_failure: None,
        countdown: Countdown::new(),
        end_reason: ending::FAILED,
    };
    daemon::ready::serving();
    let ending = Box::pin(driver.run(session, actions, ready)).await;
    daemon::ready::stopping();
    drop((trigger, pid_file));
    ending.outcome(endpoint)
}

/// SIGHUP stops the endpoint, as it stops upstream's.
fn stop_on_hangup(trigger: daemon::stop::Trigger) -> CommandResult {
    let mut hangups = signal(SignalKind::hangup()).map_err(Failure::error)?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            trigger.begin();
        }
    });
    Ok(())
}

fn link_config(
    registration: &Registration,
    config: &Config,
    options: &engine::Options,
    authorities: Option<String>,
) -> Result<LinkConfig, Failure> {
    let block = &options.provider.blocks;
    let per_node = options.max_workers_per_node.unwrap_or(1);
    let slots = per_node.saturating_mul(block.nodes_per_block).saturating_mul(block.max_blocks);
    let window = slots.saturating_mul(2).max(MIN_PREFETCH);
    let prefetch = u16::try_from(window).unwrap_or(u16::MAX);
    let name = format!("endpoint {}", registration.endpoint_id);
    LinkConfig::new(registration, config.common.amqp_port, authorities, prefetch, name)
        .map_err(|error| Failure::new(status::DATAERR, format!("Invalid credential structure: {error}")))
}

/// The command that blocks run: this program by its path, because nodes may have another PATH.
fn node_command() -> Result<Vec<String>, Failure> {
    let own = std::env::current_exe().map_err(|error| Failure::error(format!("our own path: {error}")))?;
    let own = own.to_str().ok_or_else(|| Failure::error("our own path is not UTF-8"))?;
    Ok(vec![own.to_owned(), "node".to_owned()])
}
