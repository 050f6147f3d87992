//! The changes of the database's schema, in order, one directory for each database. A release only adds to the schema; what it
//! no longer needs goes one release later. `checks/append_only.py` seals each file by its content.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};

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
    (15, "several processes", include_str!("sqlite/0015_several_processes.sql")),
    (16, "life of user endpoints", include_str!("sqlite/0016_life_of_user_endpoints.sql")),
];

/// PostgreSQL begins with what SQLite had come to by then.
pub(crate) const POSTGRES: Migrations = &[
    (1, "first", include_str!("postgres/0001_first.sql")),
    (2, "life of user endpoints", include_str!("postgres/0002_life_of_user_endpoints.sql")),
];

pub(crate) fn migrator(migrations: Migrations) -> Migrator {
    let migrations = migrations.iter().map(|&(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// The database has the migration `version`, which this program does not know.
pub(crate) fn newer(version: i64, migrations: Migrations) -> StoreError {
    StoreError::Newer { version, known: newest(migrations) }
}

fn newest(migrations: Migrations) -> i64 {
    migrations.last().map_or(0, |(known, ..)| *known)
}

/// Reads the oldest migration that a program must know, if the database says so.
pub(crate) const OLDEST_KNOWN: &str = "SELECT oldest_known FROM schema_compatibility";

/// Brings the schema to this program's newest migration. The database may have later ones: a release only adds to the schema, so
/// the one before it can go on, as long as it knows the migration `oldest_known` that the database asks for. (Absent: the
/// database is from before it could ask.)
pub(crate) async fn migrate<C: Migrate>(
    connection: &mut C,
    migrations: Migrations,
    oldest_known: Option<i64>,
) -> Result<(), StoreError> {
    let mut migrator = migrator(migrations);
    let unknown = async {
        connection.lock().await?;
        connection.ensure_migrations_table(&migrator.table_name).await?;
        let applied = connection.list_applied_migrations(&migrator.table_name).await?;
        connection.unlock().await?;
        let unknown = applied.into_iter().map(|it| it.version).filter(|it| !migrator.version_exists(*it));
        Ok(unknown.collect::<Vec<_>>())
    };
    let unknown = unknown.await.map_err(failed)?;
    let newest = newest(migrations);
    if let Some(&version) = unknown.iter().max() {
        let later = unknown.iter().all(|version| *version > newest);
        if !later || oldest_known.is_none_or(|oldest| oldest > newest) {
            return Err(newer(version, migrations));
        }
        tracing::info!(
            database = version,
            program = newest,
            "the database was changed by a later release; this one can go on using it"
        );
        migrator.set_ignore_missing(true);
    }
    migrator.run_direct(None, connection, false).await.map_err(|error| match error {
        // Another process, of a later release, was faster.
        MigrateError::VersionMissing(version) => newer(version, migrations),
        error => failed(error),
    })
}

fn failed(error: MigrateError) -> StoreError {
    let ran = match &error {
        MigrateError::VersionMismatch(version) => return StoreError::OtherSchema(*version),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.as_database_error(),
        _ => None,
    };
    match ran {
        // 42501: no right. 3F000: no schema in which it could make tables.
        Some(said) if matches!(said.code().as_deref(), Some("42501" | "3F000")) => {
            StoreError::NoRight(said.message().to_owned())
        }
        _ => sqlx::Error::Migrate(Box::new(error)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those up to which the database could not yet say who may use it.
    const BEGINNING: [(Migrations, i64); 2] = [(SQLITE, 15), (POSTGRES, 1)];

    /// How a migration begins a line that says why programs that do not know it can go on although it takes something away.
    const HARMLESS: &str = "-- predecessors: ";

    /// Why programs that do not know the migration might fail after it.
    fn takes_away(sql: &str) -> Option<String> {
        let lines = sql.lines().filter(|line| !line.trim_start().starts_with("--"));
        let text = lines.collect::<Vec<_>>().join(" ").to_uppercase();
        let words = |statement: &str| statement.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        text.split(';').map(words).find_map(|words| {
            let has = |word: &str| words.iter().any(|it| it == word);
            let adds = has("ADD") && !(has("NOT") && has("NULL") && !has("DEFAULT"));
            let breaks = match words.first().map(String::as_str) {
                Some("DROP") => true,
                Some("ALTER") => !adds || has("DROP") || has("RENAME") || has("CONSTRAINT") || has("UNIQUE"),
                Some("CREATE") => has("TRIGGER") || has("UNIQUE") && has("INDEX"),
                _ => false,
            };
            breaks.then(|| words.join(" "))
        })
    }

    fn is_announced(version: i64, sql: &str) -> bool {
        sql.contains(&format!("UPDATE schema_compatibility SET oldest_known = {version};"))
            || sql.lines().any(|line| line.starts_with(HARMLESS))
    }

    #[test]
    fn what_predecessors_cannot_use_any_more_says_so() {
        for (migrations, beginning) in BEGINNING {
            for (version, name, sql) in migrations.iter().filter(|(version, ..)| *version > beginning) {
                let why = takes_away(sql).filter(|_| !is_announced(*version, sql));
                assert_eq!(
                    why, None,
                    "{version} {name}: set schema_compatibility.oldest_known to {version}, or say in a line that begins \
                     with {HARMLESS:?} why a program that does not know this migration can go on"
                );
            }
        }
    }

    #[test]
    fn what_takes_something_away_is_noticed() {
        for sql in [
            "DROP TABLE tasks;",
            "CREATE TABLE a (b BIGINT);\nALTER TABLE tasks\n RENAME COLUMN id TO number;",
            "ALTER TABLE tasks DROP COLUMN id;",
            "ALTER TABLE tasks ADD COLUMN size BIGINT NOT NULL;",
            "alter table tasks alter column id type text;",
            "CREATE UNIQUE INDEX one ON tasks (state);",
        ] {
            assert!(takes_away(sql).is_some(), "{sql}");
            assert!(!is_announced(16, sql));
        }
        for sql in [
            "CREATE TABLE a (b BIGINT NOT NULL UNIQUE); -- DROP TABLE b;",
            "-- DROP TABLE b;\nCREATE INDEX one ON tasks (state);",
            "ALTER TABLE tasks ADD COLUMN size BIGINT;",
            "ALTER TABLE tasks ADD COLUMN size BIGINT NOT NULL DEFAULT 0;",
        ] {
            assert_eq!(takes_away(sql), None, "{sql}");
        }
        assert!(is_announced(16, "DROP TABLE a;\nUPDATE schema_compatibility SET oldest_known = 16;"));
        assert!(!is_announced(17, "DROP TABLE a;\nUPDATE schema_compatibility SET oldest_known = 16;"));
        assert!(is_announced(16, "-- predecessors: none has ever used it\nDROP TABLE a;"));
    }
}
