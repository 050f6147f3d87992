//! Submits, acknowledgements, results and retention of two processes at the same time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use sqlx::PgConnection;
use uuid::Uuid;
use wire::{FunctionId, RequestId, TaskGroupId, TaskId};

use super::*;
use crate::secret::Hash;
use crate::tasks::large_submits;
use crate::tasks::state::Outcome;
use crate::test_database::registration;
use crate::tests::{GROUP, OWNER, endpoint, submission, task};
use crate::*;

fn group(number: usize) -> TaskGroupId {
    TaskGroupId::from_uuid(Uuid::from_u128(GROUP.as_uuid().as_u128() + 0x1000 * number as u128))
}

/// Numbers for tasks and requests.
#[derive(Default)]
struct Numbers(AtomicUsize);

impl Numbers {
    fn request(&self) -> u128 {
        self.0.fetch_add(1, SeqCst) as u128 + 1_000_000
    }

    fn tasks(&self, count: usize) -> Vec<TaskId> {
        let first = self.0.fetch_add(count, SeqCst);
        (first..first + count).map(task).collect()
    }
}

fn reported(task: TaskId, endpoint: wire::EndpointId, outcome: Outcome) -> ReportedResult {
    let message = StoredContent::Inline(b"r".to_vec().into());
    ReportedResult { task, endpoint, outcome, message }
}

/// Each row says what it must, whatever the order of things was.
async fn check_balance(session: &mut PgConnection) {
    for (wrong, sql) in [
        (
            "counters differ from states",
            "SELECT count(*) FROM endpoint_tasks c FULL JOIN (SELECT endpoint_id, \
             count(*) FILTER (WHERE state = 0) AS waiting, count(*) FILTER (WHERE state = 1) AS taken, \
             count(*) FILTER (WHERE state > 1) AS ended FROM tasks GROUP BY endpoint_id) t \
             ON t.endpoint_id = c.endpoint_id WHERE coalesce(c.waiting, 0) <> coalesce(t.waiting, 0) \
             OR coalesce(c.taken, 0) <> coalesce(t.taken, 0) \
             OR coalesce(c.succeeded + c.failed, 0) < coalesce(t.ended, 0)",
        ),
        (
            "open tasks that are not in their endpoint's outbox as they are",
            "SELECT count(*) FROM tasks t LEFT JOIN assignments a ON a.task_id = t.id WHERE t.state < 2 \
             AND (a.task_id IS NULL OR (a.credential IS NULL) <> (t.state = 0) OR a.endpoint_id <> t.endpoint_id)",
        ),
        (
            "outbox rows of tasks that are not open",
            "SELECT count(*) FROM assignments a LEFT JOIN tasks t ON t.id = a.task_id WHERE coalesce(t.state, 9) > 1",
        ),
        (
            "results of tasks that have not ended, or tasks that have ended without",
            "SELECT count(*) FROM tasks t FULL JOIN results r ON r.task_id = t.id \
             WHERE (coalesce(t.state, 9) IN (2, 3)) <> (r.task_id IS NOT NULL)",
        ),
        (
            "results that are delivered twice, or for nothing",
            "SELECT count(*) FROM (SELECT d.task_id FROM deliveries d LEFT JOIN results r ON r.task_id = d.task_id \
             GROUP BY d.task_id HAVING count(*) > 1 OR count(r.task_id) = 0) AS d",
        ),
        (
            "tasks without a group",
            "SELECT count(*) FROM tasks t WHERE NOT EXISTS (SELECT 1 FROM task_groups g WHERE g.id = t.group_id)",
        ),
        (
            "staged rows that nobody releases",
            "SELECT (SELECT count(*) FROM staged_tasks) + (SELECT count(*) FROM staged_submits)",
        ),
    ] {
        assert_eq!(number(session, sql).await, 0, "{wrong}");
    }
}

/// Reads an outbox as the broker's feeder does: on from the last number it saw. Returns all that it saw until `done`.
async fn follow<F>(done: Arc<AtomicBool>, mut next: impl FnMut(i64) -> F) -> BTreeSet<i64>
where
    F: Future<Output = Vec<i64>>,
{
    let (mut seen, mut last) = (BTreeSet::new(), 0);
    loop {
        let is_done = done.load(SeqCst);
        let rows = next(last).await;
        last = rows.last().copied().unwrap_or(last);
        if rows.is_empty() && is_done {
            return seen;
        }
        seen.extend(rows);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn whatever_two_processes_do_counters_states_and_outboxes_agree() {
    let Some((database, stores)) = two_stores().await else { return };
    let mut dice = Dice::new();
    let numbers = Arc::new(Numbers::default());
    // The tasks that were accepted, with their endpoints; and what was said of results.
    let accepted = Arc::new(Mutex::new(Vec::<(TaskId, u8)>::new()));
    let ended = Arc::new(Mutex::new(Vec::<TaskId>::new()));
    let late = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for worker in 0..6 {
        let (store, mut dice) = (stores[worker % 2].clone(), dice.split());
        let (numbers, accepted, ended, late) =
            (numbers.clone(), accepted.clone(), ended.clone(), late.clone());
        workers.push(tokio::spawn(async move {
            for step in 0..40 {
                let at = u8::from(dice.below(2) == 1);
                match dice.below(10) {
                    0..3 => {
                        let tasks = numbers.tasks(1 + dice.below(4));
                        let mut submit = submission(&store, numbers.request(), at, &tasks, NOW).await;
                        submit.group = group(dice.below(2));
                        let done = store.submit(submit).await.unwrap();
                        assert!(matches!(done, SubmitResult::New(_)), "{done:?}");
                        accepted.lock().unwrap().extend(tasks.into_iter().map(|task| (task, at)));
                    }
                    3..6 => {
                        let page =
                            store.unacknowledged_assignments(endpoint(at), 0, 100, usize::MAX).await.unwrap();
                        let seqs: Vec<_> = page.rows.iter().map(|row| row.seq).collect();
                        let seqs = dice.some(&seqs);
                        let endpoint = endpoint(at);
                        store.write(AcknowledgeAssignments { endpoint, seqs, credential: 1 }).await.unwrap();
                    }
                    6..9 => {
                        let known = accepted.lock().unwrap().clone();
                        let some = dice.some(&known[known.len().saturating_sub(40)..]);
                        let results = some.iter().map(|(task, at)| {
                            let outcome =
                                if dice.below(2) == 0 { Outcome::Succeeded } else { Outcome::Failed };
                            reported(*task, endpoint(*at), outcome)
                        });
                        let record = RecordResults { results: results.collect(), now: NOW };
                        let recorded = store.write(record).await.unwrap().recorded;
                        for ((task, _), recorded) in some.iter().zip(recorded) {
                            match recorded {
                                Recorded::New { .. } => ended.lock().unwrap().push(*task),
                                Recorded::Late => drop(late.fetch_add(1, SeqCst)),
                                Recorded::Refused => panic!("{task} was accepted"),
                            }
                        }
                    }
                    _ if step % 4 == 0 => {
                        let before = NOW + SignedDuration::from_secs(1);
                        store.write(ExpireResults { before, count: 10 }).await.unwrap();
                    }
                    _ => {
                        let group = group(dice.below(2));
                        let page = store.undelivered(OWNER, group, 0, 20, usize::MAX).await.unwrap();
                        let seqs: Vec<_> = page.rows.iter().map(|row| row.seq).collect();
                        let seqs = dice.some(&seqs);
                        store.write(AcknowledgeDeliveries { group, seqs }).await.unwrap();
                    }
                }
                dice.pause().await;
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    let mut session = session(&database).await;
    check_balance(&mut session).await;
    let (accepted, ended) = (accepted.lock().unwrap().len(), ended.lock().unwrap().clone());
    let unique: HashSet<_> = ended.iter().collect();
    assert_eq!(unique.len(), ended.len(), "each task ended once");
    assert_eq!(number(&mut session, "SELECT count(*) FROM tasks").await as usize, accepted);
    let done = number(&mut session, "SELECT count(*) FROM tasks WHERE state > 1").await;
    assert_eq!(done as usize, ended.len());
    let counted =
        number(&mut session, "SELECT CAST(sum(succeeded + failed) AS BIGINT) FROM endpoint_tasks").await;
    assert_eq!(counted as usize, ended.len());
    let counted = number(&mut session, "SELECT CAST(sum(late) AS BIGINT) FROM endpoint_tasks").await;
    assert_eq!(counted as usize, late.load(SeqCst));
}

#[tokio::test]
async fn cursors_that_read_while_two_processes_write_skip_nothing() {
    let Some((database, stores)) = two_stores().await else { return };
    let mut dice = Dice::new();
    let numbers = Arc::new(Numbers::default());
    let done = Arc::new(AtomicBool::new(false));
    let (reader, other) = (&stores[0], &stores[1]);
    let tasks = [0, 1].map(|at| {
        let store = reader.clone();
        tokio::spawn(follow(done.clone(), move |last| {
            let store = store.clone();
            async move {
                let page =
                    store.unacknowledged_assignments(endpoint(at), last, 50, usize::MAX).await.unwrap();
                page.rows.iter().map(|row| row.seq).collect()
            }
        }))
    });
    let results = [0, 1].map(|at| {
        let store = other.clone();
        tokio::spawn(follow(done.clone(), move |last| {
            let store = store.clone();
            async move {
                let page = store.undelivered(OWNER, group(at), last, 50, usize::MAX).await.unwrap();
                page.rows.iter().map(|row| row.seq).collect()
            }
        }))
    });
    // Endpoint 1 gets tasks whose results come; those of endpoint 0 stay in its outbox.
    let mut writers = Vec::new();
    for writer in 0..8 {
        let (store, numbers, mut dice) = (stores[writer % 2].clone(), numbers.clone(), dice.split());
        writers.push(tokio::spawn(async move {
            for step in 0..10 {
                let count = if writer < 2 && step == 6 { large_submits::TASKS + 1 } else { 1 };
                let waiting = numbers.tasks(count);
                let mut submit = submission(&store, numbers.request(), 0, &waiting, NOW).await;
                // The lock of a group must not stand in for that of the endpoint.
                submit.group = group(10 + writer);
                assert!(matches!(store.submit(submit).await.unwrap(), SubmitResult::New(_)));
                let ending = numbers.tasks(2);
                for (index, ending) in ending.iter().enumerate() {
                    let mut submit = submission(&store, numbers.request(), 1, &[*ending], NOW).await;
                    submit.group = group(index);
                    assert!(matches!(store.submit(submit).await.unwrap(), SubmitResult::New(_)));
                }
                let results = ending.iter().map(|task| reported(*task, endpoint(1), Outcome::Succeeded));
                store.write(RecordResults { results: results.collect(), now: NOW }).await.unwrap();
                dice.pause().await;
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, SeqCst);
    let mut session = session(&database).await;
    check_balance(&mut session).await;
    let mut missing = Vec::new();
    for (at, seen) in [0_u8, 1].into_iter().zip(tasks) {
        let there: Vec<i64> = sqlx::query_scalar("SELECT seq FROM assignments WHERE endpoint_id = $1")
            .bind(crate::columns::key(endpoint(at).as_uuid()))
            .fetch_all(&mut session)
            .await
            .unwrap();
        assert_eq!(there.is_empty(), at == 1);
        let seen = seen.await.unwrap();
        missing.extend(there.into_iter().filter(|seq| !seen.contains(seq)));
    }
    for (at, seen) in [0, 1].into_iter().zip(results) {
        let there: Vec<i64> = sqlx::query_scalar("SELECT seq FROM deliveries WHERE group_id = $1")
            .bind(crate::columns::key(group(at).as_uuid()))
            .fetch_all(&mut session)
            .await
            .unwrap();
        assert_eq!(there.len(), 80);
        let seen = seen.await.unwrap();
        missing.extend(there.into_iter().filter(|seq| !seen.contains(seq)));
    }
    assert_eq!(missing, [0_i64; 0], "a cursor has skipped these rows");
}

#[tokio::test]
async fn a_key_is_accepted_once() {
    let Some((database, stores)) = two_stores().await else { return };
    let numbers = Numbers::default();
    let mut expected = 0;
    for round in 0..30_u128 {
        // By turns: equal, with another body, at another endpoint, and after a record that is too old to count.
        let (kind, later) = (round % 4, NOW + SignedDuration::from_secs(1000));
        let key = Hash::of(&(round / 4 * 4 + u128::from(kind != 3) * kind).to_string());
        let mut submits = Vec::new();
        for (store, twin) in stores.iter().zip(0_u128..) {
            let at = u8::from(kind == 2 && twin == 1);
            let now = if kind == 3 { later } else { NOW };
            let mut submit = submission(store, numbers.request(), at, &numbers.tasks(1), now).await;
            submit.fingerprint.body =
                Hash::of(&format!("{round} {}", if kind == 1 || kind == 2 { twin } else { 0 }));
            submit.fingerprint.key = Some(key);
            submits.push(submit);
        }
        let (other, one) = (submits.pop().unwrap(), submits.pop().unwrap());
        let [first, second] = stores.clone();
        let both =
            race(async move { first.submit(one).await }, async move { second.submit(other).await }).await;
        let both = [both.0.unwrap(), both.1.unwrap()];
        let new: Vec<_> = both
            .iter()
            .filter_map(|done| match done {
                SubmitResult::New(accepted) => Some(accepted.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(new.len(), 1, "{round}: {both:?}");
        expected += 1;
        let again = both.iter().any(|done| match done {
            SubmitResult::Again(accepted) => *accepted == new[0],
            _ => false,
        });
        assert_eq!(again, kind == 0 || kind == 3, "{round}: {both:?}");
        assert_eq!(both.contains(&SubmitResult::KeyOfAnother), kind == 1 || kind == 2, "{round}: {both:?}");
    }
    let mut session = session(&database).await;
    assert_eq!(number(&mut session, "SELECT count(*) FROM tasks").await, expected);
    check_balance(&mut session).await;
}

#[tokio::test]
async fn duplicate_results_and_acknowledgements_meet_and_nothing_fails() {
    let Some((database, stores)) = two_stores().await else { return };
    let mut dice = Dice::new();
    let numbers = Numbers::default();
    let tasks = numbers.tasks(60);
    let submit = submission(&stores[0], numbers.request(), 0, &tasks, NOW).await;
    stores[0].submit(submit).await.unwrap();
    let page = stores[0].unacknowledged_assignments(endpoint(0), 0, 100, usize::MAX).await.unwrap();
    let seqs: Vec<_> = page.rows.iter().map(|row| row.seq).collect();
    let new = Arc::new(Mutex::new(BTreeMap::<TaskId, usize>::new()));
    let mut workers = Vec::new();
    for worker in 0..8 {
        let (store, new, mut dice) = (stores[worker % 2].clone(), new.clone(), dice.split());
        let (tasks, seqs) = (tasks.clone(), seqs.clone());
        workers.push(tokio::spawn(async move {
            for _ in 0..15 {
                let some = dice.some(&tasks);
                let results = some.iter().map(|task| reported(*task, endpoint(0), Outcome::Failed)).collect();
                let recorded = store.write(RecordResults { results, now: NOW }).await.unwrap().recorded;
                for (task, recorded) in some.into_iter().zip(recorded) {
                    if recorded != Recorded::Late {
                        *new.lock().unwrap().entry(task).or_default() += 1;
                    }
                }
                let seqs = dice.some(&seqs);
                let acknowledge = AcknowledgeAssignments { endpoint: endpoint(0), seqs, credential: 1 };
                store.write(acknowledge).await.unwrap();
                dice.pause().await;
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    assert!(new.lock().unwrap().values().all(|times| *times == 1), "{new:?}");
    check_balance(&mut session(&database).await).await;
}

#[tokio::test]
async fn an_endpoint_is_deleted_before_a_submit_or_after_it() {
    let Some((database, stores)) = two_stores().await else { return };
    let mut dice = Dice::new();
    let numbers = Numbers::default();
    let mut refused = 0;
    for round in 0..30 {
        let register = RegisterEndpoint { most: 2, now: NOW, ..registration(endpoint(0), OWNER) };
        stores[0].write(register).await.unwrap();
        let count = if round % 5 == 4 { large_submits::TASKS + 1 } else { 2 };
        let tasks = numbers.tasks(count);
        let submit = submission(&stores[0], numbers.request(), 0, &tasks, NOW).await;
        let ([submitter, deleter], mut dice) = (stores.clone(), dice.split());
        let (submitted, open) = race(async move { submitter.submit(submit).await.unwrap() }, async move {
            dice.pause().await;
            deleter.write(DeleteEndpoint(endpoint(0))).await.unwrap();
            // What the service does next: it ends what is open.
            let last = deleter.last_assignment().await.unwrap();
            deleter.open_tasks(endpoint(0), OpenTaskFilter::All, last, 10_000).await.unwrap()
        })
        .await;
        let open: HashSet<_> = open.into_iter().collect();
        match submitted {
            SubmitResult::New(_) => {
                assert!(tasks.iter().all(|task| open.contains(task)), "{round}: tasks that nobody ends");
            }
            // A large one may have been released in part when its endpoint went.
            SubmitResult::NoEndpoint => {
                refused += 1;
                let left = stores[0].tasks(&tasks).await.unwrap();
                assert!(left.iter().all(|task| open.contains(&task.id)), "{round}: tasks that nobody ends");
            }
            other => panic!("{other:?}"),
        }
    }
    eprintln!("{refused} of 30 submits came too late");
    check_balance(&mut session(&database).await).await;
}

#[tokio::test]
async fn a_group_that_gets_tasks_is_not_deleted_with_its_old_ones() {
    let Some((database, stores)) = two_stores().await else { return };
    let numbers = Numbers::default();
    for round in 0..25 {
        let old = numbers.tasks(1);
        let of_round = group(round);
        let mut submit = submission(&stores[0], numbers.request(), 0, &old, NOW).await;
        submit.group = of_round;
        stores[0].submit(submit).await.unwrap();
        let results = vec![reported(old[0], endpoint(0), Outcome::Succeeded)];
        stores[0].write(RecordResults { results, now: NOW }).await.unwrap();
        let before = NOW + SignedDuration::from_secs(1);
        stores[0].write(ExpireResults { before, count: 10 }).await.unwrap();

        let mut submit = submission(&stores[0], numbers.request(), 0, &numbers.tasks(1), NOW).await;
        submit.group = of_round;
        let [submitter, cleaner] = stores.clone();
        let (submitted, _) = race(async move { submitter.submit(submit).await.unwrap() }, async move {
            cleaner.write(DeleteTasks { before: Timestamp::MAX, count: 10 }).await.unwrap()
        })
        .await;
        assert!(matches!(submitted, SubmitResult::New(_)), "{submitted:?}");
    }
    check_balance(&mut session(&database).await).await;
}

#[tokio::test]
async fn code_stays_while_a_function_has_it() {
    let Some((database, stores)) = two_stores().await else { return };
    let function = |number: u128| Function {
        id: FunctionId::from_uuid(Uuid::from_u128(number)),
        owner: OWNER,
        name: "f".into(),
        code: "the same code".into(),
        description: None,
        public: false,
        group: None,
        metadata: Default::default(),
        python: None,
        created: NOW,
    };
    stores[0].write(AddFunction(function(1000))).await.unwrap();
    for number in 1000..1040 {
        let [adder, deleter] = stores.clone();
        race(async move { adder.write(AddFunction(function(number + 1))).await.unwrap() }, async move {
            deleter.write(DeleteFunction(FunctionId::from_uuid(Uuid::from_u128(number)))).await.unwrap()
        })
        .await;
    }
    let without = "SELECT count(*) FROM functions WHERE code_hash NOT IN (SELECT hash FROM function_code)";
    assert_eq!(number(&mut session(&database).await, without).await, 0);
}

#[tokio::test]
async fn what_another_process_is_answering_is_no_retry() {
    let Some((database, [one, other])) = two_stores().await else { return };
    let numbers = Numbers::default();
    let same = async |store: &Store, request: u128| {
        let mut submit = submission(store, request, 0, &numbers.tasks(1), NOW).await;
        submit.fingerprint.body = Hash::of("the same body");
        store.submit(submit).await.unwrap()
    };
    let is_new = |done: &SubmitResult| matches!(done, SubmitResult::New(_));
    assert!(is_new(&same(&one, 1).await));
    let answering = same(&other, 2).await;
    assert!(is_new(&answering), "the first process is writing its answer: {answering:?}");
    one.give_up_answers(vec![RequestId::from_uuid(Uuid::from_u128(1))]).await.unwrap();
    let retried = same(&other, 3).await;
    assert!(
        matches!(&retried, SubmitResult::Again(first) if first.request.as_uuid().as_u128() == 1),
        "{retried:?}"
    );
    other.write(DeleteAnsweredSubmits(vec![RequestId::from_uuid(Uuid::from_u128(1))])).await.unwrap();
    let third = database.open_as(Sharing::Shared).await;
    assert!(is_new(&same(&third, 4).await), "the second process is still writing its answer");
    third.write(DeleteAnsweredSubmits(vec![RequestId::from_uuid(Uuid::from_u128(4))])).await.unwrap();
    other.close().await;
    // The server ends the session, and with it the lock, a moment after it was closed.
    let mut session = session(&database).await;
    let living = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                  WHERE l.locktype = 'advisory' AND d.datname = current_database()";
    while number(&mut session, living).await > 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let retried = same(&third, 5).await;
    assert!(
        matches!(&retried, SubmitResult::Again(first) if first.request.as_uuid().as_u128() == 2),
        "the second process has ended: {retried:?}"
    );
}

/// A process that starts takes what another has staged for left behind: the submit is refused, never accepted in part.
#[tokio::test]
async fn a_large_submit_is_accepted_whole_although_another_process_starts() {
    let Some((database, stores)) = two_stores().await else { return };
    let numbers = Numbers::default();
    let mut accepted = 0;
    for _ in 0..8 {
        let tasks = numbers.tasks(2 * large_submits::TASKS);
        let submit = submission(&stores[0], numbers.request(), 0, &tasks, NOW).await;
        let [submitter, starting] = stores.clone();
        let (submitted, ()) = race(async move { submitter.submit(submit).await }, async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            starting.release_or_drop_all().await.unwrap();
        })
        .await;
        let there = stores[0].tasks(&tasks).await.unwrap().len();
        match submitted {
            Ok(SubmitResult::New(_)) => {
                accepted += 1;
                assert_eq!(there, tasks.len());
            }
            Err(StoreError::TryAgain) => assert_eq!(there, 0),
            other => panic!("{other:?}"),
        }
    }
    eprintln!("{accepted} of 8 were accepted");
    // Those that were refused are dropped in the background.
    let mut session = session(&database).await;
    for _ in 0..500 {
        if number(&mut session, "SELECT count(*) FROM staged_tasks").await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    check_balance(&mut session).await;
}
