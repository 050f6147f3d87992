//! The launcher's titles in process lists.
//!
//! The kernel shows the memory in which a program's arguments arrived. The manager starts the launcher with its title as
//! the first argument, so that there is room, and later titles are written over it.

use super::request::LaunchRequest;
use crate::arguments::ArgumentMemory;

/// The title of the holder of a PAM session. Not longer than that of a start, which makes the room.
const SESSION: &str = "Endpoint session of ";
const STARTING: &str = "Endpoint starting up for ";

/// The title from the launcher's first instant on.
pub(super) fn starting(request: &LaunchRequest) -> String {
    // Room for the name of the manager's own user, which the manager doesn't look up.
    let user = request.local_user.as_deref().unwrap_or("the user of the endpoint manager");
    let command = super::execute::default_arguments(request);
    with_command(STARTING, user, &command)
}

fn with_command(what: &str, user: &str, command: &[String]) -> String {
    format!("{what}{user} [{}]", command.join(" ")).replace('\0', " ")
}

/// Shows titles in place of the launcher's arguments.
pub(super) struct Title(ArgumentMemory);

impl Title {
    pub(super) fn find() -> Option<Self> {
        ArgumentMemory::find().map(Self)
    }

    pub(super) fn starting(&self, user: &str, command: &[String]) {
        self.0.show(&with_command(STARTING, user, command));
    }

    pub(super) fn session(&self, user: &str, command: &[String]) {
        self.0.show(&with_command(SESSION, user, command));
    }
}
