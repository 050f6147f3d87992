//! The endpoint's log: a file that is set aside when it grows too long, and the console beside it where asked for.
//!
//! One earlier file is kept, `endpoint.log.1`. What the process and its children write to their standard output and error
//! lies in the same file, so these move along.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Writes log lines.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    /// Zero: it is never set aside.
    limit: u64,
    /// Lines go to standard error, too.
    console: bool,
}

impl Log {
    /// Opens the log and begins where it ended.
    pub(crate) fn open(path: &Path, limit: u64, console: bool) -> io::Result<Self> {
        let file = open(path)?;
        let kind = file.metadata()?;
        // What is no plain file (a pipe, a terminal) can't be set aside.
        let limit = if kind.is_file() { limit } else { 0 };
        Ok(Self { path: path.to_owned(), file, size: kind.len(), limit, console })
    }

    fn set_aside(&mut self) -> io::Result<()> {
        let mut earlier = self.path.clone().into_os_string();
        earlier.push(".1");
        std::fs::rename(&self.path, earlier)?;
        self.file = open(&self.path)?;
        self.size = 0;
        if !self.console {
            nix::unistd::dup2_stdout(self.file.as_fd())?;
            nix::unistd::dup2_stderr(self.file.as_fd())?;
        }
        Ok(())
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = line.len() as u64;
        if self.limit > 0 && self.size > 0 && self.size.saturating_add(length) > self.limit {
            // A log that can't be set aside is written on.
            let _ = self.set_aside();
        }
        if self.console {
            // A console that is gone takes nothing from the file.
            let _ = io::stderr().write_all(line);
        }
        self.file.write_all(line)?;
        self.size = self.size.saturating_add(length);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Opens the file to be appended to, for its owner only.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// A line that tells where a run begins or ends, whatever the log's level is.
pub(crate) fn sentinel(path: &Path, line: &str) {
    // A log that can't be written can't be told about either.
    let _ = open(path).and_then(|mut log| writeln!(log, "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_set_aside_once() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("endpoint.log");
        // With a console, the test's own standard output stays where it is.
        let mut log = Log::open(&path, 10, true).unwrap();
        for line in ["one\n", "two\n", "three\n", "a line that is longer than the limit\n", "four\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&path), "four\n");
        assert_eq!(read(&scratch.path().join("endpoint.log.1")), "a line that is longer than the limit\n");
        let mut log = Log::open(&path, 0, true).unwrap();
        log.write_all(b"not set aside without a limit\n").unwrap();
        assert_eq!(read(&path), "four\nnot set aside without a limit\n");
    }
}
