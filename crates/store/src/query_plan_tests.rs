//! Tests that each statement on a table that grows with tasks finds its rows by an index and reads only those. A new
//! statement must be run here; one that reads more must be listed with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};
use tracing::field::{Field, Visit};
use wire::message::TaskState;

use super::*;
use crate::tasks::state::Outcome;
use crate::tests::{GROUP, OWNER, endpoint, opened_with, submission, task};

const GROWING: [&str; 7] =
    ["tasks", "assignments", "results", "deliveries", "submissions", "task_groups", "staged_tasks"];

const VERBS: [&str; 4] = ["SELECT ", "INSERT ", "UPDATE ", "DELETE "];

/// Columns that name one row, or a few; and up to a place that a statement with a limit has found.
const NARROW: [&str; 10] = [
    "rowid=?",
    "id=?",
    "task_id=?",
    "seq=?",
    "file=?",
    "payload_file=?",
    "fingerprint=?",
    "place<?",
    "place=?",
    "key_hash=?",
];

/// Beginnings of statements that read more than they answer, and why that is no harm.
const LISTED: [(&str, &str); 5] = [
    ("SELECT max(seq) FROM assignments", "the last entry of the table"),
    (
        "SELECT count(*) FROM deliveries",
        "beside the writer, for the page of figures, every five seconds at most",
    ),
    ("SELECT e.id, e.manager_id, e.owner_id, e.choices_json", "min(seq) is the first entry of its index"),
    ("SELECT request_id FROM staged_submits UNION ALL", "the first row of either, when the service starts"),
    ("DELETE FROM task_groups WHERE NOT EXISTS", "whether a group has tasks is one entry of their index"),
];

/// Statements that only PostgreSQL runs, because there several processes write. SQLite would find their rows like this.
const BESIDE_OTHERS: [&str; 5] = [
    "SELECT 1 FROM tasks WHERE id IN (SELECT task_id FROM assignments WHERE endpoint_id = ? AND seq IN (?))",
    "SELECT 1 FROM tasks WHERE id IN (?)",
    "SELECT id, queue FROM task_groups WHERE id IN (?)",
    "SELECT 1 FROM staged_tasks WHERE request_id = $1 AND place = 0",
    "UPDATE submissions SET answered_by = NULL WHERE id IN (?)",
];

/// The statements that were run, as sqlx tells them.
#[derive(Clone, Default)]
struct Statements(Arc<Mutex<BTreeSet<String>>>);

impl tracing::Subscriber for Statements {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        /// A short one is told as its own summary.
        struct Statement(String);
        impl Visit for Statement {
            fn record_str(&mut self, field: &Field, value: &str) {
                if field.name() == "summary" || (field.name() == "db.statement" && !value.is_empty()) {
                    self.0 = value.trim().to_owned();
                }
            }

            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
        }
        let mut statement = Statement(String::new());
        event.record(&mut statement);
        self.0.lock().unwrap().insert(statement.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

fn words(sql: &str) -> Vec<&str> {
    sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect()
}

fn grows(sql: &str) -> bool {
    words(sql).iter().any(|word| GROWING.contains(word))
}

/// The growing tables of a statement, as its plan calls them.
fn names(sql: &str) -> BTreeSet<&str> {
    let words = words(sql);
    let mut names = BTreeSet::new();
    for (at, word) in words.iter().enumerate() {
        if GROWING.contains(word) {
            names.insert(*word);
            names.extend(
                words.get(at + 1).filter(|next| next.len() == 1 && next.chars().all(char::is_lowercase)),
            );
        }
    }
    names
}

/// Why the plan reads rows that nobody asked for, if it does.
fn wasteful(sql: &str, plan: &[String]) -> Option<String> {
    let names = names(sql);
    let sorts = plan.iter().any(|step| step.contains("TEMP B-TREE"));
    for step in plan {
        let words: Vec<_> = step.split_whitespace().collect();
        let [how, table, ..] = words[..] else { continue };
        if !names.contains(table) {
            continue;
        }
        if how == "SCAN" {
            return Some(step.clone());
        }
        let found = step.split_once('(').and_then(|(_, by)| by.split_once(')')).map_or("", |(by, _)| by);
        let narrow = found.split(" AND ").any(|by| NARROW.contains(&by));
        let bounded = sql.contains("LIMIT") && !sorts;
        if how == "SEARCH" && !narrow && !bounded {
            return Some(step.clone());
        }
    }
    None
}

/// Runs every statement about tasks, from the submit to the day on which nothing is known of it any more.
async fn play(store: &Store) {
    let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1000);
    let later = now + SignedDuration::from_secs(1000);
    let first = submission(store, 1, 0, &[task(1), task(2), task(3)], now).await;
    let again = submission(store, 1, 0, &[task(4)], now).await;
    store.submit(first).await.unwrap();
    store.submit(again).await.unwrap();
    let mut keyed = submission(store, 2, 1, &[task(5)], now).await;
    keyed.fingerprint.key = Some(crate::secret::Hash::of("key"));
    store.submit(keyed).await.unwrap();
    for n in [3, 4] {
        let beside = store.clone().with_files_from(usize::MAX);
        let many: Vec<_> = (0..=crate::tasks::large_submits::TASKS).map(|i| task(n * 10_000 + i)).collect();
        let large = submission(&beside, n as u128, 1, &many, now).await;
        if n == 3 {
            store.submit(large).await.unwrap();
        } else {
            drop(store.stage(&large).await.unwrap());
        }
    }
    store.release_or_drop_all().await.unwrap();
    // Of a task whose row and file have gone since they were read.
    for row in [tasks::results::RESULT, tasks::assignments::ASSIGNMENT] {
        let kept = StoredContent::File { id: FileId::from_uuid(uuid::Uuid::nil()), bytes: 1 };
        assert_eq!(store.content(kept, row, task(99_999)).await.unwrap(), None);
    }
    let page = store.unacknowledged_assignments(endpoint(0), 0, 10, 1000).await.unwrap();
    let seqs: Vec<_> = page.rows.iter().map(|row| row.seq).collect();
    assert_eq!(store.tasks_of_assignments(&seqs).await.unwrap().len(), 3);
    let acknowledge = AcknowledgeAssignments { endpoint: endpoint(0), seqs, credential: 1 };
    store.remove_files(store.write(acknowledge).await.unwrap()).await;
    let progress = vec![Progress { endpoint: endpoint(0), task: task(1), state: TaskState::Running }];
    let end = EndReason { reason: "It was idle".to_owned(), at: now };
    let report = Report { runs: Vec::new(), ends: vec![(endpoint(0), end)], progress };
    store.write(report).await.unwrap();
    for which in [OpenTaskFilter::All, OpenTaskFilter::TakenBefore(2)] {
        let last = store.last_assignment().await.unwrap();
        assert_eq!(store.open_tasks(endpoint(0), which, last, 10).await.unwrap().len(), 3);
    }
    store.open_tasks_submitted_before(later, None, 10).await.unwrap();
    store.deleted_endpoints_with_open_tasks().await.unwrap();
    store.user_endpoints_with_tasks().await.unwrap();
    let message = store.store_contents(vec![vec![b'r'; 100].into()]).await.unwrap().remove(0);
    for outcome in [Outcome::Succeeded, Outcome::Failed] {
        let results =
            vec![ReportedResult { task: task(1), endpoint: endpoint(0), outcome, message: message.clone() }];
        store.write(RecordResults { results, now }).await.unwrap();
    }
    store.remove_unreferenced_before(later).await.unwrap();
    store.tasks(&[task(1), task(2)]).await.unwrap();
    store.results(&[task(1)]).await.unwrap();
    store.counts().await.unwrap();
    store.task_group(GROUP).await.unwrap();
    store.task_group_tasks(GROUP, None, 10).await.unwrap();
    let undelivered = store.undelivered(OWNER, GROUP, 0, 10, 1000).await.unwrap();
    let seqs = undelivered.rows.iter().map(|row| row.seq).collect();
    store.write(AcknowledgeDeliveries { group: GROUP, seqs }).await.unwrap();
    store.write(ExpireResults { before: later, count: 10 }).await.unwrap();
    store.write(DeleteTasks { before: Timestamp::MAX, count: 10 }).await.unwrap();
    let left = submission(store, 6, 1, &[task(90_000)], now).await;
    let request = left.request;
    let staged = store.stage(&left).await.unwrap();
    let accept = crate::tasks::submit::SubmitAttempt {
        submit: left,
        staged: true,
        process: None,
        read: Default::default(),
    };
    store.write(accept).await.unwrap();
    store.write(DeleteEndpoint(endpoint(1))).await.unwrap();
    assert!(!staged.release_or_drop().await.unwrap());
    store.release_accepted(request).await.unwrap();
    let gone = submission(store, 5, 1, &[task(9)], now).await;
    assert_eq!(store.submit(gone).await.unwrap(), SubmitResult::NoEndpoint);
    store.write(DeleteAnsweredSubmits(vec![wire::RequestId::from_uuid(uuid::Uuid::nil())])).await.unwrap();
    store.write(DeleteSubmitRecords { before: later, keys_before: later, count: 10 }).await.unwrap();
}

/// What the statements in the sources begin with, that touch a growing table; by file.
fn written() -> BTreeMap<String, Vec<String>> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut written: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let folders = ["", "tasks", "tasks/large_submits", "identity"].map(|folder| sources.join(folder));
    for entry in folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(&sources).unwrap().to_string_lossy().into_owned();
        // A backup reads everything, on a connection of its own and from a process of its own.
        if !name.ends_with(".rs") || name.ends_with("tests.rs") || name == "copy.rs" {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        for literal in source.split('"').skip(1).step_by(2) {
            let text = literal.replace('\\', " ");
            let text = text.split('{').next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
            let begins = VERBS.iter().any(|verb| text.starts_with(verb));
            if begins && grows(&text) {
                written.entry(name.clone()).or_default().push(text);
            }
        }
    }
    written
}

#[tokio::test]
async fn no_statement_reads_more_of_a_growing_table_than_it_answers() {
    let statements = Statements::default();
    tracing::subscriber::set_global_default(statements.clone()).unwrap();
    let (directory, store) = opened_with(|options| options).await;
    play(&store).await;
    let mut run: Vec<String> = statements.0.lock().unwrap().iter().cloned().collect();
    // Migrations are run, too.
    run.retain(|sql| grows(sql) && VERBS.iter().any(|verb| sql.starts_with(verb)));
    run.extend(BESIDE_OTHERS.map(str::to_owned));

    let spaced = |sql: &str| sql.split_whitespace().collect::<Vec<_>>().join(" ");
    let played: Vec<_> = run.iter().map(|sql| spaced(sql)).collect();
    for (file, beginnings) in written() {
        for beginning in beginnings {
            assert!(
                played.iter().any(|sql| sql.starts_with(&beginning)),
                "{file}: this statement is not played, add it to `play`: {beginning}"
            );
        }
    }

    let options = SqliteConnectOptions::new().filename(directory.path().join("farcall.db"));
    let mut connection = SqliteConnection::connect_with(&options.disable_statement_logging()).await.unwrap();
    let mut found = Vec::new();
    for sql in &run {
        if sql.starts_with("INSERT INTO") || LISTED.iter().any(|(listed, _)| spaced(sql).starts_with(listed))
        {
            continue;
        }
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let plan = sqlx::query(explain).fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        found.extend(wasteful(sql, &plan).map(|step| format!("{step}\n    in {sql}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn plans_are_told_apart() {
    let wasteful = |sql: &str, plan: &[&str]| {
        wasteful(sql, &plan.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>()).is_some()
    };
    assert!(wasteful("SELECT count(*) FROM tasks", &["SCAN tasks"]));
    assert!(wasteful(
        "SELECT 1 FROM deliveries d WHERE d.group_id = $1",
        &["SEARCH d USING INDEX a (group_id=?)"]
    ));
    assert!(wasteful("SELECT 1 FROM tasks WHERE id < $1", &["SEARCH tasks USING INDEX a (id<?)"]));
    let sorted = ["SEARCH tasks USING INDEX a (group_id=?)", "USE TEMP B-TREE FOR ORDER BY"];
    assert!(wasteful("SELECT 1 FROM tasks WHERE group_id = $1 ORDER BY ended_us LIMIT 1", &sorted));
    assert!(!wasteful("SELECT 1 FROM tasks WHERE group_id = $1 LIMIT 1", &sorted[..1]));
    assert!(!wasteful("SELECT 1 FROM tasks WHERE id = $1", &["SEARCH tasks USING INDEX a (id=?)"]));
    assert!(!wasteful("SELECT 1 FROM endpoints", &["SCAN endpoints"]));
    assert!(!wasteful("SELECT 1 FROM results r", &["SEARCH r USING INDEX a (task_id=?) LEFT-JOIN"]));
}
