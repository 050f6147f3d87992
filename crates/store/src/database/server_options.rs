//! How to connect to one PostgreSQL server, and how that is shown: without its password.

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};

/// How to connect to one server. Unlike sqlx's type, its Debug does not show the password.
#[derive(Clone)]
pub(crate) struct ServerOptions(PgConnectOptions);

impl ServerOptions {
    pub(super) fn new(options: PgConnectOptions) -> ServerOptions {
        ServerOptions(options)
    }

    pub(crate) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect_with(&self.0).await
    }

    /// The server's host and port, for people.
    pub(crate) fn shown(&self) -> String {
        match self.0.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", self.0.get_host(), self.0.get_port()),
        }
    }
}

impl std::fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ServerOptions").field(&self.shown()).finish()
    }
}
