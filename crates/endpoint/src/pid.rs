//! The files that say which process runs an endpoint: `daemon.pid` and `daemon.host`.
//!
//! `daemon.pid` is one line, the PID, as upstream writes and reads it. The same number may be another process by now, or
//! on another host, so `daemon.host` says whose it is: the host, its boot, and when the process started. That file is the
//! claim. It is written whole under a name of its own and then linked to its place, which succeeds for one process only,
//! on network file systems too; a lock would hang there. The files are removed by the process that wrote them, and by
//! whoever sees for certain that this process has ended.
//!
//! On another host nobody can look. There the age of `daemon.pid` tells, which a running endpoint keeps young.

mod process;
mod record;
mod watch;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::directory::EndpointDir;
use crate::{clock, random};

pub(crate) use process::Process;
use record::Record;
pub(crate) use watch::{PidFileWatch, WatchEvent};

/// What the files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProcessState {
    /// No file: nobody runs it.
    Absent,
    /// The process lives, on this host.
    Alive(Process),
    /// It ran on another host a moment ago.
    Elsewhere(String),
    /// It ran on another host, which has not touched the file for long. It may be stopped, and go on later.
    Silent(String),
    /// It has ended.
    Dead,
}

/// How an endpoint stands.
pub(crate) fn process_state(endpoint: &EndpointDir) -> ProcessState {
    let number = match fs::read_to_string(endpoint.pid_file()) {
        Ok(text) => Some(text.trim().parse::<i32>().ok().filter(|number| *number > 0)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(None),
    };
    let record = Record::read(&endpoint.host_file());
    match (number, record) {
        (None, None) => ProcessState::Absent,
        // Between its two files, or somebody has removed one of them.
        (None, Some(record)) => judge(endpoint, &record),
        (Some(number), Some(record)) if number == Some(record.pid) => judge(endpoint, &record),
        // Upstream's: there is only the number, and the title that its process has.
        (Some(Some(number)), _) => match Process::titled(number, endpoint.registered_id()) {
            Some(process) => ProcessState::Alive(process),
            None => ProcessState::Dead,
        },
        (Some(None), _) => ProcessState::Dead,
    }
}

fn judge(endpoint: &EndpointDir, record: &Record) -> ProcessState {
    if record.boot == record::boot() {
        if let Some(process) = Process::started(record.pid, record.started) {
            return ProcessState::Alive(process);
        }
        if record.namespace == record::namespace() {
            return ProcessState::Dead;
        }
    } else if record.host == crate::host::host_name() {
        // This host, before it was started again.
        return ProcessState::Dead;
    }
    let touched = [endpoint.pid_file(), endpoint.host_file()]
        .iter()
        .filter_map(|path| fs::metadata(path).and_then(|file| file.modified()).ok())
        .max();
    match touched {
        Some(time) if is_young(time, record.period) => ProcessState::Elsewhere(record.host.clone()),
        _ => ProcessState::Silent(record.host.clone()),
    }
}

/// Clocks of hosts may differ by a minute; three heartbeats may be late.
fn is_young(time: SystemTime, period: u64) -> bool {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    clock::since_epoch().abs_diff(since) < Duration::from_secs(period.saturating_mul(3).saturating_add(60))
}

/// Removes what a process that has ended left behind; nothing, when it has not.
pub(crate) fn clean_up(endpoint: &EndpointDir) -> io::Result<()> {
    if process_state(endpoint) == ProcessState::Dead { remove(endpoint) } else { Ok(()) }
}

/// The claim goes last: as long as it is there, nobody else writes a PID.
fn remove(endpoint: &EndpointDir) -> io::Result<()> {
    for path in [endpoint.pid_file(), endpoint.host_file()] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The claim of the process that runs an endpoint. Dropped, its files are removed, if they are still its own.
#[derive(Debug)]
pub(crate) struct PidFile {
    claim: Claim,
}

/// What was written, and where: it tells whether it is still there.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    endpoint: EndpointDir,
    record: Record,
}

/// What ran the endpoint before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PreviousRun {
    /// Nothing, or what has left in order.
    Clean,
    /// A process that has ended without removing its files.
    Dead,
    /// A process on another host: it may only be stopped, and hold results.
    Silent,
}

/// Why a process can't have the files.
#[derive(Debug)]
pub(crate) enum ClaimError {
    Alive,
    Elsewhere(String),
    Io(io::Error),
}

impl PidFile {
    /// Makes the files this process's own; `period` is how often they will be touched, in seconds. Of two that try at
    /// once, one wins.
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
                // The queue is ours, so it is superseded; awake again, it sees that in this file.
                ProcessState::Silent(_) => {
                    before = PreviousRun::Silent;
                    remove(endpoint).map_err(ClaimError::Io)?;
                }
                ProcessState::Absent => {}
            }
            let claim = Claim { endpoint: endpoint.clone(), record: record.clone() };
            match claim.write() {
                Ok(()) => return Ok((Self { claim }, before)),
                // Somebody was quicker: look who.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(ClaimError::Io(error)),
            }
        }
    }

    /// To ask from elsewhere whether the files are still ours.
    pub(crate) fn claim(&self) -> Claim {
        self.claim.clone()
    }
}

impl Claim {
    /// Whether no other process has the files. Files that can't be read are nobody else's as far as one can tell.
    pub(crate) fn holds(&self) -> bool {
        Record::read(&self.endpoint.host_file()).is_none_or(|record| record == self.record)
    }

    /// Tells other hosts that the process lives. Files that somebody removed are written again.
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
            // Gone already: somebody tidied up.
            let _ = remove(&self.claim.endpoint);
        }
    }
}

fn ignore_existing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

/// Makes a file that is whole as soon as it is there, and fails when there is one: an exclusive open does neither on
/// every network file system.
fn link(path: &Path, content: &str) -> io::Result<()> {
    let draft = draft(path);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&draft)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .and_then(|()| fs::hard_link(&draft, path));
    // Whatever it was good for, it was.
    let _ = fs::remove_file(&draft);
    written
}

/// A name that no other process, on whatever host, uses.
fn draft(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", random::run_id()))
}

#[cfg(test)]
mod tests {
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
    fn a_number_alone_is_alive_only_by_its_title() {
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
    fn on_this_host_the_start_of_the_process_tells() {
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
    fn on_another_host_the_age_tells() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = endpoint(&scratch);
        foreign(&endpoint);
        assert_eq!(process_state(&endpoint), ProcessState::Elsewhere("elsewhere".to_owned()));
        assert!(matches!(PidFile::acquire(&endpoint, 30), Err(ClaimError::Elsewhere(_))));
        age(&endpoint);
        assert_eq!(process_state(&endpoint), ProcessState::Silent("elsewhere".to_owned()));
        clean_up(&endpoint).unwrap();
        assert!(endpoint.pid_file().exists(), "nobody knows that it has ended");
        let (_, before) = PidFile::acquire(&endpoint, 30).unwrap();
        assert_eq!(before, PreviousRun::Silent);
    }

    #[test]
    fn a_dead_ones_files_are_taken_over_and_removed_in_the_end() {
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
    fn who_is_superseded_notices_and_removes_nothing() {
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
    fn files_that_it_has_written_itself_are_no_obstacle() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = endpoint(&scratch);
        let (file, _) = PidFile::acquire(&endpoint, 30).unwrap();
        file.claim.write().unwrap();
        fs::write(endpoint.pid_file(), "17\n").unwrap();
        assert_eq!(file.claim.write().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn of_two_that_link_at_once_one_wins() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        link(&path, "one").unwrap();
        assert_eq!(link(&path, "other").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    }
}
