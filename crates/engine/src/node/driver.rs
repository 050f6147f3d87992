//! Drives the node's slots: passes them what comes from the link and from workers, and performs the steps that they
//! decide on. It must not decide which worker gets a task.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use wire::TaskId;

use super::config::Config;
use super::error::NodeError;
use super::file_thread::FileThread;
use super::outbox::Outbox;
use super::resources::WorkerResources;
use super::slots::{Slots, Step};
use super::task_socket::TaskFrame;
use super::worker::{self, Worker, WorkerEvent, WorkerSpec};
use super::{connect, threads};
use crate::clock::Clock;
use crate::link::frame::{self, Frame, FrameReader};
use crate::link::message::{self, ToNode};
use crate::processes;

/// How long a cancelled task has to end by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// How a worker has ended, and the end of its output.
struct WorkerExit {
    how: String,
    output: String,
}

/// At most so many worker events are handled before the link is read again.
const BATCH: usize = 256;

/// A running node: its workers, and what it knows of them.
pub(super) struct Node {
    clock: Clock,
    files: FileThread,
    spec: Arc<WorkerSpec>,
    worker_resources: Vec<WorkerResources>,
    slots: Slots<TaskFrame>,
    /// Whether the workers are threads of one process.
    threads: bool,
    /// How many threads are requested whose process is not started yet.
    requested: u32,
    /// Whether the engine was told that a worker is ready.
    ready: bool,
    workers: HashMap<u32, Worker>,
    /// Workers that were asked to end, and when they are killed if they have not.
    dying: BTreeMap<u32, Instant>,
    /// Workers that are ended because they were not ready in time.
    overdue: HashSet<u32>,
    /// How the last worker of each slot has ended, until the next is ready.
    exits: HashMap<u32, WorkerExit>,
    sender: mpsc::UnboundedSender<WorkerEvent>,
}

impl Node {
    /// A node whose workers are not started yet, with the channel that their events go to.
    pub(super) fn new(
        spec: WorkerSpec,
        worker_resources: Vec<WorkerResources>,
        max_tasks: Option<u32>,
        threads: bool,
        sender: mpsc::UnboundedSender<WorkerEvent>,
    ) -> Result<Self, NodeError> {
        Ok(Self {
            clock: Clock::start(),
            files: FileThread::start().map_err(NodeError::Thread)?,
            slots: Slots::new(spec.count, max_tasks),
            spec: Arc::new(spec),
            worker_resources,
            threads,
            requested: 0,
            ready: false,
            workers: HashMap::new(),
            dying: BTreeMap::new(),
            overdue: HashSet::new(),
            exits: HashMap::new(),
            sender,
        })
    }

    /// Starts the worker of this slot; [`WorkerEvent::Started`] follows.
    fn start(&mut self, rank: u32) {
        let resources = self.worker_resources.get(rank as usize).cloned().unwrap_or_default();
        let (spec, events) = (Arc::clone(&self.spec), self.sender.clone());
        if !self.threads {
            self.files.run(move || Worker::start(&spec, rank, &resources, events));
            return;
        }
        // All threads share one process, which starts when the last of them is requested.
        self.requested += 1;
        if self.requested == self.spec.count {
            self.requested = 0;
            self.files.run(move || threads::start(&spec, &resources, &events));
        }
    }

    pub(super) async fn serve(
        &mut self,
        config: &Config,
        mut events: mpsc::UnboundedReceiver<WorkerEvent>,
        mut out: Outbox,
        outgoing: mpsc::UnboundedReceiver<Frame>,
    ) -> Result<(), NodeError> {
        for rank in 0..self.spec.count {
            self.start(rank);
        }
        self.perform_steps(None, &mut out)?;
        // The interpreters start while the node connects.
        let (reading, writing) = tokio::io::split(connect::to_engine(config).await?);
        let writer = tokio::spawn(frame::write(writing, outgoing));
        let mut reader = FrameReader::new(reading);
        let mut heartbeats = interval(config.heartbeat_period);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last_contact, mut received) = (Instant::now(), 0);
        let mut stall_check = None;
        let mut batch = Vec::new();
        let outcome = loop {
            tokio::select! {
                frame = reader.next() => {
                    // However the link ended, the engine has given this node up.
                    let Ok(Some(frame)) = frame else { break Ok(()) };
                    last_contact = Instant::now();
                    let mut next = Some(frame);
                    while let Some(frame) = next {
                        self.handle_engine_frame(frame, &mut out)?;
                        next = reader.take_received().map_err(|error| NodeError::Protocol(error.to_string()))?;
                    }
                    self.perform_steps(None, &mut out)?;
                }
                _ = events.recv_many(&mut batch, BATCH) => {
                    for item in batch.drain(..) {
                        self.handle_worker_event(item, &mut out)?;
                    }
                }
                _ = heartbeats.tick() => {
                    processes::reap(&self.workers.values().map(Worker::pid).collect());
                    // The engine's heartbeats may be queued behind a long frame.
                    if reader.received() > received {
                        (last_contact, received) = (Instant::now(), reader.received());
                    }
                    if last_contact.elapsed() > config.heartbeat_threshold {
                        break Ok(());
                    }
                    out.send(message::heartbeat());
                    let overdue = self.slots.end_overdue(self.spec.start_limit, self.clock.now());
                    self.overdue.extend(overdue);
                    self.perform_steps(None, &mut out)?;
                }
                () = sleep_until(self.dying.values().min().copied().unwrap_or(last_contact)), if !self.dying.is_empty() => self.kill_dying(),
                () = sleep_until(out.until().unwrap_or(last_contact)), if out.until().is_some() => out.release(),
                () = sleep_until(stall_check.unwrap_or(last_contact)), if stall_check.is_some() => {
                    stall_check = None;
                    self.slots.take_back_from_stalled(self.clock.now());
                    self.perform_steps(None, &mut out)?;
                }
            }
            stall_check = stall_check.or_else(|| Some(Instant::now() + self.slots.time_to_stall_check()?));
        };
        writer.abort();
        outcome
    }

    fn handle_engine_frame(&mut self, frame: Frame, out: &mut Outbox) -> Result<(), NodeError> {
        match ToNode::read(frame).map_err(|error| NodeError::Protocol(error.to_string()))? {
            ToNode::Task(id, frame) => self.slots.add_task(TaskFrame { id, frame }, self.clock.now()),
            ToNode::Abandon(id) => {
                self.take_back_all();
                if self.threads {
                    self.slots.drop_waiting(id);
                } else {
                    self.slots.abandon(id);
                }
            }
            ToNode::Recall => {
                self.take_back_all();
                out.send(message::unstarted(&self.slots.drain_waiting()));
            }
            ToNode::Refused(why) => return Err(NodeError::Refused(why)),
            ToNode::Heartbeat => {}
        }
        Ok(())
    }

    fn take_back_all(&mut self) {
        for rank in self.slots.workers_with_prefetched() {
            self.take_back(rank);
        }
    }

    fn take_back(&mut self, rank: u32) {
        let unread = self.workers.get_mut(&rank).map(Worker::take_back).unwrap_or_default();
        self.slots.requeue_unread(rank, unread, self.clock.now());
    }

    fn handle_worker_event(&mut self, event: WorkerEvent, out: &mut Outbox) -> Result<(), NodeError> {
        let now = self.clock.now();
        let mut exit = None;
        match event {
            WorkerEvent::Started { rank, worker } => {
                if self.slots.is_starting(rank) {
                    self.workers.insert(rank, worker);
                } else {
                    // Its slot was closed while its interpreter was being loaded.
                    worker.kill();
                }
            }
            WorkerEvent::StartFailed { rank, error } => {
                let error = NodeError::CannotStart { python: self.spec.python.clone(), error };
                if self.threads {
                    return Err(error);
                }
                self.record_failed_start(rank, format!("{error}."));
            }
            WorkerEvent::Frame { rank, frame } => match frame.kind() {
                message::READY => {
                    if !self.ready {
                        self.ready = true;
                        out.send(frame);
                    }
                    self.exits.remove(&rank);
                    self.slots.record_ready(rank, now);
                }
                message::ENDED => match message::ended_task(&frame) {
                    Ok(task) => {
                        if !self.slots.record_end(rank, task, now) {
                            self.kill_for(rank, worker::UNEXPECTED_RESULT);
                        } else if self.slots.has_backlog() {
                            out.hold(frame);
                        } else {
                            out.send(frame);
                        }
                        if let Some(worker) = self.workers.get_mut(&rank) {
                            worker.send_unsent();
                        }
                    }
                    Err(_) => self.kill_for(rank, worker::SOCKET_CLOSED),
                },
                _ => self.kill_for(rank, worker::SOCKET_CLOSED),
            },
            WorkerEvent::Exited { rank, how, output } => {
                let mut worker = self.workers.remove(&rank);
                let unread = worker.as_mut().map(Worker::take_back).unwrap_or_default();
                self.dying.remove(&rank);
                let how = if self.overdue.remove(&rank) {
                    self.not_ready_in_time()
                } else {
                    worker.and_then(|worker| worker.kill_reason()).map_or(how, str::to_owned)
                };
                self.exits.insert(rank, WorkerExit { how: how.clone(), output });
                self.slots.record_exit(rank, unread, now);
                exit = Some(how);
            }
        }
        self.perform_steps(exit.as_deref(), out)
    }

    /// Performs the steps that the slots have decided on. `how` describes the exit of a worker that led to them, if
    /// one did.
    fn perform_steps(&mut self, how: Option<&str>, out: &mut Outbox) -> Result<(), NodeError> {
        while let Some(step) = self.slots.next_step() {
            match step {
                Step::Give { rank, task } => {
                    if let Some(worker) = self.workers.get_mut(&rank) {
                        worker.give(task);
                    }
                }
                Step::TakeBack { rank } => self.take_back(rank),
                Step::Kill { rank } => {
                    if let Some(worker) = self.workers.get(&rank) {
                        worker.terminate();
                        self.dying.insert(rank, Instant::now() + CANCEL_GRACE);
                    } else if self.overdue.remove(&rank) {
                        // The file system stalls: there is no process to kill yet.
                        self.record_failed_start(rank, self.not_ready_in_time());
                    }
                }
                Step::Start { rank } => self.start(rank),
                Step::Lost { rank, task } => {
                    self.report_lost(task, message::worker_lost(task, rank, how), out)
                }
                // A thread's slot can't be closed alone.
                Step::Close { rank } | Step::GiveUp { rank }
                    if self.threads || self.slots.open_count() == 0 =>
                {
                    return Err(NodeError::NoWorkerStarts(self.describe_exit(rank)));
                }
                Step::Close { rank } | Step::GiveUp { rank } => {
                    let why = format!("worker {rank} does not start: {}", self.describe_exit(rank));
                    tracing::warn!(rank, "a slot is closed: {why}");
                    out.send(message::slots(self.slots.open_count(), &why));
                }
            }
        }
        Ok(())
    }

    /// Tells the engine that a task was lost, after removing the task's sandbox if it is empty. A living worker does
    /// that itself. It comes first because the next attempt may run on this node.
    fn report_lost(&self, task: TaskId, frame: Frame, out: &mut Outbox) {
        if !self.spec.config.run_in_sandbox {
            return out.send(frame);
        }
        out.release();
        let frames = out.sender();
        let sandbox = self.spec.config.working_dir.join(task.to_string());
        self.files.run(move || {
            let _ = std::fs::remove_dir(sandbox); // not empty, or never made
            let _ = frames.send(frame); // the link is gone, which its reader knows
        });
    }

    /// Records that the worker of this rank could not be started.
    fn record_failed_start(&mut self, rank: u32, how: String) {
        self.exits.insert(rank, WorkerExit { how, output: String::new() });
        self.slots.record_exit(rank, Vec::new(), self.clock.now());
    }

    fn not_ready_in_time(&self) -> String {
        let limit = self.spec.start_limit.as_secs();
        format!("It was not ready within {limit} s (worker_start_timeout) and was killed.")
    }

    /// Describes how the worker of this rank ended, with the end of its output.
    fn describe_exit(&self, rank: u32) -> String {
        let Some(WorkerExit { how, output }) = self.exits.get(&rank) else { return String::new() };
        let path = self.spec.logs.join(worker::log_name(if self.threads { 0 } else { rank }));
        match output.trim() {
            "" => how.clone(),
            output => format!("{how} The end of its output, in {}:\n{output}", path.display()),
        }
    }

    /// Kills the workers that have not ended within their grace period.
    fn kill_dying(&mut self) {
        let now = Instant::now();
        let over: Vec<_> = self.dying.iter().filter(|(_, at)| **at <= now).map(|(rank, _)| *rank).collect();
        for rank in over {
            self.dying.remove(&rank);
            self.kill(rank);
        }
    }

    fn kill_for(&mut self, rank: u32, reason: &'static str) {
        if self.threads {
            // All threads end with their process.
            self.workers.values_mut().for_each(|worker| worker.kill_for(reason));
        } else if let Some(worker) = self.workers.get_mut(&rank) {
            worker.kill_for(reason);
        }
    }

    fn kill(&self, rank: u32) {
        if let Some(worker) = self.workers.get(&rank) {
            worker.kill();
        }
    }

    /// Kills all workers at the same time, with every process that they have started.
    pub(super) async fn kill_workers(&mut self) {
        let workers: Vec<_> = self.workers.drain().map(|(rank, worker)| (worker.pid(), rank)).collect();
        processes::kill_descendants(&self.spec.pool, &workers).await;
    }
}
