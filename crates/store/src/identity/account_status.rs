//! Whether an account may act: neither the person nor the application that asks in their name is disabled, and nothing was
//! ended since the secret was read that it shows.

use wire::{ClientId, IdentityId};

use crate::columns::key;
use crate::secret::Hash;
use crate::{StoreError, Tx};

/// Whether `owner`, and the application that asks in its name, exist and are not disabled, and whether the access token
/// that was shown still exists. Called in the transaction that issues a token or a credential, so that none is issued after
/// the account was disabled, or to a request that began before its login was ended.
pub(crate) async fn is_active(
    tx: &mut Tx,
    owner: IdentityId,
    client: Option<ClientId>,
    token: Option<Hash>,
) -> Result<bool, StoreError> {
    if let Some(token) = token {
        let known = sqlx::query("SELECT 1 FROM tokens WHERE hash = $1")
            .bind(token.as_bytes().to_vec())
            .fetch_optional(&mut *tx)
            .await?;
        if known.is_none() {
            return Ok(false);
        }
    }
    let own: Option<bool> = sqlx::query_scalar("SELECT disabled FROM identities WHERE id = $1")
        .bind(key(owner.as_uuid()))
        .fetch_optional(&mut *tx)
        .await?;
    let Some(client) = client else { return Ok(own == Some(false)) };
    let asking: Option<bool> = sqlx::query_scalar(
        "SELECT disabled FROM identities WHERE id = $1 UNION ALL SELECT disabled FROM native_apps WHERE id = $1",
    )
    .bind(key(client.as_uuid()))
    .fetch_optional(tx)
    .await?;
    Ok(own == Some(false) && asking == Some(false))
}

/// An account as it was when its password or secret was read, to be checked. Read with the secret or before it, and not
/// from a cache that could be older than the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountVersion {
    pub identity: IdentityId,
    pub generation: i64,
}

/// Whether all that the account holds was not ended since, and neither it nor the first of its set is disabled. Called in
/// the transaction that issues something for the secret: so a request that showed a secret gets nothing that outlives a
/// reset of it.
pub(crate) async fn is_current(tx: &mut Tx, account: AccountVersion) -> Result<bool, StoreError> {
    let current = sqlx::query(
        "SELECT 1 FROM identities i JOIN identities p ON p.id = coalesce(i.primary_id, i.id) \
         WHERE i.id = $1 AND i.generation = $2 AND NOT i.disabled AND NOT p.disabled",
    )
    .bind(key(account.identity.as_uuid()))
    .bind(account.generation)
    .fetch_optional(tx)
    .await?;
    Ok(current.is_some())
}
