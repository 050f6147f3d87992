//! Decides whether a caller may see, use or manage an endpoint, function, task group or container. Pure functions.
//!
//! What belongs to others and is not shared is hidden: the caller gets the same answer as if it did not exist. "Forbidden" is
//! only for what the caller may see.

use wire::{FunctionId, GroupId, IdentityId};

use store::{Container, Endpoint, FunctionAccess, TaskGroup};

/// Whether a caller may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    Granted,
    /// The caller may see it, but not do this.
    Forbidden,
    /// The caller may not even know that it exists.
    Hidden,
}

/// May `caller`, a member of `groups`, see and call `function`?
pub fn call(function: FunctionAccess, caller: IdentityId, groups: &[GroupId]) -> Permission {
    let shared = function.public || function.group.is_some_and(|group| groups.contains(&group));
    if function.owner == caller || shared { Permission::Granted } else { Permission::Hidden }
}

/// Does [`call`] depend on the caller's groups?
pub fn call_needs_groups(function: FunctionAccess, caller: IdentityId) -> bool {
    function.group.is_some() && call(function, caller, &[]) != Permission::Granted
}

/// May `caller`, a member of `groups`, delete `function`?
pub fn delete(function: FunctionAccess, caller: IdentityId, groups: &[GroupId]) -> Permission {
    granted_if(function.owner == caller, call(function, caller, groups))
}

/// May `caller`, a member of `groups`, share functions with `group`?
pub fn share(group: GroupId, groups: &[GroupId]) -> Permission {
    if groups.contains(&group) { Permission::Granted } else { Permission::Hidden }
}

/// May `caller` see and add to the task `group`? The same holds for its tasks and their results.
pub fn tasks(group: &TaskGroup, caller: IdentityId) -> Permission {
    if group.owner == caller { Permission::Granted } else { Permission::Hidden }
}

/// May `caller` see `container`?
pub fn container(container: &Container, caller: IdentityId) -> Permission {
    if container.owner == caller { Permission::Granted } else { Permission::Hidden }
}

/// May `caller` see that `endpoint` exists, and whether it is online?
pub fn see(endpoint: &Endpoint, caller: IdentityId) -> Permission {
    if manages(endpoint, caller) || endpoint.public || accepts_everybody(endpoint) {
        Permission::Granted
    } else {
        Permission::Hidden
    }
}

/// May `caller` see how `endpoint` is configured, lock it, and delete it?
pub fn manage(endpoint: &Endpoint, caller: IdentityId) -> Permission {
    granted_if(manages(endpoint, caller), see(endpoint, caller))
}

/// May `caller` send tasks to `endpoint`? Tasks run as the endpoint's owner, so only the owner may. The exception is a
/// privileged manager, whose identity mapping names the local account of each caller.
pub fn submit(endpoint: &Endpoint, caller: IdentityId) -> Permission {
    granted_if(endpoint.owner == caller || accepts_everybody(endpoint), see(endpoint, caller))
}

/// May `caller` register `endpoint` again? That is needed to run it.
pub fn register(endpoint: &Endpoint, caller: IdentityId) -> Permission {
    granted_if(endpoint.owner == caller, see(endpoint, caller))
}

/// Does `endpoint` run `function`?
pub fn permitted(endpoint: &Endpoint, function: FunctionId) -> bool {
    endpoint.allowed_functions.as_ref().is_none_or(|allowed| allowed.contains(&function))
}

/// A privileged manager decides by its identity mapping who may use it, and as which local user.
fn accepts_everybody(endpoint: &Endpoint) -> bool {
    endpoint.multi_user && endpoint.is_manager
}

fn manages(endpoint: &Endpoint, caller: IdentityId) -> bool {
    endpoint.owner == caller || endpoint.admins.contains(&caller)
}

fn granted_if(allowed: bool, otherwise: Permission) -> Permission {
    match (allowed, otherwise) {
        (true, _) => Permission::Granted,
        (false, Permission::Granted) => Permission::Forbidden,
        (false, other) => other,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;
    use wire::EndpointId;

    use super::Permission::{Forbidden, Granted, Hidden};
    use super::*;

    const OWNER: IdentityId = IdentityId::from_uuid(Uuid::from_u128(1));
    const ADMIN: IdentityId = IdentityId::from_uuid(Uuid::from_u128(2));
    const OTHER: IdentityId = IdentityId::from_uuid(Uuid::from_u128(3));
    const FUNCTION: FunctionId = FunctionId::from_uuid(Uuid::from_u128(4));

    fn endpoint(public: bool, allowed: Option<Vec<FunctionId>>) -> Endpoint {
        Endpoint {
            id: EndpointId::from_uuid(Uuid::from_u128(5)),
            owner: OWNER,
            name: "ep".into(),
            display_name: None,
            multi_user: false,
            public,
            allowed_functions: allowed,
            admins: vec![ADMIN],
            is_manager: false,
            created: Timestamp::UNIX_EPOCH,
            manager: None,
            broker_at: None,
        }
    }

    #[test]
    fn managers() {
        let own = Endpoint { is_manager: true, ..endpoint(false, None) };
        assert_eq!(submit(&own, OWNER), Granted);
        assert_eq!((submit(&own, OTHER), see(&own, OTHER)), (Hidden, Hidden), "unprivileged: its owner only");
        let shared = Endpoint { multi_user: true, ..own };
        assert_eq!((submit(&shared, OTHER), see(&shared, OTHER)), (Granted, Granted));
        assert_eq!((register(&shared, OTHER), manage(&shared, OTHER)), (Forbidden, Forbidden));
        let claims = Endpoint { multi_user: true, ..endpoint(false, None) };
        assert_eq!(submit(&claims, OTHER), Hidden, "without a template it is no manager");
    }

    #[test]
    fn endpoints() {
        type Rule = fn(&Endpoint, IdentityId) -> Permission;
        // rule, owner, admin, another (private), another (public)
        let table: [(&str, Rule, Permission, Permission, Permission, Permission); 4] = [
            ("see", see, Granted, Granted, Hidden, Granted),
            ("manage", manage, Granted, Granted, Hidden, Forbidden),
            ("submit", submit, Granted, Forbidden, Hidden, Forbidden),
            ("register", register, Granted, Forbidden, Hidden, Forbidden),
        ];
        for (name, rule, owner, admin, private, public) in table {
            assert_eq!(rule(&endpoint(false, None), OWNER), owner, "{name}");
            assert_eq!(rule(&endpoint(false, None), ADMIN), admin, "{name}");
            assert_eq!(rule(&endpoint(false, None), OTHER), private, "{name}");
            assert_eq!(rule(&endpoint(true, None), OTHER), public, "{name}");
        }
    }

    #[test]
    fn functions() {
        let group = GroupId::from_uuid(Uuid::from_u128(6));
        let other_group = GroupId::from_uuid(Uuid::from_u128(7));
        let function =
            |public, shared: bool| FunctionAccess { owner: OWNER, public, group: shared.then_some(group) };
        type Row<'a> = (bool, bool, IdentityId, &'a [GroupId], Permission, Permission);
        // public, shared with the group, caller, the caller's groups, may call, may delete
        let table: [Row<'_>; 9] = [
            (false, false, OWNER, &[], Granted, Granted),
            (false, true, OWNER, &[], Granted, Granted),
            (true, true, OWNER, &[], Granted, Granted),
            (false, false, OTHER, &[], Hidden, Hidden),
            (false, false, OTHER, &[group], Hidden, Hidden),
            (true, false, OTHER, &[], Granted, Forbidden),
            (false, true, OTHER, &[], Hidden, Hidden),
            (false, true, OTHER, &[other_group], Hidden, Hidden),
            (false, true, OTHER, &[other_group, group], Granted, Forbidden),
        ];
        for (public, shared, caller, groups, calls, deletes) in table {
            let function = function(public, shared);
            assert_eq!(call(function, caller, groups), calls, "{function:?} {caller} {groups:?}");
            assert_eq!(delete(function, caller, groups), deletes, "{function:?} {caller} {groups:?}");
            let matters = call(function, caller, &[]) != call(function, caller, &[group]);
            assert_eq!(call_needs_groups(function, caller), matters, "{function:?} {caller}");
        }
        assert_eq!(share(group, &[other_group, group]), Granted);
        assert_eq!(share(group, &[other_group]), Hidden);
    }

    #[test]
    fn allow_lists() {
        let other = FunctionId::from_uuid(Uuid::from_u128(8));
        let table: [(Option<Vec<FunctionId>>, bool); 4] = [
            (None, true),
            (Some(vec![]), false),
            (Some(vec![other]), false),
            (Some(vec![other, FUNCTION]), true),
        ];
        for (allowed, expected) in table {
            assert_eq!(permitted(&endpoint(false, allowed.clone()), FUNCTION), expected, "{allowed:?}");
        }
    }

    #[test]
    fn what_belongs_to_one_person_only() {
        let id = Uuid::from_u128(9);
        let group = TaskGroup { id: id.into(), owner: OWNER, queue: true };
        let registered = Container {
            id: id.into(),
            owner: OWNER,
            name: String::new(),
            kind: "docker".into(),
            location: "here".into(),
            description: String::new(),
            created: Timestamp::UNIX_EPOCH,
        };
        for (caller, expected) in [(OWNER, Granted), (ADMIN, Hidden), (OTHER, Hidden)] {
            assert_eq!(tasks(&group, caller), expected);
            assert_eq!(container(&registered, caller), expected);
        }
    }
}
