//! The event loop: waits for the next event, passes it to the interchange, performs the actions in order.

use std::time::Duration;

use client::amqp::{self, Item, LinkEnd, PublishStatus};
use daemon::stop::{Stage, Stop};
use engine::Submission;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until, timeout};
use wire::TaskId;
use wire::extensions::FarcallCommand;

use super::allowed_functions::AllowedFunctionsWatch;
use super::countdown::Countdown;
use super::ending::{self, RunEnd};
use super::first_node::{self, FirstNodeWait};
use super::ready::ReadyReport;
use super::recorder::{self, Recorder};
use super::renewal::Renewal;
use super::{inputs, parent};
use crate::exit::status;
use crate::heartbeat::Heartbeat;
use crate::interchange::{Action, Input, Interchange, Task};
use crate::journal::{Journal, JournalEvent};
use crate::pid::{PidFileWatch, WatchEvent};
use crate::spool::SpoolThread;

/// How long the engine may take to report; usually it answers at once.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the broker may take to confirm the last heartbeat and to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The same after the end of the manager: nothing may outlive it for long.
const ORPHANED_CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// How often, and for how long, to look for results of an earlier run that may only be suspended on another host.
const EARLIER_RESULTS_INTERVAL: Duration = Duration::from_secs(2);
const EARLIER_RESULTS_LIMIT: Duration = Duration::from_secs(120);

/// The parts of a run.
pub(super) struct Driver {
    pub(super) interchange: Interchange,
    pub(super) link: amqp::Handle,
    pub(super) link_events: mpsc::Receiver<amqp::Event>,
    pub(super) engine: engine::Handle,
    /// `None` once the engine has stopped.
    pub(super) engine_events: Option<engine::Events>,
    pub(super) journal: Journal,
    pub(super) recorder: Recorder,
    pub(super) spool_thread: SpoolThread,
    pub(super) watch: PidFileWatch,
    pub(super) heartbeat: Heartbeat,
    /// The engine's last report: the last heartbeat is sent after the engine is gone.
    pub(super) report: engine::Report,
    pub(super) period: Duration,
    pub(super) stop: Stop,
    /// When the run was told to stop.
    pub(super) stop_began: Option<Instant>,
    pub(super) parent: Option<i32>,
    /// The parent has ended.
    pub(super) orphaned: bool,
    pub(super) renewal: Renewal,
    pub(super) allowed_functions: AllowedFunctionsWatch,
    /// The number of the next link's first session.
    pub(super) next_session: u32,
    /// Another process has claimed the endpoint: this one writes nothing more.
    pub(super) superseded: bool,
    pub(super) first: FirstNodeWait,
    /// Why no block works.
    pub(super) engine_failure: Option<String>,
    /// Why audit records can't be written.
    pub(super) audit_failure: Option<String>,
    pub(super) countdown: Countdown,
    /// Why the run ends, when it does.
    pub(super) end_reason: &'static str,
}

impl Driver {
    /// Runs until the interchange ends the run. `session` is that of the link; `actions` come first.
    pub(super) async fn run(
        mut self,
        session: u32,
        mut actions: Vec<Action>,
        ready: &mut ReadyReport,
    ) -> RunEnd {
        if let Some(input) = self.link(amqp::Event::Up { session }, true) {
            self.interchange.apply(input, &mut actions);
        }
        let mut earlier_results =
            interval_at(Instant::now() + EARLIER_RESULTS_INTERVAL, EARLIER_RESULTS_INTERVAL);
        earlier_results.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut first_node_check = interval(first_node::CHECK_INTERVAL);
        first_node_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop_at: Option<Instant> = None;
        let earlier_results_until = Instant::now() + EARLIER_RESULTS_LIMIT;
        let mut heartbeats = interval_at(Instant::now() + self.period, self.period);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline: Option<Instant> = None;
        let mut stage = Stage::Running;
        let stop = self.stop.clone();
        let mut orphaned = std::pin::pin!(parent::ended(self.parent));
        loop {
            for action in actions.drain(..) {
                match action {
                    Action::End => return self.end().await,
                    Action::EndWithin(time) => deadline = Some(Instant::now() + time),
                    Action::StopWithin(time) => stop_at = Some(Instant::now() + time),
                    other => self.perform(other).await,
                }
            }
            let input = tokio::select! {
                biased;
                () = stop.hurried(), if stage < Stage::Hurried => {
                    stage = Stage::Hurried;
                    Some(Input::Hurry)
                }
                () = stop.begun(), if stage < Stage::Stopping => {
                    stage = Stage::Stopping;
                    self.end_reason = ending::STOPPED;
                    self.stop_began = Some(Instant::now());
                    tracing::info!("stopping");
                    Some(Input::Stop)
                }
                () = reached(deadline), if deadline.is_some() => {
                    deadline = None;
                    Some(Input::StopTimedOut)
                }
                () = reached(stop_at), if stop_at.is_some() => {
                    stop_at = None;
                    Some(Input::Stop)
                }
                _ = first_node_check.tick(), if !ready.is_sent() && self.engine_failure.is_none() => {
                    self.report().await;
                    if let Some(note) = self.first.message(&self.report) {
                        ready.send(Ok(&note));
                    }
                    None
                }
                _ = heartbeats.tick() => {
                    self.watch.check();
                    Some(Input::HeartbeatDue)
                }
                _ = earlier_results.tick(), if self.interchange.awaits() => {
                    Some(Input::LookForResults { last: Instant::now() >= earlier_results_until })
                }
                event = self.watch.event() => match event {
                    WatchEvent::Superseded => self.supersede(),
                    WatchEvent::TouchFailed(error) => {
                        tracing::warn!(%error, "the PID file can't be touched");
                        None
                    }
                },
                renewed = self.renewal.done(), if stage < Stage::Stopping => match renewed {
                    Ok(config) => {
                        (self.link, self.link_events) = amqp::start(config);
                        self.link.consume(self.interchange.consumes());
                        None
                    }
                    Err(failure) if failure.status == status::ALREADY_ACTIVE => self.supersede(),
                    Err(failure) => {
                        tracing::error!("no new credentials: {}", failure.text);
                        Some(Input::LinkEnded)
                    }
                },
                allowed = self.allowed_functions.changed(), if stage < Stage::Stopping => Some(Input::Allowed(allowed)),
                () = &mut orphaned, if !self.orphaned => {
                    self.orphaned = true;
                    self.end_reason = ending::ORPHANED;
                    stage = Stage::Hurried;
                    Some(Input::Orphaned)
                }
                written = self.recorder.progress() => match written {
                    Ok(tasks) => {
                        self.begin(tasks);
                        None
                    }
                    Err(error) => {
                        tracing::error!("Unable to write audit log; endpoint may not continue: {error}");
                        self.audit_failure = Some(error.to_string());
                        Some(Input::RecordsFailed)
                    }
                },
                Some(event) = self.journal.event() => self.journaled(event),
                Some(event) = self.spool_thread.event() => Some(inputs::of_spool(event)),
                event = next(&mut self.engine_events) => match event {
                    Some(event) => {
                        if let engine::Event::BadState { text } = &event {
                            // The engine may be gone before the last heartbeat asks it.
                            self.report.last_block_failure = Some(text.clone());
                            self.engine_failure = Some(text.clone());
                            self.end_reason = ending::NO_BLOCK_WORKS;
                        }
                        if matches!(event, engine::Event::Assigned(_)) {
                            self.first.record();
                        }
                        Some(inputs::of_engine(event))
                    }
                    None => {
                        self.engine_events = None;
                        Some(Input::EngineStopped)
                    }
                },
                Some(event) = self.link_events.recv() => self.link(event, stage == Stage::Running),
            };
            if let Some(input) = input {
                let beat = matches!(input, Input::HeartbeatDue);
                self.interchange.apply(input, &mut actions);
                if beat {
                    self.countdown.show(self.interchange.idleness(), self.period);
                }
            }
        }
    }

    fn link(&mut self, event: amqp::Event, running: bool) -> Option<Input> {
        Some(match event {
            amqp::Event::Up { session } => {
                tracing::info!(session, "connected to the broker");
                self.renewal.accepted();
                self.next_session = session.saturating_add(1);
                Input::LinkUp { session }
            }
            amqp::Event::Delivered(delivery) => Input::Delivered(delivery),
            amqp::Event::Commanded(body) => match FarcallCommand::decode(&body) {
                Ok(FarcallCommand::CancelTasks { task_ids }) => Input::Cancel(task_ids),
                Err(error) => {
                    tracing::warn!(%error, "an unknown command was dropped");
                    return None;
                }
            },
            amqp::Event::Settled { item: Item::Result(task), status } => Input::Settled { task, status },
            amqp::Event::Settled { item: Item::Heartbeat, status: PublishStatus::Confirmed } => return None,
            amqp::Event::Settled { item: Item::Heartbeat, status } => {
                tracing::warn!(outcome = ?status, "the broker did not accept a heartbeat");
                return None;
            }
            amqp::Event::Down { reason, pause, .. } => {
                tracing::warn!(%reason, pause_s = pause.as_secs_f64(), "no connection to the broker; trying again");
                // Another process may have taken the endpoint.
                self.watch.check();
                Input::LinkDown
            }
            amqp::Event::Ended(LinkEnd::Closed) => Input::LinkEnded,
            amqp::Event::Ended(LinkEnd::AuthenticationRefused(reason))
                if running && self.renewal.begin(self.next_session) =>
            {
                tracing::warn!(%reason, "the broker does not accept the credentials; registering again");
                Input::LinkDown
            }
            amqp::Event::Ended(end) => {
                tracing::error!(?end, "giving up on the broker");
                Input::LinkEnded
            }
        })
    }

    async fn perform(&mut self, action: Action) {
        match action {
            Action::Submit(task) => {
                let Task(submission) = *task;
                self.submit(submission);
            }
            Action::Journal(tasks) => self.journal.begin(tasks),
            Action::JournalReturned(tasks) => self.journal.hand_back(tasks),
            Action::JournalEnded(tasks) => self.journal.end(tasks),
            Action::LookUp(task) => self.journal.look_up(task),
            Action::Acknowledge(tags) => self.link.acknowledge(tags),
            Action::Requeue(tags) => self.link.requeue(tags),
            Action::Reject(tags) => self.link.reject(tags),
            Action::Record(record) => self.recorder.record(record),
            Action::Begin(tasks) => {
                if let Some(tasks) = self.recorder.may_begin(tasks) {
                    self.begin(tasks);
                }
            }
            // These fail only if the engine has stopped, which its closed channel reports.
            Action::Cancel(task) => {
                let _ = self.engine.cancel(task);
            }
            Action::StopEngine { grace } => {
                let _ = self.engine.stop(grace);
            }
            Action::Keep { task, result } => self.spool_thread.keep(task, result),
            Action::Load(task) => self.spool_thread.load(task),
            Action::LookForResults { tasks, last } => self.spool_thread.find(tasks, last),
            Action::Publish { session, task, result } => {
                self.link.publish(session, Item::Result(task), result)
            }
            Action::Consume(take) => self.link.consume(take),
            Action::Heartbeat { session, active } => {
                self.report().await;
                let leftovers_reported = self.interchange.has_reported_leftovers();
                let reason = if self.interchange.stops_idle() { ending::IDLE } else { self.end_reason };
                let end = (!active).then_some(reason);
                self.link.publish(
                    session,
                    Item::Heartbeat,
                    self.heartbeat.encode(&self.report, end, leftovers_reported),
                );
            }
            // The caller performs these.
            Action::EndWithin(_) | Action::StopWithin(_) | Action::End => {}
        }
    }

    async fn report(&mut self) {
        if let Ok(Ok(report)) = timeout(REPORT_TIMEOUT, self.engine.report()).await {
            self.report = report;
            if first_node::works(&self.report) {
                self.first.record();
            }
        }
    }

    fn begin(&self, tasks: Vec<TaskId>) {
        if !tasks.is_empty() {
            // It fails only if the engine has stopped, which its closed channel reports.
            let _ = self.engine.begin(tasks);
        }
    }

    fn submit(&self, submission: Submission) {
        let task = submission.id;
        if self.engine.submit(submission).is_err() {
            tracing::debug!(%task, "the engine has stopped; the task is returned to the queue");
        }
    }

    /// Another process has claimed the endpoint. Results that are left are appended to this run's own file, where that process
    /// looks for them; nothing more is sent to the broker.
    fn supersede(&mut self) -> Option<Input> {
        if std::mem::replace(&mut self.superseded, true) {
            return None;
        }
        tracing::error!("another process runs this endpoint now; leaving its files untouched");
        self.journal.abandon();
        self.spool_thread.abandon();
        self.link.close();
        Some(Input::Superseded)
    }

    /// Closes the connection to the broker and the files.
    async fn end(mut self) -> RunEnd {
        if !self.orphaned {
            self.recorder.finish(recorder::time_is_up(&self.stop, self.stop_began)).await;
        }
        let limit = if self.orphaned { ORPHANED_CLOSE_TIMEOUT } else { CLOSE_TIMEOUT };
        self.link.close_within(limit, &mut self.link_events).await;
        for event in self.journal.close() {
            if let JournalEvent::Ended(tasks) = event {
                tasks.into_iter().for_each(|task| self.spool_thread.forget(task));
            }
        }
        self.spool_thread.close();
        match self.engine_failure {
            _ if self.superseded => RunEnd::Superseded,
            _ if self.audit_failure.is_some() => RunEnd::Unrecorded(self.audit_failure.unwrap_or_default()),
            Some(text) => RunEnd::EngineFailed { text, worked: self.first.has_worked() },
            None => RunEnd::Stopped,
        }
    }

    fn journaled(&mut self, event: JournalEvent) -> Option<Input> {
        match event {
            JournalEvent::Begun(tasks) => Some(Input::Journaled(tasks)),
            JournalEvent::Ended(tasks) => {
                // The journal knows the end of the task now, so the spool need not keep its result.
                tasks.into_iter().for_each(|task| self.spool_thread.forget(task));
                None
            }
            JournalEvent::LookedUp { task, known } => Some(Input::LookedUp { task, known }),
            JournalEvent::Superseded => self.supersede(),
            JournalEvent::Failed(why) => {
                tracing::error!("the journal can't be written, so no task can begin: {why}");
                Some(Input::JournalFailed)
            }
        }
    }
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn next(events: &mut Option<engine::Events>) -> Option<engine::Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}
