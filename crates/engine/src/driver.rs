//! Drives the scheduling core: passes it what happens, and performs the actions that it returns.
//!
//! One task owns the core and everything it decides about; around it run one reader and one writer per node
//! connection and the calls to the provider, which talk to it by channels. It may never decide anything.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use wire::TaskId;

use crate::clock::{self, Clock};
use crate::config::{EngineConfig, EngineKind};
use crate::core::{Action, Core, Ended, Epitaph, Input, Loss, NodeKey, NodeName, Priority};
use crate::exit_report;
use crate::handle::{Event, NodeInfo, Report, Submission};
use crate::link::message::{self, Extras, Hello, Interpreter, ToEngine};
use crate::link::server::{self, Line};
use crate::node;
use crate::error_results;
use crate::provider::{Job, JobId, Provider, quote};

/// How long the provider may take to cancel the blocks when the engine stops.
const LEAVE: Duration = Duration::from_secs(5);

/// What the owner asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Submit(Submission),
    Begin(Vec<TaskId>),
    Cancel(TaskId),
    Report(oneshot::Sender<Report>),
    Stop(Duration),
}

/// What the provider's helpers bring.
#[derive(Debug)]
pub(crate) enum BlockNews {
    Started { block: u32, job: JobId },
    Ended { block: u32, ended: Ended },
}

/// How nodes come by their configuration and this run's keys.
pub(crate) enum NodeConfig {
    /// They read a file, of mode 0600.
    File(PathBuf),
    /// They see none of our files, and are handed it in their environment.
    Environment(String),
}

/// A node that has said hello.
struct Connected {
    hello: Hello,
    line: Line,
    called: Duration,
    /// Known once its first worker is ready.
    interpreter: Option<Interpreter>,
    /// Why it has fewer slots than it could have.
    shortage: Option<String>,
}

/// So many commands, and so much news, are taken before what follows from them is done.
const BATCH: usize = 256;

pub(crate) struct Driver {
    clock: Clock,
    core: Core,
    config: EngineConfig,
    nodes: NodeConfig,
    provider: Arc<dyn Provider>,
    events: mpsc::UnboundedSender<Event>,
    news: mpsc::UnboundedSender<BlockNews>,
    /// Boxed: there may be a million, and a table has room for twice as many.
    tasks: HashMap<TaskId, Box<Submission>>,
    lines: HashMap<NodeKey, Connected>,
    jobs: HashMap<u32, JobId>,
    /// Blocks whose submission has not been answered yet.
    submitting: HashSet<u32>,
    /// Cancellations under way; the engine does not leave before they are done.
    cancelling: JoinSet<()>,
    polling: Option<JoinHandle<()>>,
    /// A result that came with the input just taken.
    result: Bytes,
    finished: bool,
}

impl Driver {
    /// The driver, and the channel by which the calls to the provider report blocks.
    pub(crate) fn new(
        config: EngineConfig,
        core: Core,
        nodes: NodeConfig,
        provider: Arc<dyn Provider>,
        events: mpsc::UnboundedSender<Event>,
    ) -> (Self, mpsc::UnboundedReceiver<BlockNews>) {
        let (news, block_news) = mpsc::unbounded_channel();
        let driver = Self {
            clock: Clock::start(),
            core,
            config,
            nodes,
            provider,
            events,
            news,
            tasks: HashMap::new(),
            lines: HashMap::new(),
            jobs: HashMap::new(),
            submitting: HashSet::new(),
            cancelling: JoinSet::new(),
            polling: None,
            result: Bytes::new(),
            finished: false,
        };
        (driver, block_news)
    }

    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Command>,
        mut calls: mpsc::UnboundedReceiver<server::News>,
        mut block_news: mpsc::UnboundedReceiver<BlockNews>,
    ) {
        let changed = self.provider.changed();
        let mut polls = interval(self.provider.status_period());
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut commands, mut heard, mut owned) = (Vec::new(), Vec::new(), true);
        self.take(Input::Started);
        self.settle();
        while !self.finished {
            let wake = self.core.wake_at().map(|at| Instant::now() + at.saturating_sub(self.clock.now()));
            tokio::select! {
                count = inbox.recv_many(&mut commands, BATCH), if owned => {
                    if count == 0 {
                        // Every handle is dropped: nobody wants a result any more.
                        owned = false;
                        commands.push(Command::Stop(Duration::ZERO));
                    }
                }
                _ = calls.recv_many(&mut heard, BATCH) => {}
                Some(news) = block_news.recv() => self.hear_of_block(news),
                () = changed.notified() => self.poll_blocks(),
                _ = polls.tick() => self.poll_blocks(),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.take(Input::Tick),
            }
            for news in heard.drain(..) {
                self.hear(news);
            }
            for command in commands.drain(..) {
                self.obey(command);
            }
            self.settle();
        }
        // What came too late to be taken in goes back, too.
        inbox.close();
        while let Ok(command) = inbox.try_recv() {
            if let Command::Submit(submission) = command {
                self.tell(Event::Returned(vec![submission.id]));
            }
        }
        self.leave(block_news).await;
    }

    fn take(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.core.take(input, self.clock.now(), &mut actions);
        self.perform(actions);
    }

    fn settle(&mut self) {
        let mut actions = Vec::new();
        self.core.settle(self.clock.now(), &mut actions);
        self.perform(actions);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit(submission) => {
                let task = submission.id;
                let kind = &self.config.options.kind;
                let input = match priority(kind, &submission.resource_specification) {
                    Ok(priority) => Input::Submitted { task, priority },
                    Err(loss) => Input::Refused { task, loss },
                };
                self.tasks.entry(task).or_insert_with(|| Box::new(submission));
                self.take(input);
            }
            Command::Begin(tasks) => self.take(Input::Begun(tasks)),
            Command::Cancel(task) => self.take(Input::Cancelled(task)),
            Command::Report(answer) => {
                let _ = answer.send(self.report()); // who asked has left
            }
            Command::Stop(grace) => self.take(Input::Stop { grace }),
        }
    }

    fn hear(&mut self, news: server::News) {
        match news {
            server::News::Joined { node, hello, line } => {
                let block = hello.block;
                tracing::info!(block, uid = hello.uid, host = hello.host, "node starting");
                let called = self.clock.now();
                let connected = Connected { hello, line, called, interpreter: None, shortage: None };
                self.lines.insert(node, connected);
                self.take(Input::NodeStarting { node, block });
            }
            server::News::Said { node, message } => match message {
                ToEngine::Ended { task, result } => {
                    self.result = result;
                    self.take(Input::TaskEnded { node, task });
                    self.result = Bytes::new();
                }
                ToEngine::WorkerLost { task, rank, hint } => {
                    tracing::warn!(%task, rank, hint, "worker lost");
                    let hint = hint.map(|hint| self.explain(task, hint));
                    self.take(Input::WorkerLost { node, task, rank, hint });
                }
                ToEngine::Ready(interpreter) => self.node_ready(node, interpreter),
                ToEngine::Slots { slots, why } => {
                    let Some(connected) = self.lines.get_mut(&node) else { return };
                    let Hello { block, uid, host, .. } = &connected.hello;
                    tracing::warn!(block, uid, host, slots, why, "a node has fewer slots than it could have");
                    connected.shortage = Some(format!("node {uid} on {host}: {why}"));
                    connected.hello.slots = slots;
                    self.take(Input::NodeSlots { node, slots });
                }
                ToEngine::Unstarted(tasks) => self.take(Input::Unstarted { node, tasks }),
                ToEngine::Beat | ToEngine::Hello(_) | ToEngine::OtherVersion(_) => {
                    self.take(Input::NodeHeard(node))
                }
            },
            server::News::HungUp(node) => {
                if self.lines.remove(&node).is_some() {
                    tracing::warn!(node = node.0, "node lost");
                }
                self.take(Input::NodeLost(node));
            }
        }
    }

    fn node_ready(&mut self, node: NodeKey, interpreter: Interpreter) {
        let Some(connected) = self.lines.get_mut(&node) else { return };
        let Hello { block, uid, host, slots, .. } = connected.hello.clone();
        let python = &interpreter.python;
        let after_s = self.clock.now().saturating_sub(connected.called).as_secs_f64();
        tracing::info!(block, slots, uid, host, python, after_s, "node joined");
        // It joins once, whatever it says.
        if connected.interpreter.replace(interpreter).is_none() {
            let name = NodeName { uid, host };
            self.take(Input::NodeJoined { node, block, name, slots });
        }
    }

    /// A worker that dies under code of unknown origin has most often met byte code of another Python.
    fn explain(&self, task: TaskId, hint: String) -> String {
        const UNKNOWN: &str = "If the function was registered from another version of Python, its byte code may \
                               have crashed the worker; AllCodeStrategies, PureSourceTextInspect and PureSourceDill \
                               send its source instead.";
        let crashed =
            ["SIGSEGV", "SIGILL", "SIGBUS", "SIGABRT", "SIGFPE"].iter().any(|signal| hint.contains(signal));
        let unknown = self.tasks.get(&task).is_some_and(|task| task.function_python.is_none());
        if crashed && unknown { format!("{hint} {UNKNOWN}") } else { hint }
    }

    fn hear_of_block(&mut self, news: BlockNews) {
        match news {
            BlockNews::Started { block, job } => {
                tracing::info!(block, job = job.0, "block started");
                self.submitting.remove(&block);
                self.jobs.insert(block, job);
                if !self.core.wants_block(block) {
                    self.cancel_blocks(&[block]);
                }
            }
            BlockNews::Ended { block, ended } => {
                self.submitting.remove(&block);
                // Told twice when two polls overlapped: the first counts.
                if self.jobs.remove(&block).is_some() || matches!(ended, Ended::Missing(_)) {
                    tracing::info!(block, ?ended, "block ended");
                    self.take(Input::BlockEnded { block, ended });
                }
            }
        }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::SubmitBlocks(blocks) => blocks.into_iter().for_each(|block| self.submit_block(block)),
                Action::CancelBlocks(blocks) => self.cancel_blocks(&blocks),
                Action::Assign(tasks) => self.tell(Event::Assigned(tasks)),
                Action::Send { node, task } => self.send(node, task),
                Action::Abandon { node, task } => {
                    if matches!(self.config.options.kind, EngineKind::ThreadPool { .. }) {
                        tracing::warn!(%task, "cancelled; if it has begun, it goes on: threads can't be ended");
                    }
                    if let Some(connected) = self.lines.get(&node) {
                        connected.line.send(message::abandon(task));
                    }
                }
                Action::Recall(node) => {
                    if let Some(connected) = self.lines.get(&node) {
                        connected.line.send(message::recall());
                    }
                }
                Action::Deliver(task) => {
                    let result = std::mem::take(&mut self.result);
                    self.end(task, result);
                }
                Action::Fail { task, failure } => {
                    let result = error_results::lost(task, &failure, &self.clock);
                    self.end(task, result);
                }
                Action::Cancel(task) => self.end(task, error_results::cancelled(task)),
                Action::Return(tasks) => {
                    for task in &tasks {
                        self.tasks.remove(task);
                    }
                    self.tell(Event::Returned(tasks));
                }
                Action::Drop(node) => drop(self.lines.remove(&node)),
                Action::Bad(text) => {
                    tracing::error!(text, "no block works: the engine can't run tasks any more");
                    self.tell(Event::Bad { text });
                }
                Action::Finish => self.finished = true,
            }
        }
    }

    fn end(&mut self, task: TaskId, result: Bytes) {
        self.tasks.remove(&task);
        self.tell(Event::Ended { task, result });
    }

    fn tell(&self, event: Event) {
        let _ = self.events.send(event); // an owner who has left is told by the closed command channel
    }

    fn send(&self, node: NodeKey, task: TaskId) {
        if let (Some(connected), Some(submission)) = (self.lines.get(&node), self.tasks.get(&task)) {
            let extras = Extras {
                result_serializers: submission.result_serializers.clone(),
                function_python: submission.function_python.clone(),
            };
            connected.line.send(message::task(task, &extras, &submission.body));
        }
    }

    fn submit_block(&mut self, block: u32) {
        self.submitting.insert(block);
        let options = &self.config.options;
        let words = self.config.node_command.iter().map(String::as_str);
        let number = block.to_string();
        let mut command: Vec<_> = words.chain(["--block", &number]).map(quote).collect();
        let environment = match &self.nodes {
            NodeConfig::File(path) => {
                command.extend(["--config".to_owned(), quote(&path.to_string_lossy())]);
                Vec::new()
            }
            NodeConfig::Environment(config) => vec![(node::CONFIG_VARIABLE.to_owned(), config.clone())],
        };
        let job = Job {
            name: format!(
                "parsl.{}.block-{block}.{}",
                self.config.executor_label(),
                clock::since_epoch().as_secs_f64()
            ),
            command: command.join(" "),
            environment,
        };
        tracing::info!(block, provider = options.provider.name(), "asking for a block");
        let (provider, news) = (Arc::clone(&self.provider), self.news.clone());
        tokio::spawn(async move {
            let item = match provider.submit(job).await {
                Ok(job) => BlockNews::Started { block, job },
                Err(error) => {
                    let message = Some(format!("Failed to start block {block}: {error}"));
                    BlockNews::Ended {
                        block,
                        ended: Ended::Missing(Epitaph { message, ..Epitaph::default() }),
                    }
                }
            };
            let _ = news.send(item); // an engine that has left cancels nothing it does not know
        });
    }

    fn cancel_blocks(&mut self, blocks: &[u32]) {
        let jobs: Vec<_> = blocks.iter().filter_map(|block| self.jobs.remove(block)).collect();
        let provider = Arc::clone(&self.provider);
        self.cancelling.spawn(async move { provider.cancel(&jobs).await });
        while self.cancelling.try_join_next().is_some() {}
    }

    /// Asks for the state of every job in one call, and not again before it is answered.
    fn poll_blocks(&mut self) {
        if self.jobs.is_empty() || self.polling.as_ref().is_some_and(|polling| !polling.is_finished()) {
            return;
        }
        let (provider, news) = (Arc::clone(&self.provider), self.news.clone());
        let jobs: Vec<(u32, JobId)> = self.jobs.iter().map(|(block, job)| (*block, job.clone())).collect();
        self.polling = Some(tokio::spawn(async move {
            let ids: Vec<_> = jobs.iter().map(|(_, job)| job.clone()).collect();
            let mut states = provider.status(&ids).await;
            for (block, job) in jobs {
                let Some(state) = states.remove(&job) else { continue };
                // It reads what the job has left, on a file system that may stand still.
                let ended = tokio::task::spawn_blocking(move || exit_report::block_end(state)).await;
                if let Ok(Some(ended)) = ended {
                    let _ = news.send(BlockNews::Ended { block, ended });
                }
            }
        }));
    }

    fn report(&self) -> Report {
        let options = &self.config.options;
        let blocks = options.provider.blocks();
        let (figures, now) = (self.core.figures(), self.clock.now());
        let count = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let mut node_info: BTreeMap<String, Vec<NodeInfo>> = BTreeMap::new();
        let starting = count(self.core.starting() as u64);
        let mut active = 0;
        for (key, block, slots, idle_since) in self.core.nodes() {
            active += 1;
            let interpreter = self.lines.get(&key).and_then(|connected| connected.interpreter.as_ref());
            let job = self.jobs.get(&block).map_or_else(String::new, |job| job.0.clone());
            node_info.entry(job).or_default().push(NodeInfo {
                worker_count: slots,
                idle_duration: idle_since.map_or(0.0, |since| now.saturating_sub(since).as_secs_f64()),
                parsl_version: None,
                endpoint_version: env!("CARGO_PKG_VERSION").to_owned(),
                sdk_version: interpreter.and_then(|interpreter| interpreter.sdk.clone()),
                python_version: interpreter.map(|interpreter| interpreter.python.clone()),
            });
        }
        Report {
            managers: active + starting,
            active_managers: active,
            starting_managers: starting,
            total_workers: count(figures.slots),
            idle_workers: count(figures.slots - figures.busy),
            pending_tasks: figures.waiting as u64,
            outstanding_tasks: figures.outstanding as u64,
            total_tasks: figures.accepted,
            scaling_enabled: options.kind == EngineKind::Compute && blocks.max_blocks > 0,
            mem_per_worker: options.mem_per_worker,
            cores_per_worker: options.cores_per_worker,
            prefetch_capacity: options.prefetch_capacity,
            max_blocks: blocks.max_blocks,
            min_blocks: blocks.min_blocks,
            max_workers_per_node: options.max_workers_per_node,
            nodes_per_block: blocks.nodes_per_block,
            node_info,
            engine_type: options.kind.name(),
            provider_type: options.provider.name(),
            queue: None,
            account: None,
            last_block_failure: self.core.last_block_failure(),
            slots_missing: self.lines.values().filter_map(|connected| connected.shortage.clone()).min(),
            machine: (options.kind != EngineKind::Compute).then(node::machine_info),
        }
    }

    /// Cuts the nodes off, which ends them, and sees the blocks off.
    async fn leave(mut self, mut block_news: mpsc::UnboundedReceiver<BlockNews>) {
        self.lines.clear();
        let cancelled = async {
            let jobs: Vec<_> = self.jobs.drain().map(|(_, job)| job).collect();
            self.provider.cancel(&jobs).await;
            while self.cancelling.join_next().await.is_some() {}
            // A submission under way can't be called back, but what comes of it can.
            while !self.submitting.is_empty() {
                let Some(news) = block_news.recv().await else { return };
                let (BlockNews::Started { block, .. } | BlockNews::Ended { block, .. }) = &news;
                self.submitting.remove(block);
                if let BlockNews::Started { job, .. } = news {
                    self.provider.cancel(&[job]).await;
                }
            }
        };
        if timeout(LEAVE, cancelled).await.is_err() {
            tracing::warn!("the provider did not cancel every block in time");
        }
        let nodes = self.nodes;
        let removed = tokio::task::spawn_blocking(move || match nodes {
            NodeConfig::File(path) => {
                let _ = fs::remove_file(path); // its keys open nothing any more
            }
            NodeConfig::Environment(_) => node::remove_abandoned(),
        });
        if timeout(LEAVE, removed).await.is_err() {
            tracing::warn!("the file system stands still: files of this run were not removed");
        }
    }
}

/// The priority a task asks for; anything else can't be given by these engines.
fn priority(
    kind: &EngineKind,
    specification: &serde_json::Map<String, serde_json::Value>,
) -> Result<Priority, Loss> {
    if specification.is_empty() {
        return Ok(Priority(None));
    }
    if *kind != EngineKind::Compute {
        let text = format!(
            "resource_specification is not supported on {}.  For MPI apps, use GlobusMPIEngine.",
            kind.name()
        );
        return Err(Loss::NotStarted { text });
    }
    let unknown: Vec<_> =
        specification.keys().filter(|key| *key != "priority").map(|key| format!("'{key}'")).collect();
    let wrong = |what: String| {
        let text = format!(
            "Invalid Resource Specification Supplied: {{{what}}}. Task resource specification only accepts these types of \
             resources: priority"
        );
        Loss::Specification { text }
    };
    if !unknown.is_empty() {
        return Err(wrong(unknown.join(", ")));
    }
    match specification.get("priority") {
        None | Some(serde_json::Value::Null) => Ok(Priority(None)),
        Some(value) => value
            .as_f64()
            .map(|priority| Priority(Some(priority)))
            .ok_or_else(|| wrong(format!("'priority': {value}"))),
    }
}
