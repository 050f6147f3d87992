//! What the running manager gets on its standard input, so that no secret is in a command line or a file.

use std::path::PathBuf;

use manager::launch::OpenFiles;
use manager::restart::State;
use serde::{Deserialize, Serialize};
use wire::IdentityId;
use wire::queue::Registration;
use wire::rest::endpoint::Register;

use crate::start::ClientIdentity;

/// What `start` hands to the running manager, and a running manager to the program that takes its place.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ManageDocument {
    /// The directory of endpoints, and the manager's own.
    pub(super) base: PathBuf,
    pub(super) directory: PathBuf,
    /// The text of the configuration that was registered.
    pub(super) config: String,
    pub(super) registration: Registration,
    /// What is registered, or is to be: `unregistered` says that the service may not know it.
    pub(super) registered: Register,
    #[serde(default)]
    pub(super) unregistered: bool,
    /// The program to execute at a hot restart, as it was started: `/proc/self/exe` is the old file after a replacement, and
    /// after a link on the way was moved.
    pub(super) program: PathBuf,
    /// The command line of `start`, for the title.
    pub(super) command_line: String,
    /// Log more; log to the console, too.
    pub(super) debug: bool,
    pub(super) console: bool,
    /// Colour the console's lines, if it is a terminal.
    #[serde(default)]
    pub(super) colours: bool,
    /// Authorities to trust in addition to the system's, as PEM.
    pub(super) authorities: Option<String>,
    /// Whom a manager that can't change users serves: the identities of the person who registered it.
    pub(super) owners: Option<Vec<IdentityId>>,
    /// The client identity to register with again, unless a stored login is used.
    pub(super) client: Option<ClientIdentity>,
    /// The descriptor on which a `start` waits for the report.
    pub(super) report_fd: Option<i32>,
    /// The limit of open files that the manager started with, which its user endpoints get. It has a higher one.
    #[serde(default)]
    pub(super) open_files: Option<OpenFiles>,
    /// Why another program does not run in the place of this one, if it could not be executed.
    #[serde(default)]
    pub(super) not_executed: Option<String>,
    /// From the program that ran before in this process.
    pub(super) state: Option<State>,
}
