//! Lists of endpoints: for the users who see them, and for administrators.

use jiff::Timestamp;
use wire::{EndpointId, IdentityId};

use crate::columns::{id, instant, key, time};
use crate::database::{Row, StatementBuilder, query};
use crate::{EndReason, Store, StoreError};

/// An endpoint as its users' lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEndpoint {
    pub id: EndpointId,
    pub name: String,
    pub display_name: Option<String>,
    pub owner: IdentityId,
}

/// Why an identity sees an endpoint in a list: the first of these reasons that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VisibleAs {
    Owned,
    Administered,
    Public,
    /// The identity administers the service; then this is the only reason.
    Every,
}

impl VisibleAs {
    /// Selects the endpoints that `$1` sees for this reason, after the name `$2` and the id `$3`, along an index.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            VisibleAs::Owned => {
                "SELECT id, name, display_name, owner_id FROM endpoints \
                 WHERE owner_id = $1 AND (name, id) > ($2, $3) ORDER BY name, id LIMIT $4"
            }
            VisibleAs::Administered => {
                "SELECT e.id, e.name, e.display_name, e.owner_id \
                 FROM endpoint_admins a JOIN endpoints e ON e.id = a.endpoint_id \
                 WHERE a.identity_id = $1 AND e.owner_id <> $1 AND (e.name, e.id) > ($2, $3) \
                 ORDER BY e.name, e.id LIMIT $4"
            }
            VisibleAs::Public => {
                "SELECT e.id, e.name, e.display_name, e.owner_id FROM endpoints e \
                 WHERE e.public AND (e.name, e.id) > ($2, $3) AND e.owner_id <> $1 AND NOT EXISTS \
                 (SELECT 1 FROM endpoint_admins a WHERE a.identity_id = $1 AND a.endpoint_id = e.id) \
                 ORDER BY e.name, e.id LIMIT $4"
            }
            VisibleAs::Every => {
                "SELECT id, name, display_name, owner_id FROM endpoints \
                 WHERE $1 = $1 AND (name, id) > ($2, $3) ORDER BY name, id LIMIT $4"
            }
        }
    }
}

/// An endpoint as an administrator's list shows it.
#[derive(Clone, Debug)]
pub struct EndpointSummary {
    pub id: EndpointId,
    pub owner: IdentityId,
    /// Absent: the identity was removed.
    pub owner_name: Option<String>,
    pub name: String,
    pub display_name: Option<String>,
    pub manager: Option<EndpointId>,
    pub locked_until: Option<Timestamp>,
    /// Tasks it has not acknowledged, and tasks it has acknowledged that have not ended.
    pub waiting: i64,
    pub taken: i64,
    pub created: Timestamp,
    /// Of a user endpoint.
    pub last_end: Option<EndReason>,
    /// When its last run began, as far as it told.
    pub run_since: Option<Timestamp>,
}

/// Which endpoints to summarise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    One(EndpointId),
    /// The user endpoints of a manager.
    StartedBy(EndpointId),
}

impl Store {
    /// A page of the endpoints that `identity` sees for the reason `seen`, by name; those after `last`.
    pub async fn listed_endpoints(
        &self,
        identity: IdentityId,
        seen: VisibleAs,
        last: Option<&ListedEndpoint>,
        count: usize,
    ) -> Result<Vec<ListedEndpoint>, StoreError> {
        // An endpoint's name is not empty.
        let (name, after) =
            last.map_or((String::new(), Vec::new()), |it| (it.name.clone(), key(it.id.as_uuid())));
        let rows = query(seen.sql())
            .bind(key(identity.as_uuid()))
            .bind(name)
            .bind(after)
            .bind(i64::try_from(count).unwrap_or(i64::MAX))
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(ListedEndpoint {
                    id: EndpointId::from_uuid(id(row, "id")?),
                    name: row.try_get("name")?,
                    display_name: row.try_get("display_name")?,
                    owner: IdentityId::from_uuid(id(row, "owner_id")?),
                })
            })
            .collect()
    }

    /// Endpoints by name, at most `count`.
    pub async fn endpoint_summaries(
        &self,
        which: Which,
        count: usize,
    ) -> Result<Vec<EndpointSummary>, StoreError> {
        let mut select = StatementBuilder::new(
            "SELECT e.id, e.owner_id, i.username, e.name, e.display_name, e.manager_id, e.locked_until_us, \
             e.created_us, e.end_reason, e.end_us, e.run_since_us, coalesce(t.waiting, 0) AS waiting, coalesce(t.taken, 0) AS taken FROM endpoints e \
             LEFT JOIN identities i ON i.id = e.owner_id LEFT JOIN endpoint_tasks t ON t.endpoint_id = e.id",
        );
        match which {
            Which::All => {}
            Which::One(id) => {
                select.push(" WHERE e.id = ").push_bind(key(id.as_uuid()));
            }
            Which::StartedBy(manager) => {
                select.push(" WHERE e.manager_id = ").push_bind(key(manager.as_uuid()));
            }
        }
        select.push(" ORDER BY e.name, e.id LIMIT ").push_bind(i64::try_from(count).unwrap_or(i64::MAX));
        let rows = select.build().fetch_all(&self.readers).await?;
        let line = |row: &Row| {
            let moment = |column: &'static str| -> Result<Option<Timestamp>, StoreError> {
                let micros: Option<i64> = row.try_get(column)?;
                micros.map(|micros| instant(micros, column)).transpose()
            };
            let reason: Option<String> = row.try_get("end_reason")?;
            Ok(EndpointSummary {
                id: EndpointId::from_uuid(id(row, "id")?),
                owner: IdentityId::from_uuid(id(row, "owner_id")?),
                owner_name: row.try_get("username")?,
                name: row.try_get("name")?,
                display_name: row.try_get("display_name")?,
                manager: match row.try_get::<Option<&[u8]>>("manager_id")? {
                    Some(_) => Some(EndpointId::from_uuid(id(row, "manager_id")?)),
                    None => None,
                },
                locked_until: moment("locked_until_us")?,
                waiting: row.try_get("waiting")?,
                taken: row.try_get("taken")?,
                created: time(row, "created_us")?,
                last_end: reason.zip(moment("end_us")?).map(|(reason, at)| EndReason { reason, at }),
                run_since: moment("run_since_us")?,
            })
        };
        rows.iter().map(line).collect()
    }
}
