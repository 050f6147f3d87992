//! Tests of submits of many tasks.

use std::time::Duration;

use jiff::Timestamp;
use wire::TaskId;

use super::*;
use crate::database::query_scalar;
use crate::tasks::submit::{SubmitAttempt, SubmitStep};
use crate::tests::{endpoint, opened, opened_with, submission, task};
use crate::{DeleteAnsweredSubmits, DeleteEndpoint, SubmitResult};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn tasks(count: usize) -> Vec<TaskId> {
    (0..count).map(task).collect()
}

/// Of all that is written of a submit: what waits for its endpoint, and what is staged.
async fn there(store: &Store) -> (usize, usize) {
    let staged: i64 =
        query_scalar("SELECT count(*) FROM staged_tasks").fetch_one(&store.readers).await.unwrap();
    let submits: i64 =
        query_scalar("SELECT count(*) FROM staged_submits").fetch_one(&store.readers).await.unwrap();
    let page = store.unacknowledged_assignments(endpoint(0), 0, 100_000, usize::MAX).await.unwrap();
    let counted = store.counters(endpoint(0)).await.unwrap().waiting;
    assert_eq!(usize::try_from(counted).unwrap(), page.rows.len());
    for (n, row) in page.rows.iter().enumerate() {
        assert_eq!(row.task, task(n), "in the order of the submit");
    }
    (page.rows.len(), usize::try_from(staged + submits).unwrap())
}

/// Accepts what was staged, and releases nothing of it.
async fn accept_only(store: &Store, submit: Submit) {
    let staged = store.stage(&submit).await.unwrap();
    let attempt = SubmitAttempt { submit, staged: true, process: None, read: Default::default() };
    assert!(matches!(store.write(attempt).await.unwrap(), SubmitStep::Done(SubmitResult::New(_))));
    std::mem::forget(staged);
}

#[tokio::test]
async fn a_submit_of_any_size_is_written_in_bounded_steps() {
    let mut cost = Vec::new();
    for count in [TASKS, 8 * TASKS] {
        // What a step costs is counted on SQLite.
        let (_directory, store) = opened_with(|options| options).await;
        let store = store.with_files_from(usize::MAX);
        let submit = submission(&store, 1, 0, &tasks(count), NOW).await;
        let done = store.submit(submit).await.unwrap();
        let SubmitResult::New(accepted) = done else { panic!("{done:?}") };
        assert_eq!(accepted.tasks, tasks(count));
        assert_eq!(there(&store).await, (count, 0));
        cost.push(store.most_steps());
    }
    assert!(cost[1] < cost[0] * 3 / 2, "one step of the writer: {cost:?}");
}

#[tokio::test]
async fn others_write_between_the_steps() {
    let (_directory, store) = opened().await;
    let store = store.with_files_from(usize::MAX);
    let submit = submission(&store, 1, 0, &tasks(8 * TASKS), NOW).await;
    let large = tokio::spawn({
        let store = store.clone();
        async move { store.submit(submit).await }
    });
    let mut between = 0;
    while !large.is_finished() {
        store.write(DeleteAnsweredSubmits(Vec::new())).await.unwrap();
        between += 1;
    }
    large.await.unwrap().unwrap();
    assert!(between >= 8, "{between}");
}

#[tokio::test]
async fn it_counts_whole_or_not_at_all_whenever_the_service_ends() {
    let (directory, store) = opened().await;
    let submit = submission(&store, 1, 0, &tasks(20), NOW).await;
    std::mem::forget(store.stage(&submit).await.unwrap());
    assert_eq!(there(&store).await, (0, 20), "nobody finds what is staged");
    assert_eq!(store.remove_unreferenced_before(Timestamp::MAX).await.unwrap(), 0, "its files are its own");
    store.close().await;

    let store = directory.open().await.with_files_from(4);
    store.release_or_drop_all().await.unwrap();
    assert_eq!(there(&store).await, (0, 0), "it was never accepted");
    assert_eq!(std::fs::read_dir(directory.path().join("payloads")).unwrap().count(), 0);
    accept_only(&store, submission(&store, 1, 0, &tasks(20), NOW).await).await;
    assert_eq!(there(&store).await, (0, 21));
    store.close().await;

    let store = directory.open().await.with_files_from(4);
    store.release_or_drop_all().await.unwrap();
    assert_eq!(there(&store).await, (20, 0), "it was accepted");
    assert_eq!(std::fs::read_dir(directory.path().join("payloads")).unwrap().count(), 10);
}

#[tokio::test]
async fn a_twin_finds_all_of_it() {
    let (_directory, store) = opened().await;
    accept_only(&store, submission(&store, 1, 0, &tasks(20), NOW).await).await;
    let twin = submission(&store, 1, 0, &[task(100)], NOW).await;
    let done = store.submit(twin).await.unwrap();
    assert!(matches!(&done, SubmitResult::Again(accepted) if accepted.tasks == tasks(20)), "{done:?}");
    assert_eq!(there(&store).await, (20, 0));
}

#[tokio::test]
async fn one_whose_client_leaves_or_whose_endpoint_goes_leaves_nothing() {
    let (directory, store) = opened().await;
    let submit = submission(&store, 1, 0, &tasks(20), NOW).await;
    drop(store.stage(&submit).await.unwrap());
    while there(&store).await.1 > 0
        || std::fs::read_dir(directory.path().join("payloads")).unwrap().count() > 0
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    accept_only(&store, submission(&store, 2, 0, &tasks(20), NOW).await).await;
    store.write(DeleteEndpoint(endpoint(0))).await.unwrap();
    let request = RequestId::from_uuid(uuid::Uuid::from_u128(2));
    assert!(!store.release_or_drop(request).await.unwrap(), "its endpoint is no more");
    assert_eq!(there(&store).await, (0, 0));
    assert_eq!(std::fs::read_dir(directory.path().join("payloads")).unwrap().count(), 0);
    let twin = submission(&store, 2, 0, &tasks(1), NOW).await;
    assert_eq!(store.submit(twin).await.unwrap(), SubmitResult::NoEndpoint, "nor is it known again");
}
