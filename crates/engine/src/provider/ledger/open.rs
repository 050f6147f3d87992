//! A job that the scheduler has taken: what its answers say, one after another.

use std::time::Duration;

use super::DENIALS;
use super::event::News;
use crate::provider::JobId;
use crate::provider::scheduler::{BatchState, EndCause, Ended};

/// The time between two denials of a job whose id the scheduler has told.
const DENIAL_PAUSE: Duration = Duration::from_secs(10);

/// How long a job must have ended before its block has: it may be requeued.
const STAYS_ENDED: Duration = Duration::from_secs(60);

/// A job whose id is known.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) id: JobId,
    pub(super) state: Option<BatchState>,
    /// Whether the scheduler has shown the job.
    pub(super) seen: bool,
    pub(super) ran: bool,
    pub(super) denials: u32,
    pub(super) next_denial: Duration,
    pub(super) ended: Option<(Duration, Ended)>,
    /// The block's end has been told; the job only has to leave the queue.
    pub(super) told: bool,
}

/// What a verdict leads to.
pub(super) enum Step {
    Nothing,
    Tell(News),
    /// The block has ended; `left` when its job is in the queue no more.
    End {
        left: bool,
    },
}

impl Open {
    pub(super) fn new(id: JobId) -> Self {
        Self {
            id,
            state: None,
            seen: false,
            ran: false,
            denials: 0,
            next_denial: Duration::ZERO,
            ended: None,
            told: false,
        }
    }

    /// The scheduler does not know the job. Tables lag, so one that it never showed, and of whose end its accounting
    /// knows nothing, must be denied again, later.
    pub(super) fn deny(&mut self, how: Option<&Ended>, now: Duration, cancelled: bool) -> Step {
        if !self.seen && how.is_none() {
            if now >= self.next_denial {
                self.denials += 1;
                self.next_denial = now + DENIAL_PAUSE;
            }
            if self.denials < DENIALS {
                return Step::Nothing;
            }
        }
        match (how, &self.ended) {
            (Some(how), _) => {
                self.ran |= has_run(how);
                self.ended = Some((now, how.clone()));
            }
            // It ended between two polls, or before the first. What waits does not leave by itself.
            (None, None) => self.ran |= !cancelled,
            (None, Some(_)) => {}
        }
        Step::End { left: true }
    }

    pub(super) fn show(&mut self, state: &BatchState, now: Duration, cancelled: bool) -> Step {
        self.seen = true;
        let BatchState::Ended(how) = state else {
            self.ran |= matches!(state, BatchState::Running | BatchState::Suspended | BatchState::Ending);
            self.ended = None;
            if self.state.as_ref() == Some(state) {
                return Step::Nothing;
            }
            self.state = Some(state.clone());
            return Step::Tell(News::State(state.clone()));
        };
        self.ran |= has_run(how);
        // Nobody brings back what was cancelled on our order.
        let final_at_once = cancelled && matches!(how.cause, EndCause::Cancelled { .. });
        let since = self.ended.as_ref().map(|(since, _)| *since);
        self.ended = Some((since.unwrap_or(now), how.clone()));
        match since {
            _ if final_at_once => Step::End { left: false },
            Some(since) if now.saturating_sub(since) >= STAYS_ENDED => Step::End { left: false },
            Some(_) => Step::Nothing,
            None if self.told => Step::Nothing,
            None => {
                self.state = None;
                Step::Tell(News::NodesLost(how.clone()))
            }
        }
    }
}

/// Whether a job that ended so had nodes.
fn has_run(how: &Ended) -> bool {
    match how.cause {
        EndCause::NeverRan => false,
        EndCause::Cancelled { .. } => how.exit.is_some(),
        _ => true,
    }
}
