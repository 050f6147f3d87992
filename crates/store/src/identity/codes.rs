//! Authorization codes, by their hash. A code can be exchanged once. It is kept until it expires, so that a second
//! exchange is detected.

use jiff::Timestamp;
use uuid::Uuid;
use wire::{ClientId, IdentityId};

use super::account_status::is_active;
use crate::columns::{id, key, time};
use crate::database::{StatementBuilder, query, query_scalar};
use crate::locks::lock_identities;
use crate::secret::Hash;
use crate::{Command, Store, StoreError, Tx};

/// The most codes kept of one person; the oldest are removed at the latest some hundred codes later.
const MOST: i64 = 1_000;
/// The most expired codes that are removed at a time: more than are made meanwhile.
const REMOVED_AT_A_TIME: i64 = 100;

/// What a code stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    pub client: ClientId,
    /// The identity as which the person acts: the first of the set.
    pub identity: IdentityId,
    pub session: Uuid,
    /// The id shared by all tokens that come from this code.
    pub grant: Uuid,
    pub redirect_uri: String,
    /// The S256 hash of the PKCE verifier.
    pub challenge: String,
    pub scope: String,
    pub state: Option<String>,
    pub nonce: Option<String>,
    /// Refresh tokens were asked for.
    pub offline: bool,
    pub expires: Timestamp,
}

/// Adds a code, and removes codes that expired long before. Answers whether it was added: not when the session has ended since
/// its cookie was shown or the person has signed in anew with it, when they act as somebody else, or when they or the
/// application are disabled or gone.
#[derive(Clone, Debug)]
pub struct AddCode {
    pub hash: Hash,
    pub code: Code,
    /// The cookie with which the person consented.
    pub cookie: Hash,
    /// Codes that expired before this are removed.
    pub forget: Timestamp,
}

impl Command for AddCode {
    type Output = bool;

    async fn run(self, tx: &mut Tx) -> Result<bool, StoreError> {
        let code = self.code;
        if !is_active(tx, code.identity, Some(code.client), None).await?
            || !opens(tx, self.cookie, &code).await?
        {
            return Ok(false);
        }
        remove_expired(tx, "codes", self.forget, REMOVED_AT_A_TIME).await?;
        // Finding the oldest takes as many steps as there are codes: it is done now and then.
        if self.hash.is_one_in_256() {
            query(
                "DELETE FROM codes WHERE hash IN (SELECT hash FROM codes WHERE identity_id = $1 \
                 ORDER BY expires_us DESC LIMIT 9223372036854775807 OFFSET $2)",
            )
            .bind(key(code.identity.as_uuid()))
            .bind(MOST)
            .execute(&mut *tx)
            .await?;
        }
        query(
            "INSERT INTO codes (hash, client_id, identity_id, session_id, grant_id, redirect_uri, challenge, \
             scope, state, nonce, offline, expires_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(self.hash.as_bytes())
        .bind(key(code.client.as_uuid()))
        .bind(key(code.identity.as_uuid()))
        .bind(key(code.session))
        .bind(key(code.grant))
        .bind(code.redirect_uri)
        .bind(code.challenge)
        .bind(code.scope)
        .bind(code.state)
        .bind(code.nonce)
        .bind(code.offline)
        .bind(code.expires.as_microsecond())
        .execute(tx)
        .await?;
        Ok(true)
    }
}

/// Removes at most `count` rows of `table` that expired before `before`, and that no other transaction is removing.
pub(crate) async fn remove_expired(
    tx: &mut Tx,
    table: &'static str,
    before: Timestamp,
    count: i64,
) -> Result<(), StoreError> {
    let mut delete = StatementBuilder::new("DELETE FROM ");
    delete.push(table).push(" WHERE hash IN (SELECT hash FROM ").push(table);
    delete.push(" WHERE expires_us < ").push_bind(before.as_microsecond());
    delete.push(" LIMIT ").push_bind(count).push_skip_locked().push(")");
    delete.build().execute(tx).await?;
    Ok(())
}

/// Whether `cookie` opens the session of `code`, in which the person still acts as its identity.
async fn opens(tx: &mut Tx, cookie: Hash, code: &Code) -> Result<bool, StoreError> {
    let session = query(
        "SELECT 1 FROM sessions s JOIN identities i ON i.id = s.identity_id \
         WHERE s.id = $1 AND s.cookie_hash = $2 AND coalesce(i.primary_id, i.id) = $3",
    )
    .bind(key(code.session))
    .bind(cookie.as_bytes().to_vec())
    .bind(key(code.identity.as_uuid()))
    .fetch_optional(tx)
    .await?;
    Ok(session.is_some())
}

/// The result of using a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeUse {
    First,
    /// It had been used before: all tokens that came from it have now been ended.
    Repeated,
    /// It expired unused.
    Expired,
}

/// Exchanges a code. A second exchange ends all tokens of the first.
#[derive(Clone, Debug)]
pub struct UseCode {
    pub hash: Hash,
    pub now: Timestamp,
}

impl Command for UseCode {
    type Output = CodeUse;

    async fn run(self, tx: &mut Tx) -> Result<CodeUse, StoreError> {
        lock_owner(tx, "SELECT identity_id FROM codes WHERE hash = $1", self.hash).await?;
        let used =
            query("UPDATE codes SET used_us = $2 WHERE hash = $1 AND used_us IS NULL AND expires_us > $2")
                .bind(self.hash.as_bytes())
                .bind(self.now.as_microsecond())
                .execute(&mut *tx)
                .await?;
        if used == 1 {
            return Ok(CodeUse::First);
        }
        let grant: Option<Vec<u8>> = query_scalar(
            "UPDATE codes SET replayed = TRUE WHERE hash = $1 AND used_us IS NOT NULL RETURNING grant_id",
        )
        .bind(self.hash.as_bytes())
        .fetch_optional(&mut *tx)
        .await?;
        let Some(grant) = grant else { return Ok(CodeUse::Expired) };
        end_grant(tx, grant).await?;
        Ok(CodeUse::Repeated)
    }
}

/// Locks the identity that `select` finds by `hash`: what came from one code is added and ended by one after another.
pub(crate) async fn lock_owner(tx: &mut Tx, select: &'static str, hash: Hash) -> Result<(), StoreError> {
    if !tx.needs_locks() {
        return Ok(());
    }
    let owner = query(select).bind(hash.as_bytes().to_vec()).fetch_optional(&mut *tx).await?;
    let Some(owner) = owner else { return Ok(()) };
    lock_identities(tx, &[IdentityId::from_uuid(id(&owner, "identity_id")?)]).await
}

/// Ends all tokens that came from one code. The caller has locked their identity.
pub(crate) async fn end_grant(tx: &mut Tx, grant: Vec<u8>) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM tokens WHERE parent_hash IN (SELECT hash FROM tokens WHERE grant_id = $1)",
        "DELETE FROM tokens WHERE grant_id = $1",
        "DELETE FROM refresh_tokens WHERE grant_id = $1",
    ] {
        query(sql).bind(&grant).execute(&mut *tx).await?;
    }
    Ok(())
}

impl Store {
    pub async fn code(&self, hash: Hash) -> Result<Option<Code>, StoreError> {
        let row = query(
            "SELECT client_id, identity_id, session_id, grant_id, redirect_uri, challenge, scope, state, nonce, \
             offline, expires_us FROM codes WHERE hash = $1",
        )
        .bind(hash.as_bytes())
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Code {
            client: ClientId::from_uuid(id(&row, "client_id")?),
            identity: IdentityId::from_uuid(id(&row, "identity_id")?),
            session: id(&row, "session_id")?,
            grant: id(&row, "grant_id")?,
            redirect_uri: row.try_get("redirect_uri")?,
            challenge: row.try_get("challenge")?,
            scope: row.try_get("scope")?,
            state: row.try_get("state")?,
            nonce: row.try_get("nonce")?,
            offline: row.try_get("offline")?,
            expires: time(&row, "expires_us")?,
        }))
    }

    /// Whether the code was used a second time.
    pub async fn code_replayed(&self, hash: Hash) -> Result<bool, StoreError> {
        let replayed: Option<bool> = query_scalar("SELECT replayed FROM codes WHERE hash = $1")
            .bind(hash.as_bytes())
            .fetch_optional(&self.readers)
            .await?;
        Ok(replayed.unwrap_or(true))
    }
}
