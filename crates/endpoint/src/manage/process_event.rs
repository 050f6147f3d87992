//! What happens to the processes of a manager's children.

use manager::children::Serial;
use manager::core::{Event, ExitStatus};
use manager::launch::{LaunchEnd, LaunchReport};

/// What happened to a child.
#[derive(Debug)]
pub(super) enum ProcessEvent {
    Reported { serial: Serial, report: LaunchReport },
    LaunchEnded { serial: Serial, end: LaunchEnd },
    Exited { serial: Serial, status: ExitStatus },
}

impl From<ProcessEvent> for Event<'static> {
    fn from(event: ProcessEvent) -> Self {
        match event {
            ProcessEvent::Reported { serial, report } => Event::Reported { serial, report },
            ProcessEvent::LaunchEnded { serial, end } => Event::LaunchEnded { serial, end },
            ProcessEvent::Exited { serial, status } => Event::Exited { serial, status },
        }
    }
}
