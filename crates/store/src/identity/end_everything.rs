//! Ends everything that an account holds, in one transaction: sessions, tokens, credentials. The hashes of the ended
//! secrets are kept for a time, so that their holder can be told why they no longer work.

use jiff::{SignedDuration, Timestamp};
use wire::{ClientId, EndpointId, IdentityId};

use super::credentials::{self, Holder};
use super::sessions::EndSessions;
use super::tokens::EndTokens;
use crate::columns::{id, key};
use crate::database::{query, query_scalar};
use crate::locks::lock_account;
use crate::secret::Hash;
use crate::{Command, Store, StoreError, Tx};

/// How long the hash of an ended secret is kept if the secret has no expiry of its own.
const HASH_KEPT_FOR: SignedDuration = SignedDuration::from_hours(24 * 180);

/// Ends everything that an identity, or an application with this id, holds: sessions; tokens that act for it or came from
/// its sessions; broker credentials of its own, of its endpoints, of its managers' user endpoints, and of endpoints that it
/// registered for another identity. Keeps the hashes of the ended secrets. Requests that have shown its
/// password or secret before get nothing for it: its generation changes.
#[derive(Clone, Debug)]
pub struct EndEverything {
    pub identity: IdentityId,
    pub now: Timestamp,
}

/// Ends everything, and makes the change because of which it ends, in one transaction: nothing is handed out in between. The
/// ending comes first, since it goes by the link or the application that the change may take away.
#[derive(Clone, Debug)]
pub struct EndEverythingFor<C> {
    pub change: C,
    pub end: EndEverything,
}

impl<C: Command> Command for EndEverythingFor<C> {
    type Output = ConnectionsToClose;

    async fn run(self, tx: &mut Tx) -> Result<ConnectionsToClose, StoreError> {
        let ended = self.end.run(tx).await?;
        self.change.run(tx).await?;
        Ok(ended)
    }
}

/// The connections to the broker that must be closed now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionsToClose {
    /// Identities all of whose connections must be closed, whichever credential opened them.
    pub holders: Vec<IdentityId>,
    pub endpoints: Vec<EndpointId>,
}

const KEEP_TOKEN_HASHES: &str = "INSERT INTO ended_secrets (hash, identity_id, until_us) SELECT hash, $1, expires_us FROM tokens \
             WHERE expires_us > $2 AND (identity_id = $1 OR client_id = $1 OR session_id IN \
             (SELECT session_id FROM authentications WHERE identity_id = $1)) ON CONFLICT (hash) DO NOTHING";

/// Selects the endpoints whose credentials end with `$1`.
const ENDPOINTS: &str = "WITH own (id) AS (\
    SELECT id FROM endpoints WHERE owner_id = $1 \
    UNION SELECT subject_id FROM credentials WHERE kind = 'ep' AND client_id = $1 \
    UNION SELECT c.subject_id FROM identities i JOIN endpoints e ON e.owner_id = i.primary_id \
        JOIN credentials c ON c.kind = 'ep' AND c.subject_id = e.id \
        WHERE i.id = $1 AND i.kind = 'client' AND c.client_id IS NULL AND e.manager_id IS NULL) \
    SELECT id FROM own UNION SELECT e.id FROM endpoints e JOIN own o ON e.manager_id = o.id";

impl Command for EndEverything {
    type Output = ConnectionsToClose;

    async fn run(self, tx: &mut Tx) -> Result<ConnectionsToClose, StoreError> {
        lock_account(tx, self.identity).await?;
        let identity = key(self.identity.as_uuid());
        if tx.needs_locks() {
            // None of them is being registered, and none of their managers' user endpoints, when they are listed.
            query("SELECT 1 FROM endpoints WHERE owner_id = $1")
                .locking(" ORDER BY id FOR UPDATE")
                .bind(&identity)
                .fetch_all(&mut *tx)
                .await?;
        }
        let mut ended = ConnectionsToClose::default();
        // What one that is linked with others has opened at the broker was opened for the first of them.
        let holders: Vec<Vec<u8>> = query_scalar(
            "SELECT $1 UNION SELECT primary_id FROM identities WHERE id = $1 AND primary_id IS NOT NULL",
        )
        .bind(&identity)
        .fetch_all(&mut *tx)
        .await?;
        let endpoints: Vec<Vec<u8>> = query_scalar(ENDPOINTS).bind(&identity).fetch_all(&mut *tx).await?;
        self.keep_hashes(tx, &identity, &holders, &endpoints).await?;
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
            query_scalar("SELECT session_id FROM authentications WHERE identity_id = $1")
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
        query("UPDATE identities SET generation = generation + 1 WHERE id = $1")
            .bind(&identity)
            .execute(tx)
            .await?;
        Ok(ended)
    }
}

impl EndEverything {
    /// Keeps the hashes of the secrets that are about to end.
    async fn keep_hashes(
        &self,
        tx: &mut Tx,
        identity: &[u8],
        holders: &[Vec<u8>],
        endpoints: &[Vec<u8>],
    ) -> Result<(), StoreError> {
        let now = self.now.as_microsecond();
        query("DELETE FROM ended_secrets WHERE until_us < $1").bind(now).execute(&mut *tx).await?;
        for sql in [
            KEEP_TOKEN_HASHES,
            "INSERT INTO ended_secrets (hash, identity_id, until_us) SELECT hash, $1, expires_us FROM refresh_tokens \
             WHERE expires_us > $2 AND (identity_id = $1 OR client_id = $1 OR session_id IN \
             (SELECT session_id FROM authentications WHERE identity_id = $1)) ON CONFLICT (hash) DO NOTHING",
        ] {
            query(sql).bind(identity).bind(now).execute(&mut *tx).await?;
        }
        let holders = holders.iter().map(|id| ("client", id));
        for (kind, subject) in holders.chain(endpoints.iter().map(|id| ("ep", id))) {
            query(
                "INSERT INTO ended_secrets (hash, identity_id, until_us) \
                 SELECT secret_hash, $1, coalesce(expires_us, $2) FROM credentials \
                 WHERE kind = $3 AND subject_id = $4 ON CONFLICT (hash) DO NOTHING",
            )
            .bind(identity)
            .bind(self.now.checked_add(HASH_KEPT_FOR).unwrap_or(self.now).as_microsecond())
            .bind(kind)
            .bind(subject)
            .execute(&mut *tx)
            .await?;
        }
        Ok(())
    }
}

impl Store {
    /// The identity whose account was disabled or removed when the secret of this hash was ended.
    pub async fn owner_of_ended_secret(&self, secret: Hash) -> Result<Option<IdentityId>, StoreError> {
        let row = query("SELECT identity_id FROM ended_secrets WHERE hash = $1")
            .bind(secret.as_bytes().to_vec())
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| Ok(IdentityId::from_uuid(id(&row, "identity_id")?))).transpose()
    }
}
