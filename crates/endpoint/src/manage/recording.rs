//! What the event loop does for the audit log: has each user endpoint recorded, and deals with users who write too much.

use std::io;

use manager::audit::Writer;
use manager::children::{Child, Serial};
use manager::core::{Core, kill};
use manager::launch::LaunchEnd;
use wire::queue::Registration;

use super::audit_budget::Excess;
use super::audit_log::{AuditLog, Trouble};
use super::process_event::ProcessEvent;
use super::processes::Processes;

/// Looks at what happened to a child, before the core learns of it: a user endpoint is recorded from when its process is known,
/// at the latest when it has ended, as what it wrote is in its pipe. Soon after its end nobody reads that any more.
pub(super) fn observe(
    log: &mut Option<AuditLog>,
    core: &Core,
    processes: &mut Processes,
    event: &ProcessEvent,
) {
    match event {
        ProcessEvent::LaunchEnded { serial, end: LaunchEnd::Started } => {
            record(log, core, processes, *serial)
        }
        ProcessEvent::Exited { serial, .. } => {
            record(log, core, processes, *serial);
            if let Some(log) = log {
                log.ended(*serial);
            }
        }
        ProcessEvent::LaunchEnded { .. } | ProcessEvent::Reported { .. } => {}
    }
}

/// Records what the user endpoint of this child writes, now that its process is known. One that can't be recorded is killed.
pub(super) fn record(log: &mut Option<AuditLog>, core: &Core, processes: &mut Processes, serial: Serial) {
    let Some(log) = log else { return };
    let Some(child) = core.children().of_launch(serial) else { return };
    let (Some(own), Some(pipe)) = (child.own_pid(), processes.audit_pipe(serial)) else { return };
    let recorded = pipe.and_then(|pipe| {
        let registration = child.credentials.read::<Registration>().map_err(io::Error::other)?;
        log.record(
            serial,
            pipe,
            Writer { uid: uid_of(child), pid: own, user_endpoint: registration.endpoint_id },
        )
    });
    if let Err(error) = recorded {
        tracing::error!(%error, pid = own, name = child.name, "a user endpoint can't be recorded, so it is killed");
        processes.signal(kill(child, serial, false));
    }
}

/// Deals with a local user who writes more to the audit log than it may.
pub(super) fn hold_back(core: &Core, processes: &mut Processes, uid: u32, excess: Excess) {
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
            for child in core.children().iter().filter(|child| uid_of(child) == uid) {
                if let Some(serial) = child.serial {
                    processes.signal(kill(child, serial, false));
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

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd as _;
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::Command;
    use std::time::Duration;

    use manager::audit::Session;
    use manager::core::{ExitStatus, LaunchSettings, Settings};
    use manager::launch::ManagerFiles;
    use manager::restart::HandedOver;
    use serde_json::{Value, json};

    use super::super::audit_log;
    use super::*;

    const ID: &str = "00000000-0000-4000-8000-000000000002";
    const UID: u32 = 1001;

    /// A user endpoint that runs as this process, with these credentials, and the user endpoint's end of its audit pipe.
    fn taken_over(pid: u32, credentials: &Value) -> (Core, Processes, std::os::fd::OwnedFd) {
        let child = serde_json::from_value(json!({
            "name": "uep.a", "local_user": "alicia", "submitter": {"effective": ID, "username": "a"},
            "order": {"timestamp": 1, "number": 1}, "credentials": credentials, "arguments": [], "stage": "Running",
            "pid": pid, "user_endpoint_pid": null, "uid": UID, "gid": UID, "deadline": null, "again": null,
        }));
        let (ours, theirs) = audit_log::pipe().unwrap();
        let child = HandedOver {
            child: child.unwrap(),
            renewed_credentials: None,
            audit_pipe: Some(ours.into_raw_fd()),
        };
        let mut processes = Processes::default();
        let children = processes.resume(vec![child]);
        let file = || "/nonexistent".into();
        let settings = Settings {
            manager: ID.parse().unwrap(),
            own_user: "root".to_owned(),
            owners: None,
            grace_period: Duration::ZERO,
            starts_at_a_time: 1,
            launch_time: Duration::from_secs(1),
            most_user_endpoints: 1,
            launch: LaunchSettings {
                files: ManagerFiles {
                    template: file(),
                    schema: file(),
                    environment: file(),
                    program_directory: file(),
                },
                parent_config: json!({}),
                allowed_functions: None,
                high_assurance: true,
                pam_service: None,
                inherited_environment: Vec::new(),
            },
        };
        (Core::new(settings, children, Vec::new()), processes, theirs)
    }

    #[tokio::test]
    async fn a_user_endpoint_that_can_not_be_recorded_or_floods_the_log_is_killed() {
        let scratch = tempfile::tempdir().unwrap();
        let mut log = Some(AuditLog::open(&scratch.path().join("log"), ID.parse().unwrap()).unwrap());
        for (credentials, recorded) in [(json!({}), false), (json!({"endpoint_id": ID}), true)] {
            let mut process = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
            let (core, mut processes, _theirs) = taken_over(process.id(), &credentials);
            let serial = core.children().iter().find_map(|child| child.serial).unwrap();
            record(&mut log, &core, &mut processes, serial);
            if recorded {
                hold_back(&core, &mut processes, UID + 1, Excess::Misuse);
                hold_back(&core, &mut processes, UID, Excess::HeldBack);
                std::thread::sleep(Duration::from_millis(20));
                assert!(process.try_wait().unwrap().is_none(), "it is only told of");
                hold_back(&core, &mut processes, UID, Excess::Misuse);
            }
            assert_eq!(process.wait().unwrap().signal(), Some(9));
        }
    }

    #[tokio::test]
    async fn nobody_reads_the_pipe_of_a_user_endpoint_that_has_ended_whoever_holds_it() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("log");
        let mut log = Some(AuditLog::open(&path, ID.parse().unwrap()).unwrap());
        let mut process = Command::new("true").spawn().unwrap();
        let (core, mut processes, kept) = taken_over(process.id(), &json!({"endpoint_id": ID}));
        nix::unistd::write(&kept, b"its last record").unwrap();
        process.wait().unwrap();
        let serial = core.children().iter().find_map(|child| child.serial).unwrap();
        let event = ProcessEvent::Exited { serial, status: ExitStatus::Code(0) };
        observe(&mut log, &core, &mut processes, &event);
        // As when the end of a child was told.
        drop(processes);
        let closed = async {
            while nix::unistd::write(&kept, b"x") != Err(nix::errno::Errno::EPIPE) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), closed).await.expect("somebody still reads it");
        log.take().unwrap().finish(Session::Ends).await;
        assert!(std::fs::read_to_string(&path).unwrap().contains("its last record"));
    }
}
