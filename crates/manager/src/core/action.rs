//! What the core hears, and what it has the shell do.

use std::time::Duration;

use jiff::Zoned;
use wire::json::FreeForm;
use wire::queue::Registration;
use wire::start_document::LinkedIdentity;

use crate::children::{Mapped, Serial};
use crate::launch::{LaunchEnd, LaunchReport, LaunchRequest};

/// The time of an event.
#[derive(Clone, Debug)]
pub struct Now {
    pub wall: Zoned,
    /// Since the machine was started: no correction of the clock moves it, and it goes on in a hot restart.
    pub monotonic: Duration,
}

/// Identifies a delivery of the command queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub session: u32,
    pub number: u64,
}

/// A message of the command queue.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    pub tag: Tag,
    pub content_type: Option<&'a str>,
    pub timestamp: Option<u64>,
    pub body: &'a [u8],
}

/// To which local user a submitter's identities map.
#[derive(Clone, Debug, PartialEq)]
pub enum MappingOutcome {
    To(Mapped),
    Nobody,
    /// To a name that nobody may be mapped to.
    Forbidden(String),
    /// The mapping could not be evaluated.
    Failed(String),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
    Unknown,
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    Received(Received<'a>),
    /// The answer to [`Action::Map`].
    Mapped {
        number: u64,
        outcome: MappingOutcome,
    },
    /// The launcher of this user endpoint runs.
    Spawned {
        name: &'a str,
        serial: Serial,
        pid: i32,
    },
    NotSpawned {
        name: &'a str,
        problem: String,
    },
    Reported {
        serial: Serial,
        report: LaunchReport,
    },
    /// The launcher has said all it has to say.
    LaunchEnded {
        serial: Serial,
        end: LaunchEnd,
    },
    /// A child ended. Its reports came before.
    Exited {
        serial: Serial,
        status: ExitStatus,
    },
    /// Some time went by.
    Tick,
    /// Stop everything; when it comes again, hurry.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Info,
    Warning,
    Error,
}

/// Which child gets a signal, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// SIGTERM.
    Terminate(Serial),
    /// SIGKILL, and to the process group that it leads.
    Kill(Serial),
    /// It holds a PAM session: it is to kill its user endpoint, with that process group, and to close the session.
    KillHeld(Serial),
}

/// What the shell must do.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Find the local user of these identities.
    Map {
        number: u64,
        identities: Vec<LinkedIdentity>,
    },
    /// Start the launcher, and tell the process or the problem.
    Launch {
        request: Box<LaunchRequest>,
    },
    /// Write new credentials for this user endpoint.
    Renew {
        name: String,
        credentials: FreeForm,
    },
    Acknowledge(Tag),
    /// Tell the service why no user endpoint runs.
    Notice {
        credentials: Box<Registration>,
        text: String,
    },
    Signal(Signalled),
    Log(Level, String),
    /// Take no more commands, and say that the manager goes offline.
    Retire,
    /// All user endpoints have ended, or will not.
    Finish,
}
