//! Drives the node's slots: passes them what the link and the workers say, and performs the steps that they decide on.

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
use super::resources::Share;
use super::slots::{Slots, Step};
use super::task_socket::Load;
use super::worker::{self, News, Recipe, Worker};
use super::{connect, threads};
use crate::clock::Clock;
use crate::link::frame::{self, Frame, Reader};
use crate::link::message::{self, ToNode};
use crate::processes;

/// How long a cancelled task has to end by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// How a worker has ended, and the end of what it had printed.
struct Ending {
    how: String,
    output: String,
}

/// So much news is taken before the link is looked at again.
const BATCH: usize = 256;

pub(super) struct Node {
    clock: Clock,
    files: FileThread,
    recipe: Arc<Recipe>,
    shares: Vec<Share>,
    slots: Slots<Load>,
    /// Whether the workers are threads of one process.
    threads: bool,
    /// Threads that wait for their process to be started.
    awaited: u32,
    /// Whether the engine knows that a worker works.
    ready: bool,
    workers: HashMap<u32, Worker>,
    /// Workers that were asked to end, and when they are killed if they have not.
    dying: BTreeMap<u32, Instant>,
    /// Workers that are ended because they were not ready in time.
    overdue: HashSet<u32>,
    /// How the last worker of each slot has ended, until the next is ready.
    endings: HashMap<u32, Ending>,
    sender: mpsc::UnboundedSender<News>,
}

impl Node {
    /// A node whose workers are not started yet, with the channel that their events go to.
    pub(super) fn new(
        recipe: Recipe,
        shares: Vec<Share>,
        max_tasks: Option<u32>,
        threads: bool,
        sender: mpsc::UnboundedSender<News>,
    ) -> Result<Self, NodeError> {
        Ok(Self {
            clock: Clock::start(),
            files: FileThread::start().map_err(NodeError::Thread)?,
            slots: Slots::new(recipe.count, max_tasks),
            recipe: Arc::new(recipe),
            shares,
            threads,
            awaited: 0,
            ready: false,
            workers: HashMap::new(),
            dying: BTreeMap::new(),
            overdue: HashSet::new(),
            endings: HashMap::new(),
            sender,
        })
    }

    /// Starts the worker of this slot; [`News::Started`] brings it.
    fn start(&mut self, rank: u32) {
        let share = self.shares.get(rank as usize).cloned().unwrap_or_default();
        let (recipe, news) = (Arc::clone(&self.recipe), self.sender.clone());
        if !self.threads {
            self.files.run(move || Worker::start(&recipe, rank, &share, news));
            return;
        }
        // They die together, so the last to be asked for starts them all.
        self.awaited += 1;
        if self.awaited == self.recipe.count {
            self.awaited = 0;
            self.files.run(move || threads::start(&recipe, &share, &news));
        }
    }

    pub(super) async fn serve(
        &mut self,
        config: &Config,
        mut news: mpsc::UnboundedReceiver<News>,
        mut out: Outbox,
        outgoing: mpsc::UnboundedReceiver<Frame>,
    ) -> Result<(), NodeError> {
        for rank in 0..self.recipe.count {
            self.start(rank);
        }
        self.follow(None, &mut out)?;
        // The interpreters start while the link is made.
        let (reading, writing) = tokio::io::split(connect::to_engine(config).await?);
        let writer = tokio::spawn(frame::write(writing, outgoing));
        let mut reader = Reader::new(reading);
        let mut beats = interval(config.heartbeat_period);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut received) = (Instant::now(), 0);
        let mut look_again = None;
        let mut batch = Vec::new();
        let outcome = loop {
            tokio::select! {
                frame = reader.next() => {
                    // However the link ended, the engine has lost us, and we have nobody to work for.
                    let Ok(Some(frame)) = frame else { break Ok(()) };
                    heard = Instant::now();
                    let mut next = Some(frame);
                    while let Some(frame) = next {
                        self.obey(frame, &mut out)?;
                        next = reader.here().map_err(|error| NodeError::Mumbled(error.to_string()))?;
                    }
                    self.follow(None, &mut out)?;
                }
                _ = news.recv_many(&mut batch, BATCH) => {
                    for item in batch.drain(..) {
                        self.hear(item, &mut out)?;
                    }
                }
                _ = beats.tick() => {
                    processes::reap(&self.workers.values().map(Worker::pid).collect());
                    // The engine's own beats may stand behind a frame that fills the link.
                    if reader.received() > received {
                        (heard, received) = (Instant::now(), reader.received());
                    }
                    if heard.elapsed() > config.heartbeat_threshold {
                        break Ok(());
                    }
                    out.send(message::beat());
                    let overdue = self.slots.end_overdue(self.recipe.start_limit, self.clock.now());
                    self.overdue.extend(overdue);
                    self.follow(None, &mut out)?;
                }
                () = sleep_until(self.dying.values().min().copied().unwrap_or(heard)), if !self.dying.is_empty() => self.kill_dying(),
                () = sleep_until(out.until().unwrap_or(heard)), if out.until().is_some() => out.release(),
                () = sleep_until(look_again.unwrap_or(heard)), if look_again.is_some() => {
                    look_again = None;
                    self.slots.relieve(self.clock.now());
                    self.follow(None, &mut out)?;
                }
            }
            look_again = look_again.or_else(|| Some(Instant::now() + self.slots.look_again()?));
        };
        writer.abort();
        outcome
    }

    fn obey(&mut self, frame: Frame, out: &mut Outbox) -> Result<(), NodeError> {
        match ToNode::read(frame).map_err(|error| NodeError::Mumbled(error.to_string()))? {
            ToNode::Task(id, frame) => self.slots.task_came(Load { id, frame }, self.clock.now()),
            ToNode::Abandon(id) => {
                self.take_back_all();
                if self.threads {
                    self.slots.forget(id);
                } else {
                    self.slots.abandon(id);
                }
            }
            ToNode::Recall => {
                self.take_back_all();
                out.send(message::unstarted(&self.slots.recall()));
            }
            ToNode::Refused(why) => return Err(NodeError::Refused(why)),
            ToNode::Beat => {}
        }
        Ok(())
    }

    fn take_back_all(&mut self) {
        for rank in self.slots.with_ahead() {
            self.take_back(rank);
        }
    }

    fn take_back(&mut self, rank: u32) {
        let unread = self.workers.get_mut(&rank).map(Worker::take_back).unwrap_or_default();
        self.slots.taken_back(rank, unread, self.clock.now());
    }

    fn hear(&mut self, news: News, out: &mut Outbox) -> Result<(), NodeError> {
        let now = self.clock.now();
        let mut its_end = None;
        match news {
            News::Started { rank, worker } => {
                if self.slots.is_starting(rank) {
                    self.workers.insert(rank, worker);
                } else {
                    // Its slot was closed while its interpreter was being loaded.
                    worker.kill();
                }
            }
            News::NotStarted { rank, error } => {
                let error = NodeError::CannotStart { python: self.recipe.python.clone(), error };
                if self.threads {
                    return Err(error);
                }
                self.end_of_start(rank, format!("{error}."));
            }
            News::Said { rank, frame } => match frame.kind() {
                message::READY => {
                    if !self.ready {
                        self.ready = true;
                        out.send(frame);
                    }
                    self.endings.remove(&rank);
                    self.slots.ready(rank, now);
                }
                message::ENDED => match message::ended_task(&frame) {
                    Ok(task) => {
                        if !self.slots.ended(rank, task, now) {
                            self.kill_for(rank, worker::STRANGE_ANSWER);
                        } else if self.slots.is_behind() {
                            out.hold(frame);
                        } else {
                            out.send(frame);
                        }
                        if let Some(worker) = self.workers.get_mut(&rank) {
                            worker.answered();
                        }
                    }
                    Err(_) => self.kill_for(rank, worker::CLOSED),
                },
                _ => self.kill_for(rank, worker::CLOSED),
            },
            News::Died { rank, how, output } => {
                let mut worker = self.workers.remove(&rank);
                let unread = worker.as_mut().map(Worker::take_back).unwrap_or_default();
                self.dying.remove(&rank);
                let how = if self.overdue.remove(&rank) {
                    self.not_ready_in_time()
                } else {
                    worker.and_then(|worker| worker.offence()).map_or(how, str::to_owned)
                };
                self.endings.insert(rank, Ending { how: how.clone(), output });
                self.slots.died(rank, unread, now);
                its_end = Some(how);
            }
        }
        self.follow(its_end.as_deref(), out)
    }

    /// Takes the steps that have become due; `how` a worker has died, if that has led to them.
    fn follow(&mut self, how: Option<&str>, out: &mut Outbox) -> Result<(), NodeError> {
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
                        // Its file system stands still: there is no process to kill yet.
                        self.end_of_start(rank, self.not_ready_in_time());
                    }
                }
                Step::Start { rank } => self.start(rank),
                Step::Lost { rank, task } => self.lost(task, message::worker_lost(task, rank, how), out),
                // A thread's slot can't be closed alone.
                Step::Close { rank } | Step::GiveUp { rank } if self.threads || self.slots.open() == 0 => {
                    return Err(NodeError::Fruitless(self.last_words(rank)));
                }
                Step::Close { rank } | Step::GiveUp { rank } => {
                    let why = format!("worker {rank} does not start: {}", self.last_words(rank));
                    tracing::warn!(rank, "a slot is closed: {why}");
                    out.send(message::slots(self.slots.open(), &why));
                }
            }
        }
        Ok(())
    }

    /// Tells the engine that a task was lost. Its sandbox is removed before that, if it is empty: a worker that lives does
    /// that itself, and the next attempt may come back to this node.
    fn lost(&self, task: TaskId, frame: Frame, out: &mut Outbox) {
        if !self.recipe.config.run_in_sandbox {
            return out.send(frame);
        }
        out.release();
        let frames = out.sender();
        let sandbox = self.recipe.config.working_dir.join(task.to_string());
        self.files.run(move || {
            let _ = std::fs::remove_dir(sandbox); // not empty, or never made
            let _ = frames.send(frame); // the link is gone, which its reader knows
        });
    }

    /// The worker of this rank was not started.
    fn end_of_start(&mut self, rank: u32, how: String) {
        self.endings.insert(rank, Ending { how, output: String::new() });
        self.slots.died(rank, Vec::new(), self.clock.now());
    }

    fn not_ready_in_time(&self) -> String {
        let limit = self.recipe.start_limit.as_secs();
        format!("It was not ready within {limit} s (worker_start_timeout) and was killed.")
    }

    /// How the worker of this rank has ended, and the end of what it has printed.
    fn last_words(&self, rank: u32) -> String {
        let Some(Ending { how, output }) = self.endings.get(&rank) else { return String::new() };
        let path = self.recipe.logs.join(worker::log_name(if self.threads { 0 } else { rank }));
        match output.trim() {
            "" => how.clone(),
            output => format!("{how} The end of its output, in {}:\n{output}", path.display()),
        }
    }

    /// Kills those whose time to end by themselves is over.
    fn kill_dying(&mut self) {
        let now = Instant::now();
        let over: Vec<_> = self.dying.iter().filter(|(_, at)| **at <= now).map(|(rank, _)| *rank).collect();
        for rank in over {
            self.dying.remove(&rank);
            self.kill(rank);
        }
    }

    fn kill_for(&mut self, rank: u32, offence: &'static str) {
        if self.threads {
            // They die together.
            self.workers.values_mut().for_each(|worker| worker.kill_for(offence));
        } else if let Some(worker) = self.workers.get_mut(&rank) {
            worker.kill_for(offence);
        }
    }

    fn kill(&self, rank: u32) {
        if let Some(worker) = self.workers.get(&rank) {
            worker.kill();
        }
    }

    /// Kills every worker with all it has started, side by side.
    pub(super) async fn end(&mut self) {
        let workers: Vec<_> = self.workers.drain().map(|(rank, worker)| (worker.pid(), rank)).collect();
        processes::sweep(&self.recipe.pool, &workers).await;
    }
}
