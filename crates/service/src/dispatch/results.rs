//! Results come in. Each is confirmed to its endpoint only when it is recorded, together with the message for its task group:
//! in one transaction, shared by all that wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{PublishReply, Published, Sink};
use store::tasks::state::Outcome;
use tokio::sync::Notify;
use wire::EndpointId;
use wire::message::TaskResult;
use wire::queue::Name;

use super::fair_queue::FairQueue;
use crate::clock;
use crate::log_throttle::LogThrottle;
use crate::metrics::Times;
use crate::tasks::ending::{Arrived, TOGETHER, TaskEnder};

/// Bytes of results recorded together.
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

/// Records what arrives, for as long as the service runs.
pub(super) async fn run(ender: TaskEnder, sink: ResultSink) {
    let unread = LogThrottle::default();
    loop {
        let batch = sink.next().await;
        let mut results = Vec::with_capacity(batch.len());
        let mut answers = Vec::with_capacity(batch.len());
        for (published, answer) in batch {
            // What cannot be read would not get better by being sent again.
            match read(&published) {
                Ok(result) => results.push(result),
                Err(why) => {
                    if let Some(count) = unread.count(1, clock::now()) {
                        let user = &published.user;
                        tracing::warn!(%user, why, count, "results were dropped; this is the last of them");
                    }
                }
            }
            answers.push(answer);
        }
        match ender.record(results).await {
            Ok(_) => PublishReply::all_safe(answers),
            Err(error) => {
                tracing::error!(%error, "results could not be recorded, their endpoints keep them");
                drop(answers);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
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
