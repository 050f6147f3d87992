//! Registered endpoints, and the run each of them reported last.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wire::json::FreeForm;
use wire::rest::endpoint::Metadata;
use wire::rest::submit::UserRuntime;
use wire::{ClientId, EndpointId, FunctionId, IdentityId};

use crate::columns::{ROWS, id, instant, json, key, text, time};
use crate::database::{Row, StatementBuilder, query, query_scalar};
use crate::identity::account_status::is_active;
use crate::identity::credentials::{self, Holder};
use crate::locks::lock_endpoint;
use crate::secret::Hash;
use crate::tasks::counters::{self, Counters};
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
    /// Absent: any function. Of a user endpoint, it is its manager's.
    pub allowed_functions: Option<Vec<FunctionId>>,
    pub admins: Vec<IdentityId>,
    /// It runs no tasks itself: it starts user endpoints from its template.
    pub is_manager: bool,
    pub created: Timestamp,
    /// The manager that starts it. Absent: a person starts it.
    pub manager: Option<EndpointId>,
    /// The broker's address that its last registration returned.
    pub broker_at: Option<String>,
}

/// The configuration that the submit asked of a user endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestedConfiguration {
    pub config: FreeForm,
    pub runtime: Option<UserRuntime>,
}

/// A user endpoint that has open tasks.
#[derive(Clone, Debug)]
pub struct UserEndpoint {
    pub id: EndpointId,
    pub manager: EndpointId,
    pub owner: IdentityId,
    pub choices: RequestedConfiguration,
    /// The outbox row of its first unacknowledged task.
    pub first: Option<i64>,
}

/// One run of an endpoint: from the start of its process to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The name that the endpoint gave the run.
    pub name: String,
    /// The number of the credential it first reported with. Tasks taken under an older credential belong to an earlier run.
    pub credential: i64,
    /// When it first reported.
    pub since: Timestamp,
}

/// Registers an endpoint: adds it or replaces its row, and issues its next credential.
#[derive(Clone, Debug)]
pub struct RegisterEndpoint {
    pub endpoint: Endpoint,
    pub metadata: Metadata,
    /// Of a user endpoint.
    pub choices: Option<RequestedConfiguration>,
    /// The application that registers it in its owner's name. Absent: the service itself.
    pub client: Option<ClientId>,
    /// The access token with which it asks.
    pub token: Option<Hash>,
    /// The most endpoints its owner may have. User endpoints are counted separately.
    pub most: u32,
    pub secret: Hash,
    pub now: Timestamp,
}

/// The result of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationResult {
    /// It is registered, and this is the number of its credential.
    Credential(i64),
    /// It is locked until then.
    LockedUntil(Timestamp),
    /// The id belongs, or belonged, to an endpoint of another owner or manager. Nothing was changed.
    OfAnother,
    /// Its owner, or the application that asks, is disabled or gone, or the token has ended.
    Inactive,
    /// Its owner has the most endpoints allowed.
    TooMany,
}

impl Command for RegisterEndpoint {
    type Output = RegistrationResult;

    async fn run(self, tx: &mut Tx) -> Result<RegistrationResult, StoreError> {
        let endpoint = self.endpoint;
        if !is_active(tx, endpoint.owner, self.client, self.token).await? {
            return Ok(RegistrationResult::Inactive);
        }
        if let Some(manager) = endpoint.manager {
            lock_manager(tx, manager).await?;
        }
        lock_endpoint(tx, endpoint.id).await?;
        // Of an earlier life of it, if it was deleted.
        let retired = query("SELECT owner_id, credential FROM retired_endpoints WHERE id = $1")
            .bind(key(endpoint.id.as_uuid()))
            .fetch_optional(&mut *tx)
            .await?;
        let mut last = 0_i64;
        if let Some(retired) = retired {
            if id(&retired, "owner_id")? != *endpoint.owner.as_uuid() {
                return Ok(RegistrationResult::OfAnother);
            }
            last = retired.try_get("credential")?;
        }
        let locked: Option<i64> = query_scalar(
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
            return Ok(RegistrationResult::LockedUntil(instant(until, "locked_until_us")?));
        }
        if is_one_too_many(tx, &endpoint, self.most).await? {
            return Ok(RegistrationResult::TooMany);
        }
        // A user endpoint has none of its own.
        let allowed = endpoint.allowed_functions.as_ref().filter(|_| endpoint.manager.is_none());
        let allowed = allowed.map(text).transpose()?;
        // Without a display name the old one stays.
        let number: Option<i64> = query_scalar(
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
        let Some(number) = number else { return Ok(RegistrationResult::OfAnother) };
        query("DELETE FROM retired_endpoints WHERE id = $1")
            .bind(key(endpoint.id.as_uuid()))
            .execute(&mut *tx)
            .await?;
        describe(tx, endpoint.id, &self.metadata, &endpoint.admins).await?;
        let holder = Holder::Endpoint(endpoint.id);
        credentials::keep_newest(tx, holder, number).await?;
        credentials::add(tx, holder, number, self.secret, self.now, None, self.client).await?;
        if endpoint.manager.is_some() {
            counters::count(tx, endpoint.id, Counters::default(), Some(self.now)).await?;
        }
        Ok(RegistrationResult::Credential(number))
    }
}

/// What ends or locks a manager waits until its user endpoint is registered, and then finds it.
async fn lock_manager(tx: &mut Tx, manager: EndpointId) -> Result<(), StoreError> {
    if tx.needs_locks() {
        let lock = query("SELECT 1 FROM endpoints WHERE id = $1").locking(" FOR SHARE");
        lock.bind(key(manager.as_uuid())).fetch_optional(tx).await?;
    }
    Ok(())
}

/// Whether `endpoint` would be new, and its owner has `most` of its kind.
async fn is_one_too_many(tx: &mut Tx, endpoint: &Endpoint, most: u32) -> Result<bool, StoreError> {
    let full = query_scalar(
        "SELECT NOT EXISTS (SELECT 1 FROM endpoints WHERE id = $1) AND (SELECT count(*) FROM \
         (SELECT 1 FROM endpoints WHERE owner_id = $2 AND (manager_id IS NOT NULL) = $3 LIMIT $4) AS own) >= $4",
    )
    .bind(key(endpoint.id.as_uuid()))
    .bind(key(endpoint.owner.as_uuid()))
    .bind(endpoint.manager.is_some())
    .bind(most)
    .fetch_one(tx)
    .await?;
    Ok(full)
}

/// Replaces the description of `endpoint` and its administrators.
async fn describe(
    tx: &mut Tx,
    endpoint: EndpointId,
    metadata: &Metadata,
    admins: &[IdentityId],
) -> Result<(), StoreError> {
    query(
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
    query("DELETE FROM endpoint_admins WHERE endpoint_id = $1")
        .bind(key(endpoint.as_uuid()))
        .execute(&mut *tx)
        .await?;
    for some in admins.chunks(ROWS) {
        let mut insert = StatementBuilder::new("INSERT INTO endpoint_admins (identity_id, endpoint_id) ");
        insert.push_values(some, |mut row, admin| {
            row.push_bind(key(admin.as_uuid())).push_bind(key(endpoint.as_uuid()));
        });
        insert.push(" ON CONFLICT DO NOTHING").build().execute(&mut *tx).await?;
    }
    Ok(())
}

/// Changes the description of an endpoint of `owner`; `None` leaves a field as it is.
#[derive(Clone, Debug)]
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
        let changed = query(
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
        if let (Some(admins), 1) = (self.admins, changed) {
            set_admins(tx, self.endpoint, &admins).await?;
        }
        Ok(())
    }
}

/// Locks an endpoint: until a time it cannot be registered, and its credentials are removed. Those of a manager's user
/// endpoints are removed too; returns their ids.
#[derive(Clone, Debug)]
pub struct LockEndpoint {
    pub endpoint: EndpointId,
    pub until: Timestamp,
}

impl Command for LockEndpoint {
    type Output = Vec<EndpointId>;

    async fn run(self, tx: &mut Tx) -> Result<Vec<EndpointId>, StoreError> {
        // First: a registration that is under way is waited for, and its credential is removed.
        query("UPDATE endpoints SET locked_until_us = $2 WHERE id = $1")
            .bind(key(self.endpoint.as_uuid()))
            .bind(self.until.as_microsecond())
            .execute(&mut *tx)
            .await?;
        credentials::remove_all(tx, Holder::Endpoint(self.endpoint)).await?;
        let rows = query("SELECT id FROM endpoints WHERE manager_id = $1")
            .locking(" ORDER BY id FOR UPDATE")
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

/// Removes the lock.
#[derive(Clone, Debug)]
pub struct UnlockEndpoint(pub EndpointId);

impl Command for UnlockEndpoint {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        query("UPDATE endpoints SET locked_until_us = NULL WHERE id = $1")
            .bind(key(self.0.as_uuid()))
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// Deletes an endpoint and its credentials. Its tasks and results stay. The caller ends its open tasks; new ones are
/// refused.
///
/// The id stays reserved for its owner: clients may go on sending tasks to it, which no other person may get. The row that
/// reserves it takes some 100 bytes with its index; an identity adds at most one new id a second for long, which is 9 MB a
/// day. A user endpoint's id is computed, so nobody can register it; it is reserved only while it is locked.
#[derive(Clone, Debug)]
pub struct DeleteEndpoint(pub EndpointId);

impl Command for DeleteEndpoint {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        lock_endpoint(tx, self.0).await?;
        credentials::remove_all(tx, Holder::Endpoint(self.0)).await?;
        query(
            "INSERT INTO retired_endpoints (id, owner_id, credential, locked_until_us) \
             SELECT id, owner_id, credential, locked_until_us FROM endpoints \
             WHERE id = $1 AND (manager_id IS NULL OR locked_until_us IS NOT NULL) \
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(key(self.0.as_uuid()))
        .execute(&mut *tx)
        .await?;
        query("DELETE FROM endpoints WHERE id = $1").bind(key(self.0.as_uuid())).execute(tx).await?;
        Ok(())
    }
}

impl Store {
    pub async fn endpoint(&self, endpoint: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        let row = query(
            "SELECT e.id, e.owner_id, e.name, e.display_name, e.multi_user, e.public, e.is_manager, e.created_us, \
             e.manager_id, e.broker_at, CASE WHEN e.manager_id IS NULL THEN e.allowed_functions_json ELSE \
             (SELECT m.allowed_functions_json FROM endpoints m WHERE m.id = e.manager_id) END \
             AS allowed_functions_json FROM endpoints e WHERE e.id = $1",
        )
        .bind(key(endpoint.as_uuid()))
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let admins = query("SELECT identity_id FROM endpoint_admins WHERE endpoint_id = $1")
            .bind(key(endpoint.as_uuid()))
            .fetch_all(&self.readers)
            .await?;
        let admins = admins.iter().map(|row| Ok(IdentityId::from_uuid(id(row, "identity_id")?)));
        endpoint_of(&row, admins.collect::<Result<_, StoreError>>()?).map(Some)
    }

    pub async fn endpoint_owner(&self, endpoint: EndpointId) -> Result<Option<IdentityId>, StoreError> {
        let row = query("SELECT owner_id FROM endpoints WHERE id = $1")
            .bind(key(endpoint.as_uuid()))
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| Ok(IdentityId::from_uuid(id(&row, "owner_id")?))).transpose()
    }

    /// The number of the credential that the last registration got. Nothing if it is not registered.
    pub async fn endpoint_credential(&self, endpoint: EndpointId) -> Result<Option<i64>, StoreError> {
        let number = query_scalar("SELECT credential FROM endpoints WHERE id = $1")
            .bind(key(endpoint.as_uuid()))
            .fetch_optional(&self.readers)
            .await?;
        Ok(number)
    }

    /// The metadata of the last registration.
    pub async fn endpoint_metadata(&self, endpoint: EndpointId) -> Result<Metadata, StoreError> {
        let row = query("SELECT metadata_json FROM endpoint_metadata WHERE endpoint_id = $1")
            .bind(key(endpoint.as_uuid()))
            .fetch_optional(&self.readers)
            .await?;
        let Some(row) = row else { return Ok(Metadata::default()) };
        json(row.try_get("metadata_json")?, "metadata_json")
    }

    /// The user endpoints that `manager` has ever started.
    pub async fn user_endpoints(&self, manager: EndpointId) -> Result<Vec<EndpointId>, StoreError> {
        let rows = query("SELECT id FROM endpoints WHERE manager_id = $1")
            .bind(key(manager.as_uuid()))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Ok(EndpointId::from_uuid(id(row, "id")?))).collect()
    }

    /// The user endpoints that have open tasks and whose requested configuration is known.
    pub async fn user_endpoints_with_tasks(&self) -> Result<Vec<UserEndpoint>, StoreError> {
        let rows = query(
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

    pub async fn endpoint_ids(&self) -> Result<Vec<EndpointId>, StoreError> {
        let rows = query("SELECT id FROM endpoints").fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok(EndpointId::from_uuid(id(row, "id")?))).collect()
    }

    /// The runs that endpoints reported last.
    pub async fn runs(&self) -> Result<Vec<(EndpointId, Run)>, StoreError> {
        let rows = query("SELECT id, run, run_credential, run_since_us FROM endpoints WHERE run IS NOT NULL")
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

fn endpoint_of(row: &Row, admins: Vec<IdentityId>) -> Result<Endpoint, StoreError> {
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
        manager: match row.try_get::<Option<&[u8]>>("manager_id")? {
            Some(_) => Some(EndpointId::from_uuid(id(row, "manager_id")?)),
            None => None,
        },
        broker_at: row.try_get("broker_at")?,
    })
}
