//! Opens the files of a run, once the broker has granted the queue: see [`super::fence`].

use std::path::Path;

use wire::{RunId, TaskId};

use super::leftovers;
use crate::clock;
use crate::config::Config;
use crate::directory::{EndpointDir, unwritable};
use crate::exit::Failure;
use crate::journal::{self, EarlierRuns, Journal};
use crate::last_failure::LastFailure;
use crate::log::{Console, DeferredLog, Log};
use crate::pid::{ClaimError, PidFile, PidFileWatch, PreviousRun};
use crate::spool::{Spool, SpoolThread};
use crate::start::{active_elsewhere, already_active};

/// The open files and the threads that write them.
pub(super) struct Storage {
    /// Dropped last: while it exists, the other files are this process's.
    pub(super) pid_file: PidFile,
    pub(super) watch: PidFileWatch,
    pub(super) journal: Journal,
    pub(super) spool_thread: SpoolThread,
    pub(super) earlier_runs: EarlierRuns,
    /// Tasks whose results are in the spool.
    pub(super) spooled: Vec<TaskId>,
    pub(super) before: PreviousRun,
}

/// Claims the endpoint and opens its files. Blocks on the file system, so it must run on a thread of its own.
pub(super) fn open(
    endpoint: &EndpointDir,
    config: &Config,
    run: RunId,
    lines: &DeferredLog,
    console: Console,
) -> Result<Storage, Failure> {
    let (pid_file, before) =
        PidFile::acquire(endpoint, config.common.heartbeat_period).map_err(|why| match why {
            ClaimError::Alive => already_active(endpoint, &config.common),
            ClaimError::Elsewhere(host) => active_elsewhere(endpoint, &host),
            ClaimError::Io(error) => unwritable(&endpoint.pid_file(), &error),
        })?;
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| unwritable(&path, &error)
    };
    let log =
        Log::open(&endpoint.log(), config.common.log_size_limit, console).map_err(at(&endpoint.log()))?;
    LastFailure::remove(endpoint).map_err(at(&endpoint.failure_file()))?;
    log.redirect().map_err(at(&endpoint.log()))?;
    lines.open(log);
    match before {
        PreviousRun::Clean => {}
        PreviousRun::Dead => {
            tracing::info!("A prior endpoint process ended without cleaning up; doing so now.");
            let nodes = leftovers::end(endpoint);
            if nodes > 0 {
                tracing::warn!("It had left {nodes} node(s) running; they were ended.");
            }
        }
        PreviousRun::Silent => tracing::warn!(
            "the endpoint ran on another host, which has not been heard of for long; this process takes over"
        ),
    }
    let spool = Spool::open(endpoint.spool()).map_err(at(&endpoint.spool()))?;
    let claim = pid_file.claim();
    let fence = Box::new(move || claim.holds());
    let (journal, earlier_runs) = journal::open(&endpoint.journal(), run, clock::since_epoch, fence)
        .map_err(at(&endpoint.journal()))?;
    let stopped_only = before == PreviousRun::Silent;
    spool.adopt(stopped_only, |task| earlier_runs.ended.contains(task)).map_err(at(&endpoint.spool()))?;
    let spooled = spool.tasks().map_err(at(&endpoint.spool()))?;
    let spool_thread = SpoolThread::start(spool, run).map_err(at(&endpoint.spool()))?;
    let watch = PidFileWatch::start(pid_file.claim()).map_err(at(&endpoint.pid_file()))?;
    Ok(Storage { pid_file, watch, journal, spool_thread, earlier_runs, spooled, before })
}
