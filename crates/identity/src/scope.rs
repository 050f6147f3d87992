//! Scopes and resource servers. Their names are constants of the protocol, independent of the site.

use wire::ClientId;
use wire::rest::auth::{
    AUTH_RESOURCE_SERVER, COMPUTE_CLIENT, COMPUTE_RESOURCE_SERVER, COMPUTE_SCOPE, EMAIL_SCOPE,
    GROUPS_RESOURCE_SERVER, MANAGE_PROJECTS_SCOPE, OPENID_SCOPE, PROFILE_SCOPE, VIEW_GROUPS_SCOPE,
    VIEW_IDENTITIES_SCOPE,
};

/// The scopes of the identity service itself.
pub const AUTH_SCOPES: [&str; 5] =
    [OPENID_SCOPE, EMAIL_SCOPE, PROFILE_SCOPE, MANAGE_PROJECTS_SCOPE, VIEW_IDENTITIES_SCOPE];

/// The scopes that a resource server may request for the owner of a token: they only show who the owner is.
const DEPENDENT_SCOPES: [&str; 5] =
    [VIEW_GROUPS_SCOPE, OPENID_SCOPE, EMAIL_SCOPE, PROFILE_SCOPE, VIEW_IDENTITIES_SCOPE];

/// A service that accepts tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceServer {
    Auth,
    Compute,
    Groups,
}

impl ResourceServer {
    pub fn name(self) -> &'static str {
        match self {
            ResourceServer::Auth => AUTH_RESOURCE_SERVER,
            ResourceServer::Compute => COMPUTE_RESOURCE_SERVER,
            ResourceServer::Groups => GROUPS_RESOURCE_SERVER,
        }
    }
}

/// One token to issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub resource_server: ResourceServer,
    pub scopes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    #[error("no scope was asked for")]
    Nothing,
    #[error("unknown scope {0:?}")]
    Unknown(String),
}

/// The tokens for a request of `scope`: one per resource server, in the order of first mention. Clients repeat scopes;
/// each counts once.
pub fn grants(scope: &str) -> Result<Vec<Grant>, ScopeError> {
    let mut grants: Vec<Grant> = Vec::new();
    for name in wire::rest::auth::token::scopes(scope) {
        let resource_server = match name {
            COMPUTE_SCOPE => ResourceServer::Compute,
            VIEW_GROUPS_SCOPE => ResourceServer::Groups,
            auth if AUTH_SCOPES.contains(&auth) => ResourceServer::Auth,
            unknown => return Err(ScopeError::Unknown(unknown.chars().take(200).collect())),
        };
        let grant = match grants.iter_mut().find(|grant| grant.resource_server == resource_server) {
            Some(grant) => grant,
            None => {
                grants.push(Grant { resource_server, scopes: Vec::new() });
                grants.last_mut().expect("just pushed")
            }
        };
        grant.scopes.push(name.to_owned());
    }
    if grants.is_empty() { Err(ScopeError::Nothing) } else { Ok(grants) }
}

/// Everything that a resource server may get for a token that was presented to it.
pub fn dependent() -> Vec<Grant> {
    grants(&DEPENDENT_SCOPES.join(" ")).expect("they are known scopes")
}

pub fn is_dependent(scope: &str) -> bool {
    DEPENDENT_SCOPES.contains(&scope)
}

/// The audience of a token in introspection: the resource server's name and the id of its application.
pub fn audience(resource_server: &str, client: ClientId) -> Vec<String> {
    let application = match resource_server {
        COMPUTE_RESOURCE_SERVER => COMPUTE_CLIENT.to_owned(),
        _ => client.to_string(),
    };
    vec![resource_server.to_owned(), application]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_sorted_by_resource_server_and_counted_once() {
        let asked = format!("{COMPUTE_SCOPE} {COMPUTE_SCOPE} openid  {MANAGE_PROJECTS_SCOPE} openid");
        let grants = grants(&asked).unwrap();
        assert_eq!(grants.len(), 2);
        assert_eq!(grants[0].resource_server, ResourceServer::Compute);
        assert_eq!(grants[0].scopes, [COMPUTE_SCOPE]);
        assert_eq!(grants[1].resource_server, ResourceServer::Auth);
        assert_eq!(grants[1].scopes, [OPENID_SCOPE, MANAGE_PROJECTS_SCOPE]);
    }

    #[test]
    fn nothing_and_the_unknown_are_refused() {
        assert_eq!(grants(" "), Err(ScopeError::Nothing));
        assert_eq!(grants("openid all-of-it"), Err(ScopeError::Unknown("all-of-it".into())));
        assert_eq!(grants(&"x".repeat(1 << 20)), Err(ScopeError::Unknown("x".repeat(200))));
    }
}
