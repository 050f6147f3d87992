//! What a command says to whoever typed it.
//!
//! Nobody has to read it to its end: a reader who has gone (`farcall … | head -1`) misses the rest, and the command does
//! its work all the same. Whatever else keeps it from being written is an error, for it may say a secret that is shown
//! this once.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

/// A line on standard output.
pub(super) fn say(text: impl Display) -> io::Result<()> {
    write(format_args!("{text}\n"))
}

/// The same without an end of the line.
pub(super) fn write(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot write the answer: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// A line on standard error. There is no other place to say that it could not be written.
pub(super) fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
