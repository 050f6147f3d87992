//! What an error of PostgreSQL means: the connection has gone, the server refused one, or the same may be tried again.

/// Whether the connection has gone, so that nothing is known of what it was asked last.
pub(crate) fn is_disconnected(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        // Ended by an administrator, a crash or a failover; not accepting connections; a standby now.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("08")
                || matches!(&*code, "57P01" | "57P02" | "57P03" | "57P05" | "25006" | "25P03")
        }),
        _ => false,
    }
}

/// Whether the server refused a connection: it has none left, no such database, or does not let the user in.
pub(crate) fn is_refused(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code.starts_with("28") || matches!(&*code, "53300" | "3D000"))
}

/// Whether others' transactions were in the way: the same may succeed a moment later.
pub(crate) fn is_conflict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    // Serialization failure, deadlock, lock not available.
    code.is_some_and(|code| matches!(&*code, "40001" | "40P01" | "55P03"))
}
