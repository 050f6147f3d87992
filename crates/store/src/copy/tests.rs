//! Copies between the databases. With `FARCALL_TEST_POSTGRES`, from SQLite to PostgreSQL and back; else from SQLite to SQLite.

use std::path::Path;
use std::str::FromStr as _;

use jiff::{SignedDuration, Timestamp};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::catalogue::Catalogue;
use super::rows::{self, BATCH_BYTES, BATCH_ROWS, TableSum};
use super::*;
use crate::database::{StatementBuilder, Tx, Value, query, query_scalar};
use crate::migrations::{Migrations, POSTGRES, SQLITE, migrator};
use crate::tasks::state::{Outcome, State};
use crate::tasks::{AcknowledgeAssignments, RecordResults, ReportedResult};
use crate::test_database::TestDatabase;
use crate::tests::{GROUP, OWNER, endpoint, prepared, submission, task};
use crate::{Sharing, Store};

fn sqlite_in(directory: &Path, name: &str) -> DatabaseAddress {
    DatabaseAddress::Sqlite(directory.join(name))
}

/// The database that this run of the tests is for.
fn address_of(database: &TestDatabase) -> DatabaseAddress {
    match database.url() {
        None => sqlite_in(database.path(), "farcall.db"),
        Some(url) => DatabaseAddress::Postgres(Servers::from_str(&url).unwrap()),
    }
}

/// A database in a SQLite file with this version's schema. The connection does not look at references.
async fn new_sqlite(address: &DatabaseAddress) -> Tx {
    let DatabaseAddress::Sqlite(file) = address else { panic!("{address:?}") };
    Store::open(file).await.unwrap().close().await;
    let options = SqliteConnectOptions::new().filename(file).foreign_keys(false);
    Tx::Sqlite(SqliteConnection::connect_with(&options).await.unwrap())
}

async fn copy(from: &DatabaseAddress, to: &DatabaseAddress) -> Result<Vec<CopiedTable>, CopyError> {
    let mut source = Source::open(from, Sharing::Alone).await?;
    let copied = EmptyDatabase::open(to).await?.fill(&mut source).await;
    source.close().await?;
    copied
}

async fn sums(at: &DatabaseAddress) -> Vec<(String, TableSum)> {
    let mut source = Source::open(at, Sharing::Alone).await.unwrap();
    let mut sums = Vec::new();
    for table in Catalogue::read(&mut source.tx).await.unwrap().0 {
        let sum = rows::sum(&mut source.tx, &table, None).await.unwrap();
        sums.push((table.name, sum));
    }
    source.close().await.unwrap();
    sums
}

/// Writes the rows 1 to 40 to each table there is. Values that refer to one another are the same in each table's row of that
/// number; those that may be absent are, now and then.
async fn fill_every_table(tx: &mut Tx) {
    for table in Catalogue::read(tx).await.unwrap().0 {
        query(format!("DELETE FROM {}", table.quoted())).execute(&mut *tx).await.unwrap();
        let nullable: Vec<String> =
            query_scalar("SELECT name FROM pragma_table_info($1) WHERE \"notnull\" = 0 AND pk = 0")
                .bind(&table.name)
                .fetch_all(&mut *tx)
                .await
                .unwrap();
        let mut insert =
            StatementBuilder::new(format!("INSERT INTO {} ({}) ", table.quoted(), table.column_list()));
        insert.push_values(1..=40_i64, |mut values, row| {
            for (at, column) in table.columns.iter().enumerate() {
                let absent = nullable.contains(&column.name) && (row + at as i64) % 3 == 0;
                values.push_bind(value(column.kind, row, absent));
            }
        });
        insert.build().execute(&mut *tx).await.unwrap();
    }
}

fn value(kind: ColumnKind, row: i64, absent: bool) -> Value {
    match kind {
        ColumnKind::Integer if row == 40 => Value::Integer((!absent).then_some(i64::MAX - 1)),
        ColumnKind::Integer => Value::Integer((!absent).then_some(row)),
        ColumnKind::Boolean => Value::Boolean((!absent).then_some(row % 2 == 0)),
        ColumnKind::Text if row == 1 => Value::Text((!absent).then(String::new)),
        ColumnKind::Text => {
            Value::Text((!absent).then(|| format!("'{row}' \\x {{\"é\": \"漢字 🙂\"}}\r\n{}", '\u{7f}')))
        }
        ColumnKind::Bytes if row == 1 => Value::Bytes((!absent).then(Vec::new)),
        ColumnKind::Bytes => Value::Bytes((!absent).then(|| vec![0, row as u8, 255, 0])),
    }
}

#[tokio::test]
async fn every_value_of_every_table_goes_there_and_back() {
    let database = TestDatabase::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let first = sqlite_in(elsewhere.path(), "first.db");
    let mut tx = new_sqlite(&first).await;
    fill_every_table(&mut tx).await;
    tx.close().await.unwrap();
    let before = sums(&first).await;
    assert!(before.len() > 30 && before.iter().all(|(_, sum)| sum.rows == 40), "{before:?}");

    let (second, third) = (address_of(&database), sqlite_in(elsewhere.path(), "third.db"));
    let copied = copy(&first, &second).await.unwrap();
    assert_eq!(copied.len(), before.len());
    assert!(copied.iter().all(|table| table.rows == 40), "{copied:?}");
    assert_eq!(sums(&second).await, before);
    copy(&second, &third).await.unwrap();
    assert_eq!(sums(&third).await, before);
    assert_eq!(sums(&first).await, before, "the source stays as it was");
    assert!(!elsewhere.path().join("third.copied").exists());
}

#[tokio::test]
async fn tasks_go_on_in_the_copy() {
    let (here, there) = (TestDatabase::sqlite(), TestDatabase::new().await);
    let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1000);
    let from = sqlite_in(here.path(), "farcall.db");
    let store = prepared(here.open().await).await;
    let tasks: Vec<_> = (0..6).map(task).collect();
    store.submit(submission(&store, 1, 0, &tasks, now).await).await.unwrap();
    let rows = store.unacknowledged_assignments(endpoint(0), 0, 100, usize::MAX).await.unwrap().rows;
    let taken = rows[..4].iter().map(|row| row.seq).collect();
    store.write(AcknowledgeAssignments { endpoint: endpoint(0), seqs: taken, credential: 1 }).await.unwrap();
    record(&store, &[0, 1, 5], now).await;
    store.close().await;

    copy(&from, &address_of(&there)).await.unwrap();
    // Payload files stay where they are.
    let store = match there.url() {
        None => {
            std::fs::remove_file(here.path().join("farcall.db")).unwrap();
            std::fs::rename(there.path().join("farcall.db"), here.path().join("farcall.db")).unwrap();
            here.open().await
        }
        Some(url) => {
            let servers = Servers::from_str(&url).unwrap();
            Store::open_postgres(&servers, &here.path().join("payloads"), Sharing::Alone).await.unwrap()
        }
    };
    let counters = store.counters(endpoint(0)).await.unwrap();
    assert_eq!((counters.waiting, counters.taken, counters.succeeded), (1, 2, 3));
    // The last task's number is not given again, though its row has gone.
    store.submit(submission(&store, 2, 0, &[task(6)], now).await).await.unwrap();
    let rows = store.unacknowledged_assignments(endpoint(0), 0, 100, usize::MAX).await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [5, 7]);
    record(&store, &[2, 3, 4, 6], now).await;
    let all: Vec<_> = (0..7).map(task).collect();
    for row in store.tasks(&all).await.unwrap() {
        assert!(matches!(row.state, State::Ended { outcome: Outcome::Succeeded, .. }), "{row:?}");
    }
    assert_eq!(store.results(&all).await.unwrap().len(), 7);
    let undelivered = store.undelivered(OWNER, GROUP, 0, 1000, usize::MAX).await.unwrap();
    assert_eq!(undelivered.rows.len(), 7);
    store.close().await;
}

async fn record(store: &Store, numbers: &[usize], now: Timestamp) {
    let messages = numbers.iter().map(|number| vec![b'r'; number % 2 * 7 + 1].into()).collect();
    let messages = store.store_contents(messages).await.unwrap();
    let results = numbers.iter().zip(messages).map(|(number, message)| ReportedResult {
        task: task(*number),
        endpoint: endpoint(0),
        outcome: Outcome::Succeeded,
        message,
    });
    store.write(RecordResults { results: results.collect(), now }).await.unwrap();
}

#[tokio::test]
async fn a_hundred_thousand_tasks_and_large_rows_go_in_small_batches() {
    let database = TestDatabase::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let (first, third) = (sqlite_in(elsewhere.path(), "first.db"), sqlite_in(elsewhere.path(), "third.db"));
    let mut tx = new_sqlite(&first).await;
    for sql in [
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100000) \
         INSERT INTO tasks (id, group_id, endpoint_id, function_id, state, submitted_us) \
         SELECT CAST(printf('%016d', n) AS BLOB), x'01', x'02', x'03', 2, n FROM n",
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 40) \
         INSERT INTO results (task_id, message, bytes, ended_us) \
         SELECT CAST(printf('%016d', n) AS BLOB), randomblob(1000000), 1000000, n FROM n",
    ] {
        query(sql).execute(&mut tx).await.unwrap();
    }
    tx.close().await.unwrap();
    for (from, to) in [(&first, &address_of(&database)), (&address_of(&database), &third)] {
        let mut source = Source::open(from, Sharing::Alone).await.unwrap();
        let target = EmptyDatabase::open(to).await.unwrap();
        let (copied, batches) = target.fill_in_batches(&mut source).await.unwrap();
        source.close().await.unwrap();
        let rows = |name: &str| copied.iter().find(|table| table.name == name).unwrap().rows;
        assert_eq!((rows("tasks"), rows("results")), (100_000, 40));
        assert!(batches.count >= 100 + 8, "{batches:?}");
        assert_eq!(batches.most_rows, BATCH_ROWS);
        assert!(batches.most_bytes <= BATCH_BYTES + 1_000_500, "{batches:?}");
    }
}

#[tokio::test]
async fn a_copy_that_differs_is_undone() {
    let database = TestDatabase::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let (first, second) = (sqlite_in(elsewhere.path(), "first.db"), address_of(&database));
    let mut tx = new_sqlite(&first).await;
    fill_every_table(&mut tx).await;
    tx.close().await.unwrap();
    let mut target = EmptyDatabase::open(&second).await.unwrap();
    let spoil: &[&str] = match &target.tx {
        Tx::Sqlite(_) => &[
            "CREATE TRIGGER spoil AFTER INSERT ON tasks BEGIN UPDATE tasks SET state = 1 WHERE id = NEW.id; END",
        ],
        Tx::Postgres(_) => &[
            "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.state := 1; RETURN NEW; END'",
            "CREATE TRIGGER spoil BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION spoil()",
        ],
    };
    for sql in spoil {
        query(*sql).execute(&mut target.tx).await.unwrap();
    }
    let mut source = Source::open(&first, Sharing::Alone).await.unwrap();
    let refused = target.fill(&mut source).await.unwrap_err();
    assert!(
        matches!(&refused, CopyError::Difference { table, source_rows: 40, target_rows: 40 } if table == "tasks"),
        "{refused}"
    );
    source.close().await.unwrap();
    // It is as empty as before, and its sequences are at their start.
    EmptyDatabase::open(&second).await.unwrap().close().await.unwrap();
    if let DatabaseAddress::Postgres(servers) = &second {
        let (connection, _) = servers.connect().await.unwrap();
        let mut tx = Tx::Postgres(connection);
        let last: i64 =
            query_scalar("SELECT last_value FROM assignments_seq_seq").fetch_one(&mut tx).await.unwrap();
        assert_eq!(last, 1);
        let deferrable: i64 = query_scalar("SELECT count(*) FROM pg_constraint WHERE condeferrable")
            .fetch_one(&mut tx)
            .await
            .unwrap();
        assert_eq!(deferrable, 0);
        tx.close().await.unwrap();
    }
}

/// What a copy from `first`, changed by `sql`, to `second` is refused with.
async fn refused_after(sql: &'static str, first: &DatabaseAddress, second: &DatabaseAddress) -> String {
    let DatabaseAddress::Sqlite(file) = first else { panic!("{first:?}") };
    let _ = std::fs::remove_file(file);
    let mut tx = new_sqlite(first).await;
    query(sql).execute(&mut tx).await.unwrap();
    tx.close().await.unwrap();
    copy(first, second).await.unwrap_err().to_string()
}

#[tokio::test]
async fn what_cannot_be_copied_is_named() {
    let database = TestDatabase::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let (first, second) = (sqlite_in(elsewhere.path(), "first.db"), address_of(&database));
    let named = async |sql: &'static str, words: &[&str]| {
        let refused = refused_after(sql, &first, &second).await;
        for word in words {
            assert!(refused.contains(word), "{sql}: {refused}");
        }
    };
    named("CREATE TABLE rooms (id BIGINT)", &["rooms.id: only the source has it"]).await;
    named("ALTER TABLE tasks DROP COLUMN progress_json", &["tasks.progress_json: only the target has it"])
        .await;
    named("CREATE TABLE rooms (size DOUBLE)", &["rooms.size", "DOUBLE"]).await;
    named("UPDATE native_apps SET name = x'ff00'", &["native_apps.name", "not text in UTF-8"]).await;
    named("UPDATE native_apps SET disabled = 2", &["native_apps.disabled", "not true or false"]).await;
    named(
        "INSERT INTO passwords (identity_id, hash, changed_us) VALUES (x'01', '', 1)",
        &["passwords", "identities"],
    )
    .await;
    named("DELETE FROM _sqlx_migrations WHERE version > 3", &["older version", "do this with that version"])
        .await;
    named(
        "INSERT INTO _sqlx_migrations VALUES (9999, 'later', '2030-01-01', 1, x'00', 1)",
        &["newer version", "9999"],
    )
    .await;
    named("DROP TABLE _sqlx_migrations", &["holds no data of farcall"]).await;
    if let DatabaseAddress::Postgres(_) = &second {
        named("UPDATE native_apps SET name = 'a' || char(0) || 'b'", &["native_apps.name", "NUL"]).await;
    }
    // All that left it empty.
    let mut tx = {
        std::fs::remove_file(elsewhere.path().join("first.db")).unwrap();
        new_sqlite(&first).await
    };
    fill_every_table(&mut tx).await;
    tx.close().await.unwrap();
    copy(&first, &second).await.unwrap();
    let refused = copy(&first, &second).await.unwrap_err();
    assert!(matches!(refused, CopyError::NotEmpty { .. }), "{refused}");
    assert!(refused.to_string().contains("nothing is overwritten"), "{refused}");
}

#[tokio::test]
async fn a_database_of_others_and_one_in_use_are_refused() {
    let database = TestDatabase::new().await;
    let DatabaseAddress::Postgres(servers) = address_of(&database) else { return };
    let second = address_of(&database);
    let (connection, _) = servers.connect().await.unwrap();
    let mut tx = Tx::Postgres(connection);
    query("CREATE TABLE theirs (id BIGINT)").execute(&mut tx).await.unwrap();
    let refused = EmptyDatabase::open(&second).await.unwrap_err().to_string();
    assert!(refused.contains("theirs for one"), "{refused}");
    let tables: i64 = query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(&mut tx)
        .await
        .unwrap();
    assert_eq!(tables, 1, "nothing was made in it");
    query("DROP TABLE theirs").execute(&mut tx).await.unwrap();
    tx.close().await.unwrap();
    let store = database.open().await;
    for refused in
        [EmptyDatabase::open(&second).await.err(), Source::open(&second, Sharing::Alone).await.err()]
    {
        let refused = refused.unwrap();
        assert!(matches!(refused, CopyError::Store(StoreError::InUse(_))), "{refused}");
    }
    Source::open(&second, Sharing::Shared).await.unwrap().close().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn an_installation_of_an_earlier_version_keeps_its_schema_when_it_is_refused() {
    // The migrations of a later version.
    let later = [POSTGRES, &[(1000, "later", "CREATE TABLE later (id BIGINT)")]].concat();
    let later: Migrations = later.leak();
    let database = TestDatabase::new().await;
    let address = address_of(&database);
    let DatabaseAddress::Postgres(servers) = &address else { return };
    prepared(database.open().await).await.close().await;
    let made = async |tx: &mut Tx| {
        let sql = "SELECT count(*) FROM pg_tables WHERE tablename = 'later'";
        query_scalar::<i64>(sql).fetch_one(tx).await.unwrap()
    };
    let refused = target::open_postgres(servers, &address, later).await.unwrap_err();
    assert!(matches!(refused, CopyError::NotEmpty { .. }), "{refused}");
    let mut tx = Tx::Postgres(servers.connect().await.unwrap().0);
    assert_eq!(made(&mut tx).await, 0);
    // Once it is empty, it is taken.
    for table in Catalogue::read(&mut tx).await.unwrap().0 {
        if !["schema_compatibility", "native_apps"].contains(&table.name.as_str()) {
            query(format!("TRUNCATE {} CASCADE", table.quoted())).execute(&mut tx).await.unwrap();
        }
    }
    tx.close().await.unwrap();
    let mut tx = target::open_postgres(servers, &address, later).await.unwrap();
    assert_eq!(made(&mut tx).await, 1);
    tx.close().await.unwrap();
}

#[tokio::test]
async fn a_backup_of_a_running_store_shows_one_moment() {
    let database = TestDatabase::new().await;
    let store = prepared(database.open().await).await;
    let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1000);
    let to = tempfile::tempdir().unwrap();
    let file = to.path().join("farcall.db");
    let submits = async {
        for number in 0..40 {
            let tasks = [task(number * 2), task(number * 2 + 1)];
            store.submit(submission(&store, number as u128 + 1, 0, &tasks, now).await).await.unwrap();
        }
    };
    let from = address_of(&database);
    let backup = back_up(&from, &file);
    let ((), made) = tokio::join!(submits, backup);
    made.unwrap();
    let copied = count_tasks_in(&file).await.unwrap();
    assert!(copied % 2 == 0, "{copied} tasks: half a submit");
    // Each second payload lies in a file.
    assert_eq!(payload_files_in(&file).await.unwrap().len() as u64, copied / 2);
    let mut source = Source::open(&DatabaseAddress::Sqlite(file), Sharing::Alone).await.unwrap();
    let waiting: i64 =
        query_scalar("SELECT sum(waiting) FROM endpoint_tasks").fetch_one(&mut source.tx).await.unwrap_or(0);
    assert_eq!(waiting as u64, copied);
    source.close().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_backup_of_an_earlier_version_is_restored() {
    for known in [1, 6, SQLITE.len() - 1] {
        let (database, elsewhere) = (TestDatabase::new().await, tempfile::tempdir().unwrap());
        let first = sqlite_in(elsewhere.path(), "first.db");
        let file = elsewhere.path().join("first.db");
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        migrator(&SQLITE[..known]).run_direct(None, &mut connection, false).await.unwrap();
        let insert =
            "INSERT INTO identities (id, username, name, created_us) VALUES (x'01', 'alice', 'Alice', 1)";
        sqlx::raw_sql(insert).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let refused = copy(&first, &address_of(&database)).await.unwrap_err();
        assert!(matches!(refused, CopyError::OlderSchema(_)), "{refused}");
        migrate_backup(&file).await.unwrap();
        let copied = copy(&first, &address_of(&database)).await.unwrap();
        assert!(copied.contains(&CopiedTable { name: "identities".into(), rows: 1 }), "{copied:?}");
        database.open().await.close().await;
    }
}
