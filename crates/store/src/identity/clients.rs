//! Applications: client identities, which keep a secret, and native ones, which cannot.

use jiff::Timestamp;
use wire::{ClientId, IdentityId};

use super::account_status::AccountVersion;
use crate::columns::{id, json, key, text, time};
use crate::database::{Row, query};
use crate::locks::lock_native_app;
use crate::secret::Hash;
use crate::{Command, Store, StoreError, Tx};

/// An identity that logs in with a secret instead of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub id: IdentityId,
    pub username: String,
    pub name: String,
    pub secret: Hash,
    pub disabled: bool,
    /// The resource server whose tokens it may check, if it is one.
    pub resource_server: Option<String>,
    /// How often all that it held was ended.
    pub generation: i64,
    pub created: Timestamp,
}

impl Client {
    /// The client's id as an application; the same number as its identity's.
    pub fn client_id(&self) -> ClientId {
        ClientId::from_uuid(*self.id.as_uuid())
    }

    pub fn version(&self) -> AccountVersion {
        AccountVersion { identity: self.id, generation: self.generation }
    }
}

/// An application without a secret, through which people log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeApp {
    pub id: ClientId,
    pub name: String,
    /// Redirect URIs to which codes may be sent, besides the service's own code page.
    pub redirect_uris: Vec<String>,
    pub disabled: bool,
    pub created: Timestamp,
}

/// Adds a client identity.
#[derive(Clone, Debug)]
pub struct AddClient(pub Client);

impl Command for AddClient {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let client = self.0;
        query(
            "INSERT INTO identities (id, kind, username, name, disabled, created_us) \
             VALUES ($1, 'client', $2, $3, $4, $5)",
        )
        .bind(key(client.id.as_uuid()))
        .bind(client.username)
        .bind(client.name)
        .bind(client.disabled)
        .bind(client.created.as_microsecond())
        .execute(&mut *tx)
        .await?;
        query(
            "INSERT INTO clients (identity_id, secret_hash, resource_server, created_us) VALUES ($1, $2, $3, $4)",
        )
        .bind(key(client.id.as_uuid()))
        .bind(client.secret.as_bytes())
        .bind(client.resource_server)
        .bind(client.created.as_microsecond())
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Replaces a client's secret.
#[derive(Clone, Debug)]
pub struct SetSecret {
    pub client: IdentityId,
    pub secret: Hash,
}

impl Command for SetSecret {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        query("UPDATE clients SET secret_hash = $2 WHERE identity_id = $1")
            .bind(key(self.client.as_uuid()))
            .bind(self.secret.as_bytes())
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// Adds or replaces a native application.
#[derive(Clone, Debug)]
pub struct PutNativeApp(pub NativeApp);

impl Command for PutNativeApp {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let app = self.0;
        query(
            "INSERT INTO native_apps (id, name, redirect_uris_json, disabled, created_us) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
             redirect_uris_json = excluded.redirect_uris_json, disabled = excluded.disabled",
        )
        .bind(key(app.id.as_uuid()))
        .bind(app.name)
        .bind(text(&app.redirect_uris)?)
        .bind(app.disabled)
        .bind(app.created.as_microsecond())
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Removes a native application and its tokens.
#[derive(Clone, Debug)]
pub struct RemoveNativeApp(pub ClientId);

impl Command for RemoveNativeApp {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        lock_native_app(tx, self.0).await?;
        for sql in ["DELETE FROM tokens WHERE client_id = $1", "DELETE FROM native_apps WHERE id = $1"] {
            query(sql).bind(key(self.0.as_uuid())).execute(&mut *tx).await?;
        }
        Ok(())
    }
}

impl Store {
    pub async fn client(&self, client: IdentityId) -> Result<Option<Client>, StoreError> {
        let row = query(
            "SELECT i.id, i.username, i.name, i.disabled, c.secret_hash, c.resource_server, i.generation, c.created_us \
             FROM clients c JOIN identities i ON i.id = c.identity_id WHERE i.id = $1",
        )
        .bind(key(client.as_uuid()))
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| client_of(&row)).transpose()
    }

    /// All of them, oldest first.
    pub async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        let rows = query(
            "SELECT i.id, i.username, i.name, i.disabled, c.secret_hash, c.resource_server, i.generation, c.created_us \
             FROM clients c JOIN identities i ON i.id = c.identity_id ORDER BY c.created_us",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(client_of).collect()
    }

    pub async fn native_app(&self, app: ClientId) -> Result<Option<NativeApp>, StoreError> {
        let row =
            query("SELECT id, name, redirect_uris_json, disabled, created_us FROM native_apps WHERE id = $1")
                .bind(key(app.as_uuid()))
                .fetch_optional(&self.readers)
                .await?;
        row.map(|row| app_of(&row)).transpose()
    }

    /// All of them, oldest first.
    pub async fn native_apps(&self) -> Result<Vec<NativeApp>, StoreError> {
        let rows = query(
            "SELECT id, name, redirect_uris_json, disabled, created_us FROM native_apps ORDER BY created_us",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(app_of).collect()
    }
}

fn client_of(row: &Row) -> Result<Client, StoreError> {
    Ok(Client {
        id: IdentityId::from_uuid(id(row, "id")?),
        username: row.try_get("username")?,
        name: row.try_get("name")?,
        secret: Hash::from_stored(row.try_get("secret_hash")?).ok_or(StoreError::Corrupt("secret_hash"))?,
        disabled: row.try_get("disabled")?,
        resource_server: row.try_get("resource_server")?,
        generation: row.try_get("generation")?,
        created: time(row, "created_us")?,
    })
}

fn app_of(row: &Row) -> Result<NativeApp, StoreError> {
    Ok(NativeApp {
        id: ClientId::from_uuid(id(row, "id")?),
        name: row.try_get("name")?,
        redirect_uris: json(row.try_get("redirect_uris_json")?, "redirect_uris_json")?,
        disabled: row.try_get("disabled")?,
        created: time(row, "created_us")?,
    })
}
