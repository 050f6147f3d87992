//! Where log lines go and how they look. Chosen once, at the start of a process.

use std::io::{self, Write};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
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
    /// Standard error when absent.
    pub file: Option<Box<dyn Write + Send>>,
}

/// Starts logging. A process calls it once; a later call is an error.
pub fn start(logging: Logging<'_>) -> io::Result<()> {
    let filter =
        EnvFilter::try_from_env("FARCALL_LOG").unwrap_or_else(|_| EnvFilter::new(logging.directives));
    let writer = match logging.file {
        Some(file) => BoxMakeWriter::new(Mutex::new(file)),
        None => BoxMakeWriter::new(io::stderr),
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
    .map_err(io::Error::other)
}
