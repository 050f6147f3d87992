//! What an administrator sees on the terminal of a manager in the foreground: its id, and a line with the time, which
//! shows that it lives.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use jiff::Zoned;
use wire::EndpointId;

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// The terminals of standard output and standard error, if they are some.
#[derive(Debug, Default)]
pub(super) struct Terminals {
    output: Option<File>,
    error: Option<File>,
}

impl Terminals {
    /// Keeps them, also when standard output and error go to the log later.
    pub(super) fn keep() -> Self {
        let copy = |stream: BorrowedFd<'_>| stream.try_clone_to_owned().ok().map(File::from);
        Self {
            output: Some(io::stdout()).filter(|it| it.is_terminal()).and_then(|it| copy(it.as_fd())),
            error: Some(io::stderr()).filter(|it| it.is_terminal()).and_then(|it| copy(it.as_fd())),
        }
    }

    /// Shows the id. A closed terminal is no error.
    pub(super) fn show_id(&self, id: EndpointId) {
        if let Some(mut terminal) = self.output.as_ref().or(self.error.as_ref()) {
            let _ = writeln!(
                terminal,
                "{HIDE_CURSOR}\n        >>> Multi-User Endpoint ID: \x1b[104m{id}\x1b[0m <<<"
            );
        }
    }

    /// Rewrites the line with the time.
    pub(super) fn show_time(&self, now: &Zoned) {
        if let Some(mut terminal) = self.error.as_ref() {
            let _ = write!(terminal, "    ----> {}\r", now.strftime("%a %b %e %H:%M:%S %Y"));
            let _ = terminal.flush();
        }
    }

    /// Shows why the manager ends.
    pub(super) fn say(&self, text: &str) {
        match self.error.as_ref().or(self.output.as_ref()) {
            Some(mut terminal) => {
                let _ = writeln!(terminal, "{text}");
            }
            None => crate::console::complain(text),
        }
    }

    /// Gives the terminal its cursor back.
    pub(super) fn leave(&self) {
        if let Some(mut terminal) = self.output.as_ref().or(self.error.as_ref()) {
            let _ = write!(terminal, "{SHOW_CURSOR}");
            let _ = terminal.flush();
        }
    }
}
