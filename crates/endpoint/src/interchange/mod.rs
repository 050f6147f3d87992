//! The endpoint's core: decides what happens to tasks and results between the service's queues and the engine.
//!
//! ```text
//! delivered --> waiting --engine picks a node--> assigned --journaled, acknowledged--> running
//!                  |                                |                                    |
//!                  +------------- ended ------------+---------------- ended -------------+
//!                                                   v
//!                       finished --kept in the spool--> published --confirmed--> gone
//! ```
//!
//! A task's message is acknowledged once the task is recorded as begun, never before; its result leaves the spool once the broker
//! has confirmed it. A task that began is never given to the engine again, even if it is delivered again. A task that began in an
//! earlier run and left no result is reported as lost, once.
//!
//! No IO, no clock, no channel: `apply(input)` appends actions to a list, and [`crate::run`] performs them in order.

mod action;
mod allowed;
mod audit;
mod awaited;
mod cancel;
mod delivery;
mod error_results;
mod idle;
mod input;
mod intake;
mod results;
mod stop;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use client::amqp::{Delivery, Tag};
use wire::{EndpointId, FunctionId, TaskId};

use crate::journal::Filter;
pub(crate) use action::{Action, Task};
use audit::AuditTrail;
use cancel::Cancelled;
pub(crate) use error_results::lost;
use idle::IdleCounter;
pub(crate) use idle::{Idle, Idleness};
pub(crate) use input::Input;
use intake::Intake;
use results::{Finished, ResultLocation, SendState};
use stop::Phase;

/// The settings of the interchange.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) endpoint: EndpointId,
    /// The allowed functions; `None` allows all.
    pub(crate) allowed: Option<HashSet<FunctionId>>,
    /// The limit, in bytes, for the bodies of tasks that have not ended. At the limit no task is taken.
    pub(crate) bytes: usize,
    /// How many results may await the broker's confirmation; others wait in the spool.
    pub(crate) in_flight: usize,
    /// How long running tasks may take to end when the endpoint stops.
    pub(crate) grace: Duration,
    /// When the endpoint stops because it is idle.
    pub(crate) idle: Idle,
    /// Whether what happens to tasks is recorded in the manager's audit log.
    pub(crate) audited: bool,
}

/// What earlier runs left behind.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    /// Tasks whose results are in the spool.
    pub(crate) spooled: Vec<TaskId>,
    /// Tasks that began and whose end is not known, with the results that report them as lost.
    pub(crate) lost: Vec<(TaskId, Vec<u8>)>,
    /// Tasks that ended.
    pub(crate) ended: Filter,
    /// The earlier run may only be suspended, on another host: its results are awaited for a while.
    pub(crate) awaited: bool,
}

/// The state of a task.
#[derive(Debug)]
enum State {
    /// It may have ended earlier: the journal is asked.
    LookedUp {
        delivery: Delivery,
    },
    /// With the engine, its message unacknowledged.
    Waiting {
        tag: Tag,
        size: usize,
        function: FunctionId,
    },
    /// Its function is no longer allowed, and the engine is to let it go: `result` says so.
    Refused {
        tag: Tag,
        size: usize,
        result: Vec<u8>,
    },
    /// A node is chosen; the journal is being written.
    Assigned {
        tag: Tag,
        size: usize,
    },
    Running {
        size: usize,
    },
    /// An earlier run had it and may still deliver its result; otherwise `lost` is its result.
    Awaited {
        lost: Vec<u8>,
    },
    Finished(Finished),
}

/// The core's state.
#[derive(Debug)]
pub(crate) struct Interchange {
    settings: Settings,
    intake: Intake,
    tasks: HashMap<TaskId, State>,
    /// Tasks that ended, in this run or an earlier one: their messages are only acknowledged.
    ended: Filter,
    /// Tasks of earlier runs whose results the service does not have yet.
    unreported: HashSet<TaskId>,
    /// Tasks that were cancelled before they were delivered.
    cancelled: Cancelled,
    /// The session of the link; `None` while disconnected.
    session: Option<u32>,
    /// Results, in the spool or in memory, that wait to be published.
    due: VecDeque<TaskId>,
    /// How many results are being read, or published and not answered.
    in_flight: usize,
    /// The size of the bodies of tasks that have not ended, in bytes.
    bytes: usize,
    consuming: bool,
    phase: Phase,
    idle: IdleCounter,
    audit: Option<AuditTrail>,
}

impl Interchange {
    /// Starts with the leftovers of earlier runs.
    pub(crate) fn new(settings: Settings, left: Leftovers, actions: &mut Vec<Action>) -> Self {
        let Leftovers { spooled, lost, ended, awaited } = left;
        let mut interchange = Self {
            intake: Intake { endpoint: settings.endpoint, allowed: settings.allowed.clone() },
            audit: settings.audited.then(AuditTrail::default),
            settings,
            tasks: HashMap::new(),
            ended,
            unreported: HashSet::new(),
            cancelled: Cancelled::default(),
            session: None,
            due: VecDeque::new(),
            in_flight: 0,
            bytes: 0,
            consuming: true,
            phase: Phase::Running,
            idle: IdleCounter::default(),
        };
        for task in spooled {
            let finished = Finished { tag: None, location: ResultLocation::Spool, sending: SendState::Due };
            interchange.tasks.insert(task, State::Finished(finished));
            interchange.due.push_back(task);
        }
        for (task, lost) in lost {
            if interchange.tasks.contains_key(&task) {
                continue;
            }
            if awaited {
                interchange.tasks.insert(task, State::Awaited { lost });
            } else {
                interchange.finish(task, None, lost, actions);
            }
        }
        interchange.unreported = interchange.tasks.keys().copied().collect();
        interchange
    }

    /// Whether the service has all results of earlier runs.
    pub(crate) fn has_reported_leftovers(&self) -> bool {
        self.unreported.is_empty()
    }

    /// Whether tasks are consumed at the moment.
    pub(crate) fn consumes(&self) -> bool {
        self.consuming && matches!(self.phase, Phase::Running)
    }

    /// How idle the endpoint is since the last heartbeat.
    pub(crate) fn idleness(&self) -> Idleness {
        self.idle.idleness(self.settings.idle)
    }

    /// Whether the endpoint stops because it was idle for the limit.
    pub(crate) fn stops_idle(&self) -> bool {
        self.idle.is_over
    }

    /// Handles one event.
    pub(crate) fn apply(&mut self, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::LinkUp { session } => self.link_up(session, actions),
            Input::LinkDown | Input::LinkEnded => {
                self.link_down(actions);
                if matches!(input, Input::LinkEnded) {
                    self.begin_stop(actions);
                }
            }
            Input::Delivered(delivery) => self.delivered(delivery, actions),
            Input::Assigned(tasks) => self.assigned(tasks, actions),
            Input::Journaled(tasks) => self.journaled(tasks, actions),
            Input::LookedUp { task, known } => self.looked_up(task, known, actions),
            Input::Ended { task, result } => self.ended(task, result, actions),
            Input::Returned(tasks) => self.returned(tasks, actions),
            Input::Placed { task, block } => self.record(actions, |audit| audit.runs_in(task, block)),
            Input::EngineFailed => self.engine_failed(actions),
            Input::JournalFailed | Input::Superseded | Input::Stop => self.begin_stop(actions),
            Input::LookForResults { last } => self.look_for_results(last, actions),
            Input::ResultsFound { tasks, last } => self.results_found(tasks, last, actions),
            Input::EngineStopped => self.engine_stopped(actions),
            Input::Kept { task, result } => self.kept(task, Ok(result), actions),
            Input::NotKept { task, result } => self.kept(task, Err(result), actions),
            Input::Loaded { task, result } => self.loaded(task, result, actions),
            Input::Settled { task, status } => self.settled(task, &status, actions),
            Input::Allowed(functions) => self.allow(functions, actions),
            Input::Cancel(tasks) => self.cancel(tasks, actions),
            Input::HeartbeatDue => self.heartbeat_due(actions),
            Input::Hurry | Input::RecordsFailed => self.hurry(stop::HURRIED, actions),
            Input::Orphaned => self.hurry(stop::ORPHANED, actions),
            Input::StopTimedOut => self.stop_timed_out(actions),
        }
        self.end_when_done(actions);
    }

    fn link_up(&mut self, session: u32, actions: &mut Vec<Action>) {
        self.session = Some(session);
        actions.push(Action::Heartbeat { session, active: true });
        self.send_due(actions);
    }

    /// Tags and publications of the session are void: the broker delivers unacknowledged messages again, and unconfirmed results
    /// are published again.
    fn link_down(&mut self, actions: &mut Vec<Action>) {
        self.session = None;
        for (task, state) in &mut self.tasks {
            if let State::Finished(finished) = state
                && matches!(finished.sending, SendState::Sent(_))
            {
                finished.sending = SendState::Due;
                self.in_flight -= 1;
                self.due.push_back(*task);
            }
        }
        self.make_room(actions);
    }

    fn assigned(&mut self, tasks: Vec<TaskId>, actions: &mut Vec<Action>) {
        let mut begins = Vec::new();
        let mut again = Vec::new();
        for task in tasks {
            match self.tasks.get_mut(&task) {
                Some(state @ State::Waiting { .. }) => {
                    if let State::Waiting { tag, size, .. } = *state {
                        *state = State::Assigned { tag, size };
                        begins.push(task);
                    }
                }
                // Another attempt at a task that began: it is recorded and acknowledged already.
                Some(State::Running { .. }) => again.push(task),
                _ => {}
            }
        }
        // Also while stopping: the engine returns only tasks that it has not assigned.
        if !begins.is_empty() {
            actions.push(Action::Journal(begins));
        }
        if !again.is_empty() {
            actions.push(Action::Begin(again));
        }
    }

    fn journaled(&mut self, tasks: Vec<TaskId>, actions: &mut Vec<Action>) {
        let mut tags = Vec::new();
        let mut begun = Vec::new();
        for task in tasks {
            match self.tasks.get_mut(&task) {
                Some(state @ State::Assigned { .. }) => {
                    if let State::Assigned { tag, size } = *state {
                        *state = State::Running { size };
                        tags.push(tag);
                        begun.push(task);
                    }
                }
                _ => continue,
            }
        }
        if !begun.is_empty() {
            actions.push(Action::Acknowledge(tags));
            actions.push(Action::Begin(begun));
        }
    }

    fn ended(&mut self, task: TaskId, mut result: Vec<u8>, actions: &mut Vec<Action>) {
        let (tag, size) = match self.tasks.get_mut(&task) {
            // It never began and is ended by our stop: it goes back to the queue, and the next run runs it.
            Some(State::Waiting { .. } | State::Refused { .. } | State::Assigned { .. })
                if !matches!(self.phase, Phase::Running) =>
            {
                return self.returned(vec![task], actions);
            }
            Some(State::Waiting { tag, size, .. } | State::Assigned { tag, size }) => (Some(*tag), *size),
            Some(State::Refused { tag, size, result: refusal }) => {
                result = std::mem::take(refusal);
                (Some(*tag), *size)
            }
            Some(State::Running { size }) => (None, *size),
            Some(State::LookedUp { .. } | State::Awaited { .. } | State::Finished(_)) | None => {
                tracing::error!(%task, "the engine ended a task that it does not have");
                return;
            }
        };
        self.bytes -= size;
        self.finish(task, tag, result, actions);
        self.make_room(actions);
    }

    /// Stops consuming when the memory limit is reached, and resumes when half of it is free.
    fn make_room(&mut self, actions: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        if self.consuming && self.bytes >= self.settings.bytes {
            self.consuming = false;
            actions.push(Action::Consume(false));
        } else if !self.consuming && self.bytes < self.settings.bytes.div_ceil(2) {
            self.consuming = true;
            actions.push(Action::Consume(true));
        }
    }

    fn heartbeat_due(&mut self, actions: &mut Vec<Action>) {
        if let Some(session) = self.session {
            actions.push(Action::Heartbeat { session, active: true });
        }
        for (task, state) in &mut self.tasks {
            if let State::Finished(finished) = state
                && finished.sending == SendState::Later
            {
                finished.sending = SendState::Due;
                self.due.push_back(*task);
            }
        }
        self.send_due(actions);
        if self.idle.count_heartbeat(self.settings.idle, self.tasks.is_empty()) {
            tracing::info!("nothing to do for long enough; stopping");
            self.idle.is_over = true;
            self.begin_stop(actions);
        }
    }
}
