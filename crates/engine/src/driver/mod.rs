//! Drives the scheduling core: passes inputs to it, and performs the actions that it returns.
//!
//! One async task owns the core. Beside it run a reader and a writer for each node connection and the calls to the
//! provider, which send it events by channels. It must not decide anything.

mod provider_calls;
mod report;
mod resource_specification;

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use wire::TaskId;

use crate::clock::{self, Clock};
use crate::config::EngineConfig;
use crate::core::{Action, Core, Input, NodeKey, NodeName};
use crate::error_results;
use crate::handle::{Command, Event, Submission};
use crate::link::message::{self, Extras, Hello, Interpreter, ToEngine};
use crate::link::server::{NodeEvent, NodeLink};
use crate::node;
use crate::provider::{Job, Provider, Staging};
use provider_calls::{BlockEvent, ProviderCalls};

/// How long the file system may take to remove this run's files when the engine stops.
const CLEANUP_LIMIT: Duration = Duration::from_secs(5);

/// A node that has said hello.
struct ConnectedNode {
    hello: Hello,
    link: NodeLink,
    connected_at: Duration,
    /// Known once its first worker is ready.
    interpreter: Option<Interpreter>,
    /// Why it has fewer slots than it could have.
    shortage: Option<String>,
}

/// The most commands and node events that are handled before the core settles.
const BATCH: usize = 256;

pub(crate) struct Driver {
    clock: Clock,
    core: Core,
    config: EngineConfig,
    staging: Staging,
    calls: ProviderCalls,
    events: mpsc::UnboundedSender<Event>,
    /// Boxed: there may be a million, and a table has room for twice as many.
    tasks: HashMap<TaskId, Box<Submission>>,
    nodes: HashMap<NodeKey, ConnectedNode>,
    /// The result that came with the current input.
    result: Bytes,
    finished: bool,
}

impl Driver {
    pub(crate) fn new(
        config: EngineConfig,
        core: Core,
        staging: Staging,
        provider: Arc<dyn Provider>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            clock: Clock::start(),
            core,
            config,
            staging,
            calls: ProviderCalls::new(provider),
            events,
            tasks: HashMap::new(),
            nodes: HashMap::new(),
            result: Bytes::new(),
            finished: false,
        }
    }

    /// Runs the engine until it has stopped.
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Command>,
        mut node_events: mpsc::UnboundedReceiver<NodeEvent>,
    ) {
        let changed = self.calls.changed();
        let mut polls = interval(self.calls.status_period());
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut commands, mut received, mut has_handles) = (Vec::new(), Vec::new(), true);
        self.feed(Input::Started);
        self.settle();
        while !self.finished {
            let wake = self.core.wake_at().map(|at| Instant::now() + at.saturating_sub(self.clock.now()));
            tokio::select! {
                count = inbox.recv_many(&mut commands, BATCH), if has_handles => {
                    if count == 0 {
                        // Every handle is dropped: no result is wanted any more.
                        has_handles = false;
                        commands.push(Command::Stop(Duration::ZERO));
                    }
                }
                _ = node_events.recv_many(&mut received, BATCH) => {}
                Some(event) = self.calls.next() => self.handle_block_event(event),
                () = changed.notified() => self.calls.poll(),
                _ = polls.tick() => self.calls.poll(),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.feed(Input::Tick),
            }
            for event in received.drain(..) {
                self.handle_node_event(event);
            }
            for command in commands.drain(..) {
                self.execute(command);
            }
            self.settle();
        }
        // Tasks that came after the stop are returned.
        inbox.close();
        while let Ok(command) = inbox.try_recv() {
            if let Command::Submit(submission) = command {
                self.emit(Event::Returned(vec![submission.id]));
            }
        }
        self.clean_up().await;
    }

    fn feed(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.core.handle(input, self.clock.now(), &mut actions);
        self.perform(actions);
    }

    fn settle(&mut self) {
        let mut actions = Vec::new();
        self.core.settle(self.clock.now(), &mut actions);
        self.perform(actions);
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Submit(submission) => {
                let task = submission.id;
                let kind = &self.config.options.kind;
                let input =
                    match resource_specification::read_priority(kind, &submission.resource_specification) {
                        Ok(priority) => Input::Submitted { task, priority },
                        Err(failure) => Input::Refused { task, failure },
                    };
                self.tasks.entry(task).or_insert_with(|| Box::new(submission));
                self.feed(input);
            }
            Command::Begin(tasks) => self.feed(Input::Begun(tasks)),
            Command::Cancel(task) => self.feed(Input::Cancelled(task)),
            Command::Report(answer) => {
                let _ = answer.send(self.report()); // who asked has left
            }
            Command::Stop(grace) => self.feed(Input::Stop { grace }),
        }
    }

    fn handle_node_event(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Connected { node, hello, link } => {
                let block = hello.block;
                tracing::info!(block, uid = hello.uid, host = hello.host, "node starting");
                let connected_at = self.clock.now();
                let connected =
                    ConnectedNode { hello, link, connected_at, interpreter: None, shortage: None };
                self.nodes.insert(node, connected);
                self.feed(Input::NodeStarting { node, block });
            }
            NodeEvent::Message { node, message } => match message {
                ToEngine::Ended { task, result } => {
                    self.result = result;
                    self.feed(Input::TaskEnded { node, task });
                    self.result = Bytes::new();
                }
                ToEngine::WorkerLost { task, rank, hint } => {
                    tracing::warn!(%task, rank, hint, "worker lost");
                    let hint = hint.map(|hint| self.add_hint(task, hint));
                    self.feed(Input::WorkerLost { node, task, rank, hint });
                }
                ToEngine::Ready(interpreter) => self.record_ready(node, interpreter),
                ToEngine::Slots { slots, why } => {
                    let Some(connected) = self.nodes.get_mut(&node) else { return };
                    let Hello { block, uid, host, .. } = &connected.hello;
                    tracing::warn!(block, uid, host, slots, why, "a node has fewer slots than it could have");
                    connected.shortage = Some(format!("node {uid} on {host}: {why}"));
                    connected.hello.slots = slots;
                    self.feed(Input::NodeResized { node, slots });
                }
                ToEngine::Unstarted(tasks) => self.feed(Input::Unstarted { node, tasks }),
                ToEngine::Heartbeat | ToEngine::Hello(_) | ToEngine::OtherVersion(_) => {
                    self.feed(Input::NodeHeartbeat(node))
                }
            },
            NodeEvent::Disconnected(node) => {
                if self.nodes.remove(&node).is_some() {
                    tracing::warn!(node = node.0, "node lost");
                }
                self.feed(Input::NodeLost(node));
            }
        }
    }

    fn record_ready(&mut self, node: NodeKey, interpreter: Interpreter) {
        let Some(connected) = self.nodes.get_mut(&node) else { return };
        let Hello { block, uid, host, slots, .. } = connected.hello.clone();
        let python = &interpreter.python;
        let after_s = self.clock.now().saturating_sub(connected.connected_at).as_secs_f64();
        tracing::info!(block, slots, uid, host, python, after_s, "node joined");
        // A node joins once, even if it says so again.
        if connected.interpreter.replace(interpreter).is_none() {
            let name = NodeName { uid, host };
            self.feed(Input::NodeJoined { node, block, name, slots });
        }
    }

    /// Adds to the hint that byte code of another Python may have crashed the worker, if it is not known which Python
    /// the function comes from.
    fn add_hint(&self, task: TaskId, hint: String) -> String {
        const UNKNOWN: &str = "If the function was registered from another version of Python, its byte code may \
                               have crashed the worker; AllCodeStrategies, PureSourceTextInspect and PureSourceDill \
                               send its source instead.";
        let crashed =
            ["SIGSEGV", "SIGILL", "SIGBUS", "SIGABRT", "SIGFPE"].iter().any(|signal| hint.contains(signal));
        let unknown = self.tasks.get(&task).is_some_and(|task| task.function_python.is_none());
        if crashed && unknown { format!("{hint} {UNKNOWN}") } else { hint }
    }

    fn handle_block_event(&mut self, event: BlockEvent) {
        let core = &self.core;
        if let Some((block, end)) = self.calls.record(event, |block| core.wants_block(block)) {
            tracing::info!(block, ended = ?end, "block ended");
            self.feed(Input::BlockEnded { block, end });
        }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::SubmitBlocks(blocks) => blocks.into_iter().for_each(|block| self.submit_block(block)),
                Action::CancelBlocks(blocks) => self.calls.cancel(&blocks),
                Action::Assign(tasks) => self.emit(Event::Assigned(tasks)),
                Action::Send { node, task } => self.send(node, task),
                Action::Abandon { node, task } => {
                    if self.config.options.kind.traits().threads {
                        tracing::warn!(%task, "cancelled; if it has begun, it goes on: threads can't be ended");
                    }
                    if let Some(connected) = self.nodes.get(&node) {
                        connected.link.send(message::abandon(task));
                    }
                }
                Action::Recall(node) => {
                    if let Some(connected) = self.nodes.get(&node) {
                        connected.link.send(message::recall());
                    }
                }
                Action::Deliver(task) => {
                    let result = std::mem::take(&mut self.result);
                    self.finish(task, result);
                }
                Action::Fail { task, failure } => {
                    let result = error_results::failed_result(task, &failure, &self.clock);
                    self.finish(task, result);
                }
                Action::Cancel(task) => self.finish(task, error_results::cancelled_result(task)),
                Action::Return(tasks) => {
                    for task in &tasks {
                        self.tasks.remove(task);
                    }
                    self.emit(Event::Returned(tasks));
                }
                Action::DropNode(node) => drop(self.nodes.remove(&node)),
                Action::ReportBadState(text) => {
                    tracing::error!(text, "no block works: the engine can't run tasks any more");
                    self.emit(Event::BadState { text });
                }
                Action::Finish => self.finished = true,
            }
        }
    }

    fn finish(&mut self, task: TaskId, result: Bytes) {
        self.tasks.remove(&task);
        self.emit(Event::Ended { task, result });
    }

    fn emit(&self, event: Event) {
        let _ = self.events.send(event); // if the endpoint has dropped its end, the command channel is closed, too
    }

    fn send(&self, node: NodeKey, task: TaskId) {
        if let (Some(connected), Some(submission)) = (self.nodes.get(&node), self.tasks.get(&task)) {
            let extras = Extras {
                result_serializers: submission.result_serializers.clone(),
                function_python: submission.function_python.clone(),
            };
            connected.link.send(message::task(task, &extras, &submission.body));
            if self.config.reports_blocks && self.config.options.kind.traits().has_blocks {
                self.emit(Event::Placed { task, block: connected.hello.block });
            }
        }
    }

    fn submit_block(&mut self, block: u32) {
        let number = block.to_string();
        let job = Job {
            name: format!(
                "parsl.{}.block-{block}.{}",
                self.config.executor_label(),
                clock::since_epoch().as_secs_f64()
            ),
            node_command: self
                .config
                .node_command
                .iter()
                .cloned()
                .chain(["--block".to_owned(), number])
                .collect(),
            staging: self.staging.clone(),
        };
        tracing::info!(block, provider = self.config.options.provider.name(), "requesting a block");
        self.calls.submit(block, job);
    }

    /// Disconnects the nodes, which ends them, and cancels the blocks.
    async fn clean_up(mut self) {
        self.nodes.clear();
        self.calls.cancel_all().await;
        let staging = self.staging;
        let removed = tokio::task::spawn_blocking(move || match staging {
            Staging::SharedFile(path) | Staging::TransferredFile(path) => {
                let _ = fs::remove_file(path); // its keys open nothing any more
            }
            Staging::Secret(_) => node::remove_abandoned(),
        });
        if timeout(CLEANUP_LIMIT, removed).await.is_err() {
            tracing::warn!("the file system stalls: the files of this run were not removed");
        }
    }
}
