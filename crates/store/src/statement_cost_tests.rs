//! Tests of the cost of statements, in steps of SQLite's virtual machine: counted, never timed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use jiff::{SignedDuration, Timestamp};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};
use wire::TaskId;
use wire::message::TaskState;

use super::*;
use crate::database::query;
use crate::tasks::state::Outcome;
use crate::tasks::submit::{SubmitAttempt, SubmitStep};
use crate::test_database::TestDatabase;
use crate::tests::{endpoint, opened_with, submission, task};

/// The steps that a connection has made.
#[derive(Clone, Default)]
struct Meter(Arc<AtomicU64>);

impl Meter {
    async fn read(&self, connection: &mut SqliteConnection) {
        let steps = self.0.clone();
        let mut handle = connection.lock_handle().await.unwrap();
        handle.set_progress_handler(1, move || {
            steps.fetch_add(1, Relaxed);
            true
        });
    }

    fn take(&self) -> u64 {
        self.0.swap(0, Relaxed)
    }
}

/// A store whose commands are run here, one after another, on a connection that counts.
struct Metered {
    _directory: TestDatabase,
    store: Store,
    writer: Tx,
    meter: Meter,
}

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn at(seconds: i64) -> Timestamp {
    NOW + SignedDuration::from_secs(seconds)
}

fn tasks(range: std::ops::Range<usize>) -> Vec<TaskId> {
    range.map(task).collect()
}

impl Metered {
    async fn new() -> Metered {
        let (directory, store) = opened_with(|options| options.disable_statement_logging()).await;
        let store = store.with_files_from(usize::MAX);
        let options = SqliteConnectOptions::new()
            .filename(directory.path().join("farcall.db"))
            .busy_timeout(std::time::Duration::from_secs(10));
        let mut writer = SqliteConnection::connect_with(&options).await.unwrap();
        let meter = Meter::default();
        meter.read(&mut writer).await;
        let mut readers = Vec::new();
        let Readers::Sqlite(pool) = &store.readers else { panic!("SQLite") };
        while readers.len() < pool.options().get_max_connections() as usize {
            let mut reader = pool.acquire().await.unwrap();
            meter.read(&mut reader).await;
            readers.push(reader);
        }
        Metered { _directory: directory, store, writer: Tx::Sqlite(writer), meter }
    }

    /// Runs `command`; what it answers, and its steps.
    async fn run<C: Command>(&mut self, command: C) -> (C::Output, u64) {
        query("BEGIN").execute(&mut self.writer).await.unwrap();
        self.meter.take();
        let output = command.run(&mut self.writer).await.unwrap();
        let steps = self.meter.take();
        query("COMMIT").execute(&mut self.writer).await.unwrap();
        (output, steps)
    }

    /// Submits, and reads beside the writer what has to be read: the steps of either.
    async fn submit(&mut self, request: u128, tasks: &[TaskId]) -> (SubmitResult, u64) {
        let submit = submission(&self.store, request, 0, tasks, NOW).await;
        let mut attempt = SubmitAttempt { submit, staged: false, process: None, read: Default::default() };
        let mut whole = 0;
        loop {
            let (done, steps) = self.run(attempt).await;
            whole += steps;
            match done {
                SubmitStep::Done(done) => return (done, whole),
                SubmitStep::Unread(again, requests) => {
                    attempt = *again;
                    self.store.read_unanswered(requests, &mut attempt.read).await.unwrap();
                    whole += self.meter.take();
                }
            }
        }
    }

    /// Ends `tasks`; their results wait for the client.
    async fn end(&mut self, tasks: &[TaskId], now: Timestamp) {
        for tasks in tasks.chunks(500) {
            let results = tasks.iter().map(|&task| ReportedResult {
                task,
                endpoint: endpoint(0),
                outcome: Outcome::Succeeded,
                message: StoredContent::Inline(b"r".to_vec().into()),
            });
            let results = results.collect();
            self.run(RecordResults { results, now }).await;
        }
    }
}

/// The most that the steps may grow while what is stored becomes eight times as much.
const GROWTH: f64 = 1.5;

#[track_caller]
fn assert_grows_with_the_log(what: &str, few: u64, many: u64) {
    assert!(many as f64 <= few as f64 * GROWTH, "{what}: {few} steps became {many}");
}

#[tokio::test]
async fn a_submit_that_comes_again_does_not_cost_what_is_stored() {
    let mut cost = Vec::new();
    for stored in [500, 4000] {
        let mut metered = Metered::new().await;
        // Others of the same group, whose results nobody has taken.
        metered.submit(1, &tasks(100..100 + stored)).await;
        metered.end(&tasks(100..100 + stored), NOW).await;
        metered.submit(2, &tasks(0..50)).await;
        metered.end(&tasks(0..50), NOW).await;
        let (done, steps) = metered.submit(2, &tasks(10_000..10_050)).await;
        let SubmitResult::Again(accepted) = done else { panic!("{done:?}") };
        assert_eq!(accepted.tasks, tasks(0..50));
        cost.push(steps);
    }
    assert_grows_with_the_log("a submit that comes again", cost[0], cost[1]);
}

#[tokio::test]
async fn expiry_does_not_cost_what_is_stored() {
    let mut cost = Vec::new();
    for stored in [500, 4000] {
        let mut metered = Metered::new().await;
        metered.submit(1, &tasks(0..50)).await;
        metered.end(&tasks(0..50), at(0)).await;
        metered.submit(2, &tasks(100..100 + stored)).await;
        metered.end(&tasks(100..100 + stored), at(10)).await;
        let ((expired, _), steps) = metered.run(ExpireResults { before: at(5), count: 500 }).await;
        assert_eq!(expired, 50);
        cost.push(steps);
    }
    assert_grows_with_the_log("expiry", cost[0], cost[1]);
}

#[tokio::test]
async fn what_heartbeats_say_is_bounded_and_costs_what_it_is() {
    let mut cost = Vec::new();
    for (stored, said) in [(1000, 1000), (8000, 1000), (1000, 20_000)] {
        let mut metered = Metered::new().await;
        metered.submit(1, &tasks(0..stored)).await;
        let state = TaskState::Running;
        let progress = (0..said).map(|n| Progress { endpoint: endpoint(0), task: task(n), state }).collect();
        let (_, steps) = metered.run(Report { progress, ..Report::default() }).await;
        cost.push(steps);
    }
    assert_grows_with_the_log("a report", cost[0], cost[1]);
    assert_grows_with_the_log("a report of much", cost[0], cost[2]);
}

#[tokio::test]
async fn a_heartbeat_speaks_of_its_endpoints_own_open_tasks() {
    let (_directory, store) = opened_with(|options| options.disable_statement_logging()).await;
    let first = submission(&store, 1, 0, &tasks(0..3), NOW).await;
    store.submit(first).await.unwrap();
    let other = submission(&store, 2, 1, &tasks(3..4), NOW).await;
    store.submit(other).await.unwrap();
    let message = store.store_contents(vec![b"r".to_vec().into()]).await.unwrap().remove(0);
    let ended = ReportedResult { task: task(2), endpoint: endpoint(0), outcome: Outcome::Succeeded, message };
    store.write(RecordResults { results: vec![ended], now: NOW }).await.unwrap();
    let said = |n| Progress { endpoint: endpoint(0), task: task(n), state: TaskState::Running };
    store.write(Report { progress: (1..6).map(said).collect(), ..Report::default() }).await.unwrap();
    let mut told = Vec::new();
    for n in 0..4 {
        told.push(store.tasks(&[task(n)]).await.unwrap()[0].state.status(true));
    }
    let received = TaskState::Received;
    assert_eq!(told, [received, TaskState::Running, TaskState::Success, received]);
}

#[tokio::test]
async fn many_open_tasks_are_read_some_at_a_time() {
    let mut cost = Vec::new();
    for stored in [500, 4000] {
        let mut metered = Metered::new().await;
        metered.submit(1, &tasks(0..stored)).await;
        let page =
            metered.store.unacknowledged_assignments(endpoint(0), 0, stored / 2, usize::MAX).await.unwrap();
        let seqs = page.rows.iter().map(|row| row.seq).collect();
        metered.run(AcknowledgeAssignments { endpoint: endpoint(0), seqs, credential: 1 }).await;
        metered.meter.take();
        for (which, count) in [
            (OpenTaskFilter::All, 100),
            (OpenTaskFilter::TakenBefore(2), 100),
            (OpenTaskFilter::TakenBefore(1), 0),
        ] {
            let found = metered.store.open_tasks(endpoint(0), which, i64::MAX, 100).await.unwrap();
            assert_eq!(found.len(), count, "{which:?}");
        }
        cost.push(metered.meter.take());
        let (deleted, steps) = metered.run(DeleteEndpoint(endpoint(0))).await;
        let () = deleted;
        cost.push(steps);
        assert_eq!(metered.store.deleted_endpoints_with_open_tasks().await.unwrap(), [endpoint(0)]);
    }
    assert_grows_with_the_log("a page of open tasks", cost[0], cost[2]);
    assert_grows_with_the_log("the end of an endpoint", cost[1], cost[3]);
}

#[tokio::test]
async fn registrations_whose_answers_were_lost_do_not_pile_up() {
    let (_directory, store) = opened_with(|options| options.disable_statement_logging()).await;
    let found = store.endpoint(endpoint(0)).await.unwrap().unwrap();
    for n in 2..=100 {
        let secret = crate::secret::Hash::of("s");
        let again = RegisterEndpoint {
            endpoint: found.clone(),
            metadata: Default::default(),
            choices: None,
            client: None,
            token: None,
            most: 1_000,
            secret,
            now: NOW,
        };
        assert_eq!(store.write(again).await.unwrap(), RegistrationResult::Credential(n));
    }
    let mut kept = Vec::new();
    for n in 1..=100 {
        if store.credential(Holder::Endpoint(endpoint(0)), n).await.unwrap().is_some() {
            kept.push(n);
        }
    }
    assert_eq!(kept, (85..=100).collect::<Vec<_>>());
}
