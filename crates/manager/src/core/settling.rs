//! The wait for a hot restart: it loses nothing while no launcher works and nobody is being mapped.
//!
//! ```text
//! asked ──20 s: everything goes on, until nothing is under way──► restart
//!   └──10 s more: nothing new begins─────────────────────────────► restart
//!        └──► mappings are left to the next program, launchers older than 30 s are ended──► restart
//! ```
//! Commands are taken all the time: the service believes a manager that takes none to be offline. Nobody can keep the
//! manager from being restarted: a security update must not wait for one user, or for a mapper that hangs.

use std::time::Duration;

use super::{Action, Core, Level, Now};

/// How long a hot restart waits without holding anything up.
const OPEN: Duration = Duration::from_secs(20);
/// How long it waits then, while nothing new begins: commands that came before wait for no longer.
const HELD: Duration = Duration::from_secs(10);
/// How long a launcher may be at work after that.
const LAUNCH_TIME: Duration = Duration::from_secs(30);

/// A hot restart that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settling {
    held_from: Duration,
    until: Duration,
    /// The log says what it waits for.
    told: bool,
}

impl Core {
    /// A hot restart is asked for. It does not wait longer when it is asked for again.
    pub fn begin_restart(&mut self, now: &Now) {
        let held_from = now.monotonic + OPEN;
        self.restart.get_or_insert(Settling { held_from, until: held_from + HELD, told: false });
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

    /// How long launchers may take.
    pub(super) fn launch_time(&self, now: &Now) -> Duration {
        let given = self.settings.launch_time;
        let is_late = self.restart.is_some_and(|it| it.until <= now.monotonic);
        if is_late { given.min(LAUNCH_TIME) } else { given }
    }

    /// Says what a hot restart waits for, and stops waiting for mappings in time. Their commands are not acknowledged, so
    /// the broker delivers them to the next program; if there is none after all, this one maps them again.
    pub(super) fn hurry_restart(&mut self, now: &Now, actions: &mut Vec<Action>) {
        if self.is_settled() {
            return;
        }
        let Some(restart) = &mut self.restart else { return };
        let is_late = restart.until <= now.monotonic;
        if restart.held_from <= now.monotonic && !std::mem::replace(&mut restart.told, true) {
            let mut stuck: Vec<_> =
                self.launchers().into_iter().map(|launcher| format!("\n  launcher {launcher}")).collect();
            if !self.mapping.is_empty() {
                stuck.push(format!("\n  {} identity mappings", self.mapping.len()));
            }
            let text = format!("The hot restart waits for these, and nothing new begins:{}", stuck.concat());
            actions.push(Action::Log(Level::Warning, text));
        }
        if is_late {
            for unmapped in std::mem::take(&mut self.mapping).into_values() {
                self.unmapped.push(unmapped.command.submitter.effective, unmapped);
            }
        }
    }
}
