//! The PID file: which process runs an endpoint, on which host, and whether it still does.
//!
//! One line, the PID and a newline, as upstream writes it; the host stands in a file beside it, because homes are
//! shared. A number alone may have been given to another process since; a process counts only if its command line is
//! that of an endpoint. On another host nobody can look: there the file's age tells, which a running endpoint keeps
//! young. No file lock: on a network file system those hang.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::unistd::Pid;

use crate::ambient;
use crate::directory::EndpointDir;
use crate::heartbeat::host_name;

/// What a PID file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// No file: nobody runs it.
    Absent,
    /// The process lives.
    Alive(Pid),
    /// It lives on another host, as far as one can tell from here.
    Elsewhere(String),
    /// The file is there, and the process is not.
    Dead,
}

/// How an endpoint stands.
pub(crate) fn standing(endpoint: &EndpointDir) -> Standing {
    let path = endpoint.pid_file();
    let Ok(text) = fs::read_to_string(&path) else {
        return if path.exists() { Standing::Dead } else { Standing::Absent };
    };
    if let Some((host, period)) = written_by(&endpoint.host_file())
        && host != host_name()
    {
        let young =
            fs::metadata(&path).and_then(|file| file.modified()).is_ok_and(|time| is_young(time, period));
        return if young { Standing::Elsewhere(host) } else { Standing::Dead };
    }
    match text.trim().parse() {
        Ok(number) if number > 0 && runs_endpoint(number) => Standing::Alive(Pid::from_raw(number)),
        _ => Standing::Dead,
    }
}

/// The host, and how often its endpoint touches the PID file, in seconds.
fn written_by(path: &Path) -> Option<(String, u64)> {
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    Some((lines.next()?.to_owned(), lines.next()?.parse().ok()?))
}

/// Clocks of hosts may differ by a minute; three heartbeats may be late.
fn is_young(time: SystemTime, period: u64) -> bool {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    ambient::since_epoch().abs_diff(since) < Duration::from_secs(period.saturating_mul(3).saturating_add(60))
}

/// Whether a process lives whose command line is that of an endpoint: ours, or upstream's.
pub(crate) fn runs_endpoint(pid: i32) -> bool {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let Ok(command_line) = fs::read(directory.join("cmdline")) else { return false };
    // A zombie has no command line left; it will never answer a signal.
    let command_line = String::from_utf8_lossy(&command_line);
    command_line.contains("Globus Compute Endpoint") || command_line.contains("globus-compute-endpoint")
}

/// Removes what a process that is gone left behind.
pub(crate) fn clean_up(endpoint: &EndpointDir) -> io::Result<()> {
    for path in [endpoint.pid_file(), endpoint.host_file()] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The file of the process that runs an endpoint. Dropped, it is removed; what this process becomes by exec inherits
/// it.
#[derive(Debug)]
pub(crate) struct PidFile {
    endpoint: EndpointDir,
}

/// Why a process can't have the file.
#[derive(Debug)]
pub(crate) enum NotClaimed {
    Alive,
    Elsewhere(String),
    Io(io::Error),
}

impl PidFile {
    /// Makes the file this process's own; `period` is how often it will be touched, in seconds. Of two that try at once,
    /// one wins. True: somebody else left it behind.
    pub(crate) fn claim(endpoint: &EndpointDir, period: u64) -> Result<(Self, bool), NotClaimed> {
        let own = std::process::id();
        let path = endpoint.pid_file();
        let file = || Self { endpoint: endpoint.clone() };
        let mut stale = false;
        loop {
            match standing(endpoint) {
                Standing::Alive(pid) if pid.as_raw().unsigned_abs() == own => return Ok((file(), stale)),
                Standing::Alive(_) => return Err(NotClaimed::Alive),
                Standing::Elsewhere(host) => return Err(NotClaimed::Elsewhere(host)),
                Standing::Dead => {
                    stale = true;
                    clean_up(endpoint).map_err(NotClaimed::Io)?;
                }
                Standing::Absent => {}
            }
            match fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path) {
                Ok(mut written) => {
                    written.write_all(format!("{own}\n").as_bytes()).map_err(NotClaimed::Io)?;
                    fs::write(endpoint.host_file(), format!("{}\n{period}\n", host_name()))
                        .map_err(NotClaimed::Io)?;
                    return Ok((file(), stale));
                }
                // Somebody was quicker: look who.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(NotClaimed::Io(error)),
            }
        }
    }
}

/// Tells other hosts that the process lives.
pub(crate) fn touch(endpoint: &EndpointDir) -> io::Result<()> {
    let now = SystemTime::UNIX_EPOCH + ambient::since_epoch();
    File::options().write(true).open(endpoint.pid_file())?.set_modified(now)
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Gone already: somebody tidied up.
        let _ = clean_up(&self.endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(scratch: &tempfile::TempDir) -> EndpointDir {
        EndpointDir::at(scratch.path().to_owned())
    }

    #[test]
    fn standings() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = endpoint(&scratch);
        assert_eq!(standing(&endpoint), Standing::Absent);
        // This test's own process lives, and is no endpoint by its command line unless the harness says so.
        for dead in ["", "garbage", "-1", "0", "999999999", "1\n"] {
            fs::write(endpoint.pid_file(), dead).unwrap();
            assert_eq!(standing(&endpoint), Standing::Dead, "{dead:?}");
        }
        fs::write(endpoint.host_file(), "elsewhere\n30\n").unwrap();
        assert_eq!(standing(&endpoint), Standing::Elsewhere("elsewhere".to_owned()));
        assert!(matches!(PidFile::claim(&endpoint, 30), Err(NotClaimed::Elsewhere(_))));
        let old = SystemTime::UNIX_EPOCH + ambient::since_epoch() - Duration::from_secs(3600);
        File::options().write(true).open(endpoint.pid_file()).unwrap().set_modified(old).unwrap();
        assert_eq!(standing(&endpoint), Standing::Dead, "nobody has touched it for an hour");
        touch(&endpoint).unwrap();
        assert_eq!(standing(&endpoint), Standing::Elsewhere("elsewhere".to_owned()));
    }

    #[test]
    fn a_stale_file_is_taken_over_and_removed_in_the_end() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = endpoint(&scratch);
        fs::write(endpoint.pid_file(), "999999999\n").unwrap();
        let (file, stale) = PidFile::claim(&endpoint, 30).unwrap();
        assert!(stale);
        assert_eq!(fs::read_to_string(endpoint.pid_file()).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!endpoint.pid_file().exists() && !endpoint.host_file().exists());
        let (file, stale) = PidFile::claim(&endpoint, 30).unwrap();
        assert!(!stale);
        drop(file);
    }
}
