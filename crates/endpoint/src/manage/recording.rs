//! What the event loop does for the audit log: has each user endpoint recorded, and deals with users who write too much.

use std::io;

use manager::audit::Writer;
use manager::children::{Child, Serial};
use manager::core::kill;
use wire::queue::Registration;

use super::audit_budget::Excess;
use super::audit_log::{AuditLog, Trouble};
use super::driver::Driver;

impl Driver<'_> {
    /// Records what the user endpoint of this child writes, now that its process is known. One that can't be recorded is
    /// killed.
    pub(super) fn record(&mut self, serial: Serial) {
        let Some(log) = &mut self.audit else { return };
        let Some(child) = self.core.children().of_launch(serial) else { return };
        let (Some(own), Some(pipe)) = (child.own_pid(), self.processes.audit_pipe(serial)) else { return };
        let recorded = pipe.and_then(|pipe| {
            let registration = child.credentials.read::<Registration>().map_err(io::Error::other)?;
            log.record(pipe, Writer { uid: uid_of(child), pid: own, user_endpoint: registration.endpoint_id })
        });
        if let Err(error) = recorded {
            tracing::error!(%error, pid = own, name = child.name, "a user endpoint can't be recorded, so it is killed");
            self.processes.signal(kill(child, serial, false));
        }
    }

    /// Deals with a local user who writes more to the audit log than it may.
    pub(super) fn hold_back(&mut self, uid: u32, excess: Excess) {
        match excess {
            Excess::HeldBack => tracing::warn!(
                uid,
                "a local user writes more to the audit log than one user may; its user endpoints wait for the log"
            ),
            Excess::Misuse => {
                tracing::error!(
                    uid,
                    "a local user fills the audit log with what is no record; its user endpoints are killed"
                );
                for child in self.core.children().iter().filter(|child| uid_of(child) == uid) {
                    if let Some(serial) = child.serial {
                        self.processes.signal(kill(child, serial, false));
                    }
                }
            }
        }
    }
}

/// The next trouble of the log, if there is one.
pub(super) async fn trouble(log: &mut Option<AuditLog>) -> Trouble {
    match log {
        Some(log) => log.trouble().await,
        None => std::future::pending().await,
    }
}

/// The local user that a child runs as.
fn uid_of(child: &Child) -> u32 {
    child.uid.unwrap_or_else(|| nix::unistd::getuid().as_raw())
}
