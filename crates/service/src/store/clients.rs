//! Client identities.

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use wire::{ClientId, IdentityId};

use super::row::{id, key, time};
use super::{Command, Store, StoreError, Tx};
use crate::secret::Hash;

/// An identity that logs in with a secret instead of a person.
#[derive(Clone, Debug)]
pub struct Client {
    pub id: IdentityId,
    pub username: String,
    pub name: String,
    pub secret: Hash,
    pub created: Timestamp,
}

impl Client {
    /// As an application it has the same number as it has as an identity.
    pub fn client_id(&self) -> ClientId {
        ClientId::from_uuid(*self.id.as_uuid())
    }
}

/// Adds a client identity.
#[derive(Debug)]
pub struct AddClient(pub Client);

impl Command for AddClient {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let client = self.0;
        sqlx::query("INSERT INTO identities (id, username, name, created_us) VALUES ($1, $2, $3, $4)")
            .bind(key(client.id.as_uuid()))
            .bind(client.username)
            .bind(client.name)
            .bind(client.created.as_microsecond())
            .execute(&mut *tx)
            .await?;
        sqlx::query("INSERT INTO clients (identity_id, secret_hash, created_us) VALUES ($1, $2, $3)")
            .bind(key(client.id.as_uuid()))
            .bind(client.secret.as_bytes())
            .bind(client.created.as_microsecond())
            .execute(tx)
            .await?;
        Ok(())
    }
}

impl Store {
    pub async fn client(&self, client: IdentityId) -> Result<Option<Client>, StoreError> {
        let row = sqlx::query(
            "SELECT i.id, i.username, i.name, c.secret_hash, c.created_us \
             FROM clients c JOIN identities i ON i.id = c.identity_id WHERE i.id = $1",
        )
        .bind(key(client.as_uuid()))
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| client_of(&row)).transpose()
    }

    /// All of them, oldest first.
    pub async fn clients(&self) -> Result<Vec<Client>, StoreError> {
        let rows = sqlx::query(
            "SELECT i.id, i.username, i.name, c.secret_hash, c.created_us \
             FROM clients c JOIN identities i ON i.id = c.identity_id ORDER BY c.created_us",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(client_of).collect()
    }
}

fn client_of(row: &SqliteRow) -> Result<Client, StoreError> {
    Ok(Client {
        id: IdentityId::from_uuid(id(row, "id")?),
        username: row.try_get("username")?,
        name: row.try_get("name")?,
        secret: Hash::from_stored(row.try_get("secret_hash")?).ok_or(StoreError::Corrupt("secret_hash"))?,
        created: time(row, "created_us")?,
    })
}
