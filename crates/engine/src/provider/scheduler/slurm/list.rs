//! The list that `squeue` prints, of one cluster or of several.

use std::collections::BTreeMap;

/// One line of `squeue`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) cluster: Option<&'a str>,
    pub(super) id: &'a str,
    pub(super) state: &'a str,
    pub(super) reason: &'a str,
    pub(super) start: &'a str,
    pub(super) name: &'a str,
}

/// What `squeue` prints.
#[derive(Debug, Default)]
pub(super) struct List<'a> {
    /// The clusters that it has reached, if it names them.
    pub(super) clusters: Vec<&'a str>,
    /// By the job's number.
    pub(super) rows: BTreeMap<&'a str, Vec<Row<'a>>>,
}

/// Reads the list, with headers or without.
pub(super) fn read(text: &str) -> List<'_> {
    let mut list = List::default();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("CLUSTER:") {
            list.clusters.push(name.trim());
            continue;
        }
        let fields: Vec<&str> = line.splitn(5, '|').map(str::trim).collect();
        if let [id, state, reason, start, name] = fields[..]
            && id.starts_with(|c: char| c.is_ascii_digit())
        {
            let cluster = list.clusters.last().copied();
            list.rows.entry(id).or_default().push(Row { cluster, id, state, reason, start, name });
        }
    }
    list
}

/// The line that speaks of this job: the one of its cluster; when that is revoked, its living sibling's.
pub(super) fn choose<'r, 'a>(of: Option<&str>, rows: &'r [Row<'a>]) -> Option<&'r Row<'a>> {
    let own = match of {
        Some(cluster) => rows.iter().find(|row| row.cluster == Some(cluster))?,
        None => rows.iter().find(|row| row.state != REVOKED).or_else(|| rows.first())?,
    };
    let sibling = |row: &&Row<'_>| row.state != REVOKED && row.name == own.name;
    if own.state == REVOKED { rows.iter().find(sibling).or(Some(own)) } else { Some(own) }
}

/// The state of a federated job where another cluster has started it.
pub(super) const REVOKED: &str = "REVOKED";
