//! Who may do what, as pure functions over what is known.
//!
//! What belongs to others and is not shared is answered as if it did not exist; "forbidden" is said only of what the
//! caller may see.

use wire::{FunctionId, GroupId, IdentityId};

use store::{Container, Endpoint, FunctionAccess, TaskGroup};

/// The answer of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    /// It may be seen, but not used so.
    Forbidden,
    /// For this caller it does not exist.
    Unknown,
}

/// May `caller`, a member of `groups`, see and call `function`?
pub fn call(function: FunctionAccess, caller: IdentityId, groups: &[GroupId]) -> Verdict {
    let shared = function.public || function.group.is_some_and(|group| groups.contains(&group));
    if function.owner == caller || shared { Verdict::Yes } else { Verdict::Unknown }
}

/// Does [`call`] depend on the caller's groups?
pub fn call_needs_groups(function: FunctionAccess, caller: IdentityId) -> bool {
    function.group.is_some() && call(function, caller, &[]) != Verdict::Yes
}

/// May `caller`, a member of `groups`, delete `function`?
pub fn delete(function: FunctionAccess, caller: IdentityId, groups: &[GroupId]) -> Verdict {
    unless(function.owner == caller, call(function, caller, groups))
}

/// May `caller`, a member of `groups`, share functions with `group`?
pub fn share(group: GroupId, groups: &[GroupId]) -> Verdict {
    if groups.contains(&group) { Verdict::Yes } else { Verdict::Unknown }
}

/// May `caller` see and add to the task `group`? The same holds for its tasks and their results.
pub fn tasks(group: &TaskGroup, caller: IdentityId) -> Verdict {
    if group.owner == caller { Verdict::Yes } else { Verdict::Unknown }
}

/// May `caller` see `container`?
pub fn container(container: &Container, caller: IdentityId) -> Verdict {
    if container.owner == caller { Verdict::Yes } else { Verdict::Unknown }
}

/// May `caller` see that `endpoint` exists, and whether it is online?
pub fn see(endpoint: &Endpoint, caller: IdentityId) -> Verdict {
    if manages(endpoint, caller) || endpoint.public || serves_everybody(endpoint) {
        Verdict::Yes
    } else {
        Verdict::Unknown
    }
}

/// May `caller` see how `endpoint` is configured, lock it, and delete it?
pub fn manage(endpoint: &Endpoint, caller: IdentityId) -> Verdict {
    unless(manages(endpoint, caller), see(endpoint, caller))
}

/// May `caller` send tasks to `endpoint`? They run as its owner: nobody else, unless a manager that may become other
/// users finds in its identity mapping whose account the caller gets.
pub fn submit(endpoint: &Endpoint, caller: IdentityId) -> Verdict {
    unless(endpoint.owner == caller || serves_everybody(endpoint), see(endpoint, caller))
}

/// May `caller` register `endpoint` again, that is, run it?
pub fn register(endpoint: &Endpoint, caller: IdentityId) -> Verdict {
    unless(endpoint.owner == caller, see(endpoint, caller))
}

/// Does `endpoint` run `function`?
pub fn permitted(endpoint: &Endpoint, function: FunctionId) -> bool {
    endpoint.allowed_functions.as_ref().is_none_or(|allowed| allowed.contains(&function))
}

/// A privileged manager decides itself, by its identity mapping, whom it serves as what user.
fn serves_everybody(endpoint: &Endpoint) -> bool {
    endpoint.multi_user && endpoint.is_manager
}

fn manages(endpoint: &Endpoint, caller: IdentityId) -> bool {
    endpoint.owner == caller || endpoint.admins.contains(&caller)
}

fn unless(allowed: bool, seen: Verdict) -> Verdict {
    match (allowed, seen) {
        (true, _) => Verdict::Yes,
        (false, Verdict::Yes) => Verdict::Forbidden,
        (false, other) => other,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;
    use wire::EndpointId;

    use super::Verdict::{Forbidden, Unknown, Yes};
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
        assert_eq!(submit(&own, OWNER), Yes);
        assert_eq!(
            (submit(&own, OTHER), see(&own, OTHER)),
            (Unknown, Unknown),
            "unprivileged: its owner only"
        );
        let shared = Endpoint { multi_user: true, ..own };
        assert_eq!((submit(&shared, OTHER), see(&shared, OTHER)), (Yes, Yes));
        assert_eq!((register(&shared, OTHER), manage(&shared, OTHER)), (Forbidden, Forbidden));
        let claims = Endpoint { multi_user: true, ..endpoint(false, None) };
        assert_eq!(submit(&claims, OTHER), Unknown, "without a template it is no manager");
    }

    #[test]
    fn endpoints() {
        type Rule = fn(&Endpoint, IdentityId) -> Verdict;
        // rule, owner, admin, another (private), another (public)
        let table: [(&str, Rule, Verdict, Verdict, Verdict, Verdict); 4] = [
            ("see", see, Yes, Yes, Unknown, Yes),
            ("manage", manage, Yes, Yes, Unknown, Forbidden),
            ("submit", submit, Yes, Forbidden, Unknown, Forbidden),
            ("register", register, Yes, Forbidden, Unknown, Forbidden),
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
        type Row<'a> = (bool, bool, IdentityId, &'a [GroupId], Verdict, Verdict);
        // public, shared with the group, caller, the caller's groups, may call, may delete
        let table: [Row<'_>; 9] = [
            (false, false, OWNER, &[], Yes, Yes),
            (false, true, OWNER, &[], Yes, Yes),
            (true, true, OWNER, &[], Yes, Yes),
            (false, false, OTHER, &[], Unknown, Unknown),
            (false, false, OTHER, &[group], Unknown, Unknown),
            (true, false, OTHER, &[], Yes, Forbidden),
            (false, true, OTHER, &[], Unknown, Unknown),
            (false, true, OTHER, &[other_group], Unknown, Unknown),
            (false, true, OTHER, &[other_group, group], Yes, Forbidden),
        ];
        for (public, shared, caller, groups, calls, deletes) in table {
            let function = function(public, shared);
            assert_eq!(call(function, caller, groups), calls, "{function:?} {caller} {groups:?}");
            assert_eq!(delete(function, caller, groups), deletes, "{function:?} {caller} {groups:?}");
            let matters = call(function, caller, &[]) != call(function, caller, &[group]);
            assert_eq!(call_needs_groups(function, caller), matters, "{function:?} {caller}");
        }
        assert_eq!(share(group, &[other_group, group]), Yes);
        assert_eq!(share(group, &[other_group]), Unknown);
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
        for (caller, expected) in [(OWNER, Yes), (ADMIN, Unknown), (OTHER, Unknown)] {
            assert_eq!(tasks(&group, caller), expected);
            assert_eq!(container(&registered, caller), expected);
        }
    }
}
