//! Access tokens, by their hash.

use jiff::Timestamp;
use sqlx::Row;
use wire::{ClientId, IdentityId};

use super::row::{id, key, time};
use super::{Command, Store, StoreError, Tx};
use crate::secret::Hash;

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub identity: IdentityId,
    /// The client that asked for it.
    pub client: ClientId,
    /// Space-separated, as handed out.
    pub scope: String,
    pub resource_server: String,
    pub issued: Timestamp,
    pub expires: Timestamp,
}

impl Token {
    pub fn covers(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|own| own == scope)
    }
}

/// Adds a token, and forgets those that ended before it was issued.
#[derive(Debug)]
pub struct AddToken {
    pub hash: Hash,
    pub token: Token,
}

impl Command for AddToken {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM tokens WHERE expires_us < $1")
            .bind(self.token.issued.as_microsecond())
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO tokens (hash, identity_id, client_id, scope, resource_server, issued_us, expires_us) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(self.hash.as_bytes())
        .bind(key(self.token.identity.as_uuid()))
        .bind(key(self.token.client.as_uuid()))
        .bind(self.token.scope)
        .bind(self.token.resource_server)
        .bind(self.token.issued.as_microsecond())
        .bind(self.token.expires.as_microsecond())
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Forgets a token of `client`; another client's stays.
#[derive(Debug)]
pub struct RevokeToken {
    pub hash: Hash,
    pub client: ClientId,
}

impl Command for RevokeToken {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM tokens WHERE hash = $1 AND client_id = $2")
            .bind(self.hash.as_bytes())
            .bind(key(self.client.as_uuid()))
            .execute(tx)
            .await?;
        Ok(())
    }
}

impl Store {
    pub async fn token(&self, hash: Hash) -> Result<Option<Token>, StoreError> {
        let row = sqlx::query(
            "SELECT identity_id, client_id, scope, resource_server, issued_us, expires_us \
             FROM tokens WHERE hash = $1",
        )
        .bind(hash.as_bytes())
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Token {
            identity: IdentityId::from_uuid(id(&row, "identity_id")?),
            client: ClientId::from_uuid(id(&row, "client_id")?),
            scope: row.try_get("scope")?,
            resource_server: row.try_get("resource_server")?,
            issued: time(&row, "issued_us")?,
            expires: time(&row, "expires_us")?,
        }))
    }
}
