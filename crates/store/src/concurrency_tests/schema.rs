//! A program and its predecessor on one database. These run on SQLite as well.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use super::*;
use crate::{Servers, StoreError};

/// Runs a statement on the database of the test, whichever it is.
async fn execute(database: &TestDatabase, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    if database.url().is_some() {
        sqlx::raw_sql(sql).execute(&mut session(database).await).await.unwrap();
        return;
    }
    let options = SqliteConnectOptions::new().filename(database.path().join("farcall.db"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn try_open(database: &TestDatabase) -> Result<Store, StoreError> {
    match database.url() {
        None => Store::open(&database.path().join("farcall.db")).await,
        Some(url) => {
            let servers: Servers = url.parse().unwrap();
            Store::open_postgres(&servers, &database.path().join("payloads"), Sharing::Shared).await
        }
    }
}

#[tokio::test]
async fn a_program_goes_on_with_a_later_schema_if_the_database_says_that_it_may() {
    let database = TestDatabase::new().await;
    database.open().await.close().await;
    execute(
        &database,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         SELECT 1000, 'of a later release', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
    )
    .await;
    let store = try_open(&database).await.unwrap();
    store.check_works().await.unwrap();
    store.close().await;

    execute(&database, "UPDATE schema_compatibility SET oldest_known = 1000").await;
    let refused = try_open(&database).await;
    assert!(matches!(refused, Err(StoreError::Newer { version: 1000, .. })), "{refused:?}");

    // One that this program should know, but does not: the two do not go back to the same beginnings.
    execute(
        &database,
        "UPDATE schema_compatibility SET oldest_known = 0; UPDATE _sqlx_migrations SET version = 0 WHERE version = 1000",
    )
    .await;
    let refused = try_open(&database).await;
    assert!(matches!(refused, Err(StoreError::Newer { version: 0, .. })), "{refused:?}");
}

/// PostgreSQL refuses a prepared statement that would read other columns than before: those that name no columns stop working in
/// a running program when a later release adds one.
#[test]
fn statements_name_the_columns_that_they_read() {
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for folder in ["", "tasks", "identity", "writer"] {
        for entry in std::fs::read_dir(sources.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let source = std::fs::read_to_string(&path).unwrap();
                assert!(!source.contains("SELECT *"), "{}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn two_processes_may_start_at_the_same_time() {
    let Some(database) = database().await else { return };
    let database = std::sync::Arc::new(database);
    let open = || {
        let database = database.clone();
        async move { try_open(&database).await }
    };
    let (one, other) = race(open(), open()).await;
    for store in [one.unwrap(), other.unwrap()] {
        store.check_works().await.unwrap();
        store.close().await;
    }
}
