//! Decides how long `start` waits: until the first node works, or for a limited time.
//!
//! A node may be queued by a batch system for days, so `start` stops waiting and says so. With `init_blocks: 0` it does not wait.

use std::time::Duration;

use engine::{Options, Report};
use tokio::time::Instant;

/// How long a `start` waits.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often to ask the engine.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The wait for the first node.
#[derive(Debug)]
pub(super) struct FirstNodeWait {
    name: String,
    until: Option<Instant>,
    seen: bool,
}

impl FirstNodeWait {
    pub(super) fn new(options: &Options, name: String) -> Self {
        let blocks = &options.provider.blocks;
        let awaited = blocks.init_blocks.min(blocks.max_blocks) > 0;
        Self { name, until: awaited.then(|| Instant::now() + PATIENCE), seen: false }
    }

    /// Whether a node has ever worked.
    pub(super) fn has_worked(&self) -> bool {
        self.seen
    }

    /// Records that a node works.
    pub(super) fn record(&mut self) {
        self.seen = true;
    }

    /// Evaluates a report. Returns the message for `start` once the wait is over; it is empty if a node works.
    pub(super) fn message(&self, report: &Report) -> Option<String> {
        if works(report) {
            return Some(String::new());
        }
        let Some(until) = self.until else {
            return Some(format!(
                "endpoint '{}' starts no node before its first task (init_blocks: 0), so whether one works is not known",
                self.name
            ));
        };
        (Instant::now() >= until).then(|| {
            let message =
                report.last_block_failure.as_deref().map(|text| format!(". The last block failed:\n{text}"));
            format!(
                "no node of endpoint '{}' has called within {} s; it goes on trying{}",
                self.name,
                PATIENCE.as_secs(),
                message.unwrap_or_else(|| ", and tasks wait meanwhile".to_owned())
            )
        })
    }
}

/// Whether a node is connected whose worker is ready.
pub(super) fn works(report: &Report) -> bool {
    report.managers > report.starting_managers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(init: u32) -> FirstNodeWait {
        let mut options = Options::default();
        options.provider.blocks.init_blocks = init;
        FirstNodeWait::new(&options, "ep".to_owned())
    }

    #[tokio::test]
    async fn start_waits_for_a_node_for_a_limited_time() {
        let waits = first(1);
        assert_eq!(waits.message(&Report::default()), None);
        let failed = Report { last_block_failure: Some("\tno luck".to_owned()), ..Report::default() };
        assert_eq!(waits.message(&failed), None, "another block may work");
        let starting = Report { managers: 1, starting_managers: 1, ..Report::default() };
        assert_eq!(waits.message(&starting), None, "its interpreter may never come");
        let up = Report { managers: 1, ..Report::default() };
        assert_eq!(waits.message(&up).as_deref(), Some(""));
        let none = first(0).message(&Report::default()).unwrap();
        assert!(none.contains("init_blocks: 0"), "{none}");
        let mut late = first(1);
        late.until = Some(Instant::now());
        let message = late.message(&failed).unwrap();
        assert!(message.contains("within 20 s") && message.contains("no luck"), "{message}");
    }
}
