//! The endpoint's log file with its rotation, and a copy of its lines on the console if asked for.
//!
//! One earlier file is kept, `endpoint.log.1`. Standard output and error of this process and its children are redirected to the
//! log, also after a rotation.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use daemon::logging::{self, BackgroundWriter, Destination, Form, Logging};

use crate::colours::coloured;
use crate::exit::{CommandResult, Failure};

/// Whether lines go to standard error as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Console {
    Off,
    Plain,
    Coloured,
}

impl Console {
    /// `colours`: they are wanted, if standard error is a terminal.
    pub(crate) fn of(console: bool, colours: bool) -> Self {
        match console {
            false => Console::Off,
            true if colours && io::stderr().is_terminal() => Console::Coloured,
            true => Console::Plain,
        }
    }
}

/// Writes log lines.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    /// The size in bytes at which the file is rotated; zero is never.
    limit: u64,
    console: Console,
}

impl Log {
    /// Opens the log to append to it.
    pub(crate) fn open(path: &Path, limit: u64, console: Console) -> io::Result<Self> {
        let file = open(path)?;
        let kind = file.metadata()?;
        // Only a regular file can be rotated, no pipe and no terminal.
        let limit = if kind.is_file() { limit } else { 0 };
        Ok(Self { path: path.to_owned(), file, size: kind.len(), limit, console })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut earlier = self.path.clone().into_os_string();
        earlier.push(".1");
        std::fs::rename(&self.path, earlier)?;
        self.file = open(&self.path)?;
        self.size = 0;
        self.redirect()
    }

    /// Redirects standard output and error of this process, and of the children it will have, to the log.
    pub(crate) fn redirect(&self) -> io::Result<()> {
        if self.console == Console::Off {
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
            // If the rotation fails, the file grows.
            let _ = self.rotate();
        }
        // The file gets the line even if the console is gone.
        let _ = match self.console {
            Console::Off => Ok(()),
            Console::Plain => io::stderr().write_all(line),
            Console::Coloured => io::stderr().write_all(coloured(&String::from_utf8_lossy(line)).as_bytes()),
        };
        self.file.write_all(line)?;
        self.size = self.size.saturating_add(length);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Holds lines back until this process may write the log: until then another process may own it. If it never may, the lines are
/// dropped; the process prints on its terminal why it ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeferredLog(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Waiting,
    Open(Log),
    Discarded,
}

impl DeferredLog {
    /// Writes the lines that wait, and all later ones, to this log.
    pub(crate) fn open(&self, log: Log) {
        self.set(State::Open(log));
    }

    /// Drops the lines that wait, if the log was never opened.
    pub(crate) fn discard(&self) {
        if matches!(*self.state(), State::Waiting) {
            self.set(State::Discarded);
        }
    }

    fn set(&self, state: State) {
        *self.state() = state;
        self.0.1.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic can't leave it half changed.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for DeferredLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let waiting = |state: &mut State| matches!(state, State::Waiting);
        let state = self.0.1.wait_while(self.state(), waiting);
        match &mut *state.unwrap_or_else(PoisonError::into_inner) {
            State::Open(log) => log.write(line),
            State::Waiting | State::Discarded => Ok(line.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a file to append to it; only its owner may read it.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Starts logging, through the thread that writes.
pub(crate) fn start(lines: &BackgroundWriter, debug: bool) -> CommandResult {
    // lapin logs the end of every connection as an error, even of one that we closed. We get each as an event, and log it
    // ourselves.
    let directives =
        if debug { "debug,hyper=info,rustls=info,lapin=info,sqlx=info" } else { "info,lapin=off,sqlx=warn" };
    logging::start(Logging { form: Form::Text, directives, destination: Destination::Background(lines) })
        .map_err(Failure::error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_until_the_log_file_is_open() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("endpoint.log");
        let deferred_log = DeferredLog::default();
        let mut writer = deferred_log.clone();
        let thread = std::thread::spawn(move || writer.write_all(b"early\n").unwrap());
        assert!(!path.exists());
        deferred_log.open(Log::open(&path, 0, Console::Plain).unwrap());
        thread.join().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "early\n");
        deferred_log.discard();
        deferred_log.clone().write_all(b"an open log stays open\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "early\nan open log stays open\n");
        let refused = DeferredLog::default();
        refused.discard();
        refused.clone().write_all(b"nowhere\n").unwrap();
    }

    #[test]
    fn a_long_log_is_rotated() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("endpoint.log");
        // With a console, the test's own standard output stays where it is.
        let mut log = Log::open(&path, 10, Console::Plain).unwrap();
        for line in ["one\n", "two\n", "three\n", "a line that is longer than the limit\n", "four\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&path), "four\n");
        assert_eq!(read(&scratch.path().join("endpoint.log.1")), "a line that is longer than the limit\n");
        let mut log = Log::open(&path, 0, Console::Plain).unwrap();
        log.write_all(b"not set aside without a limit\n").unwrap();
        assert_eq!(read(&path), "four\nnot set aside without a limit\n");
    }
}
