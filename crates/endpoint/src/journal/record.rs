//! The format of one record: 32 bytes with a checksum, so that an incomplete one is recognized.
//!
//! ```text
//! 0      1          4               8                24                 32
//! | kind | zeros    | seconds (BE)  | id             | checksum (BE)    |
//! ```

use uuid::Uuid;
use wire::{RunId, TaskId};

pub(super) const RECORD: usize = 32;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first record of each segment.
    Run(RunId),
    Begun(TaskId),
    Ended(TaskId),
    /// Was recorded as begun but did not begin: its message was returned to the queue.
    Returned(TaskId),
}

/// What happened, and when, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) seconds: u32,
}

impl Record {
    pub(super) fn encode(&self) -> [u8; RECORD] {
        let (letter, id) = match self.kind {
            Kind::Run(run) => (b'R', run.as_uuid().into_bytes()),
            Kind::Begun(task) => (b'B', task.as_uuid().into_bytes()),
            Kind::Ended(task) => (b'E', task.as_uuid().into_bytes()),
            Kind::Returned(task) => (b'U', task.as_uuid().into_bytes()),
        };
        let mut bytes = [0; RECORD];
        bytes[0] = letter;
        bytes[4..8].copy_from_slice(&self.seconds.to_be_bytes());
        bytes[8..24].copy_from_slice(&id);
        let sum = checksum(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// `None` if the record is damaged.
    pub(super) fn decode(bytes: &[u8; RECORD]) -> Option<Self> {
        let (content, sum) = bytes.split_at(24);
        if checksum(content).to_be_bytes() != sum {
            return None;
        }
        let id = Uuid::from_bytes(content[8..24].try_into().ok()?);
        let kind = match content[0] {
            b'R' => Kind::Run(RunId::from_uuid(id)),
            b'B' => Kind::Begun(TaskId::from_uuid(id)),
            b'E' => Kind::Ended(TaskId::from_uuid(id)),
            b'U' => Kind::Returned(TaskId::from_uuid(id)),
            _ => return None,
        };
        Some(Self { kind, seconds: u32::from_be_bytes(content[4..8].try_into().ok()?) })
    }
}

/// FNV-1a: it only has to detect incomplete records.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
