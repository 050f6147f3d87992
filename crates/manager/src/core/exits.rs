//! What reports of launchers and ends of processes mean.

use wire::json::FreeForm;

use super::{Action, Core, ExitStatus, Level, Now, Waiting};
use crate::children::{Again, Child, Serial, Stage};
use crate::core::stop::Phase;
use crate::launch::{LaunchFailure, LaunchReport};
use crate::printable;

impl Core {
    pub(super) fn not_spawned(&mut self, name: &str, problem: String, actions: &mut Vec<Action>) {
        let Some(child) = self.children.remove(name) else { return };
        let user = child.local_user.as_deref().unwrap_or(&self.settings.own_user);
        let lines = child.submitter.lines();
        actions.push(Action::Log(
            Level::Error,
            format!("Unable to start the launcher for {user} ({name}): {problem}{lines}"),
        ));
        let text = format!(
            "Unable to start user endpoint process for {user}: the manager could not start a process.  Please submit \
             again later; if that does not help, reach out to the endpoint administrator."
        );
        actions.extend(notice(&child.credentials, text));
    }

    pub(super) fn reported(&mut self, serial: Serial, report: LaunchReport, actions: &mut Vec<Action>) {
        let holds_session = self.settings.launch.pam_service.is_some();
        let own_user = self.settings.own_user.clone();
        let Some(child) = self.children.by_serial(serial) else { return };
        // Only a launcher that holds a session divides itself. From a certain point on, the reports may be a user's words.
        let holds_session = holds_session && child.local_user.is_some();
        match report {
            LaunchReport::UserFound { uid, gid } => {
                (child.uid, child.gid) = (Some(uid), Some(gid));
                // With PAM, the user endpoint gets a process of its own.
                if !holds_session {
                    begun(child, &own_user, actions);
                }
            }
            LaunchReport::Running { pid } if holds_session => {
                child.user_endpoint_pid = Some(pid);
                begun(child, &own_user, actions);
            }
            LaunchReport::Warning { text } => {
                let description = child.description(&own_user);
                actions.push(Action::Log(
                    Level::Warning,
                    format!("{} [{description}]", printable::one_line(&text)),
                ));
            }
            // They count when the reports end.
            LaunchReport::Running { .. } | LaunchReport::Executing | LaunchReport::Failed(_) => {}
        }
    }

    pub(super) fn exited(
        &mut self,
        serial: Serial,
        status: ExitStatus,
        now: &Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(mut child) = self.children.remove_launch(serial) else { return };
        let shown = child.own_pid().unwrap_or_default();
        let description = child.description(&self.settings.own_user);
        let (level, text) = match status {
            ExitStatus::Code(0) => (Level::Info, format!("Command stopped normally ({shown})")),
            ExitStatus::Code(code) => (Level::Warning, format!("Command return code: {code} ({shown})")),
            ExitStatus::Signal(signal) => {
                (Level::Warning, format!("Command terminated by signal: {signal} ({shown})"))
            }
            ExitStatus::Unknown => (Level::Warning, format!("Command unknown return code: ({shown})")),
        };
        actions.push(Action::Log(level, format!("{text} [{description}]")));
        let again = child.again.take().filter(|again| now.monotonic <= again.until);
        if self.phase != Phase::Running {
            return self.finish_when_done(actions);
        }
        match (&child.stage, status) {
            (Stage::Running, ExitStatus::Code(0)) => {
                if let Some(Again { start, .. }) = again {
                    actions.push(Action::Log(
                        Level::Info,
                        format!(
                            "User EP stopped within grace period; using cached arguments to start a new instance \
                             (name: {})",
                            child.name
                        ),
                    ));
                    self.decide(Waiting { tag: None, start }, now, actions);
                }
            }
            // A user endpoint that ended by itself has told the service why, unless it panicked.
            (Stage::Running, ExitStatus::Code(code)) => {
                if again.is_some() || code == PANIC {
                    let text = format!(
                        "User endpoint {} ended [exit code: {code}].  Its log is \
                         ~/.globus_compute/{0}/endpoint.log",
                        child.name
                    );
                    actions.extend(notice(&child.credentials, text));
                }
            }
            (Stage::Running, ExitStatus::Signal(signal)) => {
                let text = format!(
                    "User endpoint {} was ended by signal {signal}.  Its log is ~/.globus_compute/{0}/endpoint.log",
                    child.name
                );
                actions.extend(notice(&child.credentials, text));
            }
            // Whoever waits was told when the launcher was killed.
            (Stage::Running, ExitStatus::Unknown) | (Stage::Overdue, _) => {}
            (Stage::Failed(LaunchFailure { notice: text, private, .. }), _) => {
                actions.push(Action::Log(
                    Level::Error,
                    format!(
                        "{}\n  {}{}",
                        printable::lines(text),
                        printable::lines(private),
                        child.submitter.lines()
                    ),
                ));
                actions.extend(notice(&child.credentials, text.clone()));
            }
            (Stage::Spawning | Stage::Launching, _) => {
                let user = child.local_user.as_deref().unwrap_or(&self.settings.own_user);
                let log =
                    format!("The launcher for {user} ended without a report{}", child.submitter.lines());
                actions.push(Action::Log(Level::Error, log));
                actions.extend(notice(&child.credentials, UNKNOWN_FAILURE.to_owned()));
            }
        }
    }
}

/// What submitters read when a launcher ended without a report, as from upstream's manager.
const UNKNOWN_FAILURE: &str = "General or unknown failure starting user endpoint";

/// The exit status of a program that panicked.
const PANIC: i32 = 101;

/// Tells the log that a user endpoint gets a process.
fn begun(child: &Child, own_user: &str, actions: &mut Vec<Action>) {
    let pid = child.own_pid().unwrap_or_default();
    let description = child.description(own_user);
    let user = child.local_user.as_deref().unwrap_or(own_user);
    for text in [
        format!("Creating new user endpoint (pid: {pid}) [{description}]"),
        format!(
            "Command process successfully forked for '{user}' (Globus effective identity: {}).",
            child.submitter.effective
        ),
    ] {
        actions.push(Action::Log(Level::Info, text));
    }
}

/// A notice, if the credentials can be read.
pub(super) fn notice(credentials: &FreeForm, text: String) -> Option<Action> {
    let credentials = credentials.read().ok()?;
    Some(Action::Notice { credentials: Box::new(credentials), text })
}
