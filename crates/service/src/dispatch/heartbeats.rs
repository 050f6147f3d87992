//! Receives heartbeats: endpoints report that they are online or stop, and how far their tasks are. A new run of an
//! endpoint shows that the earlier one has ended.
//!
//! ```text
//! broker --the newest of each endpoint--> waiting --each in turn--> presence, observer, runs
//!                                                      |--> states of tasks: one bounded statement
//!                                                      +--> confirmed
//! ```
//!
//! However fast an endpoint sends, one of its heartbeats is handled at a time and one waits. A waiting one is replaced by
//! the next and confirmed unread, because the next repeats all of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{Handle, PublishReply, Published, Sink};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use wire::EndpointId;
use wire::extensions::End;
use wire::message::{Liveness, StatusReport};
use wire::queue::Name;

use super::admission::Admissions;
use super::broker_user::User;
use super::fair_queue::FairQueue;
use super::observer::EndpointObserver;
use crate::clock;
use crate::log_throttle::LogThrottle;
use crate::tasks::ending::TaskEnder;
use crate::tasks::presence::{self, Presence};
use store::{EndReason, OpenTaskFilter, Progress, Report, Run, Store, StoreError, outage_log};

/// How long a new run may take to report the tasks of the run before it.
const RECOVERY: SignedDuration = SignedDuration::from_secs(60);
/// The pause after the store failed.
const PAUSE: Duration = Duration::from_secs(1);
/// The most heartbeats handled at a time.
const TOGETHER: usize = 64;
/// The most that is kept of the reason for an end, in characters.
const LONGEST_REASON: usize = 1_000;
/// The largest heartbeat: those of stock endpoints have some kilobytes and no states of tasks.
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
    waiting: Mutex<FairQueue<WaitingHeartbeat>>,
    arrived: Notify,
    runs: Mutex<HashMap<EndpointId, LastRun>>,
    dropped: LogThrottle,
}

/// A heartbeat that waits to be handled.
struct WaitingHeartbeat {
    endpoint: EndpointId,
    user: User,
    message: Published,
    answer: PublishReply,
}

/// The last run that an endpoint reported.
struct LastRun {
    run: Run,
    /// The task that ends what earlier runs left, after [`RECOVERY`].
    watch: Option<AbortHandle>,
}

impl Heartbeats {
    /// Starts with the stored runs; tasks of earlier runs are ended after [`RECOVERY`].
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
            heartbeats.begin_run(endpoint, run);
        }
        Ok(heartbeats)
    }

    /// Handles heartbeats as long as the service runs.
    pub(super) async fn run(self) {
        loop {
            let arrived = self.0.arrived.notified();
            let waiting = !self.waiting().is_empty();
            if waiting {
                self.handle_some(clock::now()).await;
                // With nothing to write it has not yielded yet.
                tokio::task::yield_now().await;
            } else {
                arrived.await;
            }
        }
    }

    /// Forgets a deleted endpoint.
    pub(super) fn forget(&self, endpoint: EndpointId) {
        if let Some(LastRun { watch: Some(watch), .. }) = self.runs().remove(&endpoint) {
            watch.abort();
        }
        self.0.presence.forget(endpoint);
    }

    /// Handles some of the waiting heartbeats, and confirms them.
    async fn handle_some(&self, now: Timestamp) {
        let mut answers = Vec::new();
        let mut report = Report::default();
        while answers.len() < TOGETHER && report.progress.len() < Report::MOST {
            let Some(beat) = self.waiting().take() else { break };
            match StatusReport::decode(beat.message.body()) {
                Ok(status) if status.endpoint_id == beat.endpoint => {
                    self.record(beat.user, status, &mut report, now)
                }
                Ok(_) => self.log_dropped(beat.user, "it is for another endpoint", now),
                Err(_) => self.log_dropped(beat.user, "it is not a status report", now),
            }
            answers.push(beat.answer);
        }
        if (!report.runs.is_empty() || !report.ends.is_empty() || !report.progress.is_empty())
            // If this fails, the next start of the service takes the next heartbeat for a new run, which is harmless.
            && let Err(error) = self.0.store.write(report).await
            && !outage_log::logs(&error)
        {
            tracing::warn!(%error, "cannot write what heartbeats reported");
        }
        PublishReply::all_safe(answers);
    }

    pub(super) fn record(&self, user: User, status: StatusReport, report: &mut Report, now: Timestamp) {
        let endpoint = status.endpoint_id;
        if !self.0.admissions.admits(endpoint) {
            return;
        }
        if let Some(run) = self.begun_run(user, &status, now) {
            tracing::info!(%endpoint, run = run.name, "an endpoint began a new run");
            report.runs.push((endpoint, run));
        }
        let liveness = status.liveness();
        if let Some(reason) = end_reason(&status, &liveness) {
            report.ends.push((endpoint, EndReason { reason, at: now }));
        }
        self.0.observer.reported(endpoint, user.number, liveness);
        self.0.presence.record(&status, super::consumes(&self.0.broker, endpoint), now);
        if !self.0.admissions.admits(endpoint) {
            // It was deleted or locked meanwhile.
            self.forget(endpoint);
        }
        // If there are too many, those of the newest tasks.
        let room = Report::MOST - report.progress.len();
        let states = status.task_statuses.into_iter().rev().take(room);
        report.progress.extend(states.filter_map(|(task, transitions)| {
            Some(Progress { endpoint, task, state: transitions.last()?.state })
        }));
    }

    /// The new run, if this report is its first.
    fn begun_run(&self, user: User, status: &StatusReport, now: Timestamp) -> Option<Run> {
        let name = presence::run_name(&status.global_state)?;
        {
            let runs = self.runs();
            let known = runs.get(&status.endpoint_id).map(|it| &it.run);
            // The ended run's last heartbeat, under its old credential, may come late.
            if known.is_some_and(|known| known.name == name || user.number < known.credential) {
                return None;
            }
        }
        let run = Run { name, credential: user.number, since: now };
        self.begin_run(status.endpoint_id, run.clone());
        Some(run)
    }

    /// Records that `endpoint` began `run`. One background task ends what all its earlier runs left.
    fn begin_run(&self, endpoint: EndpointId, run: Run) {
        let mut runs = self.runs();
        let watch = runs.remove(&endpoint).and_then(|before| before.watch);
        let watch = watch.unwrap_or_else(|| {
            let (heartbeats, run) = (self.clone(), run.clone());
            tokio::spawn(async move { heartbeats.watch(endpoint, run).await }).abort_handle()
        });
        runs.insert(endpoint, LastRun { run, watch: Some(watch) });
    }

    /// [`RECOVERY`] after the start of `run`, ends the open tasks that the endpoint took under older credentials. Goes on
    /// with the run that the endpoint began meanwhile, if any.
    async fn watch(&self, endpoint: EndpointId, mut run: Run) {
        loop {
            let wait = (run.since + RECOVERY).duration_since(clock::now());
            tokio::time::sleep(wait.try_into().unwrap_or_default()).await;
            if let Err(error) = self.end_lost_tasks(endpoint, &run).await {
                if !outage_log::logs(&error) {
                    tracing::error!(%error, %endpoint, "cannot end the tasks of an earlier run; trying again");
                }
                // Nobody else ends them.
                tokio::time::sleep(PAUSE).await;
                continue;
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

    async fn end_lost_tasks(&self, endpoint: EndpointId, run: &Run) -> Result<(), StoreError> {
        let text = format!(
            "Task failure due to loss of endpoint {endpoint}: it took the task and was started again without reporting it"
        );
        let lost =
            self.0.ender.end_open(endpoint, OpenTaskFilter::TakenBefore(run.credential), &text).await?;
        if lost > 0 {
            tracing::warn!(%endpoint, tasks = lost, "ended tasks that an endpoint's earlier run took and did not report");
        }
        Ok(())
    }

    fn log_dropped(&self, user: impl std::fmt::Display, why: &str, now: Timestamp) {
        if let Some(count) = self.0.dropped.count(1, now) {
            tracing::warn!(%user, why, count, "dropped invalid heartbeats; `why` is the reason of the last");
        }
    }

    fn waiting(&self) -> MutexGuard<'_, FairQueue<WaitingHeartbeat>> {
        // A panic while it was held cannot have left it half changed.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<EndpointId, LastRun>> {
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
                self.log_dropped(&message.user, why, clock::now());
                return answer.safe();
            }
        };
        let beat = WaitingHeartbeat { endpoint, user, message, answer };
        let before = self.waiting().replace(endpoint, beat);
        match before {
            Some(before) => before.answer.safe(),
            None => self.0.arrived.notify_one(),
        }
    }
}

/// Why the endpoint has ended, if this is its last report.
fn end_reason(status: &StatusReport, liveness: &Liveness) -> Option<String> {
    let reason = match liveness {
        Liveness::FailedToStart(why) => why.clone(),
        Liveness::Offline => match End::of(&status.global_state) {
            Some(end) => end.reason,
            None => "It was stopped".to_owned(),
        },
        Liveness::Online { .. } | Liveness::SettingUp { .. } => return None,
    };
    Some(reason.chars().take(LONGEST_REASON).collect())
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
