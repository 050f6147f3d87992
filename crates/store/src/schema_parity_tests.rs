//! The schemas of the two databases, after all migrations, say the same: a migration that one of them lacks fails here. It needs
//! `FARCALL_TEST_POSTGRES`.

use std::collections::BTreeMap;

use crate::database::{Readers, Row, query};
use crate::test_database::TestDatabase;

/// Where the two differ, and why they may.
const DIFFERENCES: &[(&str, &str)] = &[];

/// What there is, each with a description that does not depend on the database.
type Schema = BTreeMap<String, String>;

// Each row is the name of a part of the schema, and what it is.

const SQLITE: &[&str] = &[
    r"SELECT t.name || '.' || c.name AS name,
        CASE WHEN c.type LIKE '%INT%' THEN 'integer' ELSE lower(c.type) END
        || CASE c.[notnull] WHEN 1 THEN ' not null' ELSE '' END || coalesce(' default ' || c.dflt_value, '')
        || CASE WHEN c.pk > 0 AND t.sql LIKE '%AUTOINCREMENT%' THEN ' numbered' ELSE '' END AS what
    FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\_%' ESCAPE '\'",
    "SELECT 'primary key of ' || t.name AS name, group_concat(c.name, ', ' ORDER BY c.pk) AS what
    FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' AND c.pk > 0 GROUP BY t.name",
    "SELECT 'unique in ' || name || ': ' || what AS name, '' AS what FROM (
        SELECT t.name AS name, group_concat(c.name, ', ' ORDER BY c.seqno) AS what
        FROM sqlite_schema t JOIN pragma_index_list(t.name) i JOIN pragma_index_info(i.name) c
        WHERE t.type = 'table' AND i.origin = 'u' GROUP BY t.name, i.name)",
    "SELECT 'reference of ' || name || ': ' || columns AS name, what FROM (
        SELECT t.name AS name, group_concat(r.[from], ', ' ORDER BY r.seq) AS columns,
            r.[table] || ' (' || group_concat(r.[to], ', ' ORDER BY r.seq) || ') on delete ' || lower(r.on_delete) AS what
        FROM sqlite_schema t JOIN pragma_foreign_key_list(t.name) r WHERE t.type = 'table' GROUP BY t.name, r.id)",
    "SELECT 'index ' || i.name AS name, t.name || ' (' || group_concat(c.name, ', ' ORDER BY c.seqno) || ')'
        || CASE i.[unique] WHEN 1 THEN ' unique' ELSE '' END
        || CASE i.partial WHEN 1 THEN ' where ' || substr(s.sql, instr(s.sql, ' WHERE ') + 7) ELSE '' END AS what
    FROM sqlite_schema t JOIN pragma_index_list(t.name) i JOIN pragma_index_info(i.name) c
    JOIN sqlite_schema s ON s.type = 'index' AND s.name = i.name
    WHERE t.type = 'table' AND i.origin = 'c' GROUP BY t.name, i.name",
];

const POSTGRES: &[&str] = &[
    "SELECT t.relname || '.' || c.attname AS name,
        CASE format_type(c.atttypid, NULL) WHEN 'bigint' THEN 'integer' WHEN 'bytea' THEN 'blob'
            ELSE format_type(c.atttypid, NULL) END
        || CASE WHEN c.attnotnull THEN ' not null' ELSE '' END
        || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
        || CASE c.attidentity WHEN '' THEN '' WHEN 'd' THEN ' numbered' ELSE ' always numbered' END AS what
    FROM pg_class t JOIN pg_attribute c ON c.attrelid = t.oid AND c.attnum > 0 AND NOT c.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = c.attnum
    WHERE t.relkind = 'r' AND t.relnamespace = 'public'::regnamespace",
    "SELECT 'primary key of ' || conrelid::regclass AS name,
        (SELECT string_agg(attname, ', ' ORDER BY o) FROM unnest(conkey) WITH ORDINALITY k (n, o)
            JOIN pg_attribute ON attrelid = conrelid AND attnum = n) AS what
    FROM pg_constraint WHERE contype = 'p' AND connamespace = 'public'::regnamespace",
    "SELECT 'unique in ' || conrelid::regclass || ': '
        || (SELECT string_agg(attname, ', ' ORDER BY o) FROM unnest(conkey) WITH ORDINALITY k (n, o)
            JOIN pg_attribute ON attrelid = conrelid AND attnum = n) AS name, '' AS what
    FROM pg_constraint WHERE contype = 'u' AND connamespace = 'public'::regnamespace",
    "SELECT 'reference of ' || conrelid::regclass || ': '
        || (SELECT string_agg(attname, ', ' ORDER BY o) FROM unnest(conkey) WITH ORDINALITY k (n, o)
            JOIN pg_attribute ON attrelid = conrelid AND attnum = n) AS name,
        confrelid::regclass || ' ('
        || (SELECT string_agg(attname, ', ' ORDER BY o) FROM unnest(confkey) WITH ORDINALITY k (n, o)
            JOIN pg_attribute ON attrelid = confrelid AND attnum = n)
        || ') on delete ' || CASE confdeltype WHEN 'a' THEN 'no action' WHEN 'c' THEN 'cascade' ELSE 'other' END AS what
    FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace",
    "SELECT 'index ' || i.relname AS name, x.indrelid::regclass || ' ('
        || (SELECT string_agg(pg_get_indexdef(x.indexrelid, n, TRUE), ', ' ORDER BY n)
            FROM generate_series(1, x.indnkeyatts) n) || ')'
        || CASE WHEN x.indisunique THEN ' unique' ELSE '' END
        || coalesce(' where ' || pg_get_expr(x.indpred, x.indrelid, TRUE), '') AS what
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
    WHERE i.relnamespace = 'public'::regnamespace
        AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = x.indexrelid AND contype IN ('p', 'u'))",
];

async fn schema(readers: &Readers, selects: &[&'static str]) -> Schema {
    let mut schema = Schema::new();
    for select in selects {
        for row in query(*select).fetch_all(readers).await.unwrap() {
            let (name, what) = (text(&row, "name"), plain(&text(&row, "what")));
            // sqlx's own, and what only a writer on PostgreSQL needs.
            if !["_sqlx_migrations", "_commit_marks"].iter().any(|own| name.contains(own)) {
                assert_eq!(schema.insert(name.clone(), what), None, "{name} is there twice");
            }
        }
    }
    schema
}

fn text(row: &Row, column: &str) -> String {
    row.try_get(column).unwrap()
}

/// Defaults and conditions as both write them.
fn plain(what: &str) -> String {
    let mut plain = what.replace("::text", "").replace("FALSE", "false").replace("TRUE", "true");
    if let Some((before, condition)) = plain.split_once(" where ") {
        let bare = condition.strip_prefix('(').and_then(|bare| bare.strip_suffix(')')).unwrap_or(condition);
        plain = format!("{before} where {bare}");
    }
    plain
}

#[tokio::test]
async fn both_databases_have_the_same_schema() {
    let (here, there) = (TestDatabase::sqlite(), TestDatabase::new().await);
    if there.url().is_none() {
        return;
    }
    let (sqlite, postgres) = (here.open().await, there.open().await);
    let (in_sqlite, in_postgres) =
        (schema(&sqlite.readers, SQLITE).await, schema(&postgres.readers, POSTGRES).await);
    assert!(in_sqlite.len() > 250, "{} parts were read", in_sqlite.len());
    let absent = "absent".to_owned();
    let mut differences = Vec::new();
    let names = in_sqlite.keys().chain(in_postgres.keys().filter(|name| !in_sqlite.contains_key(*name)));
    for name in names {
        let (one, other) = (in_sqlite.get(name).unwrap_or(&absent), in_postgres.get(name).unwrap_or(&absent));
        let known = DIFFERENCES.iter().any(|(known, _)| known == name);
        if (one == other) == known {
            differences.push(format!("{name}\n    SQLite:     {one}\n    PostgreSQL: {other}"));
        }
    }
    assert!(
        differences.is_empty(),
        "the schemas differ, or a known difference has gone:\n{}",
        differences.join("\n")
    );
    sqlite.close().await;
    postgres.close().await;
}
