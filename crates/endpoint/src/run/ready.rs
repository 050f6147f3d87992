//! Tells who started the endpoint that it runs, or why not: a `start` that waits, or the terminal.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};

use crate::exit::Failure;
use crate::start::report;

/// Standard error as it was when the process started.
pub(super) struct Terminal(Option<File>);

impl Terminal {
    /// Keeps it, unless a `start` waits: that waits for the end of our output, too.
    pub(super) fn keep(ours: bool) -> Self {
        Self(ours.then(|| std::io::stderr().as_fd().try_clone_to_owned().map(File::from).ok()).flatten())
    }

    pub(super) fn say(mut self, text: &str) {
        if let Some(terminal) = &mut self.0 {
            // The terminal may be closed.
            let _ = writeln!(terminal, "{text}");
        }
    }
}

/// The report to the `start` that waits until the endpoint runs; sent once.
pub(super) struct ReadyReport {
    pub(super) report: Option<OwnedFd>,
}

impl ReadyReport {
    pub(super) fn send(&mut self, outcome: Result<&str, &Failure>) {
        if let Some(to) = self.report.take() {
            report(outcome, to);
        }
    }

    /// Whether no `start` waits (any more).
    pub(super) fn is_sent(&self) -> bool {
        self.report.is_none()
    }
}
