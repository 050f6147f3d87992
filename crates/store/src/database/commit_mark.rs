//! Tells what became of a transaction when the answer to its COMMIT was lost: each leaves a mark in the table `_commit_marks`.
//!
//! The server's own id of the transaction would not do: a server that crashed, or a standby that took over, gives the ids of
//! transactions that it has lost to others.

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use crate::random;

/// The mark of one transaction, of one writer.
#[derive(Clone, Debug)]
pub(crate) struct CommitMark {
    writer: String,
    mark: String,
}

impl CommitMark {
    /// A mark for a transaction of `writer`, which consists of letters, digits and blanks.
    pub(crate) fn new(writer: &str) -> CommitMark {
        CommitMark { writer: writer.to_owned(), mark: random::ordered_id().as_simple().to_string() }
    }

    /// Commits the transaction that is open, with the mark if it has written anything.
    pub(crate) async fn commit(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.write(connection, "pg_current_xact_id_if_assigned() IS NOT NULL").await
    }

    /// Whether the transaction was committed. The answer holds from now on: also for standbys that a commit waits for.
    pub(crate) async fn is_committed(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
        // Waits for a session that is committing.
        let last: Option<String> =
            sqlx::query_scalar("SELECT mark FROM _commit_marks WHERE writer = $1 FOR UPDATE")
                .bind(&self.writer)
                .fetch_optional(&mut *connection)
                .await?;
        if last.as_deref() != Some(&self.mark) {
            sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
            return Ok(false);
        }
        self.write(connection, "true").await?;
        Ok(true)
    }

    /// In one message, to save a round trip.
    async fn write(&self, connection: &mut PgConnection, only_if: &str) -> Result<(), sqlx::Error> {
        let CommitMark { writer, mark } = self;
        let sql = format!(
            "INSERT INTO _commit_marks (writer, mark) SELECT '{writer}', '{mark}' WHERE {only_if} \
             ON CONFLICT (writer) DO UPDATE SET mark = EXCLUDED.mark; COMMIT"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
    }

    /// Deletes the marks of writers that are no more.
    pub(crate) async fn delete_all(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("DELETE FROM _commit_marks").execute(connection).await.map(drop)
    }
}
