//! What has had its time goes: results, much later what is known of their tasks, tasks that nobody takes, files that no
//! row names, submits that are too old to come again.
//!
//! A reconciler: each pass compares what is there with what should be, and may be repeated or missed. It remembers
//! nothing, and the time is passed in.

use std::time::Duration;

use daemon::stop::Stop;
use jiff::{SignedDuration, Timestamp};

use super::ending::{Ending, TaskEnder};
use super::presence::Presence;
use crate::clock;
use crate::limits::Limits;
use store::tasks::state::TaskHolder;
use store::{ExpireResults, ForgetSubmissions, ForgetTasks, Store, StoreError};

/// Between two passes.
const PAUSE: Duration = Duration::from_secs(600);
/// What one transaction takes at most: those who wait for it wait shortly.
const TOGETHER: usize = 500;
/// The same for submits that are forgotten, which hold the ids of their tasks.
const SUBMITS: usize = 100;
/// A file younger than this may belong to a request at work.
const AT_WORK: SignedDuration = SignedDuration::from_hours(1);

#[derive(Clone, Debug)]
pub struct Retention {
    pub store: Store,
    pub ender: TaskEnder,
    pub presence: Presence,
    pub limits: Limits,
}

/// What a pass has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Results that are kept no more.
    pub expired: usize,
    /// Expired tasks of which nothing is known any more.
    pub forgotten: usize,
    /// Tasks that were ended because nobody took them in time.
    pub abandoned: usize,
    /// Files that no row named.
    pub collected: usize,
}

impl Retention {
    /// Passes until `stop` begins.
    pub async fn run(self, stop: Stop) {
        // Nobody was at work when the service started: every file without a row is left over.
        let mut files_before = clock::now();
        loop {
            let pass = tokio::select! {
                pass = self.pass(clock::now(), files_before) => pass,
                () = stop.begun() => return,
            };
            match pass {
                Ok(done) if done != Pass::default() => tracing::info!(?done, "what had its time is gone"),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "a pass of retention failed; the next one does it"),
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => files_before = clock::now() - AT_WORK,
                () = stop.begun() => return,
            }
        }
    }

    /// One pass, at `now`. Files made before `files_before` belong to nobody at work.
    pub async fn pass(&self, now: Timestamp, files_before: Timestamp) -> Result<Pass, StoreError> {
        let mut done = Pass::default();
        self.ender.end_orphans().await?;
        loop {
            let expire = ExpireResults { before: now - self.limits.result_life(), count: TOGETHER };
            let (expired, freed) = self.store.write(expire).await?;
            self.store.remove(freed).await;
            done.expired += expired;
            if expired < TOGETHER {
                break;
            }
        }
        loop {
            let before = now - self.limits.result_life() - self.limits.expired_life();
            let forgotten = self.store.write(ForgetTasks { before, count: TOGETHER }).await?;
            done.forgotten += forgotten;
            if forgotten < TOGETHER {
                break;
            }
        }
        done.abandoned = self.abandon(now).await?;
        done.collected = self.store.collect_before(files_before).await?;
        let (before, keys_before) = (now - self.limits.resent(), now - self.limits.idempotency());
        while self.store.write(ForgetSubmissions { before, keys_before, count: SUBMITS }).await? {}
        Ok(done)
    }

    /// Ends tasks that have waited too long, and those that an endpoint took which is not there any more. One that is
    /// online may still be at work on what it took.
    async fn abandon(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut abandoned = 0;
        let mut after = None;
        let days = self.limits.task_days;
        loop {
            let open = self.store.open_before(now - self.limits.task_life(), after, TOGETHER).await?;
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
