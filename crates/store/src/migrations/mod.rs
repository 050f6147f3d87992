//! The changes of the database's schema, in order. A release only adds to the schema; what it no longer needs goes one release
//! later. `checks/append_only.py` seals each file by its content.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// The append-only list of migrations. A released one is never edited: sqlx keeps its checksum in the database.
pub(crate) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "first", include_str!("0001_first.sql")),
    (2, "people", include_str!("0002_people.sql")),
    (3, "sessions", include_str!("0003_sessions.sql")),
    (4, "life", include_str!("0004_life.sql")),
    (5, "user endpoints", include_str!("0005_user_endpoints.sql")),
    (6, "choices", include_str!("0006_choices.sql")),
    (7, "shut out", include_str!("0007_shut_out.sql")),
    (8, "load", include_str!("0008_load.sql")),
    (9, "shares", include_str!("0009_shares.sql")),
    (12, "large submits", include_str!("0012_large_submits.sql")),
    (13, "keyed submissions by age", include_str!("0013_keyed_submissions_by_age.sql")),
    (14, "generations", include_str!("0014_generations.sql")),
];

pub(crate) fn migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migrations = migrations.iter().map(|&(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}
