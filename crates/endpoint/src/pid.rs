//! The PID file: which process runs an endpoint, and whether it still does.
//!
//! One line, the PID and a newline, as upstream writes it. A number alone may have been given to another process since;
//! a process counts only if its command line is that of an endpoint. No file lock: on a network file system those hang.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

/// What a PID file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// No file: nobody runs it.
    Absent,
    /// The process lives.
    Alive(Pid),
    /// The file is there, and the process is not.
    Dead,
}

/// Reads a PID file.
pub(crate) fn standing(path: &Path) -> Standing {
    let Ok(text) = fs::read_to_string(path) else {
        return if path.exists() { Standing::Dead } else { Standing::Absent };
    };
    match text.trim().parse() {
        Ok(number) if number > 0 && runs_endpoint(number) => Standing::Alive(Pid::from_raw(number)),
        _ => Standing::Dead,
    }
}

/// Whether a process lives whose command line is that of an endpoint: ours, or upstream's.
pub(crate) fn runs_endpoint(pid: i32) -> bool {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let Ok(command_line) = fs::read(directory.join("cmdline")) else { return false };
    // A zombie has no command line left; it will never answer a signal.
    let command_line = String::from_utf8_lossy(&command_line);
    command_line.contains("Globus Compute Endpoint") || command_line.contains("globus-compute-endpoint")
}

/// The file of the process that runs an endpoint. Dropped, it is removed; what this process becomes by exec inherits
/// it.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
}

/// Why a process can't have the file.
#[derive(Debug)]
pub(crate) enum NotClaimed {
    Alive,
    Io(io::Error),
}

impl PidFile {
    /// Makes the file this process's own. Of two that try at once, one wins. True: somebody else left it behind.
    pub(crate) fn claim(path: PathBuf) -> Result<(Self, bool), NotClaimed> {
        let own = std::process::id();
        let mut stale = false;
        loop {
            match standing(&path) {
                Standing::Alive(pid) if pid.as_raw().unsigned_abs() == own => {
                    return Ok((Self { path }, stale));
                }
                Standing::Alive(_) => return Err(NotClaimed::Alive),
                Standing::Dead => {
                    stale = true;
                    fs::remove_file(&path).map_err(NotClaimed::Io)?;
                }
                Standing::Absent => {}
            }
            match fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path) {
                Ok(mut file) => {
                    file.write_all(format!("{own}\n").as_bytes()).map_err(NotClaimed::Io)?;
                    return Ok((Self { path }, stale));
                }
                // Somebody was quicker: look who.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(NotClaimed::Io(error)),
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Gone already: somebody tidied up.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standings() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("daemon.pid");
        assert_eq!(standing(&path), Standing::Absent);
        // This test's own process lives, and is no endpoint by its command line unless the harness says so.
        for dead in ["", "garbage", "-1", "0", "999999999", "1\n"] {
            fs::write(&path, dead).unwrap();
            assert_eq!(standing(&path), Standing::Dead, "{dead:?}");
        }
    }

    #[test]
    fn a_stale_file_is_taken_over_and_removed_in_the_end() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("daemon.pid");
        fs::write(&path, "999999999\n").unwrap();
        let (file, stale) = PidFile::claim(path.clone()).unwrap();
        assert!(stale);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
        let (file, stale) = PidFile::claim(path.clone()).unwrap();
        assert!(!stale);
        drop(file);
    }
}
