//! Writes the audit log: reads the packets of user endpoints from their pipes, and appends a line for each to the file.
//!
//! The file is written by a thread of its own. When it can't be written, user endpoints' pipes fill, and the manager is told
//! to stop: nothing runs that is not recorded.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use manager::audit::{self, PACKET, Session, Writer};
use manager::children::Serial;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use wire::EndpointId;

use super::audit_budget::{Budget, Excess};
use crate::clock;

/// How many lines may wait to be written. Then the pipes fill.
const MOST_WAITING: usize = 1_024;
/// How long each step of the end may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the pipe of a user endpoint that has ended may stay open before what is in it is read at once, and the rest never.
/// A user's other processes can copy the end that is written to, and keep it for ever.
const LINGER: Duration = Duration::from_secs(1);
/// How many troubles may wait for the event loop.
const MOST_TROUBLES: usize = 16;

/// The audit log of a running manager.
#[derive(Debug)]
pub(super) struct AuditLog {
    manager: EndpointId,
    lines: mpsc::Sender<Vec<u8>>,
    troubles: mpsc::Receiver<Trouble>,
    outbox: mpsc::Sender<Trouble>,
    readers: JoinSet<()>,
    /// To tell the readers that their user endpoints have ended.
    ends: HashMap<Serial, oneshot::Sender<()>>,
    /// By the number of the local user.
    budgets: HashMap<u32, Arc<Mutex<Budget>>>,
    stop: watch::Sender<Stop>,
    written: std::thread::JoinHandle<()>,
    /// How long each step of the end may take.
    patience: Duration,
}

/// What must be done about the log.
#[derive(Debug, PartialEq)]
pub(super) enum Trouble {
    /// It can't be written, for this reason: nothing may run any more.
    Unwritable(String),
    /// A local user writes more than it may.
    Excess { uid: u32, excess: Excess },
}

/// Whether the readers are to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    No,
    /// What is in the pipes stays there for the next program.
    AtOnce,
    WhenEmpty,
}

/// Reads one pipe.
struct Reader {
    pipe: AsyncFd<OwnedFd>,
    writer: Writer,
    budget: Arc<Mutex<Budget>>,
    lines: mpsc::Sender<Vec<u8>>,
    troubles: mpsc::Sender<Trouble>,
}

/// A pipe that keeps packets apart: the manager's end, and the user endpoint's.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC | OFlag::O_DIRECT)?;
    // Only our end: the user endpoint waits when the pipe is full.
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_DIRECT))?;
    Ok((ours, theirs))
}

impl AuditLog {
    /// Opens the file to append to it, and begins a session in it.
    pub(super) fn open(path: &Path, manager: EndpointId) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        if ends_within_a_line(path, &file)? {
            file.write_all(b"\n")?;
        }
        file.write_all(&own_line(manager, Session::Begins))?;
        let (lines, mut inbox) = mpsc::channel::<Vec<u8>>(MOST_WAITING);
        let (outbox, troubles) = mpsc::channel(MOST_TROUBLES);
        let reporter = outbox.clone();
        let written = std::thread::Builder::new().name("audit-log".to_owned()).spawn(move || {
            while let Some(line) = inbox.blocking_recv() {
                if let Err(error) = file.write_all(&line) {
                    let _ = reporter.blocking_send(Trouble::Unwritable(error.to_string()));
                    return;
                }
            }
        })?;
        let budgets = HashMap::new();
        let stop = watch::channel(Stop::No).0;
        Ok(Self {
            manager,
            lines,
            troubles,
            outbox,
            readers: JoinSet::new(),
            ends: HashMap::new(),
            budgets,
            stop,
            written,
            patience: PATIENCE,
        })
    }

    /// Records what comes from this child's pipe until it closes, or until soon after [`Self::ended`]. An error means that nobody
    /// reads it.
    pub(super) fn record(&mut self, child: Serial, pipe: OwnedFd, writer: Writer) -> io::Result<()> {
        while self.readers.try_join_next().is_some() {}
        // SAFETY: the descriptor is the handle's own, and stays open and the same as long as it lives.
        let pipe = unsafe { AsyncFd::register(pipe) }.map_err(io::Error::other)?;
        let now = clock::since_boot();
        self.budgets.retain(|_, budget| Arc::strong_count(budget) > 1 || !locked(budget).is_unused(now));
        let reader = Reader {
            pipe,
            writer,
            budget: Arc::clone(self.budgets.entry(writer.uid).or_default()),
            lines: self.lines.clone(),
            troubles: self.outbox.clone(),
        };
        // Those that have ended hold their memory until then.
        while self.readers.try_join_next().is_some() {}
        let (end, ended) = oneshot::channel();
        self.ends.insert(child, end);
        self.readers.spawn(reader.run(self.stop.subscribe(), ended));
        Ok(())
    }

    /// This child has ended: what it wrote is in its pipe, and what others add soon is not recorded any more.
    pub(super) fn ended(&mut self, child: Serial) {
        if let Some(end) = self.ends.remove(&child) {
            // Most pipes close with the process, and nobody reads them then.
            let _ = end.send(());
        }
    }

    /// Waits until something must be done about the log.
    pub(super) async fn trouble(&mut self) -> Trouble {
        match self.troubles.recv().await {
            Some(trouble) => trouble,
            None => std::future::pending().await,
        }
    }

    /// Ends the session: records what user endpoints wrote, and writes the last line. Nobody is held back any more. Takes a
    /// bounded time, also if the file can't be written.
    pub(super) async fn finish(mut self, session: Session) {
        self.stop.send_replace(match session {
            Session::Restarts => Stop::AtOnce,
            Session::Begins | Session::Ends => Stop::WhenEmpty,
        });
        if !self.readers_end().await {
            tracing::error!("the audit log is not written in time; records that wait are lost");
            self.readers.shutdown().await;
        }
        let last = self.lines.send(own_line(self.manager, session));
        let queued = tokio::time::timeout(self.patience, last).await.is_ok();
        drop(self.lines);
        let (written, patience) = (self.written, self.patience);
        let joined = tokio::task::spawn_blocking(move || written.join());
        if !queued || tokio::time::timeout(patience, joined).await.is_err() {
            tracing::error!("the end of the audit log could not be written");
        }
    }

    async fn readers_end(&mut self) -> bool {
        let all = async { while self.readers.join_next().await.is_some() {} };
        tokio::time::timeout(self.patience, all).await.is_ok()
    }
}

impl Reader {
    async fn run(self, stop: watch::Receiver<Stop>, ended: oneshot::Receiver<()>) {
        let mut asked = std::pin::pin!(asked(stop, ended));
        let mut buffer = [0; PACKET];
        loop {
            let stopped = tokio::select! {
                // First, so that a user who writes without end does not delay it.
                biased;
                stopped = &mut asked => stopped,
                ready = self.pipe.readable() => match ready {
                    Ok(mut ready) => match ready.try_io(|pipe| read(pipe, &mut buffer)) {
                        Ok(Ok(0) | Err(_)) => return,
                        Ok(Ok(length)) => {
                            let Some(pause) = self.write(buffer.get(..length).unwrap_or_default()).await else { return };
                            tokio::select! {
                                biased;
                                stopped = &mut asked => stopped,
                                () = tokio::time::sleep(pause) => continue,
                            }
                        }
                        // It was not readable after all.
                        Err(_) => continue,
                    },
                    Err(_) => return,
                },
            };
            if stopped == Stop::WhenEmpty {
                self.empty(&mut buffer).await;
            }
            return;
        }
    }

    /// Records what is in the pipe, but not what a process adds meanwhile without end. The user's budget pays for it, and
    /// nothing waits for the budget.
    async fn empty(&self, buffer: &mut [u8; PACKET]) {
        // Whoever holds the other end may have made the pipe larger, and may do so while it is read.
        let capacity = fcntl(self.pipe.get_ref(), FcntlArg::F_GETPIPE_SZ).unwrap_or_default();
        let packets = usize::try_from(capacity).unwrap_or_default().div_ceil(PACKET);
        for _ in 0..packets {
            match read(&self.pipe, buffer) {
                Ok(length @ 1..) => {
                    if self.write(buffer.get(..length).unwrap_or_default()).await.is_none() {
                        return;
                    }
                }
                Ok(0) => return,
                Err(_) => break,
            }
        }
        let Writer { uid, pid, .. } = self.writer;
        tracing::warn!(
            uid,
            pid,
            "a process still holds the audit pipe of a user endpoint that has ended; no more of it is recorded"
        );
    }

    /// Passes a packet on as a line. Returns how long to wait before the next one; `None`: the log is closed.
    async fn write(&self, packet: &[u8]) -> Option<Duration> {
        let Some(line) = audit::record_line(&clock::local_time(), self.writer, packet) else {
            return Some(Duration::ZERO);
        };
        let (pause, excess) =
            locked(&self.budget).take(line.len(), audit::is_record(packet), clock::since_boot());
        self.lines.send(line).await.ok()?;
        if let Some(excess) = excess {
            // When the event loop has several to read already, this one comes again.
            let _ = self.troubles.try_send(Trouble::Excess { uid: self.writer.uid, excess });
        }
        Some(pause)
    }
}

/// Waits until reading is to stop.
async fn asked(mut stop: watch::Receiver<Stop>, ended: oneshot::Receiver<()>) -> Stop {
    let stopped = async { stop.wait_for(|stop| *stop != Stop::No).await.map_or(Stop::AtOnce, |stop| *stop) };
    let mut stopped = std::pin::pin!(stopped);
    tokio::select! {
        biased;
        Ok(()) = ended => {}
        stopped = &mut stopped => return stopped,
    }
    // The next program knows nothing of a child that has ended: what is in its pipe is recorded now, or never.
    let _ = tokio::time::timeout(LINGER, stopped).await;
    Stop::WhenEmpty
}

fn read(pipe: &AsyncFd<OwnedFd>, buffer: &mut [u8; PACKET]) -> io::Result<usize> {
    Ok(nix::unistd::read(pipe.get_ref().as_fd(), buffer)?)
}

fn locked(budget: &Mutex<Budget>) -> std::sync::MutexGuard<'_, Budget> {
    budget.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the last line of the file has no end: it was being written when the disk was full.
fn ends_within_a_line(path: &Path, file: &File) -> io::Result<bool> {
    let found = file.metadata()?;
    if !found.is_file() || found.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    File::open(path)?.read_exact_at(&mut last, found.len() - 1)?;
    Ok(last != *b"\n")
}

fn own_line(manager: EndpointId, session: Session) -> Vec<u8> {
    let uid = nix::unistd::getuid().as_raw();
    audit::session_line(&clock::local_time(), uid, std::process::id(), manager, session)
}

#[cfg(test)]
mod tests;
