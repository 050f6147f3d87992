//! Whether an account may act: neither the person nor the application that asks in their name is disabled; and whether
//! what it held was ended since its secret was read.

use wire::{ClientId, IdentityId};

use crate::columns::key;
use crate::database::{query, query_scalar};
use crate::locks::lock_identities;
use crate::secret::Hash;
use crate::{StoreError, Tx};

/// Whether `owner`, and the application that asks in its name, exist and are not disabled, and whether the access token
/// that was shown still exists. Called in the transaction that issues a token or a credential, so that none is issued after
/// the account was disabled, or to a request that began before its login was ended: what it answers stays true until the
/// transaction ends.
pub(crate) async fn is_active(
    tx: &mut Tx,
    owner: IdentityId,
    client: Option<ClientId>,
    token: Option<Hash>,
) -> Result<bool, StoreError> {
    let own: Option<bool> = query_scalar("SELECT disabled FROM identities WHERE id = $1")
        .locking(" FOR UPDATE")
        .bind(key(owner.as_uuid()))
        .fetch_optional(&mut *tx)
        .await?;
    if own != Some(false) {
        return Ok(false);
    }
    if let Some(client) = client
        && is_application_disabled(tx, client).await? != Some(false)
    {
        return Ok(false);
    }
    let Some(token) = token else { return Ok(true) };
    let known = query("SELECT 1 FROM tokens WHERE hash = $1")
        .locking(" FOR KEY SHARE")
        .bind(token.as_bytes().to_vec())
        .fetch_optional(tx)
        .await?;
    Ok(known.is_some())
}

/// Nothing, if there is no such application. Applications serve many people, so their rows are locked together with others.
async fn is_application_disabled(tx: &mut Tx, client: ClientId) -> Result<Option<bool>, StoreError> {
    if !tx.needs_locks() {
        let either = "SELECT disabled FROM identities WHERE id = $1 \
                      UNION ALL SELECT disabled FROM native_apps WHERE id = $1";
        return Ok(query_scalar(either).bind(key(client.as_uuid())).fetch_optional(tx).await?);
    }
    for sql in
        ["SELECT disabled FROM identities WHERE id = $1", "SELECT disabled FROM native_apps WHERE id = $1"]
    {
        let disabled = query_scalar(sql).locking(" FOR SHARE").bind(key(client.as_uuid()));
        if let Some(disabled) = disabled.fetch_optional(&mut *tx).await? {
            return Ok(Some(disabled));
        }
    }
    Ok(None)
}

/// An account as it was when its password or secret was read to be checked. It is read together with the secret or before it:
/// one that is read later would let a secret pass that had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountVersion {
    pub identity: IdentityId,
    pub generation: i64,
}

/// Whether nothing of the account was ended since it was read, and neither it nor the first of its set is disabled. Called in
/// the transaction that issues something for its secret, so that a request that showed the secret before a reset gets nothing
/// after it.
pub(crate) async fn is_current(tx: &mut Tx, account: AccountVersion) -> Result<bool, StoreError> {
    lock_identities(tx, &[account.identity]).await?;
    let current = query(
        "SELECT 1 FROM identities i JOIN identities p ON p.id = coalesce(i.primary_id, i.id) \
         WHERE i.id = $1 AND i.generation = $2 AND NOT i.disabled AND NOT p.disabled",
    )
    .bind(key(account.identity.as_uuid()))
    .bind(account.generation)
    .fetch_optional(tx)
    .await?;
    Ok(current.is_some())
}
