//! Records what heartbeats report: the runs of endpoints, why user endpoints ended, and the progress of open tasks.

use jiff::Timestamp;
use wire::message::TaskState;
use wire::{EndpointId, TaskId};

use crate::columns::{ROWS, key, text};
use crate::database::{StatementBuilder, query};
use crate::{Command, Run, StoreError, Tx};

/// The state that an endpoint reports for one of its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub endpoint: EndpointId,
    pub task: TaskId,
    pub state: TaskState,
}

/// Why a user endpoint ended, or could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndReason {
    pub reason: String,
    pub at: Timestamp,
}

/// Records some heartbeats. States of tasks that have ended, or belong to another endpoint, are ignored.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub runs: Vec<(EndpointId, Run)>,
    /// Of user endpoints; the last of each stays.
    pub ends: Vec<(EndpointId, EndReason)>,
    /// At most [`Report::MOST`], and one for each task.
    pub progress: Vec<Progress>,
}

impl Report {
    /// The most states of tasks in one report: they are written in one statement.
    pub const MOST: usize = ROWS;
}

impl Command for Report {
    type Output = ();

    async fn run(mut self, tx: &mut Tx) -> Result<(), StoreError> {
        // In the order of their ids, as everything else locks these rows.
        self.runs.sort_unstable_by_key(|(endpoint, _)| *endpoint);
        self.progress.truncate(Report::MOST);
        self.progress.sort_unstable_by_key(|it| it.task);
        for (endpoint, run) in self.runs {
            query("UPDATE endpoints SET run = $2, run_credential = $3, run_since_us = $4 WHERE id = $1")
                .bind(key(endpoint.as_uuid()))
                .bind(run.name)
                .bind(run.credential)
                .bind(run.since.as_microsecond())
                .execute(&mut *tx)
                .await?;
        }
        self.ends.sort_by_key(|(endpoint, _)| *endpoint);
        for (endpoint, EndReason { reason, at }) in self.ends {
            query(
                "UPDATE endpoints SET end_reason = $2, end_us = $3 WHERE id = $1 AND manager_id IS NOT NULL",
            )
            .bind(key(endpoint.as_uuid()))
            .bind(reason)
            .bind(at.as_microsecond())
            .execute(&mut *tx)
            .await?;
        }
        if self.progress.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::with_capacity(self.progress.len());
        for it in &self.progress {
            rows.push((key(it.task.as_uuid()), key(it.endpoint.as_uuid()), text(&it.state)?));
        }
        let mut update = StatementBuilder::new("UPDATE tasks SET progress_json = said.column3 FROM (");
        update.push_values(rows, |mut row, (task, endpoint, state)| {
            row.push_bind(task).push_bind(endpoint).push_bind(state);
        });
        update.push(
            ") AS said WHERE tasks.id = said.column1 AND tasks.endpoint_id = said.column2 \
             AND tasks.state IN (0, 1) AND tasks.progress_json IS DISTINCT FROM said.column3",
        );
        update.build().execute(tx).await?;
        Ok(())
    }
}
