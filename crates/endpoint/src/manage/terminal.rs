//! What an administrator sees on the terminal of a manager in the foreground: its id, and a line with the time, which
//! shows that it lives.
//!
//! A thread of its own writes: a terminal that takes nothing (Ctrl-S, a connection that hangs) stops nothing but that
//! thread. What does not fit meanwhile is dropped.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use jiff::Zoned;
use wire::EndpointId;

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
/// How many texts may wait.
const MOST_WAITING: usize = 16;
/// How long the terminal may take for the last text.
const PATIENCE: Duration = Duration::from_secs(1);

/// The terminals of standard output and standard error, if they are some.
#[derive(Debug, Default)]
pub(super) struct Terminals {
    output: Option<Terminal>,
    error: Option<Terminal>,
}

impl Terminals {
    /// Keeps them, also when standard output and error go to the log later. Call it with the manager's signals blocked:
    /// threads inherit that.
    pub(super) fn keep() -> Self {
        let copy = |stream: BorrowedFd<'_>| {
            let copy = stream.try_clone_to_owned().ok().map(File::from)?;
            Terminal::start(copy).ok()
        };
        Self {
            output: Some(io::stdout()).filter(|it| it.is_terminal()).and_then(|it| copy(it.as_fd())),
            error: Some(io::stderr()).filter(|it| it.is_terminal()).and_then(|it| copy(it.as_fd())),
        }
    }

    /// Shows the id.
    pub(super) fn show_id(&self, id: EndpointId) {
        if let Some(terminal) = self.output.as_ref().or(self.error.as_ref()) {
            terminal
                .show(format!("{HIDE_CURSOR}        >>> Multi-User Endpoint ID: \x1b[104m{id}\x1b[0m <<<\n"));
        }
    }

    /// Rewrites the line with the time.
    pub(super) fn show_time(&self, now: &Zoned) {
        if let Some(terminal) = &self.error {
            terminal.show(format!("    ----> {}\r", now.strftime("%a %b %e %H:%M:%S %Y")));
        }
    }

    /// Shows why the manager ends.
    pub(super) fn say(&self, text: &str) {
        match self.error.as_ref().or(self.output.as_ref()) {
            Some(terminal) => terminal.show_last(format!("{text}\n")),
            None => crate::console::complain(text),
        }
    }

    /// Makes them standard output and error again, which go to the log by now: for the program that this process executes
    /// next.
    pub(super) fn give_back(&self) {
        // What fails takes the terminal away, and nothing else.
        if let Some(terminal) = &self.output {
            let _ = nix::unistd::dup2_stdout(&terminal.file);
        }
        if let Some(terminal) = &self.error {
            let _ = nix::unistd::dup2_stderr(&terminal.file);
        }
    }

    /// Gives the terminal its cursor back.
    pub(super) fn leave(&self) {
        if let Some(terminal) = self.output.as_ref().or(self.error.as_ref()) {
            terminal.show_last(SHOW_CURSOR.to_owned());
        }
    }
}

/// A terminal, and the thread that writes to it.
#[derive(Debug)]
struct Terminal {
    file: File,
    texts: SyncSender<Text>,
}

/// A text, and who is told when it was written.
struct Text {
    text: String,
    written: Option<SyncSender<()>>,
}

impl Terminal {
    fn start(file: File) -> io::Result<Self> {
        let mut terminal = file.try_clone()?;
        let (texts, inbox): (_, Receiver<Text>) = sync_channel(MOST_WAITING);
        std::thread::Builder::new().name("terminal".to_owned()).spawn(move || {
            for Text { text, written } in inbox {
                // A closed terminal is no error.
                let _ = terminal.write_all(text.as_bytes());
                if let Some(written) = written {
                    let _ = written.try_send(());
                }
            }
        })?;
        Ok(Self { file, texts })
    }

    /// Shows a text soon, if the terminal takes it.
    fn show(&self, text: String) {
        let _ = self.texts.try_send(Text { text, written: None });
    }

    /// Shows a text and waits for it, but not for long: the process ends.
    fn show_last(&self, text: String) {
        let (written, wait) = sync_channel(1);
        if self.texts.try_send(Text { text, written: Some(written) }).is_ok() {
            let _ = wait.recv_timeout(PATIENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_terminal_that_takes_nothing_stops_nobody() {
        // A pipe is as full as a terminal after Ctrl-S.
        let (mut reader, writer) = io::pipe().unwrap();
        let error = Some(Terminal::start(File::from(std::os::fd::OwnedFd::from(writer))).unwrap());
        let terminals = Terminals { output: None, error };
        let since = crate::clock::now();
        let now: Zoned = "2024-04-19T11:56:27-05:00[America/Chicago]".parse().unwrap();
        for _ in 0..20_000 {
            terminals.show_time(&now);
            std::thread::yield_now();
        }
        terminals.say("the end");
        assert!(crate::clock::now().duration_since(since) < Duration::from_secs(30));
        // Once it takes texts again, it gets them.
        let mut first = [0; 33];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"    ----> Fri Apr 19 11:56:27 202");
        std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
        terminals.leave();
    }
}
