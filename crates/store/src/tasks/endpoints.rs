//! Registered endpoints, and the run each of them reported last.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
use wire::json::FreeForm;
use wire::rest::endpoint::Metadata;
use wire::rest::submit::UserRuntime;
use wire::{ClientId, EndpointId, FunctionId, IdentityId};

use crate::columns::{ROWS, id, instant, json, key, text, time};
use crate::identity::account_status::is_active;
use crate::identity::credentials::{self, Holder};
use crate::secret::Hash;
use crate::{Command, Store, StoreError, Tx};

#[derive(Clone, Debug)]
pub struct Endpoint {
    pub id: EndpointId,
    pub owner: IdentityId,
    pub name: String,
    pub display_name: Option<String>,
    pub multi_user: bool,
    /// Shown in lists to everybody; no permission to use it.
    pub public: bool,
    /// Absent: any function.
    pub allowed_functions: Option<Vec<FunctionId>>,
    pub admins: Vec<IdentityId>,
    /// It runs no tasks: it starts user endpoints, by its template.
    pub is_manager: bool,
    pub created: Timestamp,
    /// The manager that starts it; absent: it is started by hand.
    pub manager: Option<EndpointId>,
    /// Where it was told to find the broker.
    pub broker_at: Option<String>,
}

/// What a list shows of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEndpoint {
    pub id: EndpointId,
    pub name: String,
    pub display_name: Option<String>,
    pub owner: IdentityId,
}

/// Why somebody sees an endpoint in a list. Each endpoint has one reason, the first that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Owned,
    Administered,
    Public,
    /// By an administrator of the service, for whom this is the one reason.
    Every,
}

impl Seen {
    /// Those after the name `$2` and the id `$3` that `$1` sees for this reason, along an index.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Seen::Owned => {
                "SELECT id, name, display_name, owner_id FROM endpoints \
                 WHERE owner_id = $1 AND (name, id) > ($2, $3) ORDER BY name, id LIMIT $4"
            }
            Seen::Administered => {
                "SELECT e.id, e.name, e.display_name, e.owner_id \
                 FROM endpoint_admins a JOIN endpoints e ON e.id = a.endpoint_id \
                 WHERE a.identity_id = $1 AND e.owner_id <> $1 AND (e.name, e.id) > ($2, $3) \
                 ORDER BY e.name, e.id LIMIT $4"
            }
            Seen::Public => {
                "SELECT e.id, e.name, e.display_name, e.owner_id FROM endpoints e \
                 WHERE e.public AND (e.name, e.id) > ($2, $3) AND e.owner_id <> $1 AND NOT EXISTS \
                 (SELECT 1 FROM endpoint_admins a WHERE a.identity_id = $1 AND a.endpoint_id = e.id) \
                 ORDER BY e.name, e.id LIMIT $4"
            }
            Seen::Every => {
                "SELECT id, name, display_name, owner_id FROM endpoints \
                 WHERE $1 = $1 AND (name, id) > ($2, $3) ORDER BY name, id LIMIT $4"
            }
        }
    }
}

/// An endpoint as a list of all of them shows it.
#[derive(Clone, Debug)]
pub struct EndpointLine {
    pub id: EndpointId,
    pub owner: IdentityId,
    /// Absent: nobody has this identity any more.
    pub owner_name: Option<String>,
    pub name: String,
    pub display_name: Option<String>,
    pub manager: Option<EndpointId>,
    pub locked_until: Option<Timestamp>,
    /// Its tasks that it has not acknowledged, and those that it has and that have not ended.
    pub waiting: i64,
    pub taken: i64,
    pub created: Timestamp,
}

/// With what a user endpoint was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Choices {
    pub config: FreeForm,
    pub runtime: Option<UserRuntime>,
}

/// A user endpoint that has open tasks.
#[derive(Clone, Debug)]
pub struct UserEndpoint {
    pub id: EndpointId,
    pub manager: EndpointId,
    pub owner: IdentityId,
    pub choices: Choices,
    /// The first of the tasks that it has not acknowledged.
    pub first: Option<i64>,
}

/// One uninterrupted life of an endpoint's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What the endpoint calls it.
    pub name: String,
    /// The number of the credential it first reported with. What was taken under an older one belongs to another run.
    pub credential: i64,
    /// When it first reported.
    pub since: Timestamp,
}

/// Adds an endpoint or replaces what is known of it, and adds its next credential.
#[derive(Debug)]
pub struct RegisterEndpoint {
    pub endpoint: Endpoint,
    pub metadata: Metadata,
    /// Of a user endpoint.
    pub choices: Option<Choices>,
    /// The application that asks for it in its owner's name; absent: the service itself.
    pub client: Option<ClientId>,
    /// The access token with which it asks.
    pub token: Option<Hash>,
    /// So many endpoints may its owner have; user endpoints are counted apart.
    pub most: u32,
    pub secret: Hash,
    pub now: Timestamp,
}

/// What became of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The number of its credential.
    As(i64),
    /// Nobody may register it before then.
    LockedUntil(Timestamp),
    /// It is, or was, that of an endpoint with another owner or another manager, which stays as it was.
    OfAnother,
    /// Its owner, or the application that asks, is disabled or gone, or the token has ended.
    ShutOut,
    /// Its owner has as many as one may have.
    TooMany,
}

impl Command for RegisterEndpoint {
    type Output = Registered;

    async fn run(self, tx: &mut Tx) -> Result<Registered, StoreError> {
        let endpoint = self.endpoint;
        if !is_active(tx, endpoint.owner, self.client, self.token).await? {
            return Ok(Registered::ShutOut);
        }
        // Of an earlier life of it, if it was deleted.
        let retired = sqlx::query("SELECT owner_id, credential FROM retired_endpoints WHERE id = $1")
            .bind(key(endpoint.id.as_uuid()))
            .fetch_optional(&mut *tx)
            .await?;
        let mut last = 0;
        if let Some(retired) = retired {
            if id(&retired, "owner_id")? != *endpoint.owner.as_uuid() {
                return Ok(Registered::OfAnother);
            }
            last = retired.try_get("credential")?;
        }
        let locked: Option<i64> = sqlx::query_scalar(
            "SELECT locked_until_us FROM endpoints WHERE id = $1 AND owner_id = $2 AND locked_until_us > $3 \
             UNION ALL SELECT locked_until_us FROM retired_endpoints \
             WHERE id = $1 AND owner_id = $2 AND locked_until_us > $3",
        )
        .bind(key(endpoint.id.as_uuid()))
        .bind(key(endpoint.owner.as_uuid()))
        .bind(self.now.as_microsecond())
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(until) = locked {
            return Ok(Registered::LockedUntil(instant(until, "locked_until_us")?));
        }
        if is_one_too_many(tx, &endpoint, self.most).await? {
            return Ok(Registered::TooMany);
        }
        let allowed = endpoint.allowed_functions.as_ref().map(text).transpose()?;
        // Without a display name the old one stays.
        let number: Option<i64> = sqlx::query_scalar(
            "INSERT INTO endpoints (id, owner_id, name, display_name, multi_user, public, allowed_functions_json, \
             is_manager, created_us, manager_id, broker_at, choices_json, credential) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
             display_name = coalesce(excluded.display_name, endpoints.display_name), \
             multi_user = excluded.multi_user, public = excluded.public, \
             allowed_functions_json = excluded.allowed_functions_json, is_manager = excluded.is_manager, \
             broker_at = excluded.broker_at, \
             choices_json = excluded.choices_json, locked_until_us = NULL, \
             credential = endpoints.credential + 1 \
             WHERE endpoints.owner_id = excluded.owner_id \
             AND endpoints.manager_id IS NOT DISTINCT FROM excluded.manager_id RETURNING credential",
        )
        .bind(key(endpoint.id.as_uuid()))
        .bind(key(endpoint.owner.as_uuid()))
        .bind(endpoint.name)
        .bind(endpoint.display_name)
        .bind(endpoint.multi_user)
        .bind(endpoint.public)
        .bind(allowed)
        .bind(endpoint.is_manager)
        .bind(endpoint.created.as_microsecond())
        .bind(endpoint.manager.map(|manager| key(manager.as_uuid()).to_vec()))
        .bind(endpoint.broker_at)
        .bind(self.choices.as_ref().map(text).transpose()?)
        .bind(last + 1)
        .fetch_optional(&mut *tx)
        .await?;
        let Some(number) = number else { return Ok(Registered::OfAnother) };
        sqlx::query("DELETE FROM retired_endpoints WHERE id = $1")
            .bind(key(endpoint.id.as_uuid()))
            .execute(&mut *tx)
            .await?;
        describe(tx, endpoint.id, &self.metadata, &endpoint.admins).await?;
        let holder = Holder::Endpoint(endpoint.id);
        credentials::keep_newest(tx, holder, number).await?;
        credentials::add(tx, holder, number, self.secret, self.now, None, self.client).await?;
        Ok(Registered::As(number))
    }
}

/// Whether `endpoint` would be new, and its owner has `most` of its kind.
async fn is_one_too_many(tx: &mut Tx, endpoint: &Endpoint, most: u32) -> Result<bool, StoreError> {
    let full = sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT 1 FROM endpoints WHERE id = $1) AND (SELECT count(*) FROM \
         (SELECT 1 FROM endpoints WHERE owner_id = $2 AND (manager_id IS NOT NULL) = $3 LIMIT $4)) >= $4",
    )
    .bind(key(endpoint.id.as_uuid()))
    .bind(key(endpoint.owner.as_uuid()))
    .bind(endpoint.manager.is_some())
    .bind(most)
    .fetch_one(tx)
    .await?;
    Ok(full)
}

/// Replaces what `endpoint` says of itself, and who administers it.
async fn describe(
    tx: &mut Tx,
    endpoint: EndpointId,
    metadata: &Metadata,
    admins: &[IdentityId],
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO endpoint_metadata (endpoint_id, metadata_json) VALUES ($1, $2) \
         ON CONFLICT (endpoint_id) DO UPDATE SET metadata_json = excluded.metadata_json",
    )
    .bind(key(endpoint.as_uuid()))
    .bind(text(metadata)?)
    .execute(&mut *tx)
    .await?;
    set_admins(tx, endpoint, admins).await
}

async fn set_admins(tx: &mut Tx, endpoint: EndpointId, admins: &[IdentityId]) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM endpoint_admins WHERE endpoint_id = $1")
        .bind(key(endpoint.as_uuid()))
        .execute(&mut *tx)
        .await?;
    for some in admins.chunks(ROWS) {
        let mut insert = QueryBuilder::new("INSERT INTO endpoint_admins (identity_id, endpoint_id) ");
        insert.push_values(some, |mut row, admin| {
            row.push_bind(key(admin.as_uuid())).push_bind(key(endpoint.as_uuid()));
        });
        insert.push(" ON CONFLICT DO NOTHING").build().execute(&mut *tx).await?;
    }
    Ok(())
}

/// Changes what is said of an endpoint of `owner`; `None` leaves a member as it is.
#[derive(Debug)]
pub struct ChangeEndpoint {
    pub endpoint: EndpointId,
    pub owner: IdentityId,
    pub display_name: Option<String>,
    pub public: Option<bool>,
    pub allowed_functions: Option<Vec<FunctionId>>,
    pub admins: Option<Vec<IdentityId>>,
}

impl Command for ChangeEndpoint {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let changed = sqlx::query(
            "UPDATE endpoints SET display_name = coalesce($3, display_name), public = coalesce($4, public), \
             allowed_functions_json = coalesce($5, allowed_functions_json) WHERE id = $1 AND owner_id = $2",
        )
        .bind(key(self.endpoint.as_uuid()))
        .bind(key(self.owner.as_uuid()))
        .bind(self.display_name)
        .bind(self.public)
        .bind(self.allowed_functions.as_ref().map(text).transpose()?)
        .execute(&mut *tx)
        .await?;
        if let (Some(admins), 1) = (self.admins, changed.rows_affected()) {
            set_admins(tx, self.endpoint, &admins).await?;
        }
        Ok(())
    }
}

/// Nobody may register the endpoint for a time, and its credentials open nothing any more; of a manager, nor do those of
/// its user endpoints. Answers these.
#[derive(Debug)]
pub struct LockEndpoint {
    pub endpoint: EndpointId,
    pub until: Timestamp,
}

impl Command for LockEndpoint {
    type Output = Vec<EndpointId>;

    async fn run(self, tx: &mut Tx) -> Result<Vec<EndpointId>, StoreError> {
        credentials::remove_all(tx, Holder::Endpoint(self.endpoint)).await?;
        sqlx::query("UPDATE endpoints SET locked_until_us = $2 WHERE id = $1")
            .bind(key(self.endpoint.as_uuid()))
            .bind(self.until.as_microsecond())
            .execute(&mut *tx)
            .await?;
        let rows = sqlx::query("SELECT id FROM endpoints WHERE manager_id = $1")
            .bind(key(self.endpoint.as_uuid()))
            .fetch_all(&mut *tx)
            .await?;
        let mut user_endpoints = Vec::with_capacity(rows.len());
        for row in &rows {
            let user_endpoint = EndpointId::from_uuid(id(row, "id")?);
            credentials::remove_all(tx, Holder::Endpoint(user_endpoint)).await?;
            user_endpoints.push(user_endpoint);
        }
        Ok(user_endpoints)
    }
}

/// Its owner may register the endpoint again.
#[derive(Debug)]
pub struct UnlockEndpoint(pub EndpointId);

impl Command for UnlockEndpoint {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        sqlx::query("UPDATE endpoints SET locked_until_us = NULL WHERE id = $1")
            .bind(key(self.0.as_uuid()))
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// Forgets an endpoint and its credentials, but not whose id it was: people may still send tasks to it, and nobody else may
/// ever get these. A row of that takes some 100 bytes with its index; one identity makes at most one new id a second for
/// long, which is 9 MB a day. Nothing is kept of a user endpoint that is not locked: nobody can register its id, which is
/// computed. Its tasks stay, and with them their results; those that are open are to be ended, and no more are added.
#[derive(Debug)]
pub struct DeleteEndpoint(pub EndpointId);

impl Command for DeleteEndpoint {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        credentials::remove_all(tx, Holder::Endpoint(self.0)).await?;
        sqlx::query(
            "INSERT INTO retired_endpoints (id, owner_id, credential, locked_until_us) \
             SELECT id, owner_id, credential, locked_until_us FROM endpoints \
             WHERE id = $1 AND (manager_id IS NULL OR locked_until_us IS NOT NULL) \
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(key(self.0.as_uuid()))
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM endpoints WHERE id = $1").bind(key(self.0.as_uuid())).execute(tx).await?;
        Ok(())
    }
}

impl Store {
    pub async fn endpoint(&self, endpoint: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        let row = sqlx::query(
            "SELECT id, owner_id, name, display_name, multi_user, public, allowed_functions_json, is_manager, \
             created_us, manager_id, broker_at FROM endpoints WHERE id = $1",
        )
        .bind(key(endpoint.as_uuid()))
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let admins = sqlx::query("SELECT identity_id FROM endpoint_admins WHERE endpoint_id = $1")
            .bind(key(endpoint.as_uuid()))
            .fetch_all(&self.readers)
            .await?;
        let admins = admins.iter().map(|row| Ok(IdentityId::from_uuid(id(row, "identity_id")?)));
        endpoint_of(&row, admins.collect::<Result<_, StoreError>>()?).map(Some)
    }

    pub async fn endpoint_owner(&self, endpoint: EndpointId) -> Result<Option<IdentityId>, StoreError> {
        let row = sqlx::query("SELECT owner_id FROM endpoints WHERE id = $1")
            .bind(key(endpoint.as_uuid()))
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| Ok(IdentityId::from_uuid(id(&row, "owner_id")?))).transpose()
    }

    /// What `endpoint` said of itself when it was registered.
    pub async fn endpoint_metadata(&self, endpoint: EndpointId) -> Result<Metadata, StoreError> {
        let row = sqlx::query("SELECT metadata_json FROM endpoint_metadata WHERE endpoint_id = $1")
            .bind(key(endpoint.as_uuid()))
            .fetch_optional(&self.readers)
            .await?;
        let Some(row) = row else { return Ok(Metadata::default()) };
        json(row.try_get("metadata_json")?, "metadata_json")
    }

    /// The user endpoints that `manager` has started at some time.
    pub async fn user_endpoints(&self, manager: EndpointId) -> Result<Vec<EndpointId>, StoreError> {
        let rows = sqlx::query("SELECT id FROM endpoints WHERE manager_id = $1")
            .bind(key(manager.as_uuid()))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Ok(EndpointId::from_uuid(id(row, "id")?))).collect()
    }

    /// The user endpoints that have open tasks, as far as it is known with what they were asked for.
    pub async fn user_endpoints_with_tasks(&self) -> Result<Vec<UserEndpoint>, StoreError> {
        let rows = sqlx::query(
            "SELECT e.id, e.manager_id, e.owner_id, e.choices_json, (SELECT min(a.seq) FROM assignments a \
             WHERE a.endpoint_id = e.id AND a.credential IS NULL) AS first \
             FROM endpoints e JOIN endpoint_tasks t ON t.endpoint_id = e.id \
             WHERE e.manager_id IS NOT NULL AND e.choices_json IS NOT NULL AND t.waiting + t.taken > 0",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(UserEndpoint {
                    id: EndpointId::from_uuid(id(row, "id")?),
                    manager: EndpointId::from_uuid(id(row, "manager_id")?),
                    owner: IdentityId::from_uuid(id(row, "owner_id")?),
                    choices: json(row.try_get("choices_json")?, "choices_json")?,
                    first: row.try_get("first")?,
                })
            })
            .collect()
    }

    /// A page of the endpoints that `identity` sees for the reason `seen`, by name; those after `last`.
    pub async fn listed_endpoints(
        &self,
        identity: IdentityId,
        seen: Seen,
        last: Option<&ListedEndpoint>,
        count: usize,
    ) -> Result<Vec<ListedEndpoint>, StoreError> {
        // An endpoint's name is not empty.
        let (name, after) =
            last.map_or((String::new(), Vec::new()), |it| (it.name.clone(), key(it.id.as_uuid())));
        let rows = sqlx::query(seen.sql())
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

    /// All endpoints or `one`, by name, at most `count`.
    pub async fn endpoint_lines(
        &self,
        one: Option<EndpointId>,
        count: usize,
    ) -> Result<Vec<EndpointLine>, StoreError> {
        let mut select = QueryBuilder::<Sqlite>::new(
            "SELECT e.id, e.owner_id, i.username, e.name, e.display_name, e.manager_id, e.locked_until_us, \
             e.created_us, coalesce(t.waiting, 0) AS waiting, coalesce(t.taken, 0) AS taken FROM endpoints e \
             LEFT JOIN identities i ON i.id = e.owner_id LEFT JOIN endpoint_tasks t ON t.endpoint_id = e.id",
        );
        if let Some(one) = one {
            select.push(" WHERE e.id = ").push_bind(key(one.as_uuid()));
        }
        select.push(" ORDER BY e.name, e.id LIMIT ").push_bind(i64::try_from(count).unwrap_or(i64::MAX));
        let rows = select.build().fetch_all(&self.readers).await?;
        let line = |row: &SqliteRow| {
            let locked: Option<i64> = row.try_get("locked_until_us")?;
            Ok(EndpointLine {
                id: EndpointId::from_uuid(id(row, "id")?),
                owner: IdentityId::from_uuid(id(row, "owner_id")?),
                owner_name: row.try_get("username")?,
                name: row.try_get("name")?,
                display_name: row.try_get("display_name")?,
                manager: match row.try_get::<Option<&[u8]>, _>("manager_id")? {
                    Some(_) => Some(EndpointId::from_uuid(id(row, "manager_id")?)),
                    None => None,
                },
                locked_until: locked.map(|micros| instant(micros, "locked_until_us")).transpose()?,
                waiting: row.try_get("waiting")?,
                taken: row.try_get("taken")?,
                created: time(row, "created_us")?,
            })
        };
        rows.iter().map(line).collect()
    }

    pub async fn endpoint_ids(&self) -> Result<Vec<EndpointId>, StoreError> {
        let rows = sqlx::query("SELECT id FROM endpoints").fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok(EndpointId::from_uuid(id(row, "id")?))).collect()
    }

    /// The runs that endpoints reported last.
    pub async fn runs(&self) -> Result<Vec<(EndpointId, Run)>, StoreError> {
        let rows =
            sqlx::query("SELECT id, run, run_credential, run_since_us FROM endpoints WHERE run IS NOT NULL")
                .fetch_all(&self.readers)
                .await?;
        rows.iter()
            .map(|row| {
                let run = Run {
                    name: row.try_get("run")?,
                    credential: row.try_get("run_credential")?,
                    since: instant(row.try_get("run_since_us")?, "run_since_us")?,
                };
                Ok((EndpointId::from_uuid(id(row, "id")?), run))
            })
            .collect()
    }
}

fn endpoint_of(row: &SqliteRow, admins: Vec<IdentityId>) -> Result<Endpoint, StoreError> {
    let allowed: Option<&str> = row.try_get("allowed_functions_json")?;
    Ok(Endpoint {
        id: EndpointId::from_uuid(id(row, "id")?),
        owner: IdentityId::from_uuid(id(row, "owner_id")?),
        name: row.try_get("name")?,
        display_name: row.try_get("display_name")?,
        multi_user: row.try_get("multi_user")?,
        public: row.try_get("public")?,
        allowed_functions: allowed.map(|text| json(text, "allowed_functions_json")).transpose()?,
        admins,
        is_manager: row.try_get("is_manager")?,
        created: time(row, "created_us")?,
        manager: match row.try_get::<Option<&[u8]>, _>("manager_id")? {
            Some(_) => Some(EndpointId::from_uuid(id(row, "manager_id")?)),
            None => None,
        },
        broker_at: row.try_get("broker_at")?,
    })
}
