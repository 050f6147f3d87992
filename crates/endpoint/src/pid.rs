//! The files that say which process runs an endpoint: `daemon.pid` and `daemon.host`.
//!
//! `daemon.pid` contains only the PID, as upstream writes and reads it. The same PID may belong to another process by now, or
//! exist on another host. So `daemon.host` identifies the process: its host, boot and start time. That file is the claim. It is
//! written under a temporary name and then hard-linked, which succeeds for one process only, also on network file systems; a lock
//! could hang there. The files are removed by the process that wrote them, or by one that knows that this process has ended.
//!
//! A process on another host can't be looked up. There the age of `daemon.pid` decides: a running endpoint touches it regularly.

mod process;
mod record;
mod state;
mod watch;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::directory::EndpointDir;
use crate::{clock, random};

pub(crate) use process::Process;
use record::Record;
pub(crate) use state::{ProcessState, process_state};
pub(crate) use watch::{PidFileWatch, WatchEvent};

/// Removes the files of a process that has ended; does nothing if it has not.
pub(crate) fn clean_up(endpoint: &EndpointDir) -> io::Result<()> {
    if process_state(endpoint) == ProcessState::Dead { remove(endpoint) } else { Ok(()) }
}

/// Removes the claim last: while it exists, no other process writes a PID.
fn remove(endpoint: &EndpointDir) -> io::Result<()> {
    for path in [endpoint.pid_file(), endpoint.host_file()] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The PID file of this process. Dropping it removes the files, if they are still its own.
#[derive(Debug)]
pub(crate) struct PidFile {
    claim: Claim,
}

/// A handle to check whether this process's claim is still in place.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    endpoint: EndpointDir,
    record: Record,
}

/// How the previous run of the endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PreviousRun {
    /// There was none, or it has removed its files.
    Clean,
    /// Its process has ended without removing its files.
    Dead,
    /// Its process is on another host and silent. It may only be suspended, and have results.
    Silent,
}

/// Why the files can't be claimed.
#[derive(Debug)]
pub(crate) enum ClaimError {
    Alive,
    Elsewhere(String),
    Io(io::Error),
}

impl PidFile {
    /// Claims the files for this process, which will touch them every `period` seconds. Of two that try at once, one succeeds.
    pub(crate) fn acquire(endpoint: &EndpointDir, period: u64) -> Result<(Self, PreviousRun), ClaimError> {
        let record = Record::own(period).map_err(ClaimError::Io)?;
        let mut before = PreviousRun::Clean;
        loop {
            match process_state(endpoint) {
                ProcessState::Alive(_) => return Err(ClaimError::Alive),
                ProcessState::Elsewhere(host) => return Err(ClaimError::Elsewhere(host)),
                ProcessState::Dead => {
                    before = PreviousRun::Dead;
                    remove(endpoint).map_err(ClaimError::Io)?;
                }
                // We have the queue, so that process is superseded. Once it continues, it sees that in this file.
                ProcessState::Silent(_) => {
                    before = PreviousRun::Silent;
                    remove(endpoint).map_err(ClaimError::Io)?;
                }
                ProcessState::Absent => {}
            }
            let claim = Claim { endpoint: endpoint.clone(), record: record.clone() };
            match claim.write() {
                Ok(()) => return Ok((Self { claim }, before)),
                // Another process was quicker: look again.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(ClaimError::Io(error)),
            }
        }
    }

    /// The claim of this process, which has executed its program again since it made it.
    pub(crate) fn resume(endpoint: &EndpointDir, period: u64) -> Result<(Self, PreviousRun), ClaimError> {
        let record = Record::own(period).map_err(ClaimError::Io)?;
        let claim = Claim { endpoint: endpoint.clone(), record };
        let own = |it: &Record| it.pid == claim.record.pid && it.started == claim.record.started;
        match Record::read(&endpoint.host_file()) {
            Some(before) if own(&before) && before.boot == claim.record.boot => {
                // The period, or the host's name, may be another now.
                let claim = Claim { record: before, ..claim };
                Ok((Self { claim }, PreviousRun::Clean))
            }
            _ => Self::acquire(endpoint, period),
        }
    }

    /// A claim of this process that is not in the files.
    pub(crate) fn unwritten(endpoint: &EndpointDir, period: u64) -> io::Result<Self> {
        let record = Record::own(period)?;
        Ok(Self { claim: Claim { endpoint: endpoint.clone(), record } })
    }

    /// A handle to check whether the files are still this process's.
    pub(crate) fn claim(&self) -> Claim {
        self.claim.clone()
    }
}

impl Claim {
    /// Whether no other process has claimed the files. Files that can't be read don't count as another's.
    pub(crate) fn holds(&self) -> bool {
        Record::read(&self.endpoint.host_file()).is_none_or(|record| record.is_of_same_process(&self.record))
    }

    /// Shows other hosts that the process lives. Writes the files again if they were removed.
    pub(crate) fn touch(&self) -> io::Result<()> {
        let now = SystemTime::UNIX_EPOCH + clock::since_epoch();
        match File::options().write(true).open(self.endpoint.pid_file()) {
            Ok(file) => file.set_modified(now),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.write().or_else(ignore_existing),
            Err(error) => Err(error),
        }
    }

    fn write(&self) -> io::Result<()> {
        match link(&self.endpoint.host_file(), &self.record.text()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.has_written() => {}
            other => other?,
        }
        match link(&self.endpoint.pid_file(), &format!("{}\n", self.record.pid)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.has_written_pid() => Ok(()),
            other => other,
        }
    }

    /// Whether the PID file holds this process's PID. NFS may say that a file exists which the same call has just made: its
    /// answer was lost, and the call was sent again.
    fn has_written_pid(&self) -> bool {
        fs::read_to_string(self.endpoint.pid_file())
            .is_ok_and(|text| text.trim() == self.record.pid.to_string())
    }

    fn has_written(&self) -> bool {
        Record::read(&self.endpoint.host_file()).is_some_and(|record| record == self.record)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if self.claim.has_written() {
            // They may be removed already.
            let _ = remove(&self.claim.endpoint);
        }
    }
}

fn ignore_existing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

/// Creates a file atomically with its content; fails if it exists. An exclusive open guarantees neither on every network file
/// system.
fn link(path: &Path, content: &str) -> io::Result<()> {
    let draft = draft(path);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&draft)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .and_then(|()| fs::hard_link(&draft, path));
    // The link, if there is one, keeps the content.
    let _ = fs::remove_file(&draft);
    written
}

/// A temporary name that no process on any host uses.
fn draft(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", random::run_id()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use nix::unistd::Pid;

    fn pid(standing: &ProcessState) -> Option<Pid> {
        match standing {
            ProcessState::Alive(process) => Some(process.pid()),
            _ => None,
        }
    }

    fn endpoint(scratch: &tempfile::TempDir) -> EndpointDir {
        EndpointDir::at(scratch.path().to_owned())
    }

    /// A claim as a process on another host has written it.
    fn foreign(endpoint: &EndpointDir) -> Record {
        let mut record = Record::own(30).unwrap();
        (record.host, record.boot) = ("elsewhere".to_owned(), "another boot".to_owned());
        fs::write(endpoint.host_file(), record.text()).unwrap();
        fs::write(endpoint.pid_file(), format!("{}\n", record.pid)).unwrap();
        record
    }

    fn age(endpoint: &EndpointDir) {
        let old = SystemTime::UNIX_EPOCH + clock::since_epoch() - Duration::from_secs(3600);
        for path in [endpoint.pid_file(), endpoint.host_file()] {
            File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
        }
    }

    #[test]
    fn the_own_files_stay_own_when_the_period_changes() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = endpoint(&scratch);
        let (before, _) = PidFile::acquire(&endpoint, 30).unwrap();
        let after = PidFile::unwritten(&endpoint, 7).unwrap();
        assert!(before.claim().holds() && after.claim().holds());
        foreign(&endpoint);
        assert!(!before.claim().holds() && !after.claim().holds());
    }

    #[test]
    fn a_pid_without_a_record_is_checked_by_the_title() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = endpoint(&scratch);
        assert_eq!(process_state(&endpoint), ProcessState::Absent);
        let own = format!("{}\n", std::process::id());
        // This test's own process lives, and is no endpoint by its title.
        for dead in ["", "garbage", "-1", "0", "999999999", "1\n", &own] {
            fs::write(endpoint.pid_file(), dead).unwrap();
            assert_eq!(process_state(&endpoint), ProcessState::Dead, "{dead:?}");
        }
    }

    #[test]
    fn on_this_host_the_start_time_decides() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = endpoint(&scratch);
        let (file, before) = PidFile::acquire(&endpoint, 30).unwrap();
        assert_eq!(before, PreviousRun::Clean);
        assert_eq!(pid(&process_state(&endpoint)), Some(Pid::this()));
        assert!(matches!(PidFile::acquire(&endpoint, 30), Err(ClaimError::Alive)));
        let record = file.claim.record.clone();
        let changed = [
            (Record { started: record.started + 1, ..record.clone() }, "another process has the number"),
            (Record { boot: "earlier".to_owned(), ..record.clone() }, "the host was started again"),
            (Record { pid: 999_999_999, ..record.clone() }, "the process has gone"),
        ];
        for (other, why) in changed {
            fs::write(endpoint.host_file(), other.text()).unwrap();
            fs::write(endpoint.pid_file(), format!("{}\n", other.pid)).unwrap();
            assert_eq!(process_state(&endpoint), ProcessState::Dead, "{why}");
        }
        // Seen from another container on the same host, its processes can't be looked at.
        let mut contained = record;
        (contained.pid, contained.namespace) = (999_999_999, "pid:[1]".to_owned());
        fs::write(endpoint.host_file(), contained.text()).unwrap();
        fs::write(endpoint.pid_file(), "999999999\n").unwrap();
        assert!(matches!(process_state(&endpoint), ProcessState::Elsewhere(_)));
    }

    #[test]
    fn on_another_host_the_age_decides() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = endpoint(&scratch);
        foreign(&endpoint);
        assert_eq!(process_state(&endpoint), ProcessState::Elsewhere("elsewhere".to_owned()));
        assert!(matches!(PidFile::acquire(&endpoint, 30), Err(ClaimError::Elsewhere(_))));
        age(&endpoint);
        assert_eq!(process_state(&endpoint), ProcessState::Silent("elsewhere".to_owned()));
        clean_up(&endpoint).unwrap();
        assert!(endpoint.pid_file().exists(), "it is not known that it has ended");
        let (_, before) = PidFile::acquire(&endpoint, 30).unwrap();
        assert_eq!(before, PreviousRun::Silent);
    }

    #[test]
    fn files_of_a_dead_process_are_replaced_and_finally_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = endpoint(&scratch);
        fs::write(endpoint.pid_file(), "999999999\n").unwrap();
        let (file, before) = PidFile::acquire(&endpoint, 30).unwrap();
        assert_eq!(before, PreviousRun::Dead);
        let own = format!("{}\n", std::process::id());
        assert_eq!(fs::read_to_string(endpoint.pid_file()).unwrap(), own, "as upstream reads it");
        drop(file);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "no draft is left either");
    }

    #[test]
    fn a_superseded_process_notices_it_and_removes_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = endpoint(&scratch);
        let (file, _) = PidFile::acquire(&endpoint, 30).unwrap();
        let claim = file.claim();
        assert!(claim.holds());
        // Somebody's tidying takes nothing from it.
        fs::remove_file(endpoint.pid_file()).unwrap();
        assert!(claim.holds());
        claim.touch().unwrap();
        assert_eq!(pid(&process_state(&endpoint)), Some(Pid::this()), "it is written again");
        let other = foreign(&endpoint);
        assert!(!claim.holds());
        claim.touch().unwrap();
        drop(file);
        assert_eq!(Record::read(&endpoint.host_file()), Some(other));
        assert!(endpoint.pid_file().exists());
    }

    #[test]
    fn a_process_may_claim_its_own_files_again() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = endpoint(&scratch);
        let (file, _) = PidFile::acquire(&endpoint, 30).unwrap();
        file.claim.write().unwrap();
        fs::write(endpoint.pid_file(), "17\n").unwrap();
        assert_eq!(file.claim.write().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn of_two_processes_that_link_at_once_one_succeeds() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        link(&path, "one").unwrap();
        assert_eq!(link(&path, "other").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    }
}
