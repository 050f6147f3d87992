//! The file that shells evaluate, and the lock of who has written it.
//!
//! The file names the forwarder of one process, and is of no use after that process has ended. A second `farcall up` therefore
//! leaves the file of a living one alone.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use store::private_file;

use super::UpDirectory;

#[derive(Debug)]
pub(super) struct PublishedEnvironment {
    path: PathBuf,
    /// The kernel releases it when the process ends, however it does.
    _lock: File,
}

impl PublishedEnvironment {
    /// Writes the file. `None`: a process that still runs has written it.
    pub(super) fn write(
        up_directory: &UpDirectory,
        script: &str,
    ) -> io::Result<Option<PublishedEnvironment>> {
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(up_directory.environment_lock())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let path = up_directory.environment();
        private_file::write(&path, script.as_bytes())?;
        Ok(Some(PublishedEnvironment { path, _lock: lock }))
    }

    /// Removes the file: the forwarder that it names ends, and somebody else may get its port.
    pub(super) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "nothing to remove");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_writes_it() {
        let root = tempfile::tempdir().unwrap();
        let up_directory = UpDirectory { root: root.path().to_owned() };
        let first = PublishedEnvironment::write(&up_directory, "first").unwrap().unwrap();
        assert!(PublishedEnvironment::write(&up_directory, "second").unwrap().is_none());
        assert_eq!(fs::read_to_string(up_directory.environment()).unwrap(), "first");
        first.remove();
        assert!(!up_directory.environment().exists());
        assert!(PublishedEnvironment::write(&up_directory, "third").unwrap().is_some());
        assert_eq!(fs::read_to_string(up_directory.environment()).unwrap(), "third");
    }
}
