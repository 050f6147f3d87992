//! Identities: people and client identities alike, how they are linked, and people's passwords.

use jiff::Timestamp;
use wire::IdentityId;

use super::account_status::AccountVersion;
use crate::columns::{id, instant, key, time};
use crate::database::{Row, query, query_scalar};
use crate::locks::lock_identities;
use crate::{Command, Store, StoreError, Tx};

/// What kind of account an identity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Person,
    /// A program, with a secret in [`crate::Client`].
    Client,
}

/// An identity's profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub id: IdentityId,
    pub kind: Kind,
    /// `name@domain`, in lower case.
    pub username: String,
    pub name: String,
    pub email: Option<String>,
    pub organization: Option<String>,
    pub disabled: bool,
    /// May administer the service.
    pub administrator: bool,
    /// The identity it is linked to; absent: it is the first of its set, or alone.
    pub linked_to: Option<IdentityId>,
    /// How often all that it held was ended.
    pub generation: i64,
    /// When it last authenticated.
    pub authenticated: Option<Timestamp>,
    pub created: Timestamp,
}

impl Profile {
    /// The first of the set: a person who signs in as any of the set acts as this one.
    pub fn primary(&self) -> IdentityId {
        self.linked_to.unwrap_or(self.id)
    }

    pub fn version(&self) -> AccountVersion {
        AccountVersion { identity: self.id, generation: self.generation }
    }

    /// The part after the `@`.
    pub fn domain(&self) -> &str {
        self.username.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

/// The columns of a [`Profile`], from `identities i`.
const COLUMNS: &str = "i.id, i.kind, i.username, i.name, i.email, i.organization, i.disabled, i.administrator, \
                       i.primary_id, i.generation, i.authenticated_us, i.created_us";

/// The name is taken; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name is taken")]
pub struct NameTaken;

/// Adds a person, with the hash of a password or without one.
#[derive(Clone, Debug)]
pub struct AddPerson {
    pub profile: Profile,
    pub password: Option<String>,
}

impl Command for AddPerson {
    type Output = Result<(), NameTaken>;

    async fn run(self, tx: &mut Tx) -> Result<Self::Output, StoreError> {
        let person = self.profile;
        let added = query(
            "INSERT INTO identities \
             (id, kind, username, name, email, organization, disabled, administrator, primary_id, \
              authenticated_us, created_us) \
             VALUES ($1, 'person', $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (username) DO NOTHING",
        )
        .bind(key(person.id.as_uuid()))
        .bind(person.username)
        .bind(person.name)
        .bind(person.email)
        .bind(person.organization)
        .bind(person.disabled)
        .bind(person.administrator)
        .bind(person.linked_to.map(|id| key(id.as_uuid())))
        .bind(person.authenticated.map(Timestamp::as_microsecond))
        .bind(person.created.as_microsecond())
        .execute(&mut *tx)
        .await?;
        if added == 0 {
            return Ok(Err(NameTaken));
        }
        if let Some(hash) = self.password {
            SetPassword { identity: person.id, hash, at: person.created }.run(tx).await?;
        }
        Ok(Ok(()))
    }
}

/// Changes an identity's profile; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct UpdateProfile {
    pub identity: Option<IdentityId>,
    pub name: Option<String>,
    pub email: Option<String>,
    pub organization: Option<String>,
    pub administrator: Option<bool>,
}

impl Command for UpdateProfile {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let Some(identity) = self.identity else { return Ok(()) };
        query(
            "UPDATE identities SET name = coalesce($2, name), email = coalesce($3, email), \
             organization = coalesce($4, organization), administrator = coalesce($5, administrator) \
             WHERE id = $1",
        )
        .bind(key(identity.as_uuid()))
        .bind(self.name)
        .bind(self.email)
        .bind(self.organization)
        .bind(self.administrator)
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Sets a person's password, given its hash.
#[derive(Clone, Debug)]
pub struct SetPassword {
    pub identity: IdentityId,
    pub hash: String,
    pub at: Timestamp,
}

impl Command for SetPassword {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        query(
            "INSERT INTO passwords (identity_id, hash, changed_us) VALUES ($1, $2, $3) \
             ON CONFLICT (identity_id) DO UPDATE SET hash = excluded.hash, changed_us = excluded.changed_us",
        )
        .bind(key(self.identity.as_uuid()))
        .bind(self.hash)
        .bind(self.at.as_microsecond())
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Disables or enables an identity. [`EndEverything`](crate::EndEverything) ends what it holds already.
#[derive(Clone, Debug)]
pub struct SetDisabled {
    pub identity: IdentityId,
    pub disabled: bool,
}

impl Command for SetDisabled {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        query("UPDATE identities SET disabled = $2 WHERE id = $1")
            .bind(key(self.identity.as_uuid()))
            .bind(self.disabled)
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// Records that `identity` authenticated.
#[derive(Clone, Debug)]
pub struct RecordAuthentication {
    pub identity: IdentityId,
    pub at: Timestamp,
}

impl Command for RecordAuthentication {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        query("UPDATE identities SET authenticated_us = $2 WHERE id = $1")
            .bind(key(self.identity.as_uuid()))
            .bind(self.at.as_microsecond())
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// Links `identity`, with all that are linked to it, to the set of `primary`; or takes `identity` alone out of its set. They
/// act as somebody else from then on, and what was asked for before is refused.
#[derive(Clone, Debug)]
pub struct Link {
    pub identity: IdentityId,
    pub primary: Option<IdentityId>,
}

impl Command for Link {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let both: Vec<_> = std::iter::once(self.identity).chain(self.primary).collect();
        lock_identities(tx, &both).await?;
        // The one named as the first may have been linked to another meanwhile, or to this one.
        let sql = match self.primary {
            Some(_) => {
                "UPDATE identities SET generation = generation + 1, primary_id = \
                 (SELECT nullif(coalesce(p.primary_id, p.id), identities.id) FROM identities p WHERE p.id = $2) \
                 WHERE id = $1 OR primary_id = $1"
            }
            None => "UPDATE identities SET primary_id = $2, generation = generation + 1 WHERE id = $1",
        };
        query(sql)
            .bind(key(self.identity.as_uuid()))
            .bind(self.primary.map(|id| key(id.as_uuid())))
            .execute(tx)
            .await?;
        Ok(())
    }
}

/// Removes an identity to which no other is linked. What it owns stays without an owner, because ids are never reused.
#[derive(Clone, Debug)]
pub struct RemoveIdentity(pub IdentityId);

impl Command for RemoveIdentity {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        lock_identities(tx, &[self.0]).await?;
        for sql in [
            "DELETE FROM tokens WHERE identity_id = $1 OR client_id = $1",
            "DELETE FROM group_members WHERE identity_id = $1",
            "DELETE FROM project_admins WHERE kind = 'identity' AND subject_id = $1",
            "DELETE FROM passwords WHERE identity_id = $1",
            "DELETE FROM codes WHERE identity_id = $1 OR session_id IN \
             (SELECT id FROM sessions WHERE identity_id = $1)",
            "DELETE FROM refresh_tokens WHERE identity_id = $1",
            "DELETE FROM authentications WHERE identity_id = $1 OR session_id IN \
             (SELECT id FROM sessions WHERE identity_id = $1)",
            "DELETE FROM sessions WHERE identity_id = $1",
            "DELETE FROM known_browsers WHERE identity_id = $1",
            "DELETE FROM upstream_subjects WHERE identity_id = $1",
            "DELETE FROM clients WHERE identity_id = $1",
            "DELETE FROM identities WHERE id = $1",
        ] {
            query(sql).bind(key(self.0.as_uuid())).execute(&mut *tx).await?;
        }
        Ok(())
    }
}

impl Store {
    pub async fn profile(&self, identity: IdentityId) -> Result<Option<Profile>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM identities i WHERE i.id = $1");
        let query = query(sql).bind(key(identity.as_uuid()));
        query.fetch_optional(&self.readers).await?.map(|row| profile_of(&row)).transpose()
    }

    /// Reads the profile with this username, in lower case.
    pub async fn profile_named(&self, username: &str) -> Result<Option<Profile>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM identities i WHERE i.username = $1");
        let query = query(sql).bind(username);
        query.fetch_optional(&self.readers).await?.map(|row| profile_of(&row)).transpose()
    }

    /// The set of `identity`, itself included, the primary first. Empty if there is no such identity.
    pub async fn identity_set(&self, identity: IdentityId) -> Result<Vec<Profile>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM identities a \
             JOIN identities i ON i.id = coalesce(a.primary_id, a.id) OR i.primary_id = coalesce(a.primary_id, a.id) \
             WHERE a.id = $1 ORDER BY i.primary_id IS NOT NULL, i.created_us, i.username"
        );
        let query = query(sql).bind(key(identity.as_uuid()));
        query.fetch_all(&self.readers).await?.iter().map(profile_of).collect()
    }

    /// People, by their usernames.
    pub async fn people(&self) -> Result<Vec<Profile>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM identities i WHERE i.kind = 'person' ORDER BY i.username");
        let query = query(sql);
        query.fetch_all(&self.readers).await?.iter().map(profile_of).collect()
    }

    /// Whether any account can log in.
    pub async fn has_accounts(&self) -> Result<bool, StoreError> {
        Ok(query("SELECT 1 FROM identities LIMIT 1").fetch_optional(&self.readers).await?.is_some())
    }

    pub async fn password(&self, identity: IdentityId) -> Result<Option<String>, StoreError> {
        let query = query_scalar("SELECT hash FROM passwords WHERE identity_id = $1");
        Ok(query.bind(key(identity.as_uuid())).fetch_optional(&self.readers).await?)
    }
}

fn profile_of(row: &Row) -> Result<Profile, StoreError> {
    Ok(Profile {
        id: IdentityId::from_uuid(id(row, "id")?),
        kind: match row.try_get("kind")? {
            "person" => Kind::Person,
            "client" => Kind::Client,
            _ => return Err(StoreError::Corrupt("kind")),
        },
        username: row.try_get("username")?,
        name: row.try_get("name")?,
        email: row.try_get("email")?,
        organization: row.try_get("organization")?,
        disabled: row.try_get("disabled")?,
        administrator: row.try_get("administrator")?,
        linked_to: row
            .try_get::<Option<&[u8]>>("primary_id")?
            .map(|_| Ok::<_, StoreError>(IdentityId::from_uuid(id(row, "primary_id")?)))
            .transpose()?,
        generation: row.try_get("generation")?,
        authenticated: row
            .try_get::<Option<i64>>("authenticated_us")?
            .map(|micros| instant(micros, "authenticated_us"))
            .transpose()?,
        created: time(row, "created_us")?,
    })
}
