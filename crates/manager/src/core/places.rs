//! The places of starts: how many one local user may take, and how long a start may keep its place.
//!
//! From a certain point on a launcher runs with a user's rights, so that user may stop it for as long as they like; a file
//! system or a PAM module may not answer. The time is counted here, by the manager's clock: nothing that a launcher does or
//! leaves undone keeps a place.

use std::time::Duration;

use super::{Action, Core, Level, Now, Waiting, exits, kill};
use crate::children::{Child, Stage};
use crate::launch::LaunchFailure;
use crate::printable;

/// How long after it was killed a launcher is killed again. Then that includes a launcher that would close a PAM session.
const KILLED_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What one local user may take of `places` while others need some.
fn share(places: usize) -> usize {
    (places / 4).max(1)
}

/// How many of `places` are kept for users who come later. With one place, nothing can be kept.
fn kept(places: usize) -> usize {
    if places < 2 { 0 } else { (places / 4).max(1) }
}

impl Core {
    /// Takes the next start that may begin: of a user with less than their share of the places. When there is none, a user
    /// may have more, but a quarter of the places is kept for those who come later.
    pub(super) fn next_start(&mut self) -> Option<Waiting> {
        let (places, taken) = (self.settings.starts_at_a_time, self.children.starting());
        if taken >= places {
            return None;
        }
        if self.settings.owners.is_some() {
            // There is one user.
            return self.waiting.pop();
        }
        let Self { waiting, children, .. } = self;
        if let Some(next) = waiting.pop_if(|user| children.starting_of(user) < share(places)) {
            return Some(next);
        }
        if taken < places - kept(places) { self.waiting.pop() } else { None }
    }

    /// Kills the launchers whose time is up. Their places are free from then on, whether or not the processes end.
    pub(super) fn end_overdue_starts(&mut self, now: &Now, actions: &mut Vec<Action>) {
        let launch_time = self.launch_time(now);
        let early = self.settings.launch_time.saturating_sub(launch_time);
        for (name, stage) in self.children.overdue(now.monotonic, early, KILLED_AGAIN_AFTER) {
            let Some(child) = self.children.get_mut(&name) else { continue };
            let (Some(pid), Some(serial)) = (child.pid, child.serial) else { continue };
            actions.push(Action::Signal(kill(child, serial, stage == Stage::Overdue)));
            let seconds = launch_time.as_secs();
            let user = child.local_user.as_deref().unwrap_or(&self.settings.own_user);
            let (text, private) = match stage {
                Stage::Overdue => {
                    let description = child.description(&self.settings.own_user);
                    let text =
                        format!("The launcher (pid: {pid}) is still there after SIGKILL [{description}]");
                    actions.push(Action::Log(Level::Error, text));
                    continue;
                }
                Stage::Failed(LaunchFailure { notice, private, .. }) => (notice, private),
                Stage::Spawning | Stage::Launching | Stage::Running => {
                    (overdue(user, seconds), String::new())
                }
            };
            let again = child.again.take();
            let log = format!(
                "{}\n  The launcher (pid: {pid}) was killed: it had not ended after {seconds} s.  {}{}",
                printable::lines(&text),
                printable::lines(&private),
                child.submitter.lines()
            );
            actions.push(Action::Log(Level::Error, log));
            let credentials =
                again.map_or_else(|| child.credentials.clone(), |it| it.start.command.credentials);
            actions.extend(exits::notice(&credentials, text));
        }
    }

    /// The launchers that are at work, for the log.
    pub fn launchers(&self) -> Vec<String> {
        let own_user = &self.settings.own_user;
        let starting = self.children.iter().filter(|child| child.is_starting());
        let shown = |child: &Child| {
            format!("pid {} [{}]", child.pid.unwrap_or_default(), child.description(own_user))
        };
        starting.map(shown).collect()
    }
}

/// What submitters read about a start that took too long.
fn overdue(user: &str, seconds: u64) -> String {
    format!(
        "Unable to start user endpoint process for {user}: the start did not come to an end within {seconds} s and was \
         stopped.  The home directory or the sign-in of this user may not answer.  Please submit again later; if that \
         does not help, reach out to the endpoint administrator."
    )
}
