//! The messages in queues: one byte for the version of the protocol, then JSON.
//!
//! `0x01{"message_type":"task","data":{…}}`. Unknown fields are ignored. Messages are written compactly, in raw UTF-8,
//! with the fields in upstream's order. The long string of a task or a result is not copied
//! (see [`crate::json_text`]).
//!
//! Python also writes `NaN` and `Infinity`, which are not JSON: the heartbeats of 3.x endpoints contain them
//! if a site sets no maximum of workers. They are read as null, which 4.x endpoints write.
//!
//! Reading never panics and takes no more memory than a small multiple of the message's size: a message is refused
//! beyond [`LIMIT`], a free-form object beyond [`crate::json::FREE_FORM_LIMIT`], nesting beyond 127 levels (unknown
//! fields are skipped at any depth, without recursion).

mod container;
mod envelope;
mod status;
mod task;

pub use container::{Container, ContainerImage};
pub use status::{
    Actor, DEFAULT_HEARTBEAT_PERIOD, Liveness, ManagerStatusReport, StatusReport, TaskState, TaskTransition,
};
pub use task::{ErrorDetails, Task, TaskCancel, TaskResult};

use crate::json::{self, Malformed};

/// The first byte of every message.
pub const VERSION: u8 = 1;

/// The maximum size of a message, in bytes: room for a payload of 64 MiB with its escapes, and for the function.
pub const LIMIT: usize = 80 << 20;

/// A message of any type.
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
    /// The same message without a borrow of the bytes that it was read from.
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

/// `decode` for readers that expect one type of message, and `encode`.
macro_rules! typed {
    ($($type:ident $(<$life:lifetime>)? = $variant:ident, $kind:literal, $write:expr);+ $(;)?) => {$(
        impl $(<$life>)? $type $(<$life>)? {
            /// Writes this as a whole message, with the version byte.
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
    TaskCancel = TaskCancel, "task_cancel", json::write;
    StatusReport = StatusReport, "ep_status_report", json::write;
    ManagerStatusReport = ManagerStatusReport, "manager_status_report", json::write;
    TaskTransition = TaskTransition, "task_transition", json::write;
    Container = Container, "container", json::write;
    ContainerImage = ContainerImage, "containerimage", json::write;
}

impl<'a> Task<'a> {
    /// Reads a task; any other message is an error.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        decode(bytes)?.try_into()
    }
}

impl<'a> TaskResult<'a> {
    /// Reads a result; any other message is an error.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        decode(bytes)?.try_into()
    }
}

impl StatusReport {
    /// Reads an endpoint's status report; any other message is an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes)?.try_into()
    }
}
