//! What the core promises, under random operations.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

/// One random operation.
#[derive(Clone, Debug)]
enum Op {
    Submit {
        priority: Option<i8>,
    },
    AnswerBegun {
        upto: usize,
    },
    Join {
        slots: u32,
    },
    Lose {
        which: usize,
    },
    End {
        which: usize,
    },
    /// A node reports the end of a task that it does not have, or not any more.
    EndStale {
        node: u64,
        task: u64,
    },
    Kill {
        which: usize,
    },
    Cancel {
        task: u64,
    },
    AnswerRecall {
        unbegun: usize,
    },
    FailBlock {
        which: usize,
    },
    FinishBlock {
        which: usize,
    },
    /// A node sends a heartbeat.
    Beat {
        which: usize,
    },
    Wait {
        milliseconds: u64,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => proptest::option::of(any::<i8>()).prop_map(|priority| Op::Submit { priority }),
        6 => (0..9usize).prop_map(|upto| Op::AnswerBegun { upto }),
        2 => (1..4u32).prop_map(|slots| Op::Join { slots }),
        1 => any::<usize>().prop_map(|which| Op::Lose { which }),
        8 => any::<usize>().prop_map(|which| Op::End { which }),
        1 => (0..9u64, 0..40u64).prop_map(|(node, task)| Op::EndStale { node, task }),
        2 => any::<usize>().prop_map(|which| Op::Kill { which }),
        2 => (0..60u64).prop_map(|task| Op::Cancel { task }),
        2 => (0..4usize).prop_map(|unbegun| Op::AnswerRecall { unbegun }),
        1 => any::<usize>().prop_map(|which| Op::FailBlock { which }),
        1 => any::<usize>().prop_map(|which| Op::FinishBlock { which }),
        2 => any::<usize>().prop_map(|which| Op::Beat { which }),
        3 => (0..40u64).prop_map(|milliseconds| Op::Wait { milliseconds }),
        1 => (100..1500u64).prop_map(|milliseconds| Op::Wait { milliseconds }),
    ];
    proptest::collection::vec(op, 0..200)
}

fn cancelled_blocks(action: &Action) -> Vec<u32> {
    match action {
        Action::CancelBlocks(blocks) => blocks.clone(),
        _ => Vec::new(),
    }
}

/// Nodes, endpoint and provider around the core. It checks that:
///
/// * every task submitted ends exactly once: delivered, failed, cancelled or returned; once no task is held back by a
///   missing answer or node, none is left over;
/// * nothing is sent before the endpoint was asked and has answered, and it is asked once for each task;
/// * a returned task was never sent, and the endpoint never asked about it;
/// * a task is sent again only after a loss, at most `max_retries` times, or when no worker had begun it;
/// * a node is sent no more than its slots, its prefetch and its throughput allow, only while it is connected, and nothing
///   once it drains; a draining node is dropped as soon as it is idle, and not before;
/// * of the waiting tasks the one with the lowest priority goes first, and of equal ones the first that came;
/// * while a node has a free slot, no task that may be sent waits;
/// * there are never more live blocks than `max_blocks`, and never fewer than `min_blocks` because they were idle;
///   when no task is left, all above `min_blocks` are released after `max_idletime`;
/// * a node that sends nothing for longer than the threshold is dropped, and one that does is not;
/// * in bad state nothing begins and no block is requested; after the stop there are no actions at all.
struct Simulation {
    core: Core,
    rules: Rules,
    now: Duration,
    submitted: u64,
    ended: BTreeSet<TaskId>,
    asked: BTreeSet<TaskId>,
    unanswered: Vec<TaskId>,
    answered: BTreeSet<TaskId>,
    sends: HashMap<TaskId, u32>,
    losses: HashMap<TaskId, u32>,
    at: BTreeMap<TaskId, NodeKey>,
    abandoned: BTreeSet<TaskId>,
    recalls: HashMap<TaskId, u32>,
    recalled: BTreeSet<NodeKey>,
    nodes: BTreeMap<NodeKey, u32>,
    endings: Vec<(Duration, NodeKey)>,
    orders: HashMap<TaskId, (Priority, u64)>,
    joined: BTreeMap<NodeKey, (Duration, u32)>,
    last_contact: BTreeMap<NodeKey, Duration>,
    next_node: u64,
    blocks: BTreeSet<u32>,
    bad: bool,
    stopped: Option<Duration>,
    finished: bool,
}

impl Simulation {
    fn new(rules: Rules) -> Self {
        let mut simulation = Self {
            core: Core::new(rules.clone()),
            rules,
            now: Duration::ZERO,
            submitted: 0,
            ended: BTreeSet::new(),
            asked: BTreeSet::new(),
            unanswered: Vec::new(),
            answered: BTreeSet::new(),
            sends: HashMap::new(),
            losses: HashMap::new(),
            at: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            recalls: HashMap::new(),
            recalled: BTreeSet::new(),
            nodes: BTreeMap::new(),
            endings: Vec::new(),
            orders: HashMap::new(),
            joined: BTreeMap::new(),
            last_contact: BTreeMap::new(),
            next_node: 0,
            blocks: BTreeSet::new(),
            bad: false,
            stopped: None,
            finished: false,
        };
        simulation.input(Input::Started);
        simulation
    }

    fn input(&mut self, input: Input) {
        let actions = self.core.apply(input, self.now);
        // The nodes of a released block are dropped before.
        let released: BTreeSet<u32> = actions.iter().flat_map(cancelled_blocks).collect();
        for action in &actions {
            if let Action::DropNode(node) = action {
                self.lose_tasks_of(*node);
            }
        }
        for action in actions {
            self.perform(action, &released);
        }
        if self.bad || self.finished {
            return;
        }
        let free = |(node, slots): (&NodeKey, &u32)| {
            !self.drains(*node) && self.tasks_given_to(*node) < *slots as usize
        };
        if self.nodes.iter().any(free) {
            assert_eq!(self.core.counts().waiting, 0, "a slot is free and a task waits");
        }
        let idle = |node: &&NodeKey| self.drains(**node) && self.tasks_given_to(**node) == 0;
        assert!(
            self.stopped.is_some() || self.nodes.keys().find(idle).is_none(),
            "idle, draining, and still there"
        );
        let patience = self.rules.heartbeat_threshold + self.rules.heartbeat_period;
        let silent = |node: &&NodeKey| self.now.saturating_sub(self.last_contact[node]) > patience;
        assert_eq!(self.nodes.keys().find(silent), None, "silent, and still there");
    }

    fn drains(&self, node: NodeKey) -> bool {
        let period = self.rules.drain_period.unwrap_or(Duration::MAX);
        let now = self.stopped.unwrap_or(self.now);
        self.joined.get(&node).is_some_and(|(at, _)| now.saturating_sub(*at) >= period)
    }

    fn record_contact(&mut self, node: NodeKey) {
        self.last_contact.insert(node, self.now);
    }

    /// Sent there, or assigned there and not sent yet.
    fn tasks_given_to(&self, node: NodeKey) -> usize {
        self.core.nodes.get(node).map_or(0, |node| node.tasks.len())
    }

    fn perform(&mut self, action: Action, released: &BTreeSet<u32>) {
        assert!(!self.finished, "after the stop: {action:?}");
        match action {
            Action::SubmitBlocks(blocks) => {
                assert!(!self.bad);
                self.blocks.extend(blocks);
                assert!(self.blocks.len() as u32 <= self.rules.scaling.max);
            }
            Action::CancelBlocks(blocks) => {
                blocks.iter().for_each(|block| assert!(self.blocks.remove(block)));
                assert!(self.stopped.is_some() || self.blocks.len() as u32 >= self.rules.scaling.min);
            }
            Action::Assign(tasks) => {
                assert!(!self.bad && self.stopped.is_none());
                let first_left =
                    self.core.tasks.select(|task| task.begun == BeginRecord::None).first().copied();
                for task in tasks {
                    assert!(
                        first_left.is_none_or(|left| self.orders[&task] < self.orders[&left]),
                        "out of turn"
                    );
                    assert!(self.asked.insert(task), "asked twice: {task}");
                    self.unanswered.push(task);
                }
            }
            Action::Send { node, task } => {
                assert!(self.answered.contains(&task), "sent before it has begun");
                assert!(!self.ended.contains(&task), "sent after its end");
                let sends = self.sends.entry(task).or_default();
                *sends += 1;
                let again = |counts: &HashMap<TaskId, u32>| counts.get(&task).copied().unwrap_or(0);
                let recalls = again(&self.recalls);
                assert_eq!(*sends, 1 + again(&self.losses) + recalls, "sent again without a loss");
                assert!(*sends <= 1 + self.rules.max_retries + recalls);
                let slots = *self.nodes.get(&node).expect("sent to a node that is there");
                assert!(!self.drains(node), "sent to a node that drains");
                let recent = self.now.saturating_sub(ms(20));
                let pace = self.endings.iter().filter(|(at, by)| *at >= recent && *by == node).count();
                let here = self.at.values().filter(|at| **at == node).count();
                // Tasks that the node got while it was faster may still be there.
                let allowed = slots as usize + self.rules.prefetch as usize + pace.max(here);
                assert!(here < allowed, "{here} at a node of {slots}");
                self.at.insert(task, node);
            }
            Action::Abandon { node, task } => {
                assert_eq!(self.at.get(&task), Some(&node));
                self.abandoned.insert(task);
            }
            Action::Recall(node) => {
                assert!(self.recalled.insert(node) || self.drains(node), "asked twice");
            }
            Action::Deliver(task) | Action::Cancel(task) => self.end(task),
            Action::Fail { task, failure } => {
                assert!(!failure.attempts.is_empty());
                self.end(task);
            }
            Action::Return(tasks) => {
                for task in tasks {
                    assert!(!self.asked.contains(&task), "returned after the endpoint was asked");
                    self.end(task);
                }
            }
            Action::DropNode(node) => {
                if self.nodes.remove(&node).is_some() {
                    let silent =
                        self.now.saturating_sub(self.last_contact[&node]) > self.rules.heartbeat_threshold;
                    let idle = self.drains(node) && self.tasks_given_to(node) == 0;
                    let block_gone = !self.blocks.contains(&self.joined[&node].1);
                    let released = released.contains(&self.joined[&node].1);
                    assert!(silent || idle || block_gone || released, "dropped for nothing");
                    self.recalled.remove(&node);
                }
            }
            Action::ReportBadState(_) => self.bad = true,
            Action::Finish => self.finished = true,
        }
    }

    fn end(&mut self, task: TaskId) {
        assert!(self.ended.insert(task), "a second end of {task}");
        self.at.remove(&task);
    }

    fn nth_sent(&self, which: usize) -> Option<(TaskId, NodeKey)> {
        let index = which.checked_rem(self.at.len())?;
        self.at.iter().nth(index).map(|(task, node)| (*task, *node))
    }

    fn lose_node(&mut self, node: NodeKey) {
        self.nodes.remove(&node);
        self.recalled.remove(&node);
        self.lose_tasks_of(node);
        self.input(Input::NodeLost(node));
    }

    fn lose_tasks_of(&mut self, node: NodeKey) {
        let lost: Vec<_> = self.at.iter().filter(|(_, at)| **at == node).map(|(task, _)| *task).collect();
        for task in lost {
            *self.losses.entry(task).or_default() += 1;
            self.at.remove(&task);
        }
    }

    /// Every node and the endpoint answer, and a new node joins when one is needed: then every task ends, and idle
    /// blocks are released.
    fn finish_all_tasks(&mut self) {
        let wanted = self.rules.scaling;
        let mut steps = 0;
        while !self.bad && self.ended.len() as u64 != self.submitted {
            steps += 1;
            assert!(steps < 10_000, "tasks do not end");
            let open = self.nodes.keys().any(|node| !self.drains(*node));
            if !self.unanswered.is_empty() {
                self.apply(Op::AnswerBegun { upto: usize::MAX });
            } else if !self.recalled.is_empty() {
                self.apply(Op::AnswerRecall { unbegun: 0 });
            } else if !self.at.is_empty() {
                self.apply(Op::End { which: 0 });
            } else if self.blocks.is_empty() {
                assert_eq!(wanted.strategy, ScalingStrategy::None, "tasks wait, and no block is asked for");
                return;
            } else {
                assert!(!open, "a task waits for nothing");
                self.apply(Op::Join { slots: 1 });
            }
        }
        let wait = Op::Wait { milliseconds: wanted.max_idle.as_millis() as u64 };
        self.apply(wait.clone());
        self.apply(wait);
        if !self.bad && wanted.strategy != ScalingStrategy::None {
            assert!(self.blocks.len() as u32 <= wanted.min, "idle blocks are kept");
        }
    }

    fn end_block(&mut self, which: usize, ended: BlockEnd) {
        let Some(index) = which.checked_rem(self.blocks.len()) else { return };
        let block = *self.blocks.iter().nth(index).expect("within");
        self.blocks.remove(&block);
        self.input(Input::BlockEnded { block, end: ended });
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Submit { priority } => {
                let task = id(self.submitted);
                let priority = Priority(priority.map(f64::from));
                self.orders.insert(task, (priority, self.submitted));
                self.submitted += 1;
                self.input(Input::Submitted { task, priority });
            }
            Op::AnswerBegun { upto } => {
                let count = upto.min(self.unanswered.len());
                let tasks: Vec<_> = self.unanswered.drain(..count).collect();
                self.answered.extend(&tasks);
                self.input(Input::Begun(tasks));
            }
            Op::Join { slots } => {
                let Some(block) =
                    self.blocks.iter().nth(self.next_node as usize % self.blocks.len().max(1)).copied()
                else {
                    return;
                };
                let node = NodeKey(self.next_node);
                self.next_node += 1;
                self.nodes.insert(node, slots);
                self.joined.insert(node, (self.now, block));
                self.record_contact(node);
                self.input(Input::NodeJoined { node, block, name: name(node.0), slots });
            }
            Op::Lose { which } => {
                let Some(index) = which.checked_rem(self.nodes.len()) else { return };
                let node = *self.nodes.keys().nth(index).expect("within");
                self.lose_node(node);
            }
            Op::End { which } => {
                let Some((task, node)) = self.nth_sent(which) else { return };
                self.at.remove(&task);
                self.record_contact(node);
                self.endings.push((self.now, node));
                self.input(Input::TaskEnded { node, task });
                assert!(self.ended.contains(&task));
            }
            Op::EndStale { node, task } => {
                if self.at.get(&id(task)) != Some(&NodeKey(node)) {
                    let before = self.ended.len();
                    self.record_contact(NodeKey(node));
                    self.input(Input::TaskEnded { node: NodeKey(node), task: id(task) });
                    assert_eq!(self.ended.len(), before);
                }
            }
            Op::Kill { which } => {
                let Some((task, node)) = self.nth_sent(which) else { return };
                self.at.remove(&task);
                *self.losses.entry(task).or_default() += 1;
                self.record_contact(node);
                self.input(Input::WorkerLost { node, task, rank: 0, hint: None });
                let gone = self.abandoned.contains(&task) || self.losses[&task] > self.rules.max_retries;
                assert_eq!(self.ended.contains(&task), gone);
            }
            Op::Cancel { task } => self.input(Input::Cancelled(id(task))),
            Op::AnswerRecall { unbegun } => {
                let Some(node) = self.recalled.pop_first() else { return };
                let here = self.at.iter().filter(|(_, at)| **at == node).map(|(task, _)| *task);
                let tasks: Vec<_> = here.take(unbegun).collect();
                for task in &tasks {
                    self.at.remove(task);
                    *self.recalls.entry(*task).or_default() += 1;
                }
                self.record_contact(node);
                self.input(Input::Unstarted { node, tasks });
            }
            Op::FailBlock { which } => self.end_block(which, failed(1)),
            Op::FinishBlock { which } => self.end_block(which, BlockEnd::Completed(ExitReport::default())),
            Op::Beat { which } => {
                let Some(index) = which.checked_rem(self.nodes.len()) else { return };
                let node = *self.nodes.keys().nth(index).expect("within");
                self.record_contact(node);
                self.input(Input::NodeHeartbeat(node));
            }
            Op::Wait { milliseconds } => {
                self.now += ms(milliseconds);
                self.input(Input::Tick);
            }
        }
    }

    fn stop(&mut self, grace: Duration) {
        self.stopped = Some(self.now);
        self.input(Input::Stop { grace });
        self.apply(Op::AnswerBegun { upto: usize::MAX });
        if !self.finished {
            self.apply(Op::Submit { priority: None });
        }
        while !self.finished {
            self.now = self.core.wake_at().expect("a stop ends").max(self.now);
            self.input(Input::Tick);
        }
        assert_eq!(
            self.ended.len() as u64,
            self.submitted - u64::from(self.ended.len() as u64 != self.submitted)
        );
        assert_eq!(self.core.apply(Input::Started, self.now), []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_core_keeps_its_promises_whatever_happens(
        ops in ops(),
        max_retries in 0..3u32,
        prefetch in 0..3u32,
        (strategy, init, min, max) in (strategies(), 0..3u32, 0..2u32, 1..4u32),
        drain_period in proptest::option::of((200..2000u64).prop_map(ms)),
        finishes in any::<bool>(),
        grace in 0..100u64,
    ) {
        let scaling = ScalingRules { strategy, init, min: min.min(max), max, max_idle: ms(300), ..rules().scaling };
        let mut simulation = Simulation::new(Rules {
            max_retries,
            prefetch,
            heartbeat_period: ms(300),
            heartbeat_threshold: ms(1000),
            drain_period,
            scaling,
            ..rules()
        });
        for op in ops {
            simulation.apply(op);
        }
        if finishes {
            simulation.finish_all_tasks();
        }
        simulation.stop(ms(grace));
    }
}

fn strategies() -> impl Strategy<Value = ScalingStrategy> {
    prop_oneof![
        4 => Just(ScalingStrategy::Simple),
        4 => Just(ScalingStrategy::HtexAutoScale),
        1 => Just(ScalingStrategy::None),
    ]
}
