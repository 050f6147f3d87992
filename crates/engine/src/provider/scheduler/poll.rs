//! One poll: the questions to a scheduler and their answers, one after another.
//!
//! The first question is about every job. What follows asks for details, and what it does not learn changes nothing.

use std::collections::{HashMap, VecDeque};

use super::Scheduler;
use super::command::{Answer, CommandLine};
use super::state::Verdicts;
use crate::provider::{JobId, QueryError};

/// One question of a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) ask: Ask,
    pub(crate) jobs: Vec<JobId>,
    pub(crate) command: CommandLine,
}

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The states of all jobs: the first question of a poll.
    States,
    /// The same in another way, of the jobs that the first has left open.
    StatesAgain,
    /// How jobs have ended.
    Endings,
    /// The same in another way.
    EndingsAgain,
}

/// The most commands of one poll: the first, and one for each of the jobs whose end only one at a time can be asked for.
const MOST_STEPS: usize = 65;

/// The questions and answers of one poll.
pub(crate) struct Poll<'a> {
    scheduler: &'a dyn Scheduler,
    steps: VecDeque<Step>,
    asked: usize,
    verdicts: Verdicts,
}

impl<'a> Poll<'a> {
    /// Begins a poll. Without jobs there is nothing to ask.
    pub(crate) fn new(scheduler: &'a dyn Scheduler, jobs: &[JobId]) -> Self {
        let steps = if jobs.is_empty() { VecDeque::new() } else { VecDeque::from([scheduler.status(jobs)]) };
        Self { scheduler, steps, asked: 0, verdicts: HashMap::new() }
    }

    /// The command to run next; none when the poll is over.
    pub(crate) fn command(&self) -> Option<&CommandLine> {
        self.steps.front().map(|step| &step.command)
    }

    /// Reads the answer to [`Self::command`]. An error ends the poll: nothing is known of the jobs.
    pub(crate) fn answer(&mut self, answer: &Answer) -> Result<(), QueryError> {
        let Some(step) = self.steps.pop_front() else { return Ok(()) };
        self.asked += 1;
        match self.scheduler.read_status(&step, answer, &mut self.verdicts) {
            Ok(more) => {
                let room = MOST_STEPS.saturating_sub(self.asked + self.steps.len());
                self.steps.extend(more.into_iter().take(room));
                Ok(())
            }
            Err(error) if step.ask == Ask::States => {
                self.steps.clear();
                Err(error)
            }
            // What the first answer said stands without the details.
            Err(_) => Ok(()),
        }
    }

    /// What is known now. A job that is not in it was not spoken of: nothing is known of it.
    pub(crate) fn finish(self) -> Verdicts {
        self.verdicts
    }
}
