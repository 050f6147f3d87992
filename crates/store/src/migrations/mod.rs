//! The changes of the database's schema, in order, one directory for each database. A release only adds to the schema; what it
//! no longer needs goes one release later. `checks/append_only.py` seals each file by its content.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::StoreError;

/// Append-only lists: a released migration is never edited, because sqlx keeps its checksum in the database.
pub(crate) type Migrations = &'static [(i64, &'static str, &'static str)];

pub(crate) const SQLITE: Migrations = &[
    (1, "first", include_str!("sqlite/0001_first.sql")),
    (2, "people", include_str!("sqlite/0002_people.sql")),
    (3, "sessions", include_str!("sqlite/0003_sessions.sql")),
    (4, "life", include_str!("sqlite/0004_life.sql")),
    (5, "user endpoints", include_str!("sqlite/0005_user_endpoints.sql")),
    (6, "choices", include_str!("sqlite/0006_choices.sql")),
    (7, "shut out", include_str!("sqlite/0007_shut_out.sql")),
    (8, "load", include_str!("sqlite/0008_load.sql")),
    (9, "shares", include_str!("sqlite/0009_shares.sql")),
    (12, "large submits", include_str!("sqlite/0012_large_submits.sql")),
    (13, "keyed submissions by age", include_str!("sqlite/0013_keyed_submissions_by_age.sql")),
    (14, "generations", include_str!("sqlite/0014_generations.sql")),
];

/// PostgreSQL begins with what SQLite had come to by then.
pub(crate) const POSTGRES: Migrations = &[(1, "first", include_str!("postgres/0001_first.sql"))];

pub(crate) fn migrator(migrations: Migrations) -> Migrator {
    let migrations = migrations.iter().map(|&(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// The database has the migration `version`, which this program does not know.
pub(crate) fn newer(version: i64, migrations: Migrations) -> StoreError {
    StoreError::Newer { version, known: migrations.last().map_or(0, |(known, ..)| *known) }
}
