//! Shows, in the title and once in the log, when the endpoint will stop because it is idle.

use std::mem::discriminant;
use std::time::Duration;

use crate::interchange::Idleness;
use crate::title::{Title, with_commas};

/// What is shown at the moment.
#[derive(Debug)]
pub(super) struct Countdown {
    title: Option<Title>,
    shown: Idleness,
}

impl Countdown {
    pub(super) fn new() -> Self {
        Self { title: Title::find(), shown: Idleness::Busy }
    }

    /// Shows how idle the endpoint is after a heartbeat; `period` is that of heartbeats.
    pub(super) fn show(&mut self, idleness: Idleness, period: Duration) {
        let seconds = |left: u64| with_commas(left.saturating_mul(period.as_secs()));
        let began = discriminant(&idleness) != discriminant(&self.shown);
        let prefix = match idleness {
            Idleness::Busy => String::new(),
            Idleness::Idle { left } => {
                let seconds = seconds(left);
                if began {
                    tracing::info!(
                        "In idle state (due to no task or result movement); shut down in {seconds}s.  \
                         (idle_heartbeats_soft)"
                    );
                }
                format!("[idle; shut down in {seconds}s] ")
            }
            Idleness::PossiblyIdle { left } => {
                let seconds = seconds(left);
                if began {
                    tracing::info!(
                        "Possibly idle -- no task or result movement.  Will shut down in {seconds}s.  \
                         (idle_heartbeats_hard)"
                    );
                }
                format!("[possibly idle; shut down in {seconds}s] ")
            }
        };
        if idleness != self.shown
            && let Some(title) = &self.title
        {
            title.show(&prefix);
        }
        self.shown = idleness;
    }
}
