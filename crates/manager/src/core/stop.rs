//! The stop of a manager: user endpoints get SIGTERM, 10 s later SIGKILL, and another 10 s later the manager ends anyway.

use std::time::Duration;

use super::{Action, Core, Level, Now, Signalled};
use crate::children::{Child, Serial, Stage};

/// How long user endpoints may take to end, for each signal.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// User endpoints were told to end.
    Terminating {
        until: Duration,
    },
    /// User endpoints were killed.
    Killing {
        until: Duration,
    },
    Finished,
}

/// How to kill a child. The holder of a PAM session must outlive its user endpoint, to close the session, and it alone knows
/// whether the user endpoint's number is still the user endpoint's. A holder that was told already is killed itself:
/// another process then closes the session.
pub fn kill(child: &Child, serial: Serial, again: bool) -> Signalled {
    match child.user_endpoint_pid {
        Some(_) if !again => Signalled::KillHeld(serial),
        _ => Signalled::Kill(serial),
    }
}

impl Core {
    /// The first call begins the stop, the next one kills.
    pub(super) fn stop(&mut self, now: &Now, actions: &mut Vec<Action>) {
        self.end_restart();
        match self.phase {
            Phase::Running => {
                actions.push(Action::Retire);
                self.signal("Signaling shutdown", actions, |_, serial| Signalled::Terminate(serial));
                self.phase = Phase::Terminating { until: now.monotonic + PATIENCE };
            }
            Phase::Terminating { .. } => self.kill(now, actions),
            Phase::Killing { .. } | Phase::Finished => {}
        }
        self.finish_when_done(actions);
    }

    pub(super) fn tick(&mut self, now: &Now, actions: &mut Vec<Action>) {
        for child in self.children.iter_mut() {
            // It may hold a megabyte of options.
            child.again.take_if(|again| again.until < now.monotonic);
        }
        match self.phase {
            Phase::Running => {
                self.end_overdue_mappings(now, actions);
                self.end_overdue_starts(now, actions);
                self.hurry_restart(now, actions);
            }
            Phase::Terminating { until } if until <= now.monotonic => self.kill(now, actions),
            Phase::Killing { until } if until <= now.monotonic => {
                self.phase = Phase::Finished;
                actions.push(Action::Log(
                    Level::Error,
                    format!("{} user endpoints did not end", self.children.len()),
                ));
                actions.push(Action::Finish);
            }
            _ => {}
        }
        self.finish_when_done(actions);
    }

    fn kill(&mut self, now: &Now, actions: &mut Vec<Action>) {
        self.signal("Forcibly killing", actions, |child, serial| {
            kill(child, serial, child.stage == Stage::Overdue)
        });
        self.phase = Phase::Killing { until: now.monotonic + PATIENCE };
    }

    fn signal(&self, what: &str, actions: &mut Vec<Action>, signal: impl Fn(&Child, Serial) -> Signalled) {
        for child in self.children.iter() {
            let (Some(serial), Some(own)) = (child.serial, child.own_pid()) else { continue };
            let number = |id: Option<u32>| id.map_or_else(|| "-1".to_owned(), |id| id.to_string());
            let user = child.local_user.as_deref().unwrap_or(&self.settings.own_user);
            actions.push(Action::Log(
                Level::Info,
                format!(
                    "{what} of user endpoint (PID: {own}, UID: {}, GID: {}, User: {user}) [{}]",
                    number(child.uid),
                    number(child.gid),
                    child.description(&self.settings.own_user)
                ),
            ));
            actions.push(Action::Signal(signal(child, serial)));
        }
    }

    /// Ends the stop once no child is left.
    pub(super) fn finish_when_done(&mut self, actions: &mut Vec<Action>) {
        let stopping = matches!(self.phase, Phase::Terminating { .. } | Phase::Killing { .. });
        if stopping && self.children.is_empty() {
            self.phase = Phase::Finished;
            actions.push(Action::Finish);
        }
    }
}
