//! Where log lines go and how they look. Chosen once, at the start of a process.
//!
//! A process that sends heartbeats writes through a [`Background`]: a file system that stands still then costs lines of
//! the log, never the heartbeats.

use std::io::{self, ErrorKind, Write};
use std::str::FromStr as _;
use std::sync::Mutex;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// What to log and where to.
pub struct Logging<'a> {
    pub form: Form,
    /// The directives used when `FARCALL_LOG` is not set, such as `info` or `debug,hyper=info`.
    pub directives: &'a str,
    pub to: To<'a>,
}

/// Where lines go.
pub enum To<'a> {
    /// Standard error; whoever logs waits for it.
    Stderr,
    /// A file; whoever logs waits for it.
    File(Box<dyn Write + Send>),
    /// A thread that writes; nobody waits for it.
    Background(&'a Background),
}

/// So many lines wait for the thread that writes them; those that come then are lost, and counted.
const LINES: usize = 8192;

/// A thread that writes lines. Dropped, it gets a second for those that wait.
#[derive(Debug)]
pub struct Background {
    lines: NonBlocking,
    _last: WorkerGuard,
}

impl Background {
    /// Starts the thread, which writes to `to`.
    pub fn start(to: impl Write + Send + 'static) -> Self {
        let (lines, last) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(LINES)
            .thread_name("log")
            .finish(to);
        Self { lines, _last: last }
    }

    /// Writes a line whatever the filter says.
    pub fn say(&self, line: &str) {
        // It only joins those that wait.
        let _ = self.lines.clone().write_all(format!("{line}\n").as_bytes());
    }

    /// How many lines were lost.
    pub fn lost(&self) -> usize {
        self.lines.error_counter().dropped_lines()
    }
}

/// The variable that goes before any other directives.
pub const VARIABLE: &str = "FARCALL_LOG";

/// Why directives are no filter.
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

/// Reads directives. A word by itself has to be a level: as a target, which it could be too, a mistyped level would end all
/// logging.
pub fn filter(directives: &str) -> Result<EnvFilter, FilterError> {
    let level = |word: &&str| !word.is_empty() && LevelFilter::from_str(word).is_ok();
    let mut words = directives.split(',').map(str::trim).filter(|word| !word.contains('='));
    // The names of spans and of their fields may be words by themselves.
    if let Some(word) = words.find(|word| !level(word)).filter(|_| !directives.contains('[')) {
        return Err(FilterError::Level(word.to_owned()));
    }
    let refused = |error: ParseError| {
        let (directives, error) = (directives.to_owned(), error.to_string());
        FilterError::Directive { directives, error }
    };
    EnvFilter::try_new(directives).map_err(refused)
}

/// Starts logging. A process calls it once; a later call is an error.
pub fn start(logging: Logging<'_>) -> io::Result<()> {
    let usual = || filter(logging.directives).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error));
    let (filter, refused) = match std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()) {
        Some(text) => match filter(&text) {
            Ok(filter) => (filter, None),
            Err(error) => (usual()?, Some(error)),
        },
        None => (usual()?, None),
    };
    let writer = match logging.to {
        To::File(file) => BoxMakeWriter::new(Mutex::new(file)),
        To::Stderr => BoxMakeWriter::new(io::stderr),
        To::Background(background) => BoxMakeWriter::new(background.lines.clone()),
    };
    // A line that can't be written (a full disk) is lost: saying so in the same place would end whoever logged it.
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
        tracing::warn!(%error, used = logging.directives, "{VARIABLE} is not used");
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
            "service::front=trace, warn",
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

    /// Writes once it is told to.
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
    fn a_writer_that_stands_still_keeps_nobody_waiting_and_takes_no_memory() {
        let (go, stalled) = mpsc::channel();
        let (written, lines) = mpsc::channel();
        let background = Background::start(Stalled { go: stalled, written });
        background.say("the first");
        for _ in 0..3 * LINES {
            background.say("another");
        }
        // One may be with the thread already.
        assert!(background.lost() >= 2 * LINES - 1, "{}", background.lost());
        drop(go);
        assert_eq!(lines.recv().unwrap(), b"the first\n");
        drop(background);
        assert!(lines.try_iter().count() >= LINES - 1, "what waited is written in the end");
    }
}
