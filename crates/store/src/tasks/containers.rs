//! Registered containers, for SDKs up to 4.5: names that an endpoint's owner and users agree on.

use jiff::Timestamp;
use wire::{ContainerId, IdentityId};

use crate::columns::{id, key};
use crate::database::query;
use crate::{Command, Store, StoreError, Tx};

#[derive(Clone, Debug)]
pub struct Container {
    pub id: ContainerId,
    pub owner: IdentityId,
    pub name: String,
    /// `docker`, `singularity`, …
    pub kind: String,
    pub location: String,
    pub description: String,
    pub created: Timestamp,
}

#[derive(Clone, Debug)]
pub struct AddContainer(pub Container);

impl Command for AddContainer {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let container = self.0;
        query(
            "INSERT INTO containers (id, owner_id, name, kind, location, description, created_us) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(key(container.id.as_uuid()))
        .bind(key(container.owner.as_uuid()))
        .bind(container.name)
        .bind(container.kind)
        .bind(container.location)
        .bind(container.description)
        .bind(container.created.as_microsecond())
        .execute(tx)
        .await?;
        Ok(())
    }
}

impl Store {
    pub async fn container(&self, container: ContainerId) -> Result<Option<Container>, StoreError> {
        let row = query(
            "SELECT owner_id, name, kind, location, description, created_us FROM containers WHERE id = $1",
        )
        .bind(key(container.as_uuid()))
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Container {
            id: container,
            owner: IdentityId::from_uuid(id(&row, "owner_id")?),
            name: row.try_get("name")?,
            kind: row.try_get("kind")?,
            location: row.try_get("location")?,
            description: row.try_get("description")?,
            created: crate::columns::time(&row, "created_us")?,
        }))
    }
}
