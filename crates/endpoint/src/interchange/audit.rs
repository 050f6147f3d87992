//! The audit records of tasks, in upstream's words: who reads the audit log knows them from there.
//!
//! ```text
//! RECEIVED ──► EXEC_START ──► RUNNING ──► EXEC_END
//!     └─► FAILED - Function not permitted on endpoint ─────┘
//! ```
//!
//! `EXEC_START`: the engine has the task. `RUNNING`: the task is given to a block; once for each block, never with a pool engine.
//! A task that goes back to its queue before it began has no end; the run that receives it next records it again. The manager
//! writes before each record when it came and from whom: this module must not.

use std::collections::HashMap;

use wire::{FunctionId, TaskId};

use super::{Action, Interchange};

const NOT_PERMITTED: &str = "FAILED - Function not permitted on endpoint";

/// What the records of tasks say, until these end.
#[derive(Debug, Default)]
pub(super) struct AuditTrail {
    tasks: HashMap<TaskId, Placement>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Placement {
    /// `None`: its message does not say, or an earlier run received it.
    function: Option<FunctionId>,
    block: Option<u32>,
}

impl AuditTrail {
    pub(super) fn received(&mut self, task: TaskId, function: Option<FunctionId>) -> String {
        let placement = Placement { function, block: None };
        self.tasks.insert(task, placement);
        placement.record(task, "RECEIVED")
    }

    pub(super) fn not_permitted(&self, task: TaskId) -> String {
        self.placement(task).record(task, NOT_PERMITTED)
    }

    pub(super) fn execution_starts(&self, task: TaskId) -> String {
        self.placement(task).record(task, "EXEC_START")
    }

    /// `None`: the block has it already, or it has ended.
    pub(super) fn runs_in(&mut self, task: TaskId, block: u32) -> Option<String> {
        let placement = self.tasks.get_mut(&task)?;
        let moved = placement.block.replace(block) != Some(block);
        moved.then(|| placement.record(task, "RUNNING"))
    }

    pub(super) fn execution_ends(&mut self, task: TaskId) -> String {
        self.tasks.remove(&task).unwrap_or_default().record(task, "EXEC_END")
    }

    /// The task goes back to its queue, of which there is no record.
    pub(super) fn returned(&mut self, task: TaskId) -> Option<String> {
        self.tasks.remove(&task);
        None
    }

    fn placement(&self, task: TaskId) -> Placement {
        self.tasks.get(&task).copied().unwrap_or_default()
    }
}

impl Interchange {
    /// Adds what the audit trail says, if there is one.
    pub(super) fn record(
        &mut self,
        actions: &mut Vec<Action>,
        record: impl FnOnce(&mut AuditTrail) -> Option<String>,
    ) {
        actions.extend(self.audit.as_mut().and_then(record).map(Action::Record));
    }
}

impl Placement {
    fn record(self, task: TaskId, state: &str) -> String {
        let function = self.function.map(|id| id.to_string()).unwrap_or_default();
        let block = self.block.map(|number| number.to_string()).unwrap_or_default();
        format!("fid={function} tid={task} bid={block} {state}")
    }
}
