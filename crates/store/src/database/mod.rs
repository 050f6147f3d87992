//! The two databases under one face: connections, statements, rows. Nothing above this module knows which database it runs on,
//! except to open, copy and check one.

pub(crate) mod commit_mark;
pub(crate) mod inspection;
pub(crate) mod postgres;
pub(crate) mod postgres_errors;
pub(crate) mod postgres_readers;
mod run;
pub(crate) mod server_options;
pub(crate) mod sqlite;
mod statement;

pub use run::Tx;
pub(crate) use run::{Readers, Row, query_scalar};
pub(crate) use statement::{NulCharacter, StatementBuilder, Value, query};
