//! Turns the crank: waits for the next thing that happens, asks the interchange, performs its actions in order.

use std::time::Duration;

use client::amqp::{self, End, Item, Outcome};
use daemon::stop::{Stage, Stop};
use engine::Submission;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use wire::control::Control;

use super::parent;
use super::renewal::Renewal;
use crate::directory::EndpointDir;
use crate::heartbeat::Heartbeat;
use crate::interchange::{Action, Input, Interchange, Task};
use crate::journal::{Journal, Written};
use crate::pid;
use crate::spool::{Done, Keeper};

/// The engine answers at once, or it is in no state to answer.
const REPORTING: Duration = Duration::from_secs(1);
/// The broker gets so long to confirm the last heartbeat and to say farewell.
const FAREWELL: Duration = Duration::from_secs(2);

/// Everything a run consists of.
pub(super) struct Shell {
    pub(super) interchange: Interchange,
    pub(super) link: amqp::Handle,
    pub(super) link_events: mpsc::Receiver<amqp::Event>,
    pub(super) engine: engine::Handle,
    /// Gone once the engine has stopped.
    pub(super) engine_events: Option<engine::Events>,
    pub(super) journal: Journal,
    pub(super) keeper: Keeper,
    pub(super) heartbeat: Heartbeat,
    /// The engine's last figures: the last heartbeat is sent without it.
    pub(super) report: engine::Report,
    pub(super) period: Duration,
    pub(super) stop: Stop,
    pub(super) parent: Option<i32>,
    pub(super) endpoint: EndpointDir,
    pub(super) renewal: Renewal,
    /// What the next link's sessions begin to count at.
    pub(super) next_session: u32,
}

impl Shell {
    /// Runs until the interchange leaves. `actions` are those of its beginning.
    pub(super) async fn turn(mut self, mut actions: Vec<Action>) {
        let mut beats = interval_at(Instant::now() + self.period, self.period);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline: Option<Instant> = None;
        let mut told = Stage::Running;
        let stop = self.stop.clone();
        let mut orphaned = std::pin::pin!(parent::gone(self.parent));
        loop {
            for action in actions.drain(..) {
                match action {
                    Action::Leave => return self.leave().await,
                    Action::LeaveWithin(time) => deadline = Some(Instant::now() + time),
                    other => self.perform(other).await,
                }
            }
            let input = tokio::select! {
                biased;
                () = stop.hurried(), if told < Stage::Hurried => {
                    told = Stage::Hurried;
                    Some(Input::Hurry)
                }
                () = stop.begun(), if told < Stage::Stopping => {
                    told = Stage::Stopping;
                    tracing::info!("stopping");
                    Some(Input::Stop)
                }
                () = late(deadline), if deadline.is_some() => {
                    deadline = None;
                    Some(Input::Late)
                }
                _ = beats.tick() => {
                    if let Err(error) = pid::touch(&self.endpoint) {
                        tracing::warn!(%error, "the PID file can't be touched");
                    }
                    Some(Input::Beat)
                }
                renewed = self.renewal.done(), if told < Stage::Stopping => match renewed {
                    Ok(plan) => {
                        (self.link, self.link_events) = amqp::start(plan);
                        self.link.consume(self.interchange.consumes());
                        None
                    }
                    Err(failure) => {
                        tracing::error!("no new credentials: {}", failure.text);
                        Some(Input::LinkEnded)
                    }
                },
                () = &mut orphaned, if told < Stage::Stopping && self.parent.is_some() => {
                    self.parent = None;
                    Some(Input::Stop)
                }
                Some(written) = self.journal.written() => self.journaled(written),
                Some(done) = self.keeper.done() => Some(spool(done)),
                event = next(&mut self.engine_events) => match event {
                    Some(event) => {
                        if let engine::Event::Bad { text } = &event {
                            // The engine may be gone before the last heartbeat asks it.
                            self.report.last_block_failure = Some(text.clone());
                        }
                        Some(engine(event))
                    }
                    None => {
                        self.engine_events = None;
                        Some(Input::EngineStopped)
                    }
                },
                Some(event) = self.link_events.recv() => self.link(event, told == Stage::Running),
            };
            if let Some(input) = input {
                self.interchange.apply(input, &mut actions);
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
            amqp::Event::Commanded(body) => match Control::decode(&body) {
                Ok(Control::CancelTasks { task_ids }) => Input::Cancel(task_ids),
                Err(error) => {
                    tracing::warn!(%error, "a command nobody knows was dropped");
                    return None;
                }
            },
            amqp::Event::Settled { item: Item::Result(task), outcome } => Input::Settled { task, outcome },
            amqp::Event::Settled { item: Item::Heartbeat, outcome: Outcome::Confirmed } => return None,
            amqp::Event::Settled { item: Item::Heartbeat, outcome } => {
                tracing::warn!(?outcome, "the broker did not take a heartbeat");
                return None;
            }
            amqp::Event::Down { reason, pause } => {
                tracing::warn!(%reason, pause_s = pause.as_secs_f64(), "no connection to the broker; trying again");
                Input::LinkDown
            }
            amqp::Event::Ended(End::Closed) => Input::LinkEnded,
            amqp::Event::Ended(End::AuthenticationRefused(reason))
                if running && self.renewal.begin(self.next_session) =>
            {
                tracing::warn!(%reason, "the broker does not accept the credentials; registering again");
                Input::LinkDown
            }
            amqp::Event::Ended(end) => {
                tracing::error!(?end, "the broker is out of reach for good");
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
            Action::GiveBack(tags) => self.link.give_back(tags),
            Action::Reject(tags) => self.link.reject(tags),
            // An engine that has stopped needs neither: its closed channel says so.
            Action::Begin(tasks) => {
                let _ = self.engine.begin(tasks);
            }
            Action::Cancel(task) => {
                let _ = self.engine.cancel(task);
            }
            Action::StopEngine { grace } => {
                let _ = self.engine.stop(grace);
            }
            Action::Keep { task, result } => self.keeper.keep(task, result),
            Action::Load(task) => self.keeper.load(task),
            Action::Publish { session, task, result } => {
                self.link.publish(session, Item::Result(task), result)
            }
            Action::Consume(take) => self.link.consume(take),
            Action::Heartbeat { session, active } => {
                if let Ok(Ok(report)) = timeout(REPORTING, self.engine.report()).await {
                    self.report = report;
                }
                let told = self.interchange.has_told();
                self.link.publish(
                    session,
                    Item::Heartbeat,
                    self.heartbeat.encode(&self.report, active, told),
                );
            }
            // The caller's own.
            Action::LeaveWithin(_) | Action::Leave => {}
        }
    }

    fn submit(&self, submission: Submission) {
        let task = submission.id;
        if self.engine.submit(submission).is_err() {
            tracing::debug!(%task, "the engine has stopped; the task goes back");
        }
    }

    /// Says farewell to the broker and closes what is on disk.
    async fn leave(mut self) {
        self.link.close();
        let ended = async {
            while let Some(event) = self.link_events.recv().await {
                if matches!(event, amqp::Event::Ended(_)) {
                    return;
                }
            }
        };
        // A broker that doesn't answer doesn't keep us.
        let _ = timeout(FAREWELL, ended).await;
        for written in self.journal.close() {
            if let Written::Ended(tasks) = written {
                tasks.into_iter().for_each(|task| self.keeper.forget(task));
            }
        }
        self.keeper.close();
    }

    fn journaled(&mut self, written: Written) -> Option<Input> {
        match written {
            Written::Begun(tasks) => Some(Input::Journaled(tasks)),
            Written::Ended(tasks) => {
                // Until now the spool was the only one to know that there is a result.
                tasks.into_iter().for_each(|task| self.keeper.forget(task));
                None
            }
            Written::LookedUp { task, known } => Some(Input::LookedUp { task, known }),
            Written::Failed(why) => {
                tracing::error!("the journal can't be written, so no task can begin: {why}");
                Some(Input::JournalFailed)
            }
        }
    }
}

async fn late(deadline: Option<Instant>) {
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

fn engine(event: engine::Event) -> Input {
    match event {
        engine::Event::Assigned(tasks) => Input::Assigned(tasks),
        engine::Event::Ended { task, result } => Input::Ended { task, result: result.into() },
        engine::Event::Returned(tasks) => Input::Returned(tasks),
        engine::Event::Bad { text } => {
            tracing::error!("the engine can't run tasks any more: {text}");
            Input::EngineBad
        }
    }
}

fn spool(done: Done) -> Input {
    match done {
        Done::Kept { task, result } => Input::Kept { task, result },
        Done::NotKept { task, result, error } => {
            tracing::error!(%task, %error, "a result can't be kept on disk; it is held in memory until it is sent");
            Input::NotKept { task, result }
        }
        Done::Loaded { task, result } => {
            let result =
                result.inspect_err(|error| tracing::error!(%task, %error, "a kept result can't be read"));
            Input::Loaded { task, result: result.ok() }
        }
    }
}
