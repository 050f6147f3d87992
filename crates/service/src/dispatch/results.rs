//! Results come in. Each is confirmed to its endpoint only when it is recorded, together with the message for its
//! task group: in one transaction, shared by all that wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{PublishReply, Published, Sink};
use bytes::Bytes;
use tokio::sync::Notify;
use wire::Text;
use wire::message::{ErrorDetails, TaskResult};
use wire::queue::{self, Name};
use wire::{EndpointId, TaskId};

use super::fair_queue::FairQueue;
use super::log_throttle::LogThrottle;
use super::outbox::Feeder;
use crate::clock;
use crate::metrics::{Figures, Times};
use store::tasks::state::Outcome;
use store::{Kept, RecordResults, Recorded, ReportedResult, Store, StoreError, Which};

/// Results recorded together at most, and bytes of them.
const TOGETHER: usize = 256;
const BYTES: usize = 4 << 20;
/// How long a store that failed is left alone.
const PAUSE: Duration = Duration::from_millis(500);

/// The sink of the queue `results`: what has arrived and waits for the recording task, each endpoint's in its turn.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct ResultSink(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    // Not bounded by itself: the broker pauses publishers whose messages wait here too long.
    turns: Mutex<FairQueue<(Published, PublishReply)>>,
    arrived: Notify,
}

impl ResultSink {
    /// The next ones, at most [`TOGETHER`] and about [`BYTES`]; waits for the first.
    async fn next(&self) -> Vec<(Published, PublishReply)> {
        loop {
            let arrived = self.0.arrived.notified();
            let mut batch = Vec::new();
            {
                let mut turns = self.turns();
                let mut bytes = 0;
                while batch.len() < TOGETHER
                    && bytes < BYTES
                    && let Some((message, answer)) = turns.take()
                {
                    bytes += message.body().len();
                    batch.push((message, answer));
                }
            }
            if !batch.is_empty() {
                return batch;
            }
            arrived.await;
        }
    }

    fn turns(&self) -> MutexGuard<'_, FairQueue<(Published, PublishReply)>> {
        // A panic while it was held cannot have left it half changed.
        self.0.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for ResultSink {
    fn accept(&self, message: Published, answer: PublishReply) {
        // Its permission was looked at: an endpoint publishes under its own keys. Others', if any, share a turn.
        let endpoint = match Name::parse(message.routing_key()) {
            Some(Name::ResultsOf(endpoint)) => endpoint,
            _ => EndpointId::from_uuid(uuid::Uuid::nil()),
        };
        // When the service stops the answer is dropped with it: a refusal, and the endpoint keeps the result.
        self.turns().push(endpoint, (message, answer));
        self.0.arrived.notify_one();
    }
}

/// Records results and tells the groups' queues. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Results {
    pub(super) store: Store,
    pub(super) deliveries: Feeder,
    pub(super) figures: Figures,
    pub(super) dropped: Arc<Dropped>,
}

/// What is said of results that change nothing.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    unread: LogThrottle,
    late: LogThrottle,
    refused: LogThrottle,
}

/// An end that the service itself puts to a task.
#[derive(Clone, Debug)]
pub struct Ending {
    pub endpoint: EndpointId,
    pub task: TaskId,
    /// What the task's owner is told.
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

impl Results {
    /// Records what arrives, for as long as the service runs.
    pub(super) async fn run(self, sink: ResultSink) {
        loop {
            let batch = sink.next().await;
            let mut results = Vec::with_capacity(batch.len());
            let mut answers = Vec::with_capacity(batch.len());
            for (published, answer) in batch {
                // What cannot be read would not get better by being sent again.
                match read(&published) {
                    Ok(result) => results.push(result),
                    Err(why) => {
                        if let Some(count) = self.dropped.unread.count(1, clock::now()) {
                            let user = &published.user;
                            tracing::warn!(%user, why, count, "results were dropped; this is the last of them");
                        }
                    }
                }
                answers.push(answer);
            }
            match self.record(results).await {
                Ok(_) => PublishReply::all_safe(answers),
                Err(error) => {
                    tracing::error!(%error, "results could not be recorded, their endpoints keep them");
                    drop(answers);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Ends tasks with errors of ours, unless they have ended: some in each transaction. Answers how many it ended.
    pub(super) async fn end(&self, endings: &[Ending]) -> Result<usize, StoreError> {
        let mut ended = 0;
        for endings in endings.chunks(TOGETHER) {
            let results = endings.iter().map(|ending| Arrived {
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

    /// Ends open tasks of `endpoint` with an error that says `why`, step by step. Answers how many those were.
    pub(super) async fn end_open(
        &self,
        endpoint: EndpointId,
        which: Which,
        why: &str,
    ) -> Result<usize, StoreError> {
        let why: Arc<str> = why.into();
        // What is submitted from now on is another matter.
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

    /// Answers how many tasks have ended by these.
    async fn record(&self, arrived: Vec<Arrived>) -> Result<usize, StoreError> {
        if arrived.is_empty() {
            return Ok(0);
        }
        let mut messages = Vec::with_capacity(arrived.len());
        let mut results = Vec::with_capacity(arrived.len());
        let mut ends = Vec::with_capacity(arrived.len());
        for Arrived { task, endpoint, outcome, message, times } in arrived {
            ends.push((outcome, times));
            messages.push(message.into());
            results.push(ReportedResult { task, endpoint, outcome, message: Kept::Here(Bytes::new()) });
        }
        let mut files = Vec::new();
        for (result, kept) in results.iter_mut().zip(self.store.keep(messages).await?) {
            files.extend(kept.file());
            result.message = kept;
        }
        let recorded = match self.store.write(RecordResults { results, now: clock::now() }).await {
            Ok(recorded) => recorded,
            Err(error) => {
                // The endpoint sends them again, to files of other names.
                if let Err(error) = self.store.collect(files).await {
                    tracing::debug!(%error, "files of results are left for the next collection");
                }
                return Err(error);
            }
        };
        self.store.remove(recorded.freed).await;
        let (mut ended, mut late, mut refused) = (0, 0, 0);
        let mut groups = Vec::new();
        for (recorded, (outcome, times)) in recorded.recorded.into_iter().zip(ends) {
            if matches!(recorded, Recorded::New { .. }) {
                ended += 1;
                self.figures.ended(outcome, times);
            }
            match recorded {
                Recorded::New { deliver: Some(group) } => groups.push(group),
                Recorded::New { deliver: None } => {}
                Recorded::Late => late += 1,
                Recorded::Refused => refused += 1,
            }
        }
        self.figures.dropped(late, refused);
        groups.sort_unstable();
        groups.dedup();
        for (identity, group) in groups {
            self.deliveries.wake(queue::client_queue(identity, group));
        }
        let now = clock::now();
        if let Some(late) = self.dropped.late.count(late, now) {
            tracing::info!(late, "results of tasks that had ended were dropped");
        }
        if let Some(refused) = self.dropped.refused.count(refused, now) {
            tracing::warn!(refused, "results of tasks that their sender was never sent were dropped");
        }
        Ok(ended)
    }
}

/// Ends the tasks that `endpoint` has not acknowledged while the service doesn't run: nobody waits to be told. Answers how
/// many those were.
pub async fn end_waiting_at_rest(
    store: &Store,
    endpoint: EndpointId,
    why: &str,
) -> Result<usize, StoreError> {
    let why: Arc<str> = why.into();
    let last = store.last_assignment().await?;
    let mut ended = 0;
    loop {
        let tasks = store.open_tasks(endpoint, Which::Waiting, last, TOGETHER).await?;
        let messages = tasks.iter().map(|&task| Ending { endpoint, task, why: why.clone() }.message().into());
        let kept = store.keep(messages.collect()).await?;
        let results = tasks.into_iter().zip(kept).map(|(task, message)| ReportedResult {
            task,
            endpoint,
            outcome: Outcome::Failed,
            message,
        });
        let record = RecordResults { results: results.collect(), now: clock::now() };
        let recorded = store.write(record).await?;
        store.remove(recorded.freed).await;
        match recorded.recorded.iter().filter(|it| matches!(it, Recorded::New { .. })).count() {
            0 => return Ok(ended),
            more => ended += more,
        }
    }
}

/// A result on its way into the store.
struct Arrived {
    task: TaskId,
    endpoint: EndpointId,
    outcome: Outcome,
    message: Vec<u8>,
    /// As far as the endpoint has told.
    times: Option<Times>,
}

fn read(published: &Published) -> Result<Arrived, &'static str> {
    let Some(Name::ResultsOf(endpoint)) = Name::parse(published.routing_key()) else {
        return Err("its routing key names no endpoint");
    };
    let result = TaskResult::decode(published.body()).map_err(|_| "it is not a result")?;
    let times = result.task_statuses.as_ref().and_then(|it| Times::of(result.task_id, it));
    Ok(Arrived {
        task: result.task_id,
        endpoint,
        outcome: if result.is_error() { Outcome::Failed } else { Outcome::Succeeded },
        message: published.body().to_vec(),
        times,
    })
}
