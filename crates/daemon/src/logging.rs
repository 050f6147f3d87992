//! Logging: the destination, format and filter of log lines, chosen once at the start of a process.
//!
//! A process that sends heartbeats writes through a [`BackgroundWriter`]: when a file system stalls, the log loses lines, but no
//! heartbeat is delayed.

use std::io::{self, ErrorKind, Write};
use std::str::FromStr as _;
use std::sync::Mutex;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Text for people.
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// What to log, and where.
pub struct Logging<'a> {
    pub form: Form,
    /// The filter if `FARCALL_LOG` is not set, such as `info` or `debug,hyper=info`.
    pub directives: &'a str,
    pub destination: Destination<'a>,
}

/// The destination of log lines.
pub enum Destination<'a> {
    /// Standard error; the thread that logs waits for it.
    Stderr,
    /// A file; the thread that logs waits for it.
    File(Box<dyn Write + Send>),
    /// A thread that writes; no other thread waits for it.
    Background(&'a BackgroundWriter),
}

/// How many lines may wait to be written. Further lines are lost, and counted.
const MAX_WAITING_LINES: usize = 8192;

/// A thread that writes lines. When this is dropped, the thread gets a second for the lines that wait.
#[derive(Debug)]
pub struct BackgroundWriter {
    lines: NonBlocking,
    _last: WorkerGuard,
}

impl BackgroundWriter {
    /// Starts the thread, which writes to `destination`.
    pub fn start(destination: impl Write + Send + 'static) -> Self {
        let (lines, last) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(MAX_WAITING_LINES)
            .thread_name("log")
            .finish(destination);
        Self { lines, _last: last }
    }

    /// Writes a line, without the filter.
    pub fn write_line(&self, line: &str) {
        // This only queues the line, so it can't fail.
        let _ = self.lines.clone().write_all(format!("{line}\n").as_bytes());
    }

    /// How many lines were lost.
    pub fn lost_lines(&self) -> usize {
        self.lines.error_counter().dropped_lines()
    }
}

/// The environment variable whose filter overrides any other.
pub const VARIABLE: &str = "FARCALL_LOG";

/// Why a filter is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error(
        "{0:?} is no level: write trace, debug, info, warn, error or off; TARGET=LEVEL is for one target only"
    )]
    Level(String),
    #[error(
        "{directives:?} is no filter ({error}): write a level, such as info, or TARGET=LEVEL, or several with commas"
    )]
    Directive { directives: String, error: String },
}

/// Parses a filter. A word without `=` must be a level. `EnvFilter` would also accept it as a target, so that a mistyped level
/// would turn all logging off.
pub fn filter(directives: &str) -> Result<EnvFilter, FilterError> {
    let level = |word: &&str| !word.is_empty() && LevelFilter::from_str(word).is_ok();
    let mut words = directives.split(',').map(str::trim).filter(|word| !word.contains('='));
    // In brackets, names of spans and of fields may be single words.
    if let Some(word) = words.find(|word| !level(word)).filter(|_| !directives.contains('[')) {
        return Err(FilterError::Level(word.to_owned()));
    }
    let refused = |error: ParseError| {
        let (directives, error) = (directives.to_owned(), error.to_string());
        FilterError::Directive { directives, error }
    };
    EnvFilter::try_new(directives).map_err(refused)
}

/// Starts logging. A second call in a process is an error.
pub fn start(logging: Logging<'_>) -> io::Result<()> {
    let usual = || filter(logging.directives).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error));
    let (filter, refused) = match std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()) {
        Some(text) => match filter(&text) {
            Ok(filter) => (filter, None),
            Err(error) => (usual()?, Some(error)),
        },
        None => (usual()?, None),
    };
    let writer = match logging.destination {
        Destination::File(file) => BoxMakeWriter::new(Mutex::new(file)),
        Destination::Stderr => BoxMakeWriter::new(io::stderr),
        Destination::Background(background) => BoxMakeWriter::new(background.lines.clone()),
    };
    // A line that can't be written (a full disk) is lost. Reporting that on standard error could fail too, and then panics.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false)
        .log_internal_errors(false);
    match logging.form {
        Form::Text => lines.try_init(),
        Form::Json => lines.json().try_init(),
    }
    .map_err(io::Error::other)?;
    if let Some(error) = refused {
        tracing::warn!(%error, used = logging.directives, "{VARIABLE} is invalid and ignored");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn filters() {
        for good in [
            "info",
            "INFO",
            "off",
            "debug,hyper=info",
            "service::tasks=trace, warn",
            "[request{id=1}]=debug",
            "2",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for (bad, said) in [
            ("inof", "\"inof\" is no level"),
            ("", "\"\" is no level"),
            ("info,hyper", "\"hyper\" is no level"),
            ("hyper=loud", "\"hyper=loud\" is no filter"),
            ("info;debug", "\"info;debug\" is no level"),
        ] {
            let error = filter(bad).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with(said), "{bad}: {error}");
        }
    }

    /// Stalls until `go` is dropped.
    struct Stalled {
        go: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Stalled {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.go.recv();
            let _ = self.written.send(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_writer_delays_no_other_thread_and_takes_bounded_memory() {
        let (go, stalled) = mpsc::channel();
        let (written, lines) = mpsc::channel();
        let background = BackgroundWriter::start(Stalled { go: stalled, written });
        background.write_line("the first");
        for _ in 0..3 * MAX_WAITING_LINES {
            background.write_line("another");
        }
        // The thread may have taken one.
        assert!(background.lost_lines() >= 2 * MAX_WAITING_LINES - 1, "{}", background.lost_lines());
        drop(go);
        assert_eq!(lines.recv().unwrap(), b"the first\n");
        drop(background);
        assert!(
            lines.try_iter().count() >= MAX_WAITING_LINES - 1,
            "the waiting lines are written in the end"
        );
    }
}
