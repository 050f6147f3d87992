//! Opens an empty database to copy into, and fills it: wholly, or not at all.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use super::catalogue::{Catalogue, Table, quoted};
use super::rows::{self, Batches};
use super::source::{Source, has_table};
use super::{CopiedTable, CopyError, DatabaseAddress};
use crate::database::{Tx, query, query_scalar, sqlite};
use crate::migrations::{self, Migrations, POSTGRES, SQLITE};
use crate::{Servers, StoreError, private_file};

/// A database without rows of an installation. Nobody else uses it.
#[derive(Debug)]
pub struct EmptyDatabase {
    pub(super) tx: Tx,
    address: DatabaseAddress,
}

impl EmptyDatabase {
    /// Opens the database at `address` and makes the schema in it. Fails if it holds anything.
    ///
    /// A SQLite database is made in another file, which takes its name when it is complete.
    pub async fn open(address: &DatabaseAddress) -> Result<EmptyDatabase, CopyError> {
        let tx = match address {
            DatabaseAddress::Sqlite(file) => {
                refuse_occupied(file, address).await?;
                Tx::Sqlite(fresh_sqlite(Some(&unfinished(file))).await?)
            }
            DatabaseAddress::Postgres(servers) => open_postgres(servers, address, POSTGRES).await?,
        };
        Ok(EmptyDatabase { tx, address: address.clone() })
    }

    /// Copies every row of every table of `source`, and compares what the two then hold. On an error, it is as empty as before.
    pub async fn fill(self, source: &mut Source) -> Result<Vec<CopiedTable>, CopyError> {
        Ok(self.fill_in_batches(source).await?.0)
    }

    /// The same. Says how large the batches were.
    pub(super) async fn fill_in_batches(
        mut self,
        source: &mut Source,
    ) -> Result<(Vec<CopiedTable>, Batches), CopyError> {
        let filled = fill(source, &mut self.tx).await;
        let DatabaseAddress::Sqlite(file) = &self.address else {
            if filled.is_err() {
                // If this fails as well, the connection has gone, and the transaction with it.
                let _ = query("ROLLBACK").execute(&mut self.tx).await;
            }
            self.tx.close().await?;
            return filled;
        };
        let closed = self.tx.close().await.map_err(CopyError::from);
        let finished = filled.and_then(|filled| {
            closed?;
            put_in_place(file).map_err(|error| StoreError::File(Arc::new(error)))?;
            Ok(filled)
        });
        if finished.is_err() {
            remove(&unfinished(file));
        }
        finished
    }

    /// Leaves it empty.
    pub async fn close(self) -> Result<(), CopyError> {
        self.tx.close().await?;
        if let DatabaseAddress::Sqlite(file) = &self.address {
            remove(&unfinished(file));
        }
        Ok(())
    }
}

/// Brings an empty database to the newest of `migrations`. One that holds an installation's rows keeps its schema: that
/// installation may be of an older version, and go on.
pub(super) async fn open_postgres(
    servers: &Servers,
    address: &DatabaseAddress,
    migrations: Migrations,
) -> Result<Tx, CopyError> {
    let (mut connection, _) = servers.connect().await?;
    servers.lock_installation(&mut connection).await?;
    sqlx::raw_sql(super::UNBOUNDED).execute(&mut connection).await?;
    let mut tx = Tx::Postgres(connection);
    if has_table(&mut tx, "_sqlx_migrations").await? {
        refuse_rows(&mut tx, address, Migrated::Perhaps).await?;
    } else if let Some(table) = any_table(&mut tx).await? {
        return Err(CopyError::NotOurs { database: address.shown(), table });
    }
    if let Tx::Postgres(connection) = &mut tx {
        migrations::migrate(connection, migrations, None).await?;
    }
    refuse_rows(&mut tx, address, Migrated::Yes).await?;
    Ok(tx)
}

async fn fill(source: &mut Source, to: &mut Tx) -> Result<(Vec<CopiedTable>, Batches), CopyError> {
    let from = &mut source.tx;
    query("BEGIN").execute(&mut *to).await?;
    let catalogue = Catalogue::read(from).await?;
    catalogue.equals(&Catalogue::read(to).await?)?;
    let references = put_off_references(to).await?;
    for table in &catalogue.0 {
        // What the migrations have put there; the source has its own.
        query(format!("DELETE FROM {}", table.quoted())).execute(&mut *to).await?;
    }
    let mut batches = Batches::default();
    for table in &catalogue.0 {
        let of_table = rows::copy(from, to, table).await?;
        batches.count += of_table.count;
        batches.most_rows = batches.most_rows.max(of_table.most_rows);
        batches.most_bytes = batches.most_bytes.max(of_table.most_bytes);
    }
    check_references(to, &references).await?;
    for table in &catalogue.0 {
        continue_numbers(from, to, table).await?;
    }
    let mut copied = Vec::with_capacity(catalogue.0.len());
    for table in &catalogue.0 {
        let (in_source, in_target) = (rows::sum(from, table, None).await?, rows::sum(to, table, None).await?);
        if in_source != in_target {
            return Err(CopyError::Difference {
                table: table.name.clone(),
                source_rows: in_source.rows,
                target_rows: in_target.rows,
            });
        }
        if let Tx::Postgres(_) = to {
            // The planner knows the tables from the first statement on.
            query(format!("ANALYZE {}", table.quoted())).execute(&mut *to).await?;
        }
        copied.push(CopiedTable { name: table.name.clone(), rows: in_target.rows });
    }
    query("COMMIT").execute(to).await?;
    Ok((copied, batches))
}

/// A reference that is checked later, by its names in SQL.
#[derive(Debug)]
struct Reference {
    name: String,
    table: String,
    parent: String,
}

/// Lets rows refer to rows that come later. Returns what `check_references` puts back.
async fn put_off_references(to: &mut Tx) -> Result<Vec<Reference>, CopyError> {
    // On SQLite, the connection does not look at references.
    let Tx::Postgres(_) = to else { return Ok(Vec::new()) };
    let select = "SELECT r.conname::text AS name, t.relname::text AS table_name, p.relname::text AS parent \
                  FROM pg_constraint r JOIN pg_class t ON t.oid = r.conrelid JOIN pg_class p ON p.oid = r.confrelid \
                  JOIN pg_namespace s ON s.oid = t.relnamespace \
                  WHERE r.contype = 'f' AND s.nspname = current_schema() AND NOT r.condeferrable ORDER BY 2, 1";
    let mut references = Vec::new();
    for row in query(select).fetch_all(&mut *to).await? {
        let (name, table) = (row.try_get("name")?, row.try_get("table_name")?);
        references.push(Reference { name, table, parent: row.try_get("parent")? });
    }
    alter_references(to, &references, "DEFERRABLE INITIALLY DEFERRED").await?;
    query("SET CONSTRAINTS ALL DEFERRED").execute(to).await?;
    Ok(references)
}

async fn check_references(to: &mut Tx, references: &[Reference]) -> Result<(), CopyError> {
    if let Tx::Sqlite(_) = to {
        return match query("PRAGMA foreign_key_check").fetch_optional(to).await? {
            Some(row) => {
                Err(CopyError::Reference { table: row.try_get("table")?, parent: row.try_get("parent")? })
            }
            None => Ok(()),
        };
    }
    query("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *to).await.map_err(|error| {
        let name = error.as_database_error().and_then(|error| error.constraint());
        match references.iter().find(|reference| Some(reference.name.as_str()) == name) {
            Some(broken) => {
                CopyError::Reference { table: broken.table.clone(), parent: broken.parent.clone() }
            }
            None => error.into(),
        }
    })?;
    alter_references(to, references, "NOT DEFERRABLE").await
}

async fn alter_references(to: &mut Tx, references: &[Reference], how: &str) -> Result<(), CopyError> {
    for Reference { name, table, .. } in references {
        let alter = format!("ALTER TABLE {} ALTER CONSTRAINT {} {how}", quoted(table), quoted(name));
        query(alter).execute(&mut *to).await?;
    }
    Ok(())
}

/// Lets the target count on where the source would: a number is not given twice, even if its row has gone.
async fn continue_numbers(from: &mut Tx, to: &mut Tx, table: &Table) -> Result<(), CopyError> {
    let Some(column) = &table.numbered else { return Ok(()) };
    let last = last_number(from, table, column).await?;
    if last == 0 {
        return Ok(());
    }
    match to {
        Tx::Sqlite(_) => {
            query("DELETE FROM sqlite_sequence WHERE name = $1").bind(&table.name).execute(&mut *to).await?;
            let insert = query("INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)");
            insert.bind(&table.name).bind(last).execute(to).await?;
        }
        Tx::Postgres(_) => {
            let sequence = sequence_of(to, table, column).await?;
            // Unlike setval, it goes with the transaction.
            query(format!("ALTER SEQUENCE {sequence} RESTART WITH {}", last + 1)).execute(to).await?;
        }
    }
    Ok(())
}

/// The number that was given last; 0: none.
async fn last_number(tx: &mut Tx, table: &Table, column: &str) -> Result<i64, CopyError> {
    let largest = format!("SELECT max({}) AS last FROM {}", quoted(column), table.quoted());
    let largest: Option<i64> = query(largest).fetch_one(&mut *tx).await?.try_get("last")?;
    let given = match tx {
        Tx::Sqlite(_) => {
            query_scalar::<i64>("SELECT seq FROM sqlite_sequence WHERE name = $1")
                .bind(&table.name)
                .fetch_optional(tx)
                .await?
        }
        Tx::Postgres(_) => {
            let sequence = sequence_of(tx, table, column).await?;
            let select =
                format!("SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END AS last FROM {sequence}");
            Some(query(select).fetch_one(tx).await?.try_get("last")?)
        }
    };
    Ok(largest.unwrap_or(0).max(given.unwrap_or(0)))
}

async fn sequence_of(tx: &mut Tx, table: &Table, column: &str) -> Result<String, CopyError> {
    Ok(query_scalar("SELECT pg_get_serial_sequence($1, $2)")
        .bind(table.quoted())
        .bind(column)
        .fetch_one(tx)
        .await?)
}

/// Makes a SQLite database with this version's schema: in `file`, or in memory. It is not safe against a crash before it is
/// closed and synced, and does not look at references.
async fn fresh_sqlite(file: Option<&Path>) -> Result<SqliteConnection, CopyError> {
    let options = SqliteConnectOptions::new().foreign_keys(false).disable_statement_logging();
    let options = match file {
        None => options.in_memory(true),
        Some(file) => {
            remove(file);
            private_file::restrict_database(file).map_err(|error| StoreError::File(Arc::new(error)))?;
            options.filename(file).journal_mode(SqliteJournalMode::Off).synchronous(SqliteSynchronous::Off)
        }
    };
    let mut connection = SqliteConnection::connect_with(&options).await?;
    migrations::migrate(&mut connection, SQLITE, None).await?;
    Ok(connection)
}

/// Fails if `file` is a database with rows, or none that this version can read.
async fn refuse_occupied(file: &Path, address: &DatabaseAddress) -> Result<(), CopyError> {
    match file.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::File(Arc::new(error)).into()),
        Ok(about) if about.len() == 0 => return Ok(()),
        Ok(_) => {}
    }
    let mut tx = Tx::Sqlite(sqlite::connect(file, false).await?);
    let refused = refuse_rows(&mut tx, address, Migrated::Yes).await;
    tx.close().await?;
    refused
}

/// Whether a database has this version's schema.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Migrated {
    Yes,
    /// An earlier version may have made it, and its migrations may have put other rows there.
    Perhaps,
}

/// Fails if a table holds other rows than the migrations have put there.
async fn refuse_rows(tx: &mut Tx, address: &DatabaseAddress, migrated: Migrated) -> Result<(), CopyError> {
    let mut fresh = Tx::Sqlite(fresh_sqlite(None).await?);
    let expected = Catalogue::read(&mut fresh).await?;
    for table in &Catalogue::read(tx).await?.0 {
        let known = expected.0.iter().find(|known| known.name == table.name);
        if migrated == Migrated::Perhaps
            && let Some(known) = known
            && rows::sum(&mut fresh, known, Some(1)).await?.rows > 0
        {
            continue;
        }
        let same = if known.is_some_and(|known| known.columns == table.columns) {
            let empty = rows::sum(&mut fresh, table, None).await?;
            rows::sum(tx, table, Some(empty.rows + 1)).await? == empty
        } else {
            rows::sum(tx, table, Some(1)).await?.rows == 0
        };
        if !same {
            return Err(CopyError::NotEmpty { database: address.clone(), table: table.name.clone() });
        }
    }
    fresh.close().await?;
    Ok(())
}

async fn any_table(tx: &mut Tx) -> Result<Option<String>, CopyError> {
    let sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1 LIMIT 1";
    Ok(query_scalar(sql).fetch_optional(tx).await?)
}

fn unfinished(file: &Path) -> PathBuf {
    file.with_extension("copied")
}

fn remove(unfinished: &Path) {
    // A file that is left over is overwritten by the next copy.
    let _ = fs::remove_file(unfinished);
}

fn put_in_place(file: &Path) -> std::io::Result<()> {
    let unfinished = unfinished(file);
    File::open(&unfinished)?.sync_all()?;
    for log in ["-wal", "-shm"] {
        // Of the empty database that it replaces.
        let mut log_file = file.as_os_str().to_owned();
        log_file.push(log);
        let _ = fs::remove_file(log_file);
    }
    fs::rename(&unfinished, file)?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
