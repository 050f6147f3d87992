//! Counts for metrics, and a check whether the store reads and commits.

use std::path::Path;

use wire::EndpointId;

use crate::columns::id;
use crate::database::{query, query_scalar, sqlite::connect};
use crate::{Command, Store, StoreError, Tx};
use sqlx::Connection as _;

/// How many of each are in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Tasks that no endpoint has acknowledged.
    pub waiting: i64,
    /// Tasks that an endpoint has and that have not ended.
    pub taken: i64,
    /// Results that no client has acknowledged.
    pub deliveries: i64,
    pub endpoints: Vec<EndpointId>,
    /// Endpoints that no manager starts.
    pub unmanaged: Vec<EndpointId>,
}

/// An empty command: shows that the writer commits.
#[derive(Clone, Debug)]
struct Probe;

impl Command for Probe {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        // Touches the file without changing what it says.
        query("UPDATE endpoints SET credential = credential WHERE id = $1")
            .bind([0_u8].as_slice())
            .execute(tx)
            .await?;
        Ok(())
    }
}

impl Store {
    /// Counts.
    pub async fn counts(&self) -> Result<StoreCounts, StoreError> {
        let count = |sql: &'static str| async move {
            let count: i64 = query_scalar(sql).fetch_one(&self.readers).await?;
            Ok::<_, StoreError>(count)
        };
        let mut counts = StoreCounts {
            waiting: count("SELECT CAST(coalesce(sum(waiting), 0) AS BIGINT) FROM endpoint_tasks").await?,
            taken: count("SELECT CAST(coalesce(sum(taken), 0) AS BIGINT) FROM endpoint_tasks").await?,
            deliveries: count("SELECT count(*) FROM deliveries").await?,
            ..StoreCounts::default()
        };
        let rows = query("SELECT id, manager_id FROM endpoints").fetch_all(&self.readers).await?;
        for row in &rows {
            let endpoint = EndpointId::from_uuid(id(row, "id")?);
            counts.endpoints.push(endpoint);
            if row.try_get::<Option<&[u8]>>("manager_id")?.is_none() {
                counts.unmanaged.push(endpoint);
            }
        }
        Ok(counts)
    }

    /// Whether the store reads and commits.
    pub async fn check_works(&self) -> Result<(), StoreError> {
        query("SELECT 1").fetch_one(&self.readers).await?;
        self.write(Probe).await
    }

    /// Runs SQLite's integrity check on the database in `file`; answers `ok` or what is wrong.
    pub async fn check_integrity(file: &Path) -> Result<String, StoreError> {
        let mut connection = connect(file, true).await?;
        let said = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(said)
    }
}
