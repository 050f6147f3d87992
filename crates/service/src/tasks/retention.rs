//! Deletes expired results, tasks, payload files and records of submits, and ends tasks that no endpoint takes.
//!
//! The periods are [limits](crate::limits). Each pass looks at the whole store, so that it may be repeated or missed. It keeps no state, and the time is passed in.

use std::time::Duration;

use daemon::stop::Stop;
use jiff::{SignedDuration, Timestamp};

use super::ending::{Ending, TaskEnder};
use super::presence::Presence;
use crate::clock;
use crate::limits::Limits;
use store::tasks::state::TaskHolder;
use store::{DeleteSubmitRecords, DeleteTasks, ExpireResults, Store, StoreError, outage_log};

/// The time between two passes.
const PAUSE: Duration = Duration::from_secs(600);
/// The most rows in one transaction, so that other writers wait briefly.
const TOGETHER: usize = 500;
/// The same for records of submits, which are larger: they hold the ids of their tasks.
const SUBMITS: usize = 100;
/// A younger file may belong to a running request.
const LONGEST_REQUEST: SignedDuration = SignedDuration::from_hours(1);

#[derive(Clone, Debug)]
pub struct Retention {
    pub store: Store,
    pub ender: TaskEnder,
    pub presence: Presence,
    pub limits: Limits,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Results that were deleted.
    pub expired: usize,
    /// Expired tasks that were deleted.
    pub forgotten: usize,
    /// Tasks that were ended because no endpoint took them in time.
    pub abandoned: usize,
    /// Files that no row named, and that were removed.
    pub collected: usize,
}

impl Retention {
    /// Runs passes until `stop` begins.
    pub async fn run(self, stop: Stop) {
        // No request was running when the service started: every file without a row is left over.
        let mut files_before = clock::now();
        loop {
            let pass = tokio::select! {
                pass = self.pass(clock::now(), files_before) => pass,
                () = stop.begun() => return,
            };
            match pass {
                Ok(done) if done != Pass::default() => {
                    tracing::info!(?done, "retention deleted what has expired")
                }
                Ok(_) => {}
                Err(error) if outage_log::logs(&error) => {}
                Err(error) => tracing::warn!(%error, "a retention pass failed; the next one tries again"),
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => files_before = clock::now() - LONGEST_REQUEST,
                () = stop.begun() => return,
            }
        }
    }

    /// Runs one pass, at `now`. Files made before `files_before` belong to no running request.
    pub async fn pass(&self, now: Timestamp, files_before: Timestamp) -> Result<Pass, StoreError> {
        let mut done = Pass::default();
        self.ender.end_orphans().await?;
        loop {
            let expire = ExpireResults { before: now - self.limits.result_life(), count: TOGETHER };
            let (expired, freed) = self.store.write(expire).await?;
            self.store.remove_files(freed).await;
            done.expired += expired;
            if expired < TOGETHER {
                break;
            }
        }
        loop {
            let before = now - self.limits.result_life() - self.limits.expired_life();
            let forgotten = self.store.write(DeleteTasks { before, count: TOGETHER }).await?;
            done.forgotten += forgotten;
            if forgotten < TOGETHER {
                break;
            }
        }
        done.abandoned = self.end_stale_tasks(now).await?;
        done.collected = self.store.remove_unreferenced_before(files_before).await?;
        let (before, keys_before) = (now - self.limits.resent(), now - self.limits.idempotency());
        while self.store.write(DeleteSubmitRecords { before, keys_before, count: SUBMITS }).await? {}
        Ok(done)
    }

    /// Ends tasks that have waited too long, and tasks taken by an endpoint that is offline. An online endpoint may still
    /// be running what it took.
    async fn end_stale_tasks(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut abandoned = 0;
        let mut after = None;
        let days = self.limits.task_days;
        loop {
            let open = self
                .store
                .open_tasks_submitted_before(now - self.limits.task_life(), after, TOGETHER)
                .await?;
            after = open.last().map(|task| task.id);
            let mut endings = Vec::new();
            for task in &open {
                if task.holder == TaskHolder::Taken && self.presence.online(task.endpoint, now) {
                    continue;
                }
                let text = match task.holder {
                    TaskHolder::Waiting => {
                        format!("The task waited {days} days for endpoint {} and was given up", task.endpoint)
                    }
                    TaskHolder::Taken => format!(
                        "Endpoint {} took the task, brought no result in {days} days, and is offline: given up",
                        task.endpoint
                    ),
                };
                endings.push(Ending { endpoint: task.endpoint, task: task.id, why: text.into() });
            }
            self.ender.end(&endings).await?;
            abandoned += endings.len();
            if open.len() < TOGETHER {
                return Ok(abandoned);
            }
        }
    }
}
