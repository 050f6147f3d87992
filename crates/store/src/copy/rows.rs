//! Reads the rows of a table one after another, writes them in bounded batches, and sums them up, so that two tables can be
//! compared that lie in different databases.

use std::ops::AddAssign;

use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, TypeInfo as _, ValueRef as _};

use super::CopyError;
use super::catalogue::{Column, ColumnKind, Table};
use crate::StoreError;
use crate::database::{Row, StatementBuilder, Tx, Value, query};

/// What one batch holds at most; a single row may be larger.
pub(crate) const BATCH_ROWS: usize = 1000;
pub(crate) const BATCH_BYTES: usize = 4 << 20;
/// SQLite binds at most 32,766 values to a statement.
const BATCH_VALUES: usize = 32_000;

/// How large the batches of a copy became.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batches {
    pub(crate) count: usize,
    pub(crate) most_rows: usize,
    pub(crate) most_bytes: usize,
}

/// The number of a table's rows and a checksum of them, whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableSum {
    pub(crate) rows: u64,
    sum: [u64; 4],
}

impl TableSum {
    /// Adds a row: its SHA-256, with the type and the length of each value in it. Adding up instead of hashing on makes the
    /// order of rows irrelevant, because the two databases sort differently.
    fn add(&mut self, row: &[Value]) {
        let mut hash = Sha256::new();
        let mut part = |tag: u8, bytes: Option<&[u8]>| {
            hash.update([tag, u8::from(bytes.is_some())]);
            let bytes = bytes.unwrap_or_default();
            hash.update(bytes.len().to_le_bytes());
            hash.update(bytes);
        };
        for value in row {
            match value {
                Value::Integer(value) => part(1, value.map(i64::to_le_bytes).as_ref().map(|it| &it[..])),
                Value::Boolean(value) => part(2, value.map(|it| [u8::from(it)]).as_ref().map(|it| &it[..])),
                Value::Text(value) => part(3, value.as_ref().map(String::as_bytes)),
                Value::Bytes(value) => part(4, value.as_deref()),
            }
        }
        self.rows.add_assign(1);
        for (sum, part) in self.sum.iter_mut().zip(hash.finalize().chunks_exact(8)) {
            *sum = sum.wrapping_add(part.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        }
    }
}

/// Sums up the rows of `table`, at most `limit`.
pub(crate) async fn sum(tx: &mut Tx, table: &Table, limit: Option<u64>) -> Result<TableSum, CopyError> {
    let limit = limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
    let select = format!("SELECT {} FROM {}{limit}", table.column_list(), table.quoted());
    let mut rows = query(select).fetch(tx);
    let mut sum = TableSum::default();
    while let Some(row) = rows.try_next().await.map_err(|error| in_table(table, error))? {
        sum.add(&values(&row, table)?);
    }
    Ok(sum)
}

/// Copies the rows of `table`.
pub(crate) async fn copy(from: &mut Tx, to: &mut Tx, table: &Table) -> Result<Batches, CopyError> {
    let select = format!("SELECT {} FROM {}", table.column_list(), table.quoted());
    let most_rows = BATCH_ROWS.min(BATCH_VALUES / table.columns.len().max(1));
    let to_postgres = matches!(to, Tx::Postgres(_));
    let mut batches = Batches::default();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut rows = query(select).fetch(from);
    loop {
        let row = rows.try_next().await.map_err(|error| in_table(table, error))?;
        let last = row.is_none();
        if let Some(row) = row {
            let values = values(&row, table)?;
            if to_postgres {
                refuse_nul(&values, table)?;
            }
            bytes += values.iter().map(size).sum::<usize>();
            batch.push(values);
        }
        if batch.len() >= most_rows || bytes >= BATCH_BYTES || (last && !batch.is_empty()) {
            batches.count += 1;
            batches.most_rows = batches.most_rows.max(batch.len());
            batches.most_bytes = batches.most_bytes.max(bytes);
            insert(to, table, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
        if last {
            return Ok(batches);
        }
    }
}

async fn insert(to: &mut Tx, table: &Table, batch: Vec<Vec<Value>>) -> Result<(), CopyError> {
    let mut insert =
        StatementBuilder::new(format!("INSERT INTO {} ({}) ", table.quoted(), table.column_list()));
    insert.push_values(batch, |mut row, values| {
        for value in values {
            row.push_bind(value);
        }
    });
    insert.build().execute(to).await.map_err(|error| in_table(table, error))?;
    Ok(())
}

fn in_table(table: &Table, error: sqlx::Error) -> CopyError {
    CopyError::Table { table: table.name.clone(), error: StoreError::from(error) }
}

fn size(value: &Value) -> usize {
    let content = match value {
        Value::Text(Some(text)) => text.len(),
        Value::Bytes(Some(bytes)) => bytes.len(),
        _ => 0,
    };
    size_of::<Value>() + content
}

/// PostgreSQL's text cannot hold the character NUL.
fn refuse_nul(values: &[Value], table: &Table) -> Result<(), CopyError> {
    for (value, column) in values.iter().zip(&table.columns) {
        if let Value::Text(Some(text)) = value
            && text.contains('\0')
        {
            return Err(CopyError::Nul { column: format!("{}.{}", table.name, column.name) });
        }
    }
    Ok(())
}

/// The values of a row of `table`, in the order of its columns.
fn values(row: &Row, table: &Table) -> Result<Vec<Value>, CopyError> {
    let read = |(at, column): (usize, &Column)| {
        let value = match row {
            Row::Sqlite(row) => sqlite_value(row, at, column.kind)?,
            Row::Postgres(row) => Some(postgres_value(row, at, column.kind)?),
        };
        value.ok_or_else(|| CopyError::Value {
            column: format!("{}.{}", table.name, column.name),
            kind: column.kind,
        })
    };
    table.columns.iter().enumerate().map(read).collect()
}

/// A value, unless it is of another kind than its column: SQLite keeps in a column what it is given.
fn sqlite_value(row: &SqliteRow, at: usize, kind: ColumnKind) -> Result<Option<Value>, sqlx::Error> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Some(match kind {
            ColumnKind::Integer => Value::Integer(None),
            ColumnKind::Boolean => Value::Boolean(None),
            ColumnKind::Text => Value::Text(None),
            ColumnKind::Bytes => Value::Bytes(None),
        }));
    }
    let stored = raw.type_info().name().to_owned();
    Ok(match (kind, stored.as_str()) {
        (ColumnKind::Integer, "INTEGER") => Some(Value::from(row.try_get_unchecked::<i64, _>(at)?)),
        (ColumnKind::Boolean, "INTEGER" | "BOOLEAN") => match row.try_get_unchecked::<i64, _>(at)? {
            truth @ (0 | 1) => Some(Value::from(truth == 1)),
            _ => None,
        },
        (ColumnKind::Text, "TEXT") => String::from_utf8(row.try_get_unchecked(at)?).ok().map(Value::from),
        (ColumnKind::Bytes, "BLOB") => Some(Value::from(row.try_get_unchecked::<Vec<u8>, _>(at)?)),
        _ => None,
    })
}

fn postgres_value(row: &PgRow, at: usize, kind: ColumnKind) -> Result<Value, sqlx::Error> {
    Ok(match kind {
        ColumnKind::Integer => Value::Integer(match row.try_get_raw(at)?.type_info().name() {
            "INT4" => row.try_get::<Option<i32>, _>(at)?.map(i64::from),
            "INT2" => row.try_get::<Option<i16>, _>(at)?.map(i64::from),
            _ => row.try_get(at)?,
        }),
        ColumnKind::Boolean => Value::Boolean(row.try_get(at)?),
        ColumnKind::Text => Value::Text(row.try_get(at)?),
        ColumnKind::Bytes => Value::Bytes(row.try_get(at)?),
    })
}
