//! Ends tasks: records results and the service's own errors together with the messages for their task groups, in one
//! transaction. The first end of a task counts.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use store::tasks::state::Outcome;
use store::{OpenTaskFilter, RecordResults, Recorded, ReportedResult, Store, StoreError, StoredContent};
use wire::Text;
use wire::message::{ErrorDetails, TaskResult};
use wire::{EndpointId, TaskId, queue};

use crate::clock;
use crate::log_throttle::LogThrottle;
use crate::metrics::{Metrics, Times};

/// The most results in one transaction.
pub(crate) const TOGETHER: usize = 256;

/// Which queues of clients may have new messages in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewMessages {
    Of(String),
    /// It is not known which.
    OfAny,
}

type Wake = Arc<dyn Fn(NewMessages) + Send + Sync>;

/// Ends tasks. Clones share it.
#[derive(Clone)]
pub struct TaskEnder {
    store: Store,
    wake: Wake,
    metrics: Metrics,
    dropped: Arc<Dropped>,
}

/// Limits the log lines about results that change nothing.
#[derive(Debug, Default)]
struct Dropped {
    late: LogThrottle,
    refused: LogThrottle,
}

impl fmt::Debug for TaskEnder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskEnder").finish_non_exhaustive()
    }
}

/// An error with which the service itself ends a task.
#[derive(Clone, Debug)]
pub struct Ending {
    pub endpoint: EndpointId,
    pub task: TaskId,
    /// The error text that the task's owner gets.
    pub why: Arc<str>,
}

impl Ending {
    fn message(&self) -> Vec<u8> {
        TaskResult {
            task_id: self.task,
            data: Text::plain(&*self.why),
            details: None,
            error_details: Some(ErrorDetails {
                code: "RemoteExecutionError".to_owned(),
                user_message: "An error occurred during the execution of this task".to_owned(),
            }),
            task_statuses: None,
        }
        .encode()
    }
}

impl TaskEnder {
    /// `wake` must not block.
    pub fn new(
        store: Store,
        metrics: Metrics,
        wake: impl Fn(NewMessages) + Send + Sync + 'static,
    ) -> TaskEnder {
        TaskEnder { store, wake: Arc::new(wake), metrics, dropped: Arc::default() }
    }

    /// Ends the open tasks of deleted endpoints: a deletion may have been interrupted.
    pub async fn end_orphans(&self) -> Result<(), StoreError> {
        for endpoint in self.store.deleted_endpoints_with_open_tasks().await? {
            self.end_orphans_of(endpoint).await?;
        }
        Ok(())
    }

    /// Ends the open tasks of `endpoint`, which was deleted.
    pub async fn end_orphans_of(&self, endpoint: EndpointId) -> Result<(), StoreError> {
        let why = format!("Endpoint {endpoint} was deleted before the task had ended");
        self.end_open(endpoint, OpenTaskFilter::All, &why).await.map(|_| ())
    }

    /// Ends tasks with errors, unless they have ended; some in each transaction. Returns how many it ended.
    pub async fn end(&self, endings: &[Ending]) -> Result<usize, StoreError> {
        let mut ended = 0;
        for endings in endings.chunks(TOGETHER) {
            let results = endings.iter().map(|ending| ReceivedResult {
                task: ending.task,
                endpoint: ending.endpoint,
                outcome: Outcome::Failed,
                message: ending.message(),
                times: None,
            });
            ended += self.record(results.collect()).await?;
        }
        Ok(ended)
    }

    /// Ends open tasks of `endpoint` with an error that says `why`, step by step. Returns how many.
    pub async fn end_open(
        &self,
        endpoint: EndpointId,
        which: OpenTaskFilter,
        why: &str,
    ) -> Result<usize, StoreError> {
        let why: Arc<str> = why.into();
        // Tasks submitted from now on are not ended.
        let last = self.store.last_assignment().await?;
        let mut ended = 0;
        loop {
            let tasks = self.store.open_tasks(endpoint, which, last, TOGETHER).await?;
            let endings = tasks.into_iter().map(|task| Ending { endpoint, task, why: why.clone() });
            match self.end(&endings.collect::<Vec<_>>()).await? {
                0 => return Ok(ended),
                more => ended += more,
            }
        }
    }

    /// Records received results. Returns how many tasks ended.
    pub(crate) async fn record(&self, arrived: Vec<ReceivedResult>) -> Result<usize, StoreError> {
        if arrived.is_empty() {
            return Ok(0);
        }
        let mut messages = Vec::with_capacity(arrived.len());
        let mut results = Vec::with_capacity(arrived.len());
        let mut ends = Vec::with_capacity(arrived.len());
        for ReceivedResult { task, endpoint, outcome, message, times } in arrived {
            ends.push((outcome, times));
            messages.push(message.into());
            results.push(ReportedResult {
                task,
                endpoint,
                outcome,
                message: StoredContent::Inline(Bytes::new()),
            });
        }
        let mut files = Vec::new();
        for (result, kept) in results.iter_mut().zip(self.store.store_contents(messages).await?) {
            files.extend(kept.file());
            result.message = kept;
        }
        let recorded = match self.store.write(RecordResults { results, now: clock::now() }).await {
            Ok(recorded) => recorded,
            Err(error) => {
                // The endpoint sends the results again; they get new files. In an outage nobody knows yet what was committed.
                if !error.is_outage()
                    && let Err(error) = self.store.remove_unreferenced(files).await
                {
                    tracing::debug!(%error, "cannot remove files of results now; retention removes them later");
                }
                // If the database went away at the commit, it may hold the results all the same; sent again, they are late.
                (self.wake)(NewMessages::OfAny);
                return Err(error);
            }
        };
        self.store.remove_files(recorded.freed).await;
        let (mut ended, mut late, mut refused) = (0, 0, 0);
        let mut groups = Vec::new();
        for (recorded, (outcome, times)) in recorded.recorded.into_iter().zip(ends) {
            if matches!(recorded, Recorded::New { .. }) {
                ended += 1;
                self.metrics.ended(outcome, times);
            }
            match recorded {
                Recorded::New { deliver: Some(group) } => groups.push(group),
                Recorded::New { deliver: None } => {}
                Recorded::Late => late += 1,
                Recorded::Refused => refused += 1,
            }
        }
        self.metrics.dropped(late, refused);
        groups.sort_unstable();
        groups.dedup();
        for (identity, group) in groups {
            (self.wake)(NewMessages::Of(queue::client_queue(identity, group)));
        }
        let now = clock::now();
        if let Some(late) = self.dropped.late.count(late, now) {
            tracing::info!(late, "dropped results of tasks that had already ended");
        }
        if let Some(refused) = self.dropped.refused.count(refused, now) {
            tracing::warn!(
                refused,
                "dropped results of tasks that were never sent to the endpoint that reported them"
            );
        }
        Ok(ended)
    }
}

/// Ends the tasks that `endpoint` has not acknowledged while the service does not run, so that no queue must be woken.
/// Returns how many.
pub async fn end_waiting_at_rest(
    store: &Store,
    endpoint: EndpointId,
    why: &str,
) -> Result<usize, StoreError> {
    let why: Arc<str> = why.into();
    let last = store.last_assignment().await?;
    let mut ended = 0;
    loop {
        let tasks = store.open_tasks(endpoint, OpenTaskFilter::Waiting, last, TOGETHER).await?;
        let messages = tasks.iter().map(|&task| Ending { endpoint, task, why: why.clone() }.message().into());
        let kept = store.store_contents(messages.collect()).await?;
        let results = tasks.into_iter().zip(kept).map(|(task, message)| ReportedResult {
            task,
            endpoint,
            outcome: Outcome::Failed,
            message,
        });
        let record = RecordResults { results: results.collect(), now: clock::now() };
        let recorded = store.write(record).await?;
        store.remove_files(recorded.freed).await;
        match recorded.recorded.iter().filter(|it| matches!(it, Recorded::New { .. })).count() {
            0 => return Ok(ended),
            more => ended += more,
        }
    }
}

/// A received result that is not in the store yet.
pub(crate) struct ReceivedResult {
    pub(crate) task: TaskId,
    pub(crate) endpoint: EndpointId,
    pub(crate) outcome: Outcome,
    pub(crate) message: Vec<u8>,
    /// Absent if the endpoint did not report them.
    pub(crate) times: Option<Times>,
}
