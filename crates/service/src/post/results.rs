//! Results come in. Each is confirmed to its endpoint only when it is recorded, together with the message for its
//! task group: in one transaction, shared by all that wait.

use std::sync::Arc;
use std::time::Duration;

use broker::{Answer, Published, Sink};
use bytes::Bytes;
use tokio::sync::mpsc;
use wire::message::{ErrorDetails, TaskResult};
use wire::queue::{self, Name};
use wire::text::Text;
use wire::{EndpointId, TaskId};

use super::outbox::Feeder;
use crate::ambient;
use crate::figures::{Figures, Times};
use crate::store::{Kept, RecordResults, Recorded, ReportedResult, Store, StoreError};
use crate::task::Outcome;

/// Results recorded together at most.
const TOGETHER: usize = 256;
/// How long a store that failed is left alone.
const PAUSE: Duration = Duration::from_millis(500);

/// The sink of the queue `results`: hands everything to the recording task.
#[derive(Debug)]
pub(super) struct ResultSink {
    // Not bounded by itself: the broker pauses publishers whose messages wait here too long.
    arrived: mpsc::UnboundedSender<(Published, Answer)>,
}

impl ResultSink {
    pub(super) fn new() -> (Arc<ResultSink>, mpsc::UnboundedReceiver<(Published, Answer)>) {
        let (sender, arrived) = mpsc::unbounded_channel();
        (Arc::new(ResultSink { arrived: sender }), arrived)
    }
}

impl Sink for ResultSink {
    fn accept(&self, message: Published, answer: Answer) {
        // When the service stops the answer is dropped with it: a refusal, and the endpoint keeps the result.
        let _ = self.arrived.send((message, answer));
    }
}

/// Records results and tells the groups' queues. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Results {
    pub(super) store: Store,
    pub(super) deliveries: Feeder,
    pub(super) figures: Figures,
}

/// An end that the service itself puts to a task.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    text: String,
}

impl Ending {
    pub(super) fn new(text: String) -> Ending {
        Ending { text }
    }

    fn message(&self, task: TaskId) -> Vec<u8> {
        TaskResult {
            task_id: task,
            data: Text::plain(self.text.as_str()),
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
    /// Records what arrives until the service stops.
    pub(super) async fn run(self, mut arrived: mpsc::UnboundedReceiver<(Published, Answer)>) {
        let mut batch = Vec::with_capacity(TOGETHER);
        while arrived.recv_many(&mut batch, TOGETHER).await > 0 {
            let mut results = Vec::with_capacity(batch.len());
            let mut answers = Vec::with_capacity(batch.len());
            for (published, answer) in batch.drain(..) {
                // What cannot be read would not get better by being sent again.
                match read(&published) {
                    Ok(result) => results.push(result),
                    Err(why) => tracing::warn!(user = %published.user, why, "a result was dropped"),
                }
                answers.push(answer);
            }
            match self.record(results).await {
                Ok(()) => Answer::all_safe(answers),
                Err(error) => {
                    tracing::error!(%error, "results could not be recorded, their endpoints keep them");
                    drop(answers);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Ends `tasks` of `endpoint` with an error of ours, unless they have ended.
    pub(super) async fn end(
        &self,
        endpoint: EndpointId,
        tasks: Vec<TaskId>,
        ending: &Ending,
    ) -> Result<(), StoreError> {
        let results = tasks.into_iter().map(|task| Arrived {
            task,
            endpoint,
            outcome: Outcome::Failed,
            message: ending.message(task),
            times: None,
        });
        self.record(results.collect()).await
    }

    async fn record(&self, arrived: Vec<Arrived>) -> Result<(), StoreError> {
        if arrived.is_empty() {
            return Ok(());
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
        let recorded = match self.store.write(RecordResults { results, now: ambient::now() }).await {
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
        let (mut late, mut refused) = (0, 0);
        let mut groups = Vec::new();
        for (recorded, (outcome, times)) in recorded.recorded.into_iter().zip(ends) {
            if matches!(recorded, Recorded::New { .. }) {
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
        if late > 0 {
            tracing::info!(late, "results of tasks that had ended were dropped");
        }
        if refused > 0 {
            tracing::warn!(refused, "results of tasks that their sender was never sent were dropped");
        }
        Ok(())
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
