//! The running endpoint: brings what happens to the interchange and performs what it decides.
//!
//! Everything lives on one thread, but for the journal's and the spool's disks and the AMQP library's own. This file
//! builds the parts; [`shell`] turns the crank.

mod parent;
mod renewal;
mod shell;

use std::io::Read as _;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use client::amqp::{self, Plan};
use engine::{Engine, EngineConfig};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use tokio::signal::unix::{SignalKind, signal};
use wire::queue::Registration;

use crate::ambient;
use crate::config::{Config, LEAST_HEARTBEAT_PERIOD};
use crate::directory::EndpointDir;
use crate::exit::{Failure, Outcome, status};
use crate::heartbeat::{self, Heartbeat};
use crate::interchange::{self, Idle, Interchange, Rules};
use crate::journal;
use crate::log::{Log, sentinel};
use crate::pid::PidFile;
use crate::spool::{Keeper, Spool};
use crate::start::{RunDocument, inherit, notify, report};
use renewal::Renewal;

/// Bodies of tasks take at most so much memory.
const WINDOW_BYTES: usize = 64 << 20;
/// The broker gives out at least so many tasks at once.
const LEAST_WINDOW: u32 = 1_000;
/// So many results are on their way to the broker at once.
const RESULTS_IN_FLIGHT: usize = 1_024;

/// The command `_run`: what `start` becomes.
pub(crate) fn main() -> Outcome {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).map_err(Failure::error)?;
    let document: RunDocument = serde_json::from_slice(&text).map_err(|error| {
        Failure::new(
            2,
            format!("Error: `_run` is called by `start`, with a document on standard input: {error}"),
        )
    })?;
    // SAFETY: the number comes from the image this process was a moment ago; nobody else uses it.
    let report = document.report_fd.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    if let Some(report) = &report {
        inherit(report, false).map_err(Failure::error)?;
    }
    let mut ready = Ready { report };
    let endpoint = EndpointDir::at(document.directory.clone());
    // It is ours since before this image; from here on it goes when we go.
    let pid_file = PidFile::claim(&endpoint, LEAST_HEARTBEAT_PERIOD)
        .map_err(|why| Failure::error(format!("{}: {why:?}", endpoint.pid_file().display())));
    let outcome = pid_file.and_then(|_pid_file| run(&endpoint, &document, &mut ready));
    if let Err(failure) = &outcome {
        tracing::error!("{}", failure.text);
        // Who waits for word has the credentials too; nobody else would tell the service why there is no endpoint.
        if ready.report.is_none() && document.registers.is_none() {
            let config = Config::read("", &document.config).ok();
            let authorities = document.authorities.clone();
            notify(document.registration.clone(), config.as_ref(), authorities, failure);
        }
        ready.tell(&outcome);
    }
    outcome
}

/// Whoever waits for word that we run; told once.
struct Ready {
    report: Option<OwnedFd>,
}

impl Ready {
    fn tell(&mut self, outcome: &Outcome) {
        if let Some(to) = self.report.take() {
            report(outcome, to);
        }
    }
}

fn run(endpoint: &EndpointDir, document: &RunDocument, ready: &mut Ready) -> Outcome {
    let config = Config::read("the configuration", &document.config)?;
    let outcome = run_configured(endpoint, document, &config, ready);
    if let Err(failure) = crate::start::tear_down(&config) {
        tracing::error!("{}", failure.text);
    }
    sentinel(
        &endpoint.log(),
        &format!("---------- Endpoint shutdown: {}", document.registration.endpoint_id),
    );
    outcome
}

fn run_configured(
    endpoint: &EndpointDir,
    document: &RunDocument,
    config: &Config,
    ready: &mut Ready,
) -> Outcome {
    start_logging(endpoint, config, document)?;
    // As upstream's daemon: what tasks write, their group may write too. No core files: they may hold credentials.
    umask(Mode::from_bits_truncate(0o002));
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!(%error, "core files could not be switched off");
    }
    // It holds until we return: `endpoint_teardown` gets what users had.
    let raised = daemon::open_files::raise();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("the process's cryptography was chosen already");
    }
    sentinel(
        &endpoint.log(),
        &format!("\n========== Endpoint begins: {}", document.registration.endpoint_id),
    );
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::error)?;
    let open_files = raised.inherited().map(|inherited| inherited.soft());
    runtime.block_on(serve(endpoint, document, config, open_files, ready))
}

async fn serve(
    endpoint: &EndpointDir,
    document: &RunDocument,
    config: &Config,
    open_files: Option<u64>,
    ready: &mut Ready,
) -> Outcome {
    let (trigger, stop) = daemon::stop::on_signals().map_err(Failure::error)?;
    stop_on_hangup(trigger.clone())?;
    let registration = &document.registration;
    let id = registration.endpoint_id;
    let run = ambient::run_id();
    let now = ambient::since_epoch();

    let unusable = |path: PathBuf| {
        move |error: std::io::Error| {
            Failure::new(status::CANTCREAT, format!("Error: {}: {error}", path.display()))
        }
    };
    let spool = Spool::open(endpoint.spool()).map_err(unusable(endpoint.spool()))?;
    let (journal, past) = journal::open(&endpoint.journal(), run, ambient::since_epoch)
        .map_err(unusable(endpoint.journal()))?;
    spool.adopt(|task| past.ended.contains(task)).map_err(unusable(endpoint.spool()))?;
    let spooled = spool.tasks().map_err(unusable(endpoint.spool()))?;
    let keeper = Keeper::start(spool).map_err(unusable(endpoint.spool()))?;

    let options =
        config.engine.runnable().map_err(|why| Failure::new(status::CONFIG, format!("Error: {why}")))?;
    let engine_config = EngineConfig {
        endpoint: id,
        run_dir: endpoint.path().to_owned(),
        node_command: node_command()?,
        open_files,
        options: options.clone(),
    };
    for (option, why) in engine_config.options.without_meaning() {
        tracing::warn!("the option {option} has no effect: {why}");
    }
    let (engine, engine_events) = Engine::start(engine_config).await.map_err(|error| {
        Failure::new(status::CONFIG, format!("Error: the engine could not be started: {error}"))
    })?;
    let (link, link_events) =
        amqp::start(plan(registration, config, &options, document.authorities.clone())?);

    let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let host = heartbeat::host_name();
    let lost: Vec<_> = past
        .open
        .iter()
        .filter(|task| spooled.binary_search(task).is_err())
        .map(|task| (*task, interchange::lost(*task, id, &host, nanos)))
        .collect();
    tracing::info!(endpoint = %id, %run, lost = lost.len(), unsent = spooled.len(), "the endpoint runs");
    let allowed = document.allowed_functions.clone().or_else(|| config.allowed_functions.clone());
    let rules = Rules {
        endpoint: id,
        allowed: allowed.map(|functions| functions.into_iter().collect()),
        bytes: WINDOW_BYTES,
        in_flight: RESULTS_IN_FLIGHT,
        grace: Duration::from_secs(config.shutdown_grace),
        idle: Idle { soft: config.idle_heartbeats_soft, hard: config.idle_heartbeats_hard },
    };
    let mut actions = Vec::new();
    let interchange = Interchange::new(rules, spooled, lost, past.filter, &mut actions);
    let start = ambient::local_time();
    let heartbeat =
        Heartbeat::new(id, run, document.ep_info.clone(), &document.config, config.heartbeat_period, &start);
    let shell = shell::Shell {
        interchange,
        link,
        link_events,
        engine,
        engine_events: Some(engine_events),
        journal,
        keeper,
        heartbeat,
        report: engine::Report::default(),
        period: Duration::from_secs(config.heartbeat_period),
        stop,
        parent: document.parent,
        endpoint: endpoint.clone(),
        next_session: 0,
        renewal: Renewal::new(endpoint, config, &options, document),
    };
    ready.tell(&Ok(()));
    daemon::ready::serving();
    shell.turn(actions).await;
    daemon::ready::stopping();
    drop(trigger);
    Ok(())
}

/// Upstream's endpoint also stops by SIGHUP; other daemons read their configuration again.
fn stop_on_hangup(trigger: daemon::stop::Trigger) -> Outcome {
    let mut hangups = signal(SignalKind::hangup()).map_err(Failure::error)?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            trigger.begin();
        }
    });
    Ok(())
}

fn plan(
    registration: &Registration,
    config: &Config,
    options: &engine::Options,
    authorities: Option<String>,
) -> Result<Plan, Failure> {
    let engine::ProviderOptions::LocalProvider(block) = &options.provider;
    let per_node = options.max_workers_per_node.unwrap_or(1);
    let slots = per_node.saturating_mul(block.nodes_per_block).saturating_mul(block.max_blocks);
    let window = slots.saturating_mul(2).max(LEAST_WINDOW);
    let prefetch = u16::try_from(window).unwrap_or(u16::MAX);
    let name = format!("endpoint {}", registration.endpoint_id);
    Plan::new(registration, config.amqp_port, authorities, prefetch, name)
        .map_err(|error| Failure::new(status::DATAERR, format!("Invalid credential structure: {error}")))
}

/// What blocks run: this very file, by its path, for a node may see the same file system and another PATH.
fn node_command() -> Result<Vec<String>, Failure> {
    let own = std::env::current_exe().map_err(|error| Failure::error(format!("our own path: {error}")))?;
    let own = own.to_str().ok_or_else(|| Failure::error("our own path is not UTF-8"))?;
    Ok(vec![own.to_owned(), "node".to_owned()])
}

fn start_logging(endpoint: &EndpointDir, config: &Config, document: &RunDocument) -> Outcome {
    let path = endpoint.log();
    let log = Log::open(&path, config.log_size_limit, document.console)
        .map_err(|error| Failure::error(format!("{}: {error}", path.display())))?;
    let directives = if document.debug {
        "debug,hyper=info,rustls=info,lapin=info,sqlx=info"
    } else {
        "info,lapin=warn,sqlx=warn"
    };
    let form = daemon::logging::Form::Text;
    daemon::logging::start(daemon::logging::Logging { form, directives, file: Some(Box::new(log)) })
        .map_err(Failure::error)
}
