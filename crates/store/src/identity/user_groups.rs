//! Groups of identities.

use jiff::Timestamp;
use wire::{GroupId, IdentityId};

use super::end_everything::{ConnectionsToClose, EndEverything};
use super::people::NameTaken;
use crate::columns::{id, key, time};
use crate::database::{Row, query};
use crate::locks::lock_identities;
use crate::{Command, Store, StoreError, Tx};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserGroup {
    pub id: GroupId,
    pub name: String,
    pub description: Option<String>,
    pub created: Timestamp,
}

/// Adds a group without members.
#[derive(Clone, Debug)]
pub struct AddUserGroup(pub UserGroup);

impl Command for AddUserGroup {
    type Output = Result<(), NameTaken>;

    async fn run(self, tx: &mut Tx) -> Result<Self::Output, StoreError> {
        let group = self.0;
        let added = query(
            "INSERT INTO user_groups (id, name, description, created_us) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (name) DO NOTHING",
        )
        .bind(key(group.id.as_uuid()))
        .bind(group.name)
        .bind(group.description)
        .bind(group.created.as_microsecond())
        .execute(tx)
        .await?;
        Ok(if added == 0 { Err(NameTaken) } else { Ok(()) })
    }
}

/// Removes a group with its memberships.
#[derive(Clone, Debug)]
pub struct RemoveUserGroup(pub GroupId);

impl Command for RemoveUserGroup {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        if tx.needs_locks() {
            let lock = query("SELECT 1 FROM user_groups WHERE id = $1").for_update();
            lock.bind(key(self.0.as_uuid())).fetch_optional(&mut *tx).await?;
        }
        for sql in [
            "DELETE FROM group_members WHERE group_id = $1",
            "DELETE FROM project_admins WHERE kind = 'group' AND subject_id = $1",
            "DELETE FROM user_groups WHERE id = $1",
        ] {
            query(sql).bind(key(self.0.as_uuid())).execute(&mut *tx).await?;
        }
        Ok(())
    }
}

/// Adds an identity to a group.
#[derive(Clone, Debug)]
pub struct AddMember {
    pub group: GroupId,
    pub identity: IdentityId,
}

impl Command for AddMember {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        query(
            "INSERT INTO group_members (group_id, identity_id) VALUES ($1, $2) \
             ON CONFLICT (group_id, identity_id) DO NOTHING",
        )
        .bind(key(self.group.as_uuid()))
        .bind(key(self.identity.as_uuid()))
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Removes an identity from a group, and ends everything that it and the identities linked with it hold, because all of
/// them have what the group gives. Returns an empty value if it was no member.
#[derive(Clone, Debug)]
pub struct RemoveMember {
    pub group: GroupId,
    pub identity: IdentityId,
    pub now: Timestamp,
}

impl Command for RemoveMember {
    type Output = ConnectionsToClose;

    async fn run(self, tx: &mut Tx) -> Result<ConnectionsToClose, StoreError> {
        let mut ended = ConnectionsToClose::default();
        let removed = query("DELETE FROM group_members WHERE group_id = $1 AND identity_id = $2")
            .bind(key(self.group.as_uuid()))
            .bind(key(self.identity.as_uuid()))
            .execute(&mut *tx)
            .await?;
        if removed == 0 {
            return Ok(ended);
        }
        let set = query(
            "SELECT i.id FROM identities a \
             JOIN identities i ON i.id = coalesce(a.primary_id, a.id) OR i.primary_id = coalesce(a.primary_id, a.id) \
             WHERE a.id = $1",
        )
        .bind(key(self.identity.as_uuid()))
        .fetch_all(&mut *tx)
        .await?;
        let set = set.iter().map(|row| Ok(IdentityId::from_uuid(id(row, "id")?)));
        let set = set.collect::<Result<Vec<_>, StoreError>>()?;
        lock_identities(tx, &set).await?;
        for identity in set {
            let also = EndEverything { identity, now: self.now }.run(tx).await?;
            ended.holders.extend(also.holders);
            ended.endpoints.extend(also.endpoints);
        }
        Ok(ended)
    }
}

impl Store {
    /// The groups that `identity`, or one that is linked with it, is a member of.
    pub async fn groups_of(&self, identity: IdentityId) -> Result<Vec<UserGroup>, StoreError> {
        let rows = query(
            "SELECT g.id, g.name, g.description, g.created_us FROM user_groups g WHERE g.id IN ( \
             SELECT m.group_id FROM identities a \
             JOIN identities i ON i.id = coalesce(a.primary_id, a.id) OR i.primary_id = coalesce(a.primary_id, a.id) \
             JOIN group_members m ON m.identity_id = i.id WHERE a.id = $1) ORDER BY g.name",
        )
        .bind(key(identity.as_uuid()))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(group_of).collect()
    }

    pub async fn user_groups(&self) -> Result<Vec<UserGroup>, StoreError> {
        let rows = query("SELECT id, name, description, created_us FROM user_groups ORDER BY name")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(group_of).collect()
    }

    pub async fn user_group(&self, group: GroupId) -> Result<Option<UserGroup>, StoreError> {
        let row = query("SELECT id, name, description, created_us FROM user_groups WHERE id = $1")
            .bind(key(group.as_uuid()))
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| group_of(&row)).transpose()
    }

    pub async fn user_group_named(&self, name: &str) -> Result<Option<UserGroup>, StoreError> {
        let row = query("SELECT id, name, description, created_us FROM user_groups WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| group_of(&row)).transpose()
    }

    pub async fn members(&self, group: GroupId) -> Result<Vec<IdentityId>, StoreError> {
        let rows = query(
            "SELECT m.identity_id FROM group_members m JOIN identities i ON i.id = m.identity_id \
             WHERE m.group_id = $1 ORDER BY i.username",
        )
        .bind(key(group.as_uuid()))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok(IdentityId::from_uuid(id(row, "identity_id")?))).collect()
    }
}

fn group_of(row: &Row) -> Result<UserGroup, StoreError> {
    Ok(UserGroup {
        id: GroupId::from_uuid(id(row, "id")?),
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        created: time(row, "created_us")?,
    })
}
