//! Helpers for the tests of the core, which are tables of operations, and random operations.

use std::time::Duration;

use uuid::Uuid;
use wire::TaskId;

use super::*;

mod dispatch;
mod endings;
mod promises;
mod scaling;
mod starting;

fn id(n: u64) -> TaskId {
    TaskId::from_uuid(Uuid::from_u128(u128::from(n)))
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn rules() -> Rules {
    Rules {
        max_retries: 0,
        prefetch: 0,
        heartbeat_period: Duration::from_secs(30),
        heartbeat_threshold: Duration::from_secs(120),
        drain_period: None,
        executor: "X".into(),
        scaling: ScalingRules {
            strategy: ScalingStrategy::Simple,
            init: 1,
            min: 0,
            max: 1,
            nodes_per_block: 1,
            workers_per_node: 1,
            parallelism: 1.0,
            max_idle: Duration::from_secs(120),
            failures_end_engine: true,
        },
    }
}

fn submit(n: u64) -> Input {
    Input::Submitted { task: id(n), priority: Priority(None) }
}

fn join(node: u64, slots: u32) -> Input {
    join_block(node, 0, slots)
}

fn join_block(node: u64, block: u32, slots: u32) -> Input {
    Input::NodeJoined { node: NodeKey(node), block, name: name(node), slots }
}

fn name(node: u64) -> NodeName {
    NodeName { uid: format!("uid{node}"), host: "vm".into() }
}

fn send(node: u64, task: u64) -> Action {
    Action::Send { node: NodeKey(node), task: id(task) }
}

fn assign(tasks: &[u64]) -> Action {
    Action::Assign(tasks.iter().copied().map(id).collect())
}

fn begun(tasks: &[u64]) -> Input {
    Input::Begun(tasks.iter().copied().map(id).collect())
}

fn ended(node: u64, task: u64) -> Input {
    Input::TaskEnded { node: NodeKey(node), task: id(task) }
}

fn worker_lost(node: u64, task: u64) -> Input {
    Input::WorkerLost { node: NodeKey(node), task: id(task), rank: 0, hint: None }
}

/// Applies inputs at time zero, and checks the actions that each leads to.
fn table(rules: Rules, steps: &[(Input, &[Action])]) -> Core {
    let mut core = Core::new(rules);
    for (index, (input, expected)) in steps.iter().enumerate() {
        assert_eq!(core.apply(input.clone(), Duration::ZERO), *expected, "step {index}: {input:?}");
    }
    core
}

fn lost_manager(task: u64, node: u64) -> Action {
    let attempts = vec![AttemptFailure::NodeLost { node: name(node).into() }];
    Action::Fail { task: id(task), failure: TaskFailure { attempts, began: Duration::ZERO } }
}

fn failed(code: i32) -> BlockEnd {
    BlockEnd::Failed(ExitReport { exit_code: Some(code), ..ExitReport::default() })
}
