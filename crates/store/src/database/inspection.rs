//! Looks at a PostgreSQL database without changing it: what would keep a service from starting, or disturb it later.

use jiff::{SignedDuration, Timestamp};
use sqlx::{Connection as _, PgConnection, Row as _};

use super::postgres::{INSTALLATION, Servers};
use crate::StoreError;
use crate::migrations::{self, POSTGRES};

/// What was found of a database that can be reached, takes writes, and has the right encoding and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The server's name and port.
    pub at: String,
    /// The server's version.
    pub version: String,
    pub schema: Schema,
    /// How far the server's clock is ahead of ours; behind, if negative.
    pub clock_ahead: SignedDuration,
    /// Another session holds the installation's lock.
    pub in_use: bool,
    /// How many more connections this user may open now.
    pub connections_left: i64,
    pub user: String,
    /// Whether the user may make the tables that are missing.
    pub may_create: bool,
    /// `fsync`: whether what is committed survives a crash of the server's machine.
    pub fsync: bool,
    /// Whether a commit waits for the disk, as the server, the database or the user has it. (Sessions of ours always do.)
    pub synchronous_commit: bool,
}

/// The schema of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// There are no tables of ours yet.
    Missing,
    /// The next start changes it.
    Older {
        version: i64,
        known: i64,
    },
    Current,
    /// A later release has added to it; this one can go on using it.
    Later {
        version: i64,
        known: i64,
    },
}

impl Servers {
    /// Looks at the database, by the clock `now`.
    pub async fn inspect(&self, now: impl Fn() -> Timestamp + Send) -> Result<Inspection, StoreError> {
        let (mut connection, server) = self.connect().await?;
        let at = server.shown();
        let inspected = inspect(&mut connection, at, now).await;
        connection.close().await?;
        inspected
    }
}

async fn inspect(
    connection: &mut PgConnection,
    at: String,
    now: impl Fn() -> Timestamp + Send,
) -> Result<Inspection, StoreError> {
    let before = now();
    let microseconds: i64 =
        sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
            .fetch_one(&mut *connection)
            .await?;
    let took = now().duration_since(before);
    let theirs = Timestamp::from_microsecond(microseconds).map_err(|_| StoreError::Corrupt("a time"))?;
    let clock_ahead = theirs.duration_since(before) - took / 2;
    let row = sqlx::query(
        "SELECT current_setting('server_version') AS version, current_user::text AS user_name, \
         coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create, \
         current_setting('fsync') = 'on' AS fsync, \
         (SELECT reset_val <> 'off' FROM pg_settings WHERE name = 'synchronous_commit') AS synchronous_commit, \
         to_regclass('_sqlx_migrations') IS NOT NULL AS has_schema, \
         EXISTS (SELECT 1 FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted \
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
            AND l.classid::bigint << 32 | l.objid::bigint = $1) AS in_use, \
         (WITH used AS (SELECT usesysid, datid FROM pg_stat_activity WHERE datid IS NOT NULL) \
          SELECT least( \
            current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint \
              - (SELECT count(*) FROM used), \
            (SELECT CASE WHEN rolconnlimit < 0 THEN 1000000 ELSE rolconnlimit - (SELECT count(*) FROM used WHERE usesysid = r.oid) END \
              FROM pg_roles r WHERE rolname = current_user), \
            (SELECT CASE WHEN datconnlimit < 0 THEN 1000000 ELSE datconnlimit - (SELECT count(*) FROM used WHERE datid = d.oid) END \
              FROM pg_database d WHERE datname = current_database()) \
          )) AS connections_left",
    )
    .bind(INSTALLATION)
    .fetch_one(&mut *connection)
    .await?;
    let schema = match row.try_get("has_schema")? {
        false => Schema::Missing,
        true => {
            let version: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
                .fetch_one(&mut *connection)
                .await?;
            let oldest_known: Option<i64> = match version {
                Some(_) => {
                    sqlx::query_scalar(migrations::OLDEST_KNOWN).fetch_optional(&mut *connection).await?
                }
                None => None,
            };
            let known = POSTGRES.last().map_or(0, |(known, ..)| *known);
            match version {
                None => Schema::Missing,
                Some(version) if version > known && oldest_known.is_none_or(|oldest| oldest > known) => {
                    return Err(StoreError::Newer { version, known });
                }
                Some(version) if version > known => Schema::Later { version, known },
                Some(version) if version < known => Schema::Older { version, known },
                Some(_) => Schema::Current,
            }
        }
    };
    // This connection will be free again.
    let connections_left = row.try_get::<i64, _>("connections_left")? + 1;
    Ok(Inspection {
        at,
        version: row.try_get("version")?,
        schema,
        clock_ahead,
        in_use: row.try_get("in_use")?,
        connections_left,
        user: row.try_get("user_name")?,
        may_create: row.try_get("may_create")?,
        fsync: row.try_get("fsync")?,
        synchronous_commit: row.try_get("synchronous_commit")?,
    })
}
