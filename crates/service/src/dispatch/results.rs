//! Receives results from endpoints. A result is confirmed once it and the message for its task group are recorded, in one
//! transaction that waiting results share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{PublishReply, Published, Sink};
use store::outage_log;
use store::tasks::state::Outcome;
use tokio::sync::Notify;
use wire::EndpointId;
use wire::message::TaskResult;
use wire::queue::Name;

use super::fair_queue::FairQueue;
use crate::clock;
use crate::log_throttle::LogThrottle;
use crate::metrics::Times;
use crate::tasks::ending::{ReceivedResult, TOGETHER, TaskEnder};

/// The most bytes of results in one transaction.
const BYTES: usize = 4 << 20;
/// The pause after the store failed.
const PAUSE: Duration = Duration::from_millis(500);

/// The sink of the queue `results`: holds results until they are recorded, and takes from each endpoint in turn.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct ResultSink(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    // Not bounded here: the broker pauses publishers whose messages wait too long.
    turns: Mutex<FairQueue<(Published, PublishReply)>>,
    arrived: Notify,
}

impl ResultSink {
    /// Takes the next results, at most [`TOGETHER`] and about [`BYTES`]; waits for the first.
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
        // The permission was checked: an endpoint publishes under its own keys. Messages with other keys share a turn.
        let endpoint = match Name::parse(message.routing_key()) {
            Some(Name::ResultsOf(endpoint)) => endpoint,
            _ => EndpointId::from_uuid(uuid::Uuid::nil()),
        };
        // When the service stops, the dropped answer refuses the message, and the endpoint keeps the result.
        self.turns().push(endpoint, (message, answer));
        self.0.arrived.notify_one();
    }
}

/// Records results as long as the service runs.
pub(super) async fn run(ender: TaskEnder, sink: ResultSink) {
    let unread = LogThrottle::default();
    loop {
        let batch = sink.next().await;
        let mut results = Vec::with_capacity(batch.len());
        let mut answers = Vec::with_capacity(batch.len());
        for (published, answer) in batch {
            // An unreadable message is confirmed: sending it again would not help.
            match read(&published) {
                Ok(result) => results.push(result),
                Err(why) => {
                    if let Some(count) = unread.count(1, clock::now()) {
                        let user = &published.user;
                        tracing::warn!(%user, why, count, "dropped invalid results; `why` is the reason of the last");
                    }
                }
            }
            answers.push(answer);
        }
        match ender.record(results).await {
            Ok(_) => PublishReply::all_safe(answers),
            Err(error) => {
                if !outage_log::logs(&error) {
                    tracing::error!(%error, "cannot record results; their endpoints keep them");
                }
                drop(answers);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn read(published: &Published) -> Result<ReceivedResult, &'static str> {
    let Some(Name::ResultsOf(endpoint)) = Name::parse(published.routing_key()) else {
        return Err("its routing key names no endpoint");
    };
    let result = TaskResult::decode(published.body()).map_err(|_| "it is not a result")?;
    let times = result.task_statuses.as_ref().and_then(|it| Times::of(result.task_id, it));
    Ok(ReceivedResult {
        task: result.task_id,
        endpoint,
        outcome: if result.is_error() { Outcome::Failed } else { Outcome::Succeeded },
        message: published.body().to_vec(),
        times,
    })
}
