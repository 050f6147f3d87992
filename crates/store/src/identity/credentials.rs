//! Credentials for the broker: users and the hashes of their passwords.
//!
//! An endpoint's credential does not expire. It ends with the endpoint, or once the credential of a newer registration has
//! been used; so a registration whose answer was lost locks nobody out. A client's credential opens connections until it
//! expires; open connections stay. A holder has a bounded number of credentials: a new one replaces the oldest.

use jiff::Timestamp;
use uuid::Uuid;
use wire::{ClientId, EndpointId, IdentityId};

use super::account_status::is_active;
use crate::columns::{instant, key};
use crate::database::{query, query_scalar};
use crate::secret::Hash;
use crate::{Command, Store, StoreError, Tx};

/// The most credentials of one holder; one more removes the oldest.
const MOST: i64 = 16;

/// Whose credential it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    Endpoint(EndpointId),
    Client(IdentityId),
}

impl Holder {
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Holder::Endpoint(_) => "ep",
            Holder::Client(_) => "client",
        }
    }

    pub(crate) fn subject(self) -> Uuid {
        match self {
            Holder::Endpoint(endpoint) => *endpoint.as_uuid(),
            Holder::Client(identity) => *identity.as_uuid(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Credential {
    pub secret: Hash,
    pub expires: Option<Timestamp>,
    /// Older credentials of the same holder exist.
    pub supersedes: bool,
}

/// Issues a client's next credential. Returns its number, or nothing if the account is disabled.
#[derive(Clone, Debug)]
pub struct NewClientCredential {
    pub identity: IdentityId,
    /// The access token with which it is asked for.
    pub token: Option<Hash>,
    pub secret: Hash,
    pub now: Timestamp,
    pub expires: Timestamp,
}

impl Command for NewClientCredential {
    type Output = Option<i64>;

    async fn run(self, tx: &mut Tx) -> Result<Option<i64>, StoreError> {
        if !is_active(tx, self.identity, None, self.token).await? {
            return Ok(None);
        }
        let holder = Holder::Client(self.identity);
        let last: Option<i64> =
            query_scalar("SELECT max(number) FROM credentials WHERE kind = $1 AND subject_id = $2")
                .bind(holder.kind())
                .bind(key(holder.subject()))
                .fetch_one(&mut *tx)
                .await?;
        query("DELETE FROM credentials WHERE kind = $1 AND subject_id = $2 AND expires_us < $3")
            .bind(holder.kind())
            .bind(key(holder.subject()))
            .bind(self.now.as_microsecond())
            .execute(&mut *tx)
            .await?;
        let number = last.unwrap_or(0) + 1;
        keep_newest(tx, holder, number).await?;
        add(tx, holder, number, self.secret, self.now, Some(self.expires), None).await?;
        Ok(Some(number))
    }
}

/// Removes the credentials of an endpoint that are older than the one it has just used.
#[derive(Clone, Debug)]
pub struct RemoveOlderCredentials {
    pub endpoint: EndpointId,
    pub used: i64,
}

impl Command for RemoveOlderCredentials {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let holder = Holder::Endpoint(self.endpoint);
        query("DELETE FROM credentials WHERE kind = $1 AND subject_id = $2 AND number < $3")
            .bind(holder.kind())
            .bind(key(holder.subject()))
            .bind(self.used)
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// Removes the oldest credentials of `holder` to make room for credential `number`.
pub(crate) async fn keep_newest(tx: &mut Tx, holder: Holder, number: i64) -> Result<(), StoreError> {
    query("DELETE FROM credentials WHERE kind = $1 AND subject_id = $2 AND number <= $3")
        .bind(holder.kind())
        .bind(key(holder.subject()))
        .bind(number - MOST)
        .execute(tx)
        .await?;
    Ok(())
}

pub(crate) async fn add(
    tx: &mut Tx,
    holder: Holder,
    number: i64,
    secret: Hash,
    now: Timestamp,
    expires: Option<Timestamp>,
    client: Option<ClientId>,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO credentials (kind, subject_id, number, secret_hash, created_us, expires_us, client_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(holder.kind())
    .bind(key(holder.subject()))
    .bind(number)
    .bind(secret.as_bytes())
    .bind(now.as_microsecond())
    .bind(expires.map(Timestamp::as_microsecond))
    .bind(client.map(|client| key(client.as_uuid())))
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn remove_all(tx: &mut Tx, holder: Holder) -> Result<(), StoreError> {
    query("DELETE FROM credentials WHERE kind = $1 AND subject_id = $2")
        .bind(holder.kind())
        .bind(key(holder.subject()))
        .execute(tx)
        .await?;
    Ok(())
}

impl Store {
    pub async fn credential(&self, holder: Holder, number: i64) -> Result<Option<Credential>, StoreError> {
        let row = query(
            "SELECT secret_hash, expires_us, EXISTS (SELECT 1 FROM credentials o WHERE o.kind = c.kind \
             AND o.subject_id = c.subject_id AND o.number < c.number) AS supersedes \
             FROM credentials c WHERE kind = $1 AND subject_id = $2 AND number = $3",
        )
        .bind(holder.kind())
        .bind(key(holder.subject()))
        .bind(number)
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let expires: Option<i64> = row.try_get("expires_us")?;
        Ok(Some(Credential {
            secret: Hash::from_stored(row.try_get("secret_hash")?)
                .ok_or(StoreError::Corrupt("secret_hash"))?,
            expires: expires.map(|micros| instant(micros, "expires_us")).transpose()?,
            supersedes: row.try_get("supersedes")?,
        }))
    }

    /// The secret of a client's credential, for a request that has shown the access token `token`: nothing if the token has
    /// been ended since.
    pub async fn client_credential(
        &self,
        identity: IdentityId,
        number: i64,
        token: Hash,
    ) -> Result<Option<Hash>, StoreError> {
        let holder = Holder::Client(identity);
        let secret: Option<Vec<u8>> = query_scalar(
            "SELECT secret_hash FROM credentials WHERE kind = $1 AND subject_id = $2 AND number = $3 \
             AND EXISTS (SELECT 1 FROM tokens WHERE hash = $4)",
        )
        .bind(holder.kind())
        .bind(key(holder.subject()))
        .bind(number)
        .bind(token.as_bytes().to_vec())
        .fetch_optional(&self.readers)
        .await?;
        secret.map(|secret| Hash::from_stored(&secret).ok_or(StoreError::Corrupt("secret_hash"))).transpose()
    }
}
