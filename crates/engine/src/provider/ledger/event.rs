//! What happens to jobs, what must be done then, and what the engine must know.

use uuid::Uuid;

use super::record::Record;
use crate::provider::scheduler::{BatchState, Ended, Verdicts};
use crate::provider::{CancelError, JobId, QueryError, SubmitError};

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A block is wanted; its job will have this name.
    Wanted {
        block: Uuid,
        name: String,
    },
    /// The entry is on disk.
    Written(Uuid),
    Submitted {
        block: Uuid,
        answer: Result<JobId, SubmitError>,
    },
    Found {
        block: Uuid,
        answer: Result<Option<JobId>, QueryError>,
    },
    /// What a poll says. Nothing of a poll that failed.
    Polled(Verdicts),
    /// The block is wanted no more.
    Unwanted(Uuid),
    Cancelled(Result<Vec<JobId>, CancelError>),
    Tick,
}

/// What must be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Write the entry to disk, durably, and answer with [`Event::Written`] when it is a new one.
    Write(Record),
    /// Take the entry off the disk.
    Erase(Uuid),
    Submit {
        block: Uuid,
        name: String,
    },
    /// Ask the scheduler for the job of this name.
    Find {
        block: Uuid,
        name: String,
    },
    Cancel(Vec<JobId>),
    Tell {
        block: Uuid,
        news: News,
    },
}

/// What the engine must know of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Submitted(JobId),
    /// The scheduler refused the job for good; in its words.
    Refused(String),
    /// The scheduler can't take the job now, and will be asked again.
    Away(String),
    /// The answer was lost: the job is searched for.
    Searching(String),
    /// The state of the job has changed.
    State(BatchState),
    /// The job has ended, and its nodes with it. The block may come back.
    NodesLost(Ended),
    /// The block has ended, for this reason if there is one.
    Ended {
        how: Option<Ended>,
        ran: bool,
    },
    /// The job may still run although it was cancelled; in the scheduler's words.
    CannotCancel {
        job: JobId,
        words: String,
    },
}
