//! What statements cost, in steps of SQLite's virtual machine: counted, never timed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use jiff::{SignedDuration, Timestamp};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use uuid::Uuid;
use wire::TaskId;

use super::tasks::{Attempt, Attempted};
use super::tests::{endpoint, opened, submission};
use super::*;
use crate::task::Outcome;

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
    _directory: tempfile::TempDir,
    store: Store,
    writer: SqliteConnection,
    meter: Meter,
}

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn at(seconds: i64) -> Timestamp {
    NOW + SignedDuration::from_secs(seconds)
}

fn task(n: usize) -> TaskId {
    TaskId::from_uuid(Uuid::from_u128(1000 + n as u128))
}

fn tasks(range: std::ops::Range<usize>) -> Vec<TaskId> {
    range.map(task).collect()
}

impl Metered {
    async fn new() -> Metered {
        let (directory, store) = opened().await;
        let store = store.with_files_from(usize::MAX);
        let options = SqliteConnectOptions::new()
            .filename(directory.path().join("farcall.db"))
            .busy_timeout(std::time::Duration::from_secs(10));
        let mut writer = SqliteConnection::connect_with(&options).await.unwrap();
        let meter = Meter::default();
        meter.read(&mut writer).await;
        let mut readers = Vec::new();
        while readers.len() < store.readers.options().get_max_connections() as usize {
            let mut reader = store.readers.acquire().await.unwrap();
            meter.read(&mut reader).await;
            readers.push(reader);
        }
        Metered { _directory: directory, store, writer, meter }
    }

    /// Runs `command`; what it answers, and its steps.
    async fn run<C: Command>(&mut self, command: C) -> (C::Output, u64) {
        let mut transaction = self.writer.begin().await.unwrap();
        self.meter.take();
        let output = command.run(&mut transaction).await.unwrap();
        let steps = self.meter.take();
        transaction.commit().await.unwrap();
        (output, steps)
    }

    /// Submits, and reads beside the writer what has to be read: the steps of either.
    async fn submit(&mut self, request: u128, tasks: &[TaskId]) -> (Submission, u64) {
        let submit = submission(&self.store, request, 0, tasks, NOW).await;
        let mut attempt = Attempt { submit, read: Default::default() };
        let mut whole = 0;
        loop {
            let (done, steps) = self.run(attempt).await;
            whole += steps;
            match done {
                Attempted::Done(done) => return (done, whole),
                Attempted::Unread(again, requests) => {
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
                message: Kept::Here(b"r".to_vec().into()),
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
        let Submission::Again(accepted) = done else { panic!("{done:?}") };
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
