//! Prints to the terminal: answers on standard output, errors on standard error.
//!
//! If the reader of a pipe has gone (`farcall … | head -1`), the rest is dropped and the command goes on. Any other failure to
//! write is an error, because the text may contain a secret that is shown only once.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

/// Prints a line on standard output.
pub(super) fn say(text: impl Display) -> io::Result<()> {
    write(format_args!("{text}\n"))
}

/// Prints without a line break.
pub(super) fn write(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot write the answer: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Prints a line on standard error. If that fails, there is nowhere to report it.
pub(super) fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
