//! Groups of identities, with whom functions can be shared.

use wire::{GroupId, IdentityId};

use super::Identity;
use store::{Profile, StoreError, UserGroup};

impl Identity {
    /// The groups that `identity`, or one that is linked with it, is a member of. One indexed look-up.
    pub async fn groups_of(&self, identity: IdentityId) -> Result<Vec<GroupId>, StoreError> {
        Ok(self.store.groups_of(identity).await?.into_iter().map(|group| group.id).collect())
    }

    /// The names of these groups, for people to read.
    pub async fn groups_named(&self, identity: IdentityId) -> Result<Vec<String>, StoreError> {
        Ok(self.store.groups_of(identity).await?.into_iter().map(|group| group.name).collect())
    }

    /// The same groups with their names, and which identities of the set are in each.
    pub async fn user_groups_of(
        &self,
        identity: IdentityId,
    ) -> Result<Vec<(UserGroup, Vec<Profile>)>, StoreError> {
        let set = self.store.identity_set(identity).await?;
        let mut groups = Vec::new();
        for group in self.store.groups_of(identity).await? {
            let members = self.store.members(group.id).await?;
            let own = set.iter().filter(|own| members.contains(&own.id)).cloned().collect();
            groups.push((group, own));
        }
        Ok(groups)
    }

    /// Whether the group exists: a function can only be shared with an existing one.
    pub async fn group_exists(&self, group: GroupId) -> Result<bool, StoreError> {
        Ok(self.store.user_group(group).await?.is_some())
    }
}
