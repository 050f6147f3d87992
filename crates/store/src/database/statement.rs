//! Statements with their values, in the SQL that SQLite and PostgreSQL both read. What the two write differently (lists and
//! rows of values, locks of rows) is a part of the statement, and is written for the database that runs it.
//!
//! PostgreSQL gets lists and rows as arrays, so that a statement has one text however many values it has: its connections
//! prepare each text once.

use std::borrow::Cow;
use std::fmt::Write as _;

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments};
use sqlx::{Arguments as _, Encode, Type};

/// A text has a character that PostgreSQL's text cannot have. It is refused on both databases, so that one can be moved to the
/// other.
#[derive(Debug, thiserror::Error)]
#[error("a text holds the character NUL (U+0000)")]
pub(crate) struct NulCharacter;

/// A value that is bound to a statement. NULL has the type of its column.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Integer(Option<i64>),
    Boolean(Option<bool>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

macro_rules! values {
    ($($from:ty => $kind:ident($value:ident, $into:expr);)*) => {
        $(
            impl From<$from> for Value {
                fn from($value: $from) -> Value {
                    Value::$kind(Some($into))
                }
            }

            impl From<Option<$from>> for Value {
                fn from(value: Option<$from>) -> Value {
                    Value::$kind(value.map(|$value: $from| $into))
                }
            }
        )*
    };
}

values! {
    i64 => Integer(value, value);
    u32 => Integer(value, i64::from(value));
    bool => Boolean(value, value);
    String => Text(value, value);
    &String => Text(value, value.clone());
    &str => Text(value, value.to_owned());
    Vec<u8> => Bytes(value, value);
    &Vec<u8> => Bytes(value, value.clone());
    &[u8] => Bytes(value, value.to_vec());
}

const FOR_UPDATE: &str = " FOR UPDATE";
const SKIP_LOCKED: &str = " FOR UPDATE SKIP LOCKED";

/// A statement that is ready to run.
#[derive(Clone, Debug)]
#[must_use]
pub(crate) struct Statement {
    sql: Sql,
    values: Vec<Value>,
    /// What PostgreSQL reads at its end, to lock the rows it selects; empty: it locks none.
    locks: &'static str,
}

#[derive(Clone, Debug)]
enum Sql {
    /// With `$1`, `$2`, …
    Fixed(Cow<'static, str>),
    Composed(Vec<Part>),
}

/// A part of a composed statement; each takes its values from the statement's, in order.
#[derive(Clone, Debug)]
enum Part {
    Sql(Cow<'static, str>),
    Value,
    /// ` IN (…)` with as many values.
    In(usize),
    /// Rows of `width` values each.
    Rows {
        width: usize,
        count: usize,
    },
    /// Locks what the query before it selects, and leaves out what others have locked.
    SkipLocked,
}

/// A statement whose text is known. Its values are `$1`, `$2`, …
pub(crate) fn query(sql: impl Into<Cow<'static, str>>) -> Statement {
    Statement { sql: Sql::Fixed(sql.into()), values: Vec::new(), locks: "" }
}

impl Statement {
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Statement {
        self.values.push(value.into());
        self
    }

    /// Locks the rows it selects until the transaction ends: what they say stays true until then. SQLite has one writer, so
    /// there it is true anyway.
    pub(crate) fn for_update(self) -> Statement {
        self.locking(FOR_UPDATE)
    }

    /// The same, without those rows that others have locked: for what can be left for the next time.
    pub(crate) fn for_update_skip_locked(self) -> Statement {
        self.locking(SKIP_LOCKED)
    }

    /// Locks rows with PostgreSQL's own clause, which may say in which order, of which table, and how strongly.
    pub(crate) fn locking(mut self, clause: &'static str) -> Statement {
        self.locks = clause;
        self
    }

    fn refuse_nul(&self) -> Result<(), sqlx::Error> {
        let is_nul = |value: &Value| matches!(value, Value::Text(Some(text)) if text.contains('\0'));
        match self.values.iter().any(is_nul) {
            true => Err(sqlx::Error::Encode(Box::new(NulCharacter))),
            false => Ok(()),
        }
    }

    pub(crate) fn for_sqlite(self) -> Result<Query<'static, Sqlite, SqliteArguments>, sqlx::Error> {
        self.refuse_nul()?;
        let mut arguments = SqliteArguments::default();
        arguments.reserve(self.values.len(), 0);
        for value in self.values {
            let added = match value {
                Value::Integer(value) => arguments.add(value),
                Value::Boolean(value) => arguments.add(value),
                Value::Text(value) => arguments.add(value),
                Value::Bytes(value) => arguments.add(value),
            };
            added.map_err(sqlx::Error::Encode)?;
        }
        Ok(match self.sql {
            Sql::Fixed(Cow::Borrowed(sql)) => sqlx::query_with(sql, arguments),
            Sql::Fixed(Cow::Owned(sql)) => sqlx::query_with(AssertSqlSafe(sql), arguments),
            Sql::Composed(parts) => sqlx::query_with(AssertSqlSafe(sqlite_text(&parts)), arguments),
        })
    }

    pub(crate) fn for_postgres(self) -> Result<Query<'static, Postgres, PgArguments>, sqlx::Error> {
        self.refuse_nul()?;
        let mut arguments = PgArguments::default();
        let lock = self.locks;
        let parts = match self.sql {
            Sql::Fixed(sql) => {
                for value in self.values {
                    add(&mut arguments, value)?;
                }
                return Ok(match sql {
                    Cow::Borrowed(sql) if lock.is_empty() => sqlx::query_with(sql, arguments),
                    sql => sqlx::query_with(AssertSqlSafe(format!("{sql}{lock}")), arguments),
                });
            }
            Sql::Composed(parts) => parts,
        };
        let mut sql = String::new();
        let mut values = self.values.into_iter();
        for part in parts {
            match part {
                Part::Sql(text) => sql.push_str(&text),
                Part::Value => {
                    if let Some(value) = values.next() {
                        add(&mut arguments, value)?;
                    }
                    let _ = write!(sql, "${}", arguments.len());
                }
                // An array of no values has no type.
                Part::In(0) => sql.push_str(" IN (NULL)"),
                Part::In(count) => {
                    add_array(&mut arguments, values.by_ref().take(count).collect())?;
                    let _ = write!(sql, " = ANY(${})", arguments.len());
                }
                Part::SkipLocked => sql.push_str(SKIP_LOCKED),
                Part::Rows { width, count } => {
                    let mut columns = vec![Vec::with_capacity(count); width];
                    for (at, value) in values.by_ref().take(width * count).enumerate() {
                        columns[at % width].push(value);
                    }
                    sql.push_str("SELECT * FROM unnest(");
                    for (at, column) in columns.into_iter().enumerate() {
                        add_array(&mut arguments, column)?;
                        let _ = write!(sql, "{}${}", if at == 0 { "" } else { ", " }, arguments.len());
                    }
                    sql.push_str(") AS given (");
                    for at in 1..=width {
                        let _ = write!(sql, "{}column{at}", if at == 1 { "" } else { ", " });
                    }
                    sql.push(')');
                }
            }
        }
        sql.push_str(lock);
        Ok(sqlx::query_with(AssertSqlSafe(sql), arguments))
    }
}

fn sqlite_text(parts: &[Part]) -> String {
    let mut sql = String::new();
    let list = |sql: &mut String, count: usize| {
        sql.push('(');
        for at in 0..count {
            sql.push_str(if at == 0 { "?" } else { ", ?" });
        }
        sql.push(')');
    };
    for part in parts {
        match part {
            Part::Sql(text) => sql.push_str(text),
            Part::Value => sql.push('?'),
            Part::In(count) => {
                sql.push_str(" IN ");
                list(&mut sql, *count);
            }
            // SQLite has one writer.
            Part::SkipLocked => {}
            Part::Rows { width, count } => {
                sql.push_str("VALUES ");
                for row in 0..*count {
                    sql.push_str(if row == 0 { "" } else { ", " });
                    list(&mut sql, *width);
                }
            }
        }
    }
    sql
}

fn add(arguments: &mut PgArguments, value: Value) -> Result<(), sqlx::Error> {
    match value {
        Value::Integer(value) => arguments.add(value),
        Value::Boolean(value) => arguments.add(value),
        Value::Text(value) => arguments.add(value),
        Value::Bytes(value) => arguments.add(value),
    }
    .map_err(sqlx::Error::Encode)
}

fn add_array(arguments: &mut PgArguments, values: Vec<Value>) -> Result<(), sqlx::Error> {
    fn of<T>(arguments: &mut PgArguments, values: Vec<Option<T>>) -> Result<(), sqlx::Error>
    where
        Vec<Option<T>>: for<'q> Encode<'q, Postgres> + Type<Postgres>,
    {
        arguments.add(values).map_err(sqlx::Error::Encode)
    }
    macro_rules! array {
        ($kind:ident) => {
            of(
                arguments,
                values
                    .into_iter()
                    .map(|value| match value {
                        Value::$kind(value) => value,
                        // A column of rows is bound by one expression, which has one type.
                        _ => None,
                    })
                    .collect(),
            )
        };
    }
    match values.first() {
        None | Some(Value::Bytes(_)) => array!(Bytes),
        Some(Value::Integer(_)) => array!(Integer),
        Some(Value::Boolean(_)) => array!(Boolean),
        Some(Value::Text(_)) => array!(Text),
    }
}

/// Composes a statement whose text depends on its values.
#[derive(Debug)]
pub(crate) struct StatementBuilder {
    parts: Vec<Part>,
    values: Vec<Value>,
}

/// The values of one row.
#[derive(Debug)]
pub(crate) struct RowValues<'b>(&'b mut Vec<Value>);

impl RowValues<'_> {
    pub(crate) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.0.push(value.into());
        self
    }
}

impl StatementBuilder {
    pub(crate) fn new(sql: impl Into<Cow<'static, str>>) -> StatementBuilder {
        StatementBuilder { parts: vec![Part::Sql(sql.into())], values: Vec::new() }
    }

    pub(crate) fn push(&mut self, sql: &'static str) -> &mut Self {
        self.parts.push(Part::Sql(sql.into()));
        self
    }

    pub(crate) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.parts.push(Part::Value);
        self.values.push(value.into());
        self
    }

    /// Makes the query pushed so far lock what it selects, and leave out what others have locked.
    pub(crate) fn push_skip_locked(&mut self) -> &mut Self {
        self.parts.push(Part::SkipLocked);
        self
    }

    /// Pushes ` IN (…)`.
    pub(crate) fn push_in<V: Into<Value>>(&mut self, values: impl Iterator<Item = V>) -> &mut Self {
        let before = self.values.len();
        self.values.extend(values.map(Into::into));
        self.parts.push(Part::In(self.values.len() - before));
        self
    }

    /// Pushes `VALUES (…), (…)`: at least one row, each with equally many values of the same kinds.
    pub(crate) fn push_values<I>(
        &mut self,
        rows: impl IntoIterator<Item = I>,
        mut push: impl FnMut(RowValues<'_>, I),
    ) -> &mut Self {
        let before = self.values.len();
        let mut count = 0;
        for row in rows {
            push(RowValues(&mut self.values), row);
            count += 1;
        }
        let width = (self.values.len() - before) / count.max(1);
        self.parts.push(Part::Rows { width, count });
        self
    }

    /// The statement that was composed so far.
    pub(crate) fn build(&mut self) -> Statement {
        let (parts, values) = (std::mem::take(&mut self.parts), std::mem::take(&mut self.values));
        Statement { sql: Sql::Composed(parts), values, locks: "" }
    }
}
