//! Heartbeats come in: endpoints are online or leave, tasks come along, and a new run of an endpoint shows that the
//! one before it is over.
//!
//! ```text
//! broker --the newest of each endpoint--> waiting --each in turn--> presence, observer, runs
//!                                                      |--> what they say of tasks: one bounded statement
//!                                                      +--> confirmed
//! ```
//!
//! However fast an endpoint speaks, one of its heartbeats is handled at a time and one waits. One that a newer one has
//! overtaken is confirmed unread: the newer says it all again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::{Handle, PublishReply, Published, Sink};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use wire::EndpointId;
use wire::message::StatusReport;
use wire::queue::Name;

use super::admission::Admissions;
use super::broker_user::User;
use super::fair_queue::FairQueue;
use super::observer::EndpointObserver;
use crate::clock;
use crate::log_throttle::LogThrottle;
use crate::tasks::ending::TaskEnder;
use crate::tasks::presence::{self, Presence};
use store::{Progress, Report, Run, Store, StoreError, Which};

/// How long a new run may take to report what the one before it left behind.
const RECOVERY: SignedDuration = SignedDuration::from_secs(60);
/// Heartbeats handled together.
const TOGETHER: usize = 64;
/// The most that one may measure: stock endpoints say some kilobytes of themselves, and nothing of tasks.
const LIMIT: usize = 512 << 10;

/// The sink of the queue `heartbeats`. Clones share it.
#[derive(Clone)]
pub(super) struct Heartbeats(Arc<Inner>);

struct Inner {
    store: Store,
    presence: Presence,
    ender: TaskEnder,
    observer: Arc<dyn EndpointObserver>,
    admissions: Admissions,
    broker: Handle,
    waiting: Mutex<FairQueue<Beat>>,
    arrived: Notify,
    runs: Mutex<HashMap<EndpointId, Known>>,
    dropped: LogThrottle,
}

/// A heartbeat that waits.
struct Beat {
    endpoint: EndpointId,
    user: User,
    message: Published,
    answer: PublishReply,
}

/// The run that an endpoint has shown last.
struct Known {
    run: Run,
    /// What earlier runs left is given up by this task in time.
    watch: Option<AbortHandle>,
}

impl Heartbeats {
    /// With the runs that the store remembers; what those before them left behind is given up in time.
    pub(super) async fn new(
        store: Store,
        presence: Presence,
        ender: TaskEnder,
        observer: Arc<dyn EndpointObserver>,
        admissions: Admissions,
        broker: Handle,
    ) -> Result<Heartbeats, StoreError> {
        let known = store.runs().await?;
        let heartbeats = Heartbeats(Arc::new(Inner {
            store,
            presence,
            ender,
            observer,
            admissions,
            broker,
            waiting: Mutex::default(),
            arrived: Notify::new(),
            runs: Mutex::default(),
            dropped: LogThrottle::default(),
        }));
        for (endpoint, run) in known {
            heartbeats.begun(endpoint, run);
        }
        Ok(heartbeats)
    }

    /// Handles what arrives, for as long as the service runs.
    pub(super) async fn run(self) {
        loop {
            let arrived = self.0.arrived.notified();
            let waiting = !self.waiting().is_empty();
            if waiting {
                self.handle_some(clock::now()).await;
                // With nothing to write it has waited for nobody.
                tokio::task::yield_now().await;
            } else {
                arrived.await;
            }
        }
    }

    /// `endpoint` is no more: nothing of it is remembered.
    pub(super) fn forget(&self, endpoint: EndpointId) {
        if let Some(Known { watch: Some(watch), .. }) = self.runs().remove(&endpoint) {
            watch.abort();
        }
        self.0.presence.forget(endpoint);
    }

    /// Handles some of those that wait, and confirms them.
    async fn handle_some(&self, now: Timestamp) {
        let mut answers = Vec::new();
        let mut report = Report::default();
        while answers.len() < TOGETHER && report.progress.len() < Report::MOST {
            let Some(beat) = self.waiting().take() else { break };
            match StatusReport::decode(beat.message.body()) {
                Ok(said) if said.endpoint_id == beat.endpoint => {
                    self.heard(beat.user, said, &mut report, now)
                }
                Ok(_) => self.complain(beat.user, "it speaks for another endpoint", now),
                Err(_) => self.complain(beat.user, "it is not a status report", now),
            }
            answers.push(beat.answer);
        }
        if (!report.runs.is_empty() || !report.progress.is_empty())
            // Should it fail, the next start of the service takes the next heartbeat for a new run: later, not wrong.
            && let Err(error) = self.0.store.write(report).await
        {
            tracing::warn!(%error, "what heartbeats say could not be written");
        }
        PublishReply::all_safe(answers);
    }

    pub(super) fn heard(&self, user: User, said: StatusReport, report: &mut Report, now: Timestamp) {
        let endpoint = said.endpoint_id;
        if !self.0.admissions.admits(endpoint) {
            return;
        }
        if let Some(run) = self.changed(user, &said, now) {
            tracing::info!(%endpoint, run = run.name, "an endpoint has begun a run");
            report.runs.push((endpoint, run));
        }
        self.0.observer.reported(endpoint, user.number, said.liveness());
        self.0.presence.heard(&said, super::consumes(&self.0.broker, endpoint), now);
        if !self.0.admissions.admits(endpoint) {
            // It was deleted or locked in between.
            self.forget(endpoint);
        }
        // Of too many, those of the newest tasks.
        let room = Report::MOST - report.progress.len();
        let states = said.task_statuses.into_iter().rev().take(room);
        report.progress.extend(states.filter_map(|(task, transitions)| {
            Some(Progress { endpoint, task, state: transitions.last()?.state })
        }));
    }

    /// The run that has just shown itself, if this report is the first of it.
    fn changed(&self, user: User, said: &StatusReport, now: Timestamp) -> Option<Run> {
        let name = presence::run_name(&said.global_state)?;
        {
            let runs = self.runs();
            let known = runs.get(&said.endpoint_id).map(|it| &it.run);
            // A ghost may still say a last word under its old credential.
            if known.is_some_and(|known| known.name == name || user.number < known.credential) {
                return None;
            }
        }
        let run = Run { name, credential: user.number, since: now };
        self.begun(said.endpoint_id, run.clone());
        Some(run)
    }

    /// `endpoint` has begun `run`. One task watches over all that its earlier runs left, however many those are.
    fn begun(&self, endpoint: EndpointId, run: Run) {
        let mut runs = self.runs();
        let watch = runs.remove(&endpoint).and_then(|before| before.watch);
        let watch = watch.unwrap_or_else(|| {
            let (heartbeats, run) = (self.clone(), run.clone());
            tokio::spawn(async move { heartbeats.watch(endpoint, run).await }).abort_handle()
        });
        runs.insert(endpoint, Known { run, watch: Some(watch) });
    }

    /// Once `run` has had its time, what its endpoint took under older credentials and has not ended is lost; and so on
    /// with the run that it has begun meanwhile.
    async fn watch(&self, endpoint: EndpointId, mut run: Run) {
        loop {
            let wait = (run.since + RECOVERY).duration_since(clock::now());
            tokio::time::sleep(wait.try_into().unwrap_or_default()).await;
            if let Err(error) = self.give_up(endpoint, &run).await {
                tracing::error!(%error, %endpoint, "the tasks of a lost run could not be ended");
            }
            let mut runs = self.runs();
            match runs.get_mut(&endpoint) {
                Some(known) if known.run != run => run = known.run.clone(),
                Some(known) => {
                    known.watch = None;
                    return;
                }
                None => return,
            }
        }
    }

    async fn give_up(&self, endpoint: EndpointId, run: &Run) -> Result<(), StoreError> {
        let text = format!(
            "Task failure due to loss of endpoint {endpoint}: it took the task and was started again without reporting it"
        );
        let lost = self.0.ender.end_open(endpoint, Which::TakenBefore(run.credential), &text).await?;
        if lost > 0 {
            tracing::warn!(%endpoint, tasks = lost, "tasks of an endpoint's earlier run were lost");
        }
        Ok(())
    }

    fn complain(&self, user: impl std::fmt::Display, why: &str, now: Timestamp) {
        if let Some(count) = self.0.dropped.count(1, now) {
            tracing::warn!(%user, why, count, "heartbeats were dropped; this is the last of them");
        }
    }

    fn waiting(&self) -> MutexGuard<'_, FairQueue<Beat>> {
        // A panic while it was held cannot have left it half changed.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<EndpointId, Known>> {
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn remembers(&self, endpoint: EndpointId) -> bool {
        self.runs().contains_key(&endpoint)
    }
}

impl Sink for Heartbeats {
    fn accept(&self, message: Published, answer: PublishReply) {
        let (user, endpoint) = match sender(&message) {
            Ok(sender) => sender,
            Err(why) => {
                self.complain(&message.user, why, clock::now());
                return answer.safe();
            }
        };
        let beat = Beat { endpoint, user, message, answer };
        let before = self.waiting().replace(endpoint, beat);
        match before {
            Some(before) => before.answer.safe(),
            None => self.0.arrived.notify_one(),
        }
    }
}

/// Who has sent it, for which endpoint.
fn sender(message: &Published) -> Result<(User, EndpointId), &'static str> {
    let user = User::parse(&message.user).ok_or("its sender is no user of ours")?;
    let Some(Name::HeartbeatsOf(endpoint)) = Name::parse(message.routing_key()) else {
        return Err("its routing key names no endpoint");
    };
    if message.body().len() > LIMIT {
        return Err("it is larger than 512 KiB");
    }
    Ok((user, endpoint))
}
