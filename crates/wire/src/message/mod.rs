//! What travels in queues: one byte for the version of the protocol, then JSON.
//!
//! `0x01{"message_type":"task","data":{…}}`. Fields nobody knows are ignored; what is written is compact, raw UTF-8
//! and in the order of the original. Whoever only needs the long string of a task or a result gets it uncopied
//! (see [`crate::json_text`]).
//!
//! Python also writes `NaN` and `Infinity`, which JSON does not know: the heartbeats of 3.x endpoints are full of them
//! where a site sets no maximum of workers. They are read as null, which is what 4.x endpoints write.
//!
//! Reading never panics and holds no more than a small multiple of what was received: the message is refused
//! beyond [`LIMIT`], its free-form objects beyond [`crate::json::FREE_FORM_LIMIT`], nesting beyond 127 levels (what
//! nobody knows is skipped without descending, however deep).

mod container;
mod envelope;
mod status;
mod task;

pub use container::{Container, ContainerImage};
pub use status::{
    Actor, DEFAULT_HEARTBEAT_PERIOD, Liveness, ManagerStatusReport, StatusReport, TaskState, TaskTransition,
};
pub use task::{ErrorDetails, Task, TaskCancel, TaskResult};

use crate::json::Malformed;

/// The first byte of every message.
pub const VERSION: u8 = 1;

/// The most that a message may measure: a payload of 64 MiB, its escapes, the function beside it, and a little.
pub const LIMIT: usize = 80 << 20;

/// Anything that travels in a queue.
#[derive(Debug, Clone, PartialEq)]
pub enum Message<'a> {
    Task(Task<'a>),
    TaskCancel(TaskCancel),
    Result(TaskResult<'a>),
    StatusReport(StatusReport),
    ManagerStatusReport(ManagerStatusReport),
    TaskTransition(TaskTransition),
    Container(Container),
    ContainerImage(ContainerImage),
}

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the message is empty")]
    Empty,
    #[error("message had unknown protocol version {0}")]
    Version(u8),
    #[error("unknown message type {0:?}")]
    UnknownType(String),
    #[error("expected a message of type {expected}, got {found}")]
    Unexpected { expected: &'static str, found: &'static str },
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Reads a message of any type.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    decode_within(bytes, LIMIT)
}

/// Reads a message of at most `limit` bytes.
pub fn decode_within(bytes: &[u8], limit: usize) -> Result<Message<'_>, DecodeError> {
    match bytes.split_first() {
        None => Err(DecodeError::Empty),
        Some((&VERSION, rest)) => envelope::decode(rest, limit),
        Some((&version, _)) => Err(DecodeError::Version(version)),
    }
}

/// Writes a message of any type.
pub fn encode(message: &Message<'_>) -> Vec<u8> {
    match message {
        Message::Task(task) => task.encode(),
        Message::TaskCancel(cancel) => cancel.encode(),
        Message::Result(result) => result.encode(),
        Message::StatusReport(report) => report.encode(),
        Message::ManagerStatusReport(report) => report.encode(),
        Message::TaskTransition(transition) => transition.encode(),
        Message::Container(container) => container.encode(),
        Message::ContainerImage(image) => image.encode(),
    }
}

impl Message<'_> {
    /// The same message, independent of the bytes it was read from.
    pub fn into_owned(self) -> Message<'static> {
        match self {
            Self::Task(task) => Message::Task(task.into_owned()),
            Self::TaskCancel(cancel) => Message::TaskCancel(cancel),
            Self::Result(result) => Message::Result(result.into_owned()),
            Self::StatusReport(report) => Message::StatusReport(report),
            Self::ManagerStatusReport(report) => Message::ManagerStatusReport(report),
            Self::TaskTransition(transition) => Message::TaskTransition(transition),
            Self::Container(container) => Message::Container(container),
            Self::ContainerImage(image) => Message::ContainerImage(image),
        }
    }

    /// The name of its type on the wire.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Task(_) => "task",
            Self::TaskCancel(_) => "task_cancel",
            Self::Result(_) => "result",
            Self::StatusReport(_) => "ep_status_report",
            Self::ManagerStatusReport(_) => "manager_status_report",
            Self::TaskTransition(_) => "task_transition",
            Self::Container(_) => "container",
            Self::ContainerImage(_) => "containerimage",
        }
    }
}

/// `decode` for those who know what has to come, and `encode`.
macro_rules! typed {
    ($($type:ident $(<$life:lifetime>)? = $variant:ident, $kind:literal, $write:expr);+ $(;)?) => {$(
        impl $(<$life>)? $type $(<$life>)? {
            /// Writes this as a whole message, version byte included.
            pub fn encode(&self) -> Vec<u8> {
                let write: fn(&Self, &mut Vec<u8>) = $write;
                envelope::encode($kind, |out| write(self, out))
            }
        }

        impl<'a> TryFrom<Message<'a>> for typed!(@type $type $(<$life>)?) {
            type Error = DecodeError;

            fn try_from(message: Message<'a>) -> Result<Self, DecodeError> {
                match message {
                    Message::$variant(it) => Ok(it),
                    other => Err(DecodeError::Unexpected { expected: $kind, found: other.kind() }),
                }
            }
        }
    )+};
    (@type $type:ident <$life:lifetime>) => { $type<'a> };
    (@type $type:ident) => { $type };
}

typed! {
    Task<'b> = Task, "task", Task::write;
    TaskResult<'b> = Result, "result", TaskResult::write;
    TaskCancel = TaskCancel, "task_cancel", envelope::write;
    StatusReport = StatusReport, "ep_status_report", envelope::write;
    ManagerStatusReport = ManagerStatusReport, "manager_status_report", envelope::write;
    TaskTransition = TaskTransition, "task_transition", envelope::write;
    Container = Container, "container", envelope::write;
    ContainerImage = ContainerImage, "containerimage", envelope::write;
}

impl<'a> Task<'a> {
    /// Reads a message that has to be a task.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        decode(bytes)?.try_into()
    }
}

impl<'a> TaskResult<'a> {
    /// Reads a message that has to be a result.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        decode(bytes)?.try_into()
    }
}

impl StatusReport {
    /// Reads a message that has to be an endpoint's status report.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes)?.try_into()
    }
}
