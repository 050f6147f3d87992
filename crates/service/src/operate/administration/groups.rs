//! Performs `farcall group …`: groups of people, with which functions are shared.

use wire::{GroupId, IdentityId};

use super::people::plain;
use super::request::{GroupDetails, GroupRequest, Removed, Reply};
use super::{AdminError, Administration};
use crate::clock;
use crate::random;
use identity::audit;
use identity::end_reason::EndReason;
use store::{AddMember, AddUserGroup, RemoveMember, RemoveUserGroup, StoreError, UserGroup};

impl Administration {
    pub(super) async fn group(&self, request: GroupRequest) -> Result<Reply, AdminError> {
        let store = self.identity.store();
        match request {
            GroupRequest::Add { name, description } => {
                plain(&name)?;
                if name.parse::<GroupId>().is_ok() {
                    return Err(AdminError::Refused(
                        "a name that looks like an id would be taken for one".into(),
                    ));
                }
                let group = UserGroup {
                    id: GroupId::from_uuid(random::random_id()),
                    name,
                    description,
                    created: clock::now(),
                };
                let added = store.write(AddUserGroup(group.clone())).await?;
                added.map_err(|_| AdminError::Taken(format!("the group {}", group.name)))?;
                audit::administered("group add", &group.id.to_string(), self.by);
                Ok(Reply::Group(self.group_details(group).await?))
            }
            GroupRequest::List => {
                let mut groups = Vec::new();
                for group in store.user_groups().await? {
                    groups.push(self.group_details(group).await?);
                }
                Ok(Reply::Groups(groups))
            }
            GroupRequest::Members { group, add, remove } => {
                let group = self.found_group(&group).await?;
                let mut changes = Vec::new();
                for (users, member) in [(add, true), (remove, false)] {
                    for user in users {
                        changes.push((self.anybody(&user).await?.id, member));
                    }
                }
                for (identity, member) in changes {
                    match member {
                        true => store.write(AddMember { group: group.id, identity }).await?,
                        false => self.take_out(group.id, identity).await?,
                    }
                    let what = if member { "group members add" } else { "group members remove" };
                    audit::administered(what, &format!("{} {identity}", group.id), self.by);
                }
                Ok(Reply::Group(self.group_details(group).await?))
            }
            GroupRequest::Remove { group } => {
                let group = self.found_group(&group).await?;
                for member in store.members(group.id).await? {
                    self.take_out(group.id, member).await?;
                }
                store.write(RemoveUserGroup(group.id)).await?;
                audit::administered("group remove", &group.id.to_string(), self.by);
                Ok(Reply::Removed(Removed { id: group.id.to_string(), name: group.name }))
            }
        }
    }

    /// Removes a member from a group, and ends all their tokens and connections: programs, resource servers and endpoints
    /// could otherwise go on using what the group gave. They log in again, without the group.
    async fn take_out(&self, group: GroupId, member: IdentityId) -> Result<(), StoreError> {
        let store = self.identity.store();
        let ended = store.write(RemoveMember { group, identity: member, now: clock::now() }).await?;
        self.cut_off(member, &ended, &EndReason::LoginEnded);
        Ok(())
    }

    async fn group_details(&self, group: UserGroup) -> Result<GroupDetails, AdminError> {
        let mut members = Vec::new();
        for id in self.identity.store().members(group.id).await? {
            members.extend(self.identity.profile(id).await?.map(|profile| profile.username));
        }
        Ok(GroupDetails {
            id: group.id.to_string(),
            name: group.name,
            description: group.description,
            members,
            created: group.created.to_string(),
        })
    }

    /// Finds a group by its name or id.
    async fn found_group(&self, group: &str) -> Result<UserGroup, AdminError> {
        let found = match group.parse::<GroupId>() {
            Ok(id) => self.identity.store().user_group(id).await?,
            Err(_) => self.identity.store().user_group_named(group).await?,
        };
        found.ok_or_else(|| AdminError::Unknown(format!("group {group}")))
    }
}
