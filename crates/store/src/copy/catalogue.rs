//! Reads from a database itself which tables and columns it has, so that tables of later releases are copied without a list
//! that somebody has to keep.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::CopyError;
use crate::database::{Tx, query};

/// What the values of a column are, in either database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    Integer,
    Boolean,
    Text,
    Bytes,
}

impl Display for ColumnKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ColumnKind::Integer => "a whole number",
            ColumnKind::Boolean => "true or false",
            ColumnKind::Text => "text in UTF-8",
            ColumnKind::Bytes => "bytes",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: ColumnKind,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// By name.
    pub(crate) columns: Vec<Column>,
    /// The column whose values the database counts up.
    pub(crate) numbered: Option<String>,
}

/// The tables of one database, by name, without those that belong to this one database: their names begin with an underscore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Catalogue(pub(crate) Vec<Table>);

// Each database has migrations of its own, so the two tables about them are not copied. Nor is `_commit_marks`.

const SQLITE: &str = r"
    SELECT t.name AS table_name, c.name AS column_name, c.type AS type, c.pk > 0 AND t.sql LIKE '%AUTOINCREMENT%' AS numbered
    FROM sqlite_schema t JOIN pragma_table_info(t.name) c
    WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\_%' ESCAPE '\' AND t.name NOT LIKE '\_%' ESCAPE '\' AND t.name <> 'schema_compatibility'";

const POSTGRES: &str = r"
    SELECT t.relname::text AS table_name, c.attname::text AS column_name, format_type(c.atttypid, NULL) AS type,
        pg_get_serial_sequence(quote_ident(s.nspname) || '.' || quote_ident(t.relname), c.attname) IS NOT NULL AS numbered
    FROM pg_class t JOIN pg_namespace s ON s.oid = t.relnamespace
    JOIN pg_attribute c ON c.attrelid = t.oid AND c.attnum > 0 AND NOT c.attisdropped
    WHERE t.relkind IN ('r', 'p') AND s.nspname = current_schema() AND t.relname NOT LIKE '\_%' ESCAPE '\' AND t.relname <> 'schema_compatibility'";

impl Catalogue {
    pub(crate) async fn read(tx: &mut Tx) -> Result<Catalogue, CopyError> {
        let sql = match tx {
            Tx::Sqlite(_) => SQLITE,
            Tx::Postgres(_) => POSTGRES,
        };
        let mut tables = BTreeMap::<String, Table>::new();
        for row in query(sql).fetch_all(tx).await? {
            let (name, column): (String, String) = (row.try_get("table_name")?, row.try_get("column_name")?);
            let declared: String = row.try_get("type")?;
            let Some(kind) = kind(&declared) else {
                return Err(CopyError::Kind { column: format!("{name}.{column}"), kind: declared });
            };
            let table = tables.entry(name.clone()).or_insert_with(|| Table { name, ..Table::default() });
            if row.try_get("numbered")? {
                table.numbered = Some(column.clone());
            }
            table.columns.push(Column { name: column, kind });
        }
        let mut tables: Vec<Table> = tables.into_values().collect();
        for table in &mut tables {
            table.columns.sort_by(|one, other| one.name.cmp(&other.name));
        }
        Ok(Catalogue(tables))
    }

    /// Fails with all that only one of two databases has.
    pub(crate) fn equals(&self, other: &Catalogue) -> Result<(), CopyError> {
        let (ours, theirs) = (self.flat(), other.flat());
        let mut differences = Vec::new();
        for (what, kind) in &ours {
            match theirs.get(what) {
                None => differences.push(format!("\n  {what}: only the source has it")),
                Some(their) if their != kind => {
                    differences.push(format!("\n  {what}: {kind} in the source, {their} in the target"));
                }
                Some(_) => {}
            }
        }
        for what in theirs.keys().filter(|what| !ours.contains_key(*what)) {
            differences.push(format!("\n  {what}: only the target has it"));
        }
        if differences.is_empty() { Ok(()) } else { Err(CopyError::Schema(differences.concat())) }
    }

    fn flat(&self) -> BTreeMap<String, ColumnKind> {
        let columns = self.0.iter().flat_map(|table| {
            table.columns.iter().map(move |column| (format!("{}.{}", table.name, column.name), column.kind))
        });
        columns.collect()
    }
}

impl Table {
    pub(crate) fn quoted(&self) -> String {
        quoted(&self.name)
    }

    /// Its columns' names, separated by commas.
    pub(crate) fn column_list(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|column| quoted(&column.name)).collect();
        names.join(", ")
    }
}

pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn kind(declared: &str) -> Option<ColumnKind> {
    match declared.to_ascii_lowercase().as_str() {
        "bigint" | "integer" | "smallint" => Some(ColumnKind::Integer),
        "boolean" => Some(ColumnKind::Boolean),
        "text" => Some(ColumnKind::Text),
        "blob" | "bytea" => Some(ColumnKind::Bytes),
        _ => None,
    }
}
