//! One transaction for several commands, on SQLite.

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;

use super::{AnyCommand, Rerun};
use crate::StoreError;
use crate::database::Tx;

/// Runs `batch` in one transaction and sends the answers.
pub(crate) async fn commit_together(tx: &mut Tx, mut batch: Vec<Box<dyn AnyCommand>>) {
    let mut results = Vec::with_capacity(batch.len());
    let whole = async {
        execute(tx, "BEGIN IMMEDIATE").await?;
        for work in &mut batch {
            execute(tx, "SAVEPOINT command").await?;
            let result = work.run(tx, Rerun::No).await;
            if result.is_err() {
                execute(tx, "ROLLBACK TO command").await?;
            }
            execute(tx, "RELEASE command").await?;
            results.push(result);
        }
        execute(tx, "COMMIT").await
    }
    .await;
    if whole.is_err() {
        // Some errors (a full disk) have rolled it back already; then this one says so and can be ignored.
        let _ = execute(tx, "ROLLBACK").await;
    }
    super::answer(batch, results, whole);
}

async fn execute(tx: &mut Tx, sql: &'static str) -> Result<(), StoreError> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection(tx)?).await?;
    Ok(())
}

fn connection(tx: &mut Tx) -> Result<&mut SqliteConnection, StoreError> {
    match tx {
        Tx::Sqlite(connection) => Ok(connection),
        Tx::Postgres(_) => Err(StoreError::Closed),
    }
}
