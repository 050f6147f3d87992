//! Fills a service's database with finished tasks of the last days. It writes the rows directly: the service would take
//! half an hour for ten million.
//!
//! The rows are those that a finished task leaves: one of `tasks`, one of `results`, and one of `task_groups` for each
//! thousand. One task measures about 450 bytes with its indices.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use crate::clock;

/// Rows of one statement.
const TOGETHER: u64 = 500_000;
/// The results end between so long ago and now: none has expired.
const DAYS: Duration = Duration::from_secs(10 * 86_400);

/// What is done for each number `i` from `$1` to below `$2`; `$3` is the microsecond of the first, `$4` that of the last
/// of `$5`. A task's id begins with its milliseconds.
const EACH: &str = "WITH RECURSIVE n(i, us) AS (SELECT $1, $3 + ($4 - $3) / $5 * $1 UNION ALL \
    SELECT i + 1, us + ($4 - $3) / $5 FROM n WHERE i + 1 < $2) ";
const ID: &str = "unhex(printf('%012x70008%015x', us / 1000, i))";
const GROUP: &str = "unhex(printf('%012x70008%015x', $3 / 1000, i / 1000))";

/// Adds `count` finished tasks to the database in `file`, which nobody has open.
pub(crate) async fn add(file: &Path, count: u64) -> anyhow::Result<()> {
    let options = SqliteConnectOptions::new().filename(file).disable_statement_logging();
    let mut connection = SqliteConnection::connect_with(&options).await?;
    // Fast and unsafe: who interrupts it must throw the file away.
    sqlx::raw_sql("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000")
        .execute(&mut connection)
        .await?;
    let last = i64::try_from(clock::now().as_micros())?;
    let first = last - i64::try_from(DAYS.as_micros())?;
    let group = format!(
        "{EACH} INSERT INTO task_groups (id, owner_id, queue, created_us) SELECT {GROUP}, g.owner_id, 1, $3 FROM n, \
         (SELECT owner_id FROM task_groups LIMIT 1) g WHERE i % 1000 = 0"
    );
    let task = format!(
        "{EACH} INSERT INTO tasks (id, group_id, endpoint_id, function_id, state, submitted_us, ended_us) \
         SELECT {ID}, {GROUP}, t.endpoint_id, t.function_id, 2, us, us FROM n, \
         (SELECT endpoint_id, function_id FROM tasks LIMIT 1) t"
    );
    let result = format!(
        "{EACH} INSERT INTO results (task_id, message, bytes, ended_us) SELECT {ID}, r.message, r.bytes, us FROM n, \
         (SELECT message, bytes FROM results LIMIT 1) r"
    );
    for from in (0..count).step_by(usize::try_from(TOGETHER)?) {
        for statement in [&group, &task, &result] {
            let statement = sqlx::query(sqlx::AssertSqlSafe(statement.as_str()));
            let bound = [from, (from + TOGETHER).min(count)].map(i64::try_from);
            let [from, to] = bound;
            let statement =
                statement.bind(from?).bind(to?).bind(first).bind(last).bind(i64::try_from(count)?);
            statement.execute(&mut connection).await.context("the history could not be written")?;
        }
    }
    sqlx::raw_sql("PRAGMA journal_mode = WAL").execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}
