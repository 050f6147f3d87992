//! The wait for a hot restart: it loses nothing only while no launcher works and nobody is being mapped.
//!
//! ```text
//! asked ──20 s: everything goes on, until nothing is under way──► restart
//!   └──10 s more: nothing new begins─────────────────────────────► restart
//!        └──► given up: the manager goes on as it was, and says what is stuck
//! ```
//! Commands are taken all the time: the service believes a manager that takes none to be offline.

use std::time::Duration;

use super::{Action, Core, Level, Now};

/// How long a hot restart waits without holding anything up.
const OPEN: Duration = Duration::from_secs(20);
/// How long it waits then, while nothing new begins: commands that came before wait for no longer.
const HELD: Duration = Duration::from_secs(10);

/// A hot restart that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settling {
    held_from: Duration,
    until: Duration,
}

impl Core {
    /// A hot restart is asked for. It does not wait longer when it is asked for again.
    pub fn begin_restart(&mut self, now: &Now) {
        let held_from = now.monotonic + OPEN;
        self.restart.get_or_insert(Settling { held_from, until: held_from + HELD });
    }

    /// Whether to restart now.
    pub fn may_restart(&self) -> bool {
        self.restart.is_some() && self.is_settled()
    }

    /// There is no hot restart after all.
    pub fn end_restart(&mut self) {
        self.restart = None;
    }

    /// Whether a hot restart would lose nothing that could not be handed over.
    pub fn is_settled(&self) -> bool {
        self.children.starting() == 0 && self.mapping.is_empty()
    }

    /// Whether nothing new may begin.
    pub(super) fn is_held(&self, now: &Now) -> bool {
        self.restart.is_some_and(|it| self.is_settled() || it.held_from <= now.monotonic)
    }

    pub(super) fn give_up_restart(&mut self, now: &Now, actions: &mut Vec<Action>) {
        let Some(waited) = self.restart.take_if(|it| it.until <= now.monotonic).map(|_| OPEN + HELD) else {
            return;
        };
        if self.is_settled() {
            return;
        }
        let mut stuck: Vec<_> =
            self.launchers().into_iter().map(|launcher| format!("\n  launcher {launcher}")).collect();
        if !self.mapping.is_empty() {
            stuck.push(format!("\n  {} identity mappings", self.mapping.len()));
        }
        actions.push(Action::Log(
            Level::Error,
            format!(
                "The manager is not restarted, and goes on as it was: these did not come to an end within {} s:{}",
                waited.as_secs(),
                stuck.concat()
            ),
        ));
    }
}
