//! Reads from and writes to the terminal of a command. No other module does.

use std::fmt::Display;
use std::io::{self, BufRead as _, Write as _};

use crate::exit::Failure;

/// Prints a line on standard output. A closed pipe is no error.
pub(crate) fn say(text: impl Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints a line on standard error. A closed pipe is no error.
pub(crate) fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints a line on standard error in the form of upstream's log lines on the console.
pub(crate) fn note(text: impl Display) {
    complain(format_args!("> {text}"));
}

/// Asks a question and reads a line. At the end of the input the command is aborted.
pub(crate) fn ask(prompt: &str) -> Result<String, Failure> {
    let mut out = io::stdout().lock();
    // A person who can't see the question can't answer it either.
    let _ = write!(out, "{prompt}").and_then(|()| out.flush());
    drop(out);
    let mut answer = String::new();
    match io::stdin().lock().read_line(&mut answer) {
        Ok(0) | Err(_) => Err(Failure::new(1, "Aborted!")),
        Ok(_) => Ok(answer.trim().to_owned()),
    }
}

/// The number of columns of the terminal on standard output.
pub(crate) fn width() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize` to the pointer, which points to one.
    let answer = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}
