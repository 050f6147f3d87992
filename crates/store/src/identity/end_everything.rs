//! Shutting somebody out: all that they hold ends in one transaction, and what is handed out is handed out to those
//! who are not shut out. Who still has a secret that ended so can be told why.

use jiff::{SignedDuration, Timestamp};
use wire::{ClientId, EndpointId, IdentityId};

use super::credentials::{self, Holder};
use super::sessions::EndSessions;
use super::tokens::EndTokens;
use crate::columns::{id, key};
use crate::secret::Hash;
use crate::{Command, Store, StoreError, Tx};

/// How long it is remembered that a secret without an end of its own was ended.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24 * 180);

/// Ends all that an identity, or an application of this id, holds: sessions, tokens that act for it or came from its
/// sessions, credentials of the broker: its own, those of its endpoints, of the user endpoints of its managers, and of
/// the endpoints that it registered for another. It is remembered that the secrets ended so. Requests that have shown its
/// password or secret before get nothing for it: its generation changes.
#[derive(Debug)]
pub struct EndEverything {
    pub identity: IdentityId,
    pub now: Timestamp,
}

/// Ends everything, and makes the change because of which it ends, in one transaction: nothing is handed out in between. The
/// ending comes first, since it goes by the link or the application that the change may take away.
#[derive(Debug)]
pub struct EndEverythingFor<C> {
    pub change: C,
    pub end: EndEverything,
}

impl<C: Command> Command for EndEverythingFor<C> {
    type Output = Ended;

    async fn run(self, tx: &mut Tx) -> Result<Ended, StoreError> {
        let ended = self.end.run(tx).await?;
        self.change.run(tx).await?;
        Ok(ended)
    }
}

/// Who is connected to the broker with what has ended, and has to be cut off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Whose connections end, also those whose credentials had ended before.
    pub holders: Vec<IdentityId>,
    pub endpoints: Vec<EndpointId>,
}

const REMEMBER_TOKENS: &str = "INSERT INTO ended_secrets (hash, identity_id, until_us) SELECT hash, $1, expires_us FROM tokens \
             WHERE expires_us > $2 AND (identity_id = $1 OR client_id = $1 OR session_id IN \
             (SELECT session_id FROM authentications WHERE identity_id = $1)) ON CONFLICT (hash) DO NOTHING";

/// The endpoints whose credentials end with `$1`, in a list without a particular order.
const ENDPOINTS: &str = "WITH own (id) AS (\
    SELECT id FROM endpoints WHERE owner_id = $1 \
    UNION SELECT subject_id FROM credentials WHERE kind = 'ep' AND client_id = $1 \
    UNION SELECT c.subject_id FROM identities i JOIN endpoints e ON e.owner_id = i.primary_id \
        JOIN credentials c ON c.kind = 'ep' AND c.subject_id = e.id \
        WHERE i.id = $1 AND i.kind = 'client' AND c.client_id IS NULL AND e.manager_id IS NULL) \
    SELECT id FROM own UNION SELECT e.id FROM endpoints e JOIN own o ON e.manager_id = o.id";

impl Command for EndEverything {
    type Output = Ended;

    async fn run(self, tx: &mut Tx) -> Result<Ended, StoreError> {
        let identity = key(self.identity.as_uuid());
        let mut ended = Ended::default();
        // What one that is linked with others has opened at the broker was opened for the first of them.
        let holders: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT $1 UNION SELECT primary_id FROM identities WHERE id = $1 AND primary_id IS NOT NULL",
        )
        .bind(&identity)
        .fetch_all(&mut *tx)
        .await?;
        let endpoints: Vec<Vec<u8>> =
            sqlx::query_scalar(ENDPOINTS).bind(&identity).fetch_all(&mut *tx).await?;
        self.remember(tx, &identity, &holders, &endpoints).await?;
        for holder in holders {
            let holder = uuid::Uuid::from_slice(&holder).map_err(|_| StoreError::Corrupt("primary_id"))?;
            let holder = IdentityId::from_uuid(holder);
            ended.holders.push(holder);
            credentials::remove_all(tx, Holder::Client(holder)).await?;
        }
        for endpoint in endpoints {
            let endpoint = uuid::Uuid::from_slice(&endpoint).map_err(|_| StoreError::Corrupt("id"))?;
            let endpoint = EndpointId::from_uuid(endpoint);
            credentials::remove_all(tx, Holder::Endpoint(endpoint)).await?;
            ended.endpoints.push(endpoint);
        }
        let sessions: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT session_id FROM authentications WHERE identity_id = $1")
                .bind(&identity)
                .fetch_all(&mut *tx)
                .await?;
        for session in sessions {
            let session = uuid::Uuid::from_slice(&session).map_err(|_| StoreError::Corrupt("session_id"))?;
            EndTokens::Session(session).run(tx).await?;
        }
        EndTokens::Of(self.identity).run(tx).await?;
        EndTokens::Client(ClientId::from_uuid(*self.identity.as_uuid())).run(tx).await?;
        EndSessions(self.identity).run(tx).await?;
        sqlx::query("UPDATE identities SET generation = generation + 1 WHERE id = $1")
            .bind(&identity)
            .execute(tx)
            .await?;
        Ok(ended)
    }
}

impl EndEverything {
    /// Writes down which secrets are about to end.
    async fn remember(
        &self,
        tx: &mut Tx,
        identity: &[u8],
        holders: &[Vec<u8>],
        endpoints: &[Vec<u8>],
    ) -> Result<(), StoreError> {
        let now = self.now.as_microsecond();
        sqlx::query("DELETE FROM ended_secrets WHERE until_us < $1").bind(now).execute(&mut *tx).await?;
        for sql in [
            REMEMBER_TOKENS,
            "INSERT INTO ended_secrets (hash, identity_id, until_us) SELECT hash, $1, expires_us FROM refresh_tokens \
             WHERE expires_us > $2 AND (identity_id = $1 OR client_id = $1 OR session_id IN \
             (SELECT session_id FROM authentications WHERE identity_id = $1)) ON CONFLICT (hash) DO NOTHING",
        ] {
            sqlx::query(sql).bind(identity).bind(now).execute(&mut *tx).await?;
        }
        let holders = holders.iter().map(|id| ("client", id));
        for (kind, subject) in holders.chain(endpoints.iter().map(|id| ("ep", id))) {
            sqlx::query(
                "INSERT INTO ended_secrets (hash, identity_id, until_us) \
                 SELECT secret_hash, $1, coalesce(expires_us, $2) FROM credentials \
                 WHERE kind = $3 AND subject_id = $4 ON CONFLICT (hash) DO NOTHING",
            )
            .bind(identity)
            .bind(self.now.checked_add(REMEMBERED).unwrap_or(self.now).as_microsecond())
            .bind(kind)
            .bind(subject)
            .execute(&mut *tx)
            .await?;
        }
        Ok(())
    }
}

impl Store {
    /// Who was shut out, if the secret of this hash ended with that.
    pub async fn shut_out_with(&self, secret: Hash) -> Result<Option<IdentityId>, StoreError> {
        let row = sqlx::query("SELECT identity_id FROM ended_secrets WHERE hash = $1")
            .bind(secret.as_bytes().to_vec())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| Ok(IdentityId::from_uuid(id(&row, "identity_id")?))).transpose()
    }
}
