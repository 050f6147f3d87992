//! Refresh tokens, by their hash. Each can be used once, and is followed by the next of its chain. Used ones are kept until
//! they expire, so that a second use is detected.
//!
//! ```text
//! fresh -- used --> spent, its successor fresh -- successor used --> spent
//!                     | again within the grace: the same successor, so a lost reply locks nobody out
//!                     | later, or once the successor was used: the token was copied; all tokens of the same code end
//! ```

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;
use wire::{ClientId, IdentityId};

use super::codes::{end_grant, lock_owner, remove_expired};
use crate::columns::{id, key, time};
use crate::database::query;
use crate::locks::lock_identities;
use crate::secret::Hash;
use crate::{Command, Store, StoreError, Tx};

/// The most refresh tokens kept of one person, used ones included. More are removed at the latest some hundred later, the
/// oldest used ones first.
const MOST: i64 = 20_000;
/// The most expired tokens that are removed at a time: more than are made meanwhile.
const REMOVED_AT_A_TIME: i64 = 100;

/// The grant that a refresh token renews.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshToken {
    pub chain: Uuid,
    pub grant: Uuid,
    pub session: Uuid,
    pub identity: IdentityId,
    pub client: ClientId,
    pub scope: String,
    pub resource_server: String,
    /// The next token is derived from this one and the key, so that asking twice gives the same one.
    pub chain_key: Vec<u8>,
    pub issued: Timestamp,
    pub expires: Timestamp,
}

/// How long after its expiry a token is kept, to tell its holder that it expired.
const EXPIRED_KEPT_FOR: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Adds the first token of a chain, and removes tokens that expired long ago.
#[derive(Clone, Debug)]
pub struct AddRefreshToken {
    pub hash: Hash,
    pub token: RefreshToken,
}

impl Command for AddRefreshToken {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        lock_identities(tx, &[self.token.identity]).await?;
        let before = self.token.issued - EXPIRED_KEPT_FOR;
        remove_expired(tx, "refresh_tokens", before, REMOVED_AT_A_TIME).await?;
        insert(tx, self.hash, &self.token).await
    }
}

async fn insert(tx: &mut Tx, hash: Hash, token: &RefreshToken) -> Result<(), StoreError> {
    // Finding the oldest takes as many steps as there are tokens: it is done now and then.
    if hash.is_one_in_256() {
        query(
            "DELETE FROM refresh_tokens WHERE hash IN (SELECT hash FROM refresh_tokens WHERE identity_id = $1 \
             ORDER BY used_us IS NOT NULL, issued_us DESC LIMIT 9223372036854775807 OFFSET $2)",
        )
        .bind(key(token.identity.as_uuid()))
        .bind(MOST)
        .execute(&mut *tx)
        .await?;
    }
    query(
        "INSERT INTO refresh_tokens (hash, chain_id, grant_id, session_id, identity_id, client_id, scope, \
         resource_server, chain_key, issued_us, expires_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(hash.as_bytes())
    .bind(key(token.chain))
    .bind(key(token.grant))
    .bind(key(token.session))
    .bind(key(token.identity.as_uuid()))
    .bind(key(token.client.as_uuid()))
    .bind(&token.scope)
    .bind(&token.resource_server)
    .bind(&token.chain_key)
    .bind(token.issued.as_microsecond())
    .bind(token.expires.as_microsecond())
    .execute(tx)
    .await?;
    Ok(())
}

/// The result of using a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The successor is valid now, or was already.
    Done,
    /// The token was copied: all tokens of the same code have now been ended.
    Reused,
    /// There is no such token.
    Gone,
}

/// Exchanges a refresh token for its successor.
#[derive(Clone, Debug)]
pub struct Rotate {
    pub hash: Hash,
    pub successor: Hash,
    pub now: Timestamp,
    pub expires: Timestamp,
    /// A use after this time may be repeated while the successor is unused.
    pub grace_since: Timestamp,
}

impl Command for Rotate {
    type Output = Rotation;

    async fn run(self, tx: &mut Tx) -> Result<Rotation, StoreError> {
        lock_owner(tx, OWNER, self.hash).await?;
        let Some(row) = select(tx, self.hash).await? else { return Ok(Rotation::Gone) };
        let used: Option<i64> = row.try_get("used_us")?;
        let token = token_of(&row)?;
        let Some(used) = used else {
            query("UPDATE refresh_tokens SET used_us = $2, successor_hash = $3 WHERE hash = $1")
                .bind(self.hash.as_bytes())
                .bind(self.now.as_microsecond())
                .bind(self.successor.as_bytes())
                .execute(&mut *tx)
                .await?;
            let next = RefreshToken { issued: self.now, expires: self.expires, ..token };
            insert(tx, self.successor, &next).await?;
            return Ok(Rotation::Done);
        };
        let successor = select(tx, self.successor).await?;
        let unused = match successor {
            Some(successor) => successor.try_get::<Option<i64>>("used_us")?.is_none(),
            None => false,
        };
        if unused && used >= self.grace_since.as_microsecond() {
            return Ok(Rotation::Done);
        }
        end_grant(tx, key(token.grant)).await?;
        Ok(Rotation::Reused)
    }
}

/// Ends the chain of a refresh token of `client`, and the access tokens that came from the same code for the same
/// resource server. Returns whether there was one.
#[derive(Clone, Debug)]
pub struct RevokeRefreshToken {
    pub hash: Hash,
    pub client: ClientId,
}

impl Command for RevokeRefreshToken {
    type Output = bool;

    async fn run(self, tx: &mut Tx) -> Result<bool, StoreError> {
        lock_owner(tx, OWNER, self.hash).await?;
        let Some(row) = select(tx, self.hash).await? else { return Ok(false) };
        let token = token_of(&row)?;
        if token.client != self.client {
            return Ok(false);
        }
        query("DELETE FROM refresh_tokens WHERE chain_id = $1")
            .bind(key(token.chain))
            .execute(&mut *tx)
            .await?;
        for sql in [
            "DELETE FROM tokens WHERE parent_hash IN \
             (SELECT hash FROM tokens WHERE grant_id = $1 AND resource_server = $2)",
            "DELETE FROM tokens WHERE grant_id = $1 AND resource_server = $2",
        ] {
            query(sql).bind(key(token.grant)).bind(&token.resource_server).execute(&mut *tx).await?;
        }
        Ok(true)
    }
}

const OWNER: &str = "SELECT identity_id FROM refresh_tokens WHERE hash = $1";

const SELECT: &str = "SELECT chain_id, grant_id, session_id, identity_id, client_id, scope, resource_server, \
    chain_key, issued_us, expires_us, used_us FROM refresh_tokens WHERE hash = $1";

async fn select(tx: &mut Tx, hash: Hash) -> Result<Option<crate::database::Row>, StoreError> {
    Ok(query(SELECT).bind(hash.as_bytes().to_vec()).fetch_optional(tx).await?)
}

fn token_of(row: &crate::database::Row) -> Result<RefreshToken, StoreError> {
    Ok(RefreshToken {
        chain: id(row, "chain_id")?,
        grant: id(row, "grant_id")?,
        session: id(row, "session_id")?,
        identity: IdentityId::from_uuid(id(row, "identity_id")?),
        client: ClientId::from_uuid(id(row, "client_id")?),
        scope: row.try_get("scope")?,
        resource_server: row.try_get("resource_server")?,
        chain_key: row.try_get("chain_key")?,
        issued: time(row, "issued_us")?,
        expires: time(row, "expires_us")?,
    })
}

impl Store {
    pub async fn refresh_token(&self, hash: Hash) -> Result<Option<RefreshToken>, StoreError> {
        let row = query(SELECT).bind(hash.as_bytes().to_vec()).fetch_optional(&self.readers).await?;
        row.map(|row| token_of(&row)).transpose()
    }
}
