//! Writes the audit log: reads the packets of user endpoints from their pipes, and appends a line for each to the file.
//!
//! The file is written by a thread of its own. When it can't be written, user endpoints' pipes fill, and the manager is told
//! to stop: nothing runs that is not recorded.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use manager::audit::{self, PACKET, Session, Writer};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use wire::EndpointId;

use super::audit_budget::Budget;
use crate::clock;

/// How many lines may wait to be written. Then the pipes fill.
const MOST_WAITING: usize = 1_024;
/// How long the last lines may take at the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The audit log of a running manager.
#[derive(Debug)]
pub(super) struct AuditLog {
    manager: EndpointId,
    lines: mpsc::Sender<Vec<u8>>,
    failures: mpsc::Receiver<String>,
    readers: JoinSet<()>,
    stop: watch::Sender<bool>,
    written: std::thread::JoinHandle<()>,
}

/// A pipe that keeps packets apart: the manager's end, and the user endpoint's.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC | OFlag::O_DIRECT)?;
    // Only our end: the user endpoint waits when the pipe is full.
    nix::fcntl::fcntl(&ours, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_DIRECT))?;
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
        let (outbox, failures) = mpsc::channel(1);
        let written = std::thread::Builder::new().name("audit-log".to_owned()).spawn(move || {
            while let Some(line) = inbox.blocking_recv() {
                if let Err(error) = file.write_all(&line) {
                    let _ = outbox.blocking_send(error.to_string());
                    return;
                }
            }
        })?;
        Ok(Self { manager, lines, failures, readers: JoinSet::new(), stop: watch::channel(false).0, written })
    }

    /// Records what comes from this pipe until it closes.
    pub(super) fn record(&mut self, pipe: OwnedFd, writer: Writer) {
        while self.readers.try_join_next().is_some() {}
        let (lines, mut stop) = (self.lines.clone(), self.stop.subscribe());
        self.readers.spawn(async move {
            // SAFETY: the descriptor is the handle's own, and stays open and the same as long as it lives.
            let Ok(pipe) = (unsafe { AsyncFd::register(pipe) }) else { return };
            let mut buffer = [0; PACKET];
            let mut budget = Budget::new(clock::since_boot());
            loop {
                let mut ready = tokio::select! {
                    biased;
                    ready = pipe.readable() => match ready {
                        Ok(ready) => ready,
                        Err(_) => return,
                    },
                    // What is in the pipe stays there for the next program.
                    _ = stop.wait_for(|stop| *stop) => return,
                };
                match ready.try_io(|pipe| Ok(nix::unistd::read(pipe.get_ref().as_fd(), &mut buffer)?)) {
                    Ok(Ok(0) | Err(_)) => return,
                    Ok(Ok(length)) => {
                        let line = audit::record_line(&clock::local_time(), writer, &buffer[..length]);
                        let Some(line) = line else { continue };
                        let pause = budget.take(line.len(), clock::since_boot());
                        if lines.send(line).await.is_err() {
                            return;
                        }
                        if !pause.is_zero() {
                            tokio::select! {
                                () = tokio::time::sleep(pause) => {}
                                _ = stop.wait_for(|stop| *stop) => return,
                            }
                        }
                    }
                    // It was not readable after all.
                    Err(_) => {}
                }
            }
        });
    }

    /// Waits until the log can't be written any more. Returns why.
    pub(super) async fn failed(&mut self) -> String {
        match self.failures.recv().await {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Ends the session: records what user endpoints wrote, and writes the last line.
    pub(super) async fn finish(mut self, session: Session) {
        if session == Session::Restarts {
            self.stop.send_replace(true);
        }
        let all = async { while self.readers.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            tracing::warn!("a process still holds an audit pipe of a user endpoint that has ended");
            self.readers.shutdown().await;
        }
        let _ = self.lines.send(own_line(self.manager, session)).await;
        drop(self.lines);
        let written = self.written;
        let joined = tokio::task::spawn_blocking(move || written.join());
        if tokio::time::timeout(PATIENCE, joined).await.is_err() {
            tracing::error!("the end of the audit log could not be written");
        }
    }
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
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ID: &str = "00000000-0000-4000-8000-000000000002";

    fn lines(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        // Without the time.
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[tokio::test]
    async fn packets_become_lines_in_the_name_of_their_writer_also_over_a_restart() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("audit.log");
        let id: EndpointId = ID.parse().unwrap();
        let writer = Writer { uid: 1001, pid: 77, user_endpoint: id };
        let (ours, theirs) = pipe().unwrap();
        let again = ours.try_clone().unwrap();
        let mut log = AuditLog::open(&path, id).unwrap();
        log.record(ours, writer);
        for packet in ["one RECEIVED", "one\nforged"] {
            nix::unistd::write(&theirs, packet.as_bytes()).unwrap();
        }
        while lines(&path).len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        log.finish(Session::Restarts).await;
        nix::unistd::write(&theirs, b"between").unwrap();
        let mut next = AuditLog::open(&path, id).unwrap();
        next.record(again, writer);
        drop(theirs);
        next.finish(Session::Ends).await;
        let (uid, pid) = (nix::unistd::getuid(), std::process::id());
        let own = |words: &str| format!("uid={uid} pid={pid} eid={ID} {words}");
        let theirs = |words: &str| format!("uid=1001 pid=77 uep={ID} {words}");
        assert_eq!(
            lines(&path),
            [
                own("Begin MEP session ====="),
                theirs("one RECEIVED"),
                theirs("one forged"),
                own("End MEP session [hot restart] ....."),
                own("Begin MEP session ====="),
                theirs("between"),
                own("End MEP session -----"),
            ]
        );
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_session_begins_on_a_line_of_its_own() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("audit.log");
        for (before, lines) in [("", 1), ("whole line\n", 2), ("whole line\nhalf a li", 3)] {
            std::fs::write(&path, before).unwrap();
            let log = AuditLog::open(&path, ID.parse().unwrap()).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), lines);
            assert!(text.lines().last().unwrap().ends_with("Begin MEP session ====="));
            log.finish(Session::Ends).await;
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_told() {
        let id: EndpointId = ID.parse().unwrap();
        assert!(AuditLog::open(Path::new("/dev/full"), id).is_err());
        let (lines, mut inbox) = mpsc::channel::<Vec<u8>>(1);
        let (outbox, failures) = mpsc::channel(1);
        let written = std::thread::spawn(move || {
            inbox.blocking_recv();
            outbox.blocking_send("No space left on device".to_owned()).unwrap();
        });
        let stop = watch::channel(false).0;
        let mut log = AuditLog { manager: id, lines, failures, readers: JoinSet::new(), stop, written };
        log.lines.send(Vec::new()).await.unwrap();
        assert_eq!(log.failed().await, "No space left on device");
    }
}
