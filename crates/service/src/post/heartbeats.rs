//! Heartbeats come in: endpoints are online or leave, tasks come along, and a new run of an endpoint shows that the
//! one before it is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use broker::{Answer, Handle, Published, Sink};
use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Handle as Runtime;
use wire::EndpointId;
use wire::message::StatusReport;
use wire::queue::Name;

use super::results::{Ending, Results};
use super::url::User;
use crate::ambient;
use crate::presence::{self, Presence};
use crate::store::{Progress, ReportRun, Run, Store, StoreError};
use crate::user_endpoint::Starts;

/// How long a new run may take to report what the one before it left behind.
const RECOVERY: SignedDuration = SignedDuration::from_secs(60);

/// The sink of the queue `heartbeats`. Clones share it.
#[derive(Clone)]
pub(super) struct Heartbeats(Arc<Inner>);

struct Inner {
    store: Store,
    presence: Presence,
    results: Results,
    starts: Starts,
    runs: Mutex<HashMap<EndpointId, Run>>,
    broker: Handle,
    runtime: Runtime,
}

impl Heartbeats {
    /// With the runs that the store remembers; what those before them left behind is given up in time.
    pub(super) async fn new(
        store: Store,
        presence: Presence,
        results: Results,
        starts: Starts,
        broker: Handle,
    ) -> Result<Heartbeats, StoreError> {
        let runs: HashMap<_, _> = store.runs().await?.into_iter().collect();
        let known = runs.clone();
        let runs = Mutex::new(runs);
        let inner = Inner { store, presence, results, starts, runs, broker, runtime: Runtime::current() };
        let heartbeats = Heartbeats(Arc::new(inner));
        for (endpoint, run) in known {
            heartbeats.give_up_later(endpoint, run);
        }
        Ok(heartbeats)
    }

    fn heard(&self, user: User, report: StatusReport, now: Timestamp) {
        let endpoint = report.endpoint_id;
        if let Some(run) = self.changed(user, &report, now) {
            self.remember(endpoint, run);
        }
        self.0.starts.heard(endpoint, user.number, report.life());
        self.0.presence.heard(&report, super::consumes(&self.0.broker, endpoint), now);
        let states: Vec<_> = report
            .task_statuses
            .into_iter()
            .filter_map(|(task, transitions)| Some((task, transitions.last()?.state)))
            .collect();
        if !states.is_empty() {
            let store = self.0.store.clone();
            self.0.runtime.spawn(async move {
                if let Err(error) = store.write(Progress { endpoint, states }).await {
                    tracing::warn!(%error, %endpoint, "the progress of tasks could not be written");
                }
            });
        }
    }

    /// The run that has just shown itself, if this report is the first of it.
    fn changed(&self, user: User, report: &StatusReport, now: Timestamp) -> Option<Run> {
        let name = presence::run_name(&report.global_state)?;
        let mut runs = self.0.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let known = runs.get(&report.endpoint_id);
        // A ghost may still say a last word under its old credential.
        if known.is_some_and(|known| known.name == name || user.number < known.credential) {
            return None;
        }
        let run = Run { name, credential: user.number, since: now };
        runs.insert(report.endpoint_id, run.clone());
        Some(run)
    }

    fn remember(&self, endpoint: EndpointId, run: Run) {
        tracing::info!(%endpoint, run = run.name, "an endpoint has begun a run");
        let heartbeats = self.clone();
        self.0.runtime.spawn(async move {
            // Should it fail, the next start of the service takes the next report for a new run: later, not wrong.
            if let Err(error) = heartbeats.0.store.write(ReportRun { endpoint, run: run.clone() }).await {
                tracing::warn!(%error, %endpoint, "a run could not be written");
            }
            heartbeats.give_up_later(endpoint, run);
        });
    }

    /// Once `run` has had its time, what its endpoint took under older credentials and has not ended is lost.
    fn give_up_later(&self, endpoint: EndpointId, run: Run) {
        let wait = (run.since + RECOVERY).duration_since(ambient::now());
        let heartbeats = self.clone();
        self.0.runtime.spawn(async move {
            tokio::time::sleep(wait.try_into().unwrap_or_default()).await;
            if let Err(error) = heartbeats.give_up(endpoint, &run).await {
                tracing::error!(%error, %endpoint, "the tasks of a lost run could not be ended");
            }
        });
    }

    async fn give_up(&self, endpoint: EndpointId, run: &Run) -> Result<(), StoreError> {
        let lost = self.0.store.taken_before(endpoint, run.credential).await?;
        if lost.is_empty() {
            return Ok(());
        }
        tracing::warn!(%endpoint, tasks = lost.len(), "tasks of an endpoint's earlier run are lost");
        let text = format!(
            "Task failure due to loss of endpoint {endpoint}: it took the task and was started again without reporting it"
        );
        self.0.results.end(endpoint, lost, &Ending::new(text)).await
    }
}

impl Sink for Heartbeats {
    fn accept(&self, message: Published, answer: Answer) {
        match read(&message) {
            Ok((user, report)) => self.heard(user, report, ambient::now()),
            Err(why) => tracing::warn!(user = %message.user, why, "a heartbeat was dropped"),
        }
        // Heartbeats are not kept: the next one says it all again.
        answer.safe();
    }
}

fn read(message: &Published) -> Result<(User, StatusReport), &'static str> {
    let user = User::parse(&message.user).ok_or("its sender is no user of ours")?;
    let Some(Name::HeartbeatsOf(endpoint)) = Name::parse(message.routing_key()) else {
        return Err("its routing key names no endpoint");
    };
    let report = StatusReport::decode(message.body()).map_err(|_| "it is not a status report")?;
    if report.endpoint_id != endpoint {
        return Err("it speaks for another endpoint");
    }
    Ok((user, report))
}
