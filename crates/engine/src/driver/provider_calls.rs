//! The driver's calls to the provider: submits, polls and cancels blocks.
//!
//! Each call is an async task of its own, because a scheduler may take minutes to answer. It leads to a
//! [`BlockEvent`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::core::{BlockEnd, ExitReport};
use crate::exit_report;
use crate::provider::{CancelError, Job, JobId, JobState, Provider, SubmitError};

/// How long the provider may take to cancel the blocks when the engine stops.
const CANCEL_LIMIT: Duration = Duration::from_secs(5);

/// How often in a row the scheduler must say that it does not know a job before the engine believes it: its tables
/// lag.
const DENIALS: u32 = 2;

/// The pause between two requests while the engine stops.
const SHORT_PAUSE: Duration = Duration::from_millis(100);

/// How often a request is repeated, with pauses that double.
#[derive(Clone, Copy, Debug)]
struct Retry {
    tries: u32,
    first_pause: Duration,
}

const RETRY: Retry = Retry { tries: 6, first_pause: Duration::from_secs(1) };

impl Retry {
    fn pause(self, attempt: u32) -> Duration {
        self.first_pause * 2u32.saturating_pow(attempt.saturating_sub(1))
    }
}

/// What a call has led to.
#[derive(Debug)]
pub(super) enum BlockEvent {
    Submitted {
        block: u32,
        job: JobId,
    },
    Ended {
        block: u32,
        end: BlockEnd,
    },
    /// The states of all blocks were read; the scheduler did not know the jobs of these.
    Polled {
        unknown: HashSet<u32>,
    },
}

pub(super) struct ProviderCalls {
    provider: Arc<dyn Provider>,
    events: mpsc::UnboundedSender<BlockEvent>,
    inbox: mpsc::UnboundedReceiver<BlockEvent>,
    /// By block.
    jobs: HashMap<u32, JobId>,
    /// Blocks whose submission has not been answered yet.
    submitting: HashSet<u32>,
    /// Blocks whose job the scheduler did not know at the last poll.
    unknown: HashSet<u32>,
    /// Cancellations under way; the engine does not stop before they are done.
    cancelling: JoinSet<()>,
    polling: Option<JoinHandle<()>>,
    /// Whether the engine stops.
    stopping: watch::Sender<bool>,
}

impl ProviderCalls {
    pub(super) fn new(provider: Arc<dyn Provider>) -> Self {
        let (events, inbox) = mpsc::unbounded_channel();
        Self {
            provider,
            events,
            inbox,
            jobs: HashMap::new(),
            submitting: HashSet::new(),
            unknown: HashSet::new(),
            cancelling: JoinSet::new(),
            polling: None,
            stopping: watch::Sender::new(false),
        }
    }

    /// Woken when the state of a job may have changed.
    pub(super) fn changed(&self) -> Arc<Notify> {
        self.provider.changed()
    }

    pub(super) fn status_period(&self) -> Duration {
        self.provider.status_period()
    }

    pub(super) fn queue(&self) -> Option<String> {
        self.provider.queue().map(str::to_owned)
    }

    pub(super) fn account(&self) -> Option<String> {
        self.provider.account().map(str::to_owned)
    }

    pub(super) fn job_of(&self, block: u32) -> Option<&JobId> {
        self.jobs.get(&block)
    }

    /// The next event, for [`Self::record`].
    pub(super) async fn next(&mut self) -> Option<BlockEvent> {
        self.inbox.recv().await
    }

    /// Records an event, and returns the block that it has ended. A started block that is not `wanted` any more is
    /// cancelled.
    pub(super) fn record(
        &mut self,
        event: BlockEvent,
        wanted: impl Fn(u32) -> bool,
    ) -> Option<(u32, BlockEnd)> {
        match event {
            BlockEvent::Submitted { block, job } => {
                tracing::info!(block, job = job.0, "block started");
                self.submitting.remove(&block);
                self.jobs.insert(block, job);
                if !wanted(block) {
                    self.cancel(&[block]);
                }
                None
            }
            BlockEvent::Ended { block, end } => {
                let submitting = self.submitting.remove(&block);
                // Reported twice when two polls overlapped: the first counts.
                (self.jobs.remove(&block).is_some() || submitting).then_some((block, end))
            }
            BlockEvent::Polled { unknown } => {
                self.unknown = unknown;
                None
            }
        }
    }

    pub(super) fn submit(&mut self, block: u32, job: Job) {
        self.submitting.insert(block);
        let (provider, events) = (Arc::clone(&self.provider), self.events.clone());
        let mut stopping = self.stopping.subscribe();
        tokio::spawn(async move {
            let event = match submit(&*provider, &job, RETRY, &mut stopping).await {
                Ok(job) => BlockEvent::Submitted { block, job },
                Err(error) => {
                    let message = Some(format!("Failed to start block {block}: {error}"));
                    let end = BlockEnd::Missing(ExitReport { message, ..ExitReport::default() });
                    BlockEvent::Ended { block, end }
                }
            };
            let _ = events.send(event); // the engine has stopped
        });
    }

    pub(super) fn cancel(&mut self, blocks: &[u32]) {
        let jobs: Vec<_> = blocks.iter().filter_map(|block| self.jobs.remove(block)).collect();
        let provider = Arc::clone(&self.provider);
        self.cancelling.spawn(async move { cancel(&*provider, jobs, RETRY).await });
        while self.cancelling.try_join_next().is_some() {}
    }

    /// Asks for the state of every job by one request, and not again before it is answered.
    pub(super) fn poll(&mut self) {
        if self.jobs.is_empty() || self.polling.as_ref().is_some_and(|polling| !polling.is_finished()) {
            return;
        }
        let (provider, events) = (Arc::clone(&self.provider), self.events.clone());
        let jobs: Vec<(u32, JobId)> = self.jobs.iter().map(|(block, job)| (*block, job.clone())).collect();
        let unknown_before = self.unknown.clone();
        self.polling = Some(tokio::spawn(async move {
            let ids: Vec<_> = jobs.iter().map(|(_, job)| job.clone()).collect();
            let mut states = match provider.status(&ids).await {
                Ok(states) => states,
                Err(error) => return tracing::warn!(%error, "cannot read the states of blocks"),
            };
            let mut unknown = HashSet::new();
            for (block, job) in jobs {
                let known_before = !unknown_before.contains(&block);
                match states.remove(&job) {
                    Some(JobState::Gone) if known_before => drop(unknown.insert(block)),
                    // Reads the job's output, from a file system that may stall.
                    Some(state) => {
                        let end =
                            tokio::task::spawn_blocking(move || exit_report::read_block_end(state)).await;
                        if let Ok(Some(end)) = end {
                            let _ = events.send(BlockEvent::Ended { block, end }); // the engine has stopped
                        }
                    }
                    // The answer says nothing of it, so nothing has changed.
                    None if known_before => {}
                    None => drop(unknown.insert(block)),
                }
            }
            let _ = events.send(BlockEvent::Polled { unknown }); // the engine has stopped
        }));
    }

    /// Cancels every block, because the engine stops.
    pub(super) async fn cancel_all(mut self) {
        self.stopping.send_replace(true);
        let cancelled = async {
            cancel(&*self.provider, self.jobs.drain().map(|(_, job)| job).collect(), RETRY).await;
            while self.cancelling.join_next().await.is_some() {}
            // A submission under way can't be called back, but its job can be cancelled.
            while !self.submitting.is_empty() {
                match self.inbox.recv().await {
                    Some(BlockEvent::Submitted { block, job }) => {
                        self.submitting.remove(&block);
                        cancel(&*self.provider, vec![job], RETRY).await;
                    }
                    Some(BlockEvent::Ended { block, .. }) => drop(self.submitting.remove(&block)),
                    Some(BlockEvent::Polled { .. }) => {}
                    None => return,
                }
            }
        };
        if timeout(CANCEL_LIMIT, cancelled).await.is_err() {
            tracing::warn!("the provider did not cancel every block in time");
        }
    }
}

/// Submits a job, with retries where they may help. The error is the scheduler's last one.
async fn submit(
    provider: &dyn Provider,
    job: &Job,
    retry: Retry,
    stopping: &mut watch::Receiver<bool>,
) -> Result<JobId, String> {
    let mut attempt = 1;
    loop {
        let reason = match provider.submit(job.clone()).await {
            Ok(id) => return Ok(id),
            Err(SubmitError::Refused(reason)) => return Err(reason),
            Err(SubmitError::TryAgain(reason)) => reason,
            Err(SubmitError::Unknown(reason)) => match find(provider, &job.name, stopping).await {
                Some(id) => return Ok(id),
                None => reason,
            },
        };
        if attempt >= retry.tries || *stopping.borrow() {
            return Err(reason);
        }
        tracing::warn!(job = job.name, attempt, reason, "a block was not submitted; trying again");
        pause(retry.pause(attempt), stopping).await;
        attempt += 1;
    }
}

/// The job of a submission that was not answered, if there is one.
async fn find(provider: &dyn Provider, name: &str, stopping: &mut watch::Receiver<bool>) -> Option<JobId> {
    let mut denials = 0;
    // An error means that the engine, which would use the answer, has stopped.
    while stopping.has_changed().is_ok() {
        match provider.find(name).await {
            Ok(Some(id)) => return Some(id),
            Ok(None) => denials += 1,
            Err(error) => tracing::warn!(job = name, %error, "cannot find out whether a block was submitted"),
        }
        if denials >= DENIALS {
            break;
        }
        pause(provider.status_period(), stopping).await;
    }
    None
}

/// Waits for `length`, or only briefly if the engine stops.
async fn pause(length: Duration, stopping: &mut watch::Receiver<bool>) {
    let leaves = async { drop(stopping.wait_for(|stopping| *stopping).await) };
    if timeout(length, leaves).await.is_ok() {
        sleep(length.min(SHORT_PAUSE)).await;
    }
}

/// Cancels jobs, with retries.
async fn cancel(provider: &dyn Provider, mut jobs: Vec<JobId>, retry: Retry) {
    for attempt in 1..=retry.tries {
        if jobs.is_empty() {
            return;
        }
        let Err(CancelError { jobs: left, reason }) = provider.cancel(&jobs).await else { return };
        let names = left.iter().map(|job| job.0.as_str()).collect::<Vec<_>>().join(", ");
        if attempt == retry.tries {
            tracing::error!(jobs = names, reason, "jobs were not cancelled; cancel them by hand");
            return;
        }
        tracing::warn!(jobs = names, attempt, reason, "jobs were not cancelled; trying again");
        jobs = left;
        sleep(retry.pause(attempt)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;
    use crate::provider::{ProviderFuture, QueryError, Secret, Staging, StagingKind};

    /// A provider with scripted answers; when none is left, every call succeeds.
    #[derive(Default)]
    struct Scripted {
        submits: Mutex<VecDeque<SubmitError>>,
        finds: Mutex<VecDeque<Result<Option<JobId>, QueryError>>>,
        cancels: Mutex<VecDeque<CancelError>>,
        states: Mutex<VecDeque<Result<JobState, QueryError>>>,
        calls: Mutex<Vec<String>>,
    }

    fn id() -> JobId {
        JobId("1".into())
    }

    impl Scripted {
        fn note(&self, call: impl Into<String>) {
            self.calls.lock().unwrap().push(call.into());
        }

        fn calls(&self) -> String {
            self.calls.lock().unwrap().join(" ")
        }
    }

    impl Provider for Scripted {
        fn submit(&self, _: Job) -> ProviderFuture<'_, Result<JobId, SubmitError>> {
            self.note("submit");
            let answer = self.submits.lock().unwrap().pop_front();
            Box::pin(async move { answer.map_or(Ok(id()), Err) })
        }

        fn status<'a>(
            &'a self,
            jobs: &'a [JobId],
        ) -> ProviderFuture<'a, Result<HashMap<JobId, JobState>, QueryError>> {
            self.note("status");
            let answer = self.states.lock().unwrap().pop_front().unwrap_or(Ok(JobState::Running));
            Box::pin(async move { Ok(HashMap::from_iter([(jobs[0].clone(), answer?)])) })
        }

        fn find<'a>(&'a self, _: &'a str) -> ProviderFuture<'a, Result<Option<JobId>, QueryError>> {
            self.note("find");
            let answer = self.finds.lock().unwrap().pop_front().unwrap_or(Ok(None));
            Box::pin(async move { answer })
        }

        fn cancel<'a>(&'a self, jobs: &'a [JobId]) -> ProviderFuture<'a, Result<(), CancelError>> {
            self.note(format!("cancel:{}", jobs.len()));
            let answer = self.cancels.lock().unwrap().pop_front();
            Box::pin(async move { answer.map_or(Ok(()), Err) })
        }

        fn staging(&self) -> StagingKind {
            StagingKind::Secret
        }

        fn status_period(&self) -> Duration {
            Duration::from_millis(1)
        }

        fn changed(&self) -> Arc<Notify> {
            Arc::default()
        }
    }

    fn job() -> Job {
        let staging = Staging::Secret(Secret::new(String::new()));
        Job { name: "block".into(), node_command: Vec::new(), staging }
    }

    const QUICK: Retry = Retry { tries: 3, first_pause: Duration::from_millis(1) };

    #[tokio::test]
    async fn a_submit_is_repeated_only_when_there_is_no_job() {
        let refused = || SubmitError::Refused("no such queue".into());
        let again = || SubmitError::TryAgain("busy".into());
        let lost = || SubmitError::Unknown("timed out".into());
        let down = || Err(QueryError("down".into()));
        for (submits, finds, calls, result) in [
            (vec![refused()], vec![], "submit", Err("no such queue".to_owned())),
            (vec![again(), again()], vec![], "submit submit submit", Ok(id())),
            (vec![again(), again(), again()], vec![], "submit submit submit", Err("busy".to_owned())),
            (vec![lost()], vec![Ok(Some(JobId("7".into())))], "submit find", Ok(JobId("7".into()))),
            (vec![lost()], vec![down(), Ok(None), Ok(Some(id()))], "submit find find find", Ok(id())),
            (vec![lost()], vec![Ok(None), Ok(None)], "submit find find submit", Ok(id())),
        ] {
            let provider = Scripted {
                submits: Mutex::new(submits.into()),
                finds: Mutex::new(finds.into()),
                ..Scripted::default()
            };
            let stopping = watch::Sender::new(false);
            let submitted = submit(&provider, &job(), QUICK, &mut stopping.subscribe()).await;
            assert_eq!((provider.calls().as_str(), submitted), (calls, result));
        }
    }

    #[tokio::test]
    async fn jobs_that_were_not_cancelled_are_cancelled_again() {
        let left = CancelError { jobs: vec![id()], reason: "down".into() };
        let provider = Scripted { cancels: Mutex::new(vec![left.clone()].into()), ..Scripted::default() };
        cancel(&provider, vec![id(), JobId("2".into())], QUICK).await;
        assert_eq!(provider.calls(), "cancel:2 cancel:1");
        let provider = Scripted { cancels: Mutex::new(vec![left; 9].into()), ..Scripted::default() };
        cancel(&provider, vec![id()], QUICK).await;
        assert_eq!(provider.calls(), "cancel:1 cancel:1 cancel:1");
    }

    #[tokio::test]
    async fn a_job_is_gone_when_the_scheduler_has_said_so_twice_in_a_row() {
        let down = || Err(QueryError("down".into()));
        for (states, ended) in [
            (vec![Ok(JobState::Gone), Ok(JobState::Running), Ok(JobState::Gone)], false),
            (vec![Ok(JobState::Gone), Ok(JobState::Gone)], true),
            (vec![Ok(JobState::Gone), down(), Ok(JobState::Gone)], true),
            (vec![down(), down(), down()], false),
        ] {
            let polls = states.len();
            let provider = Arc::new(Scripted { states: Mutex::new(states.into()), ..Scripted::default() });
            let mut calls = ProviderCalls::new(provider);
            calls.submit(0, job());
            let mut end = None;
            for poll in 0..=polls {
                if poll > 0 {
                    calls.poll();
                    calls.polling.take().unwrap().await.unwrap();
                }
                while let Ok(event) = calls.inbox.try_recv() {
                    end = end.or(calls.record(event, |_| true));
                }
                if poll == 0 {
                    let event = calls.next().await.unwrap();
                    assert_eq!(calls.record(event, |_| true), None);
                }
            }
            let gone = matches!(end, Some((0, BlockEnd::Completed(_))));
            assert_eq!(gone, ended, "{end:?}");
        }
    }
}
