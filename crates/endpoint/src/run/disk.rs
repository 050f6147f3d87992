//! All that a run has on disk, opened once the endpoint is its own: see [`super::fence`].

use std::path::Path;

use wire::{RunId, TaskId};

use crate::ambient;
use crate::config::Config;
use crate::directory::{EndpointDir, unwritable};
use crate::exit::Failure;
use crate::journal::{self, Journal, Past};
use crate::last_words::LastWords;
use crate::log::{Later, Log};
use crate::pid::{Before, NotClaimed, PidFile, Watch};
use crate::spool::{Keeper, Spool};
use crate::start::{active_elsewhere, already_active, end_leftovers};

/// What is open.
pub(super) struct Disk {
    /// Goes last: as long as it is there, the rest is ours.
    pub(super) pid_file: PidFile,
    pub(super) watch: Watch,
    pub(super) journal: Journal,
    pub(super) keeper: Keeper,
    pub(super) past: Past,
    /// Tasks whose results lie in the spool.
    pub(super) spooled: Vec<TaskId>,
    pub(super) before: Before,
}

/// Claims the endpoint and opens everything. It waits for the file system, and so belongs on a thread of its own.
pub(super) fn open(
    endpoint: &EndpointDir,
    config: &Config,
    run: RunId,
    lines: &Later,
    console: bool,
) -> Result<Disk, Failure> {
    let (pid_file, before) = PidFile::claim(endpoint, config.heartbeat_period).map_err(|why| match why {
        NotClaimed::Alive => already_active(endpoint, config),
        NotClaimed::Elsewhere(host) => active_elsewhere(endpoint, &host),
        NotClaimed::Io(error) => unwritable(&endpoint.pid_file(), &error),
    })?;
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| unwritable(&path, &error)
    };
    let log = Log::open(&endpoint.log(), config.log_size_limit, console).map_err(at(&endpoint.log()))?;
    LastWords::forget(endpoint).map_err(at(&endpoint.failure_file()))?;
    log.redirect().map_err(at(&endpoint.log()))?;
    lines.open(log);
    match before {
        Before::Nothing => {}
        Before::Dead => {
            tracing::info!("A prior endpoint process ended without cleaning up; doing so now.");
            let nodes = end_leftovers(endpoint);
            if nodes > 0 {
                tracing::warn!("It had left {nodes} node(s) running; they were ended.");
            }
        }
        Before::Silent => tracing::warn!(
            "the endpoint ran on another host, which has not been heard of for long; this process takes over"
        ),
    }
    let spool = Spool::open(endpoint.spool()).map_err(at(&endpoint.spool()))?;
    let claim = pid_file.claimed();
    let fence = Box::new(move || claim.holds());
    let (journal, past) = journal::open(&endpoint.journal(), run, ambient::since_epoch, fence)
        .map_err(at(&endpoint.journal()))?;
    let stopped_only = before == Before::Silent;
    spool.adopt(stopped_only, |task| past.ended.contains(task)).map_err(at(&endpoint.spool()))?;
    let spooled = spool.tasks().map_err(at(&endpoint.spool()))?;
    let keeper = Keeper::start(spool, run).map_err(at(&endpoint.spool()))?;
    let watch = Watch::start(pid_file.claimed()).map_err(at(&endpoint.pid_file()))?;
    Ok(Disk { pid_file, watch, journal, keeper, past, spooled, before })
}
