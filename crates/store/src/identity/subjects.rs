//! Binds the subjects of the site's identity providers to identities.
//!
//! A subject is bound to one identity for good: if the provider gives a username to another person, that person must not
//! get what the first one owns here.

use jiff::Timestamp;
use wire::IdentityId;

use super::people::{AddPerson, Profile};
use crate::columns::key;
use crate::database::{query, query_scalar};
use crate::{Command, Store, StoreError, Tx};

/// Binds a subject to an identity, which is added if it is new. Returns false if the subject or the identity is bound
/// already, or the username of a new identity is taken.
#[derive(Clone, Debug)]
pub struct BindSubject {
    pub issuer: String,
    pub subject: String,
    pub identity: IdentityId,
    pub new: Option<Profile>,
    pub now: Timestamp,
}

impl Command for BindSubject {
    type Output = bool;

    async fn run(self, tx: &mut Tx) -> Result<bool, StoreError> {
        let known: Option<i64> = query_scalar(
            "SELECT created_us FROM upstream_subjects WHERE (issuer = $1 AND subject = $2) OR identity_id = $3",
        )
        .bind(&self.issuer)
        .bind(&self.subject)
        .bind(key(self.identity.as_uuid()))
        .fetch_optional(&mut *tx)
        .await?;
        if known.is_some() {
            return Ok(false);
        }
        if let Some(profile) = self.new
            && (AddPerson { profile, password: None }).run(tx).await?.is_err()
        {
            return Ok(false);
        }
        let bound = query(
            "INSERT INTO upstream_subjects (issuer, subject, identity_id, created_us) VALUES ($1, $2, $3, $4) \
             ON CONFLICT DO NOTHING",
        )
        .bind(self.issuer)
        .bind(self.subject)
        .bind(key(self.identity.as_uuid()))
        .bind(self.now.as_microsecond())
        .execute(tx)
        .await?;
        // Another was faster: what was written so far is undone, and the next try sees it.
        if bound == 0 { Err(StoreError::TryAgain) } else { Ok(true) }
    }
}

impl Store {
    /// The identity that `subject` of `issuer` is bound to.
    pub async fn subject(&self, issuer: &str, subject: &str) -> Result<Option<IdentityId>, StoreError> {
        let found: Option<Vec<u8>> =
            query_scalar("SELECT identity_id FROM upstream_subjects WHERE issuer = $1 AND subject = $2")
                .bind(issuer)
                .bind(subject)
                .fetch_optional(&self.readers)
                .await?;
        found
            .map(|bytes| uuid::Uuid::from_slice(&bytes).map_err(|_| StoreError::Corrupt("identity_id")))
            .transpose()
            .map(|id| id.map(IdentityId::from_uuid))
    }

    /// Whether the identity is bound to a subject.
    pub async fn has_subject(&self, identity: IdentityId) -> Result<bool, StoreError> {
        let found: Option<i64> =
            query_scalar("SELECT created_us FROM upstream_subjects WHERE identity_id = $1")
                .bind(key(identity.as_uuid()))
                .fetch_optional(&self.readers)
                .await?;
        Ok(found.is_some())
    }
}
