//! The bodies of the identity service's routes.
//!
//! | route | request | response |
//! |---|---|---|
//! | `POST /v2/oauth2/token` | form: [`token::Grant`] | [`token::TokenResponse`]; an array of [`token::Token`] for dependent tokens |
//! | `POST /v2/oauth2/token/revoke` | form: [`token::Revoke`] | [`token::Revoked`] |
//! | `POST /v2/oauth2/token/introspect` | form: [`token::Introspect`] | [`token::Introspection`] |
//! | `GET /v2/oauth2/authorize` | query: [`authorize::Query`] | a page; after the log-in, a redirect with [`authorize::Code`] |
//! | `GET /v2/oauth2/userinfo` | | [`identity::UserInfo`] |
//! | `GET /v2/api/identities` | query: [`identity::Query`] | [`identity::Identities`] |
//! | `GET /v2/api/identities/{id}/consents` | | [`consent::Consents`] |
//! | `GET /.well-known/openid-configuration` | | [`openid::Configuration`] |
//! | `GET /jwk.json` | | [`openid::KeySet`] |
//! | `GET`, `POST /v2/api/projects` | [`project::Create`] | [`project::Projects`], [`project::Created`] |
//! | `GET`, `POST /v2/api/policies[/{id}]` | [`policy::Create`] | [`policy::Policies`], [`policy::PolicyResponse`] |
//! | any, on failure | | [`error::ErrorBody`] |

pub mod authorize;
pub mod consent;
pub mod error;
pub mod identity;
pub mod openid;
pub mod policy;
pub mod project;
pub mod token;

/// The SDK's own client id; it has no secret.
pub const NATIVE_CLIENT: &str = "4cf29807-cf21-49ec-9443-ff9a3fb9f81c";

/// The scope of all compute routes.
pub const COMPUTE_SCOPE: &str = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all";
/// The resource server of that scope.
pub const COMPUTE_RESOURCE_SERVER: &str = "funcx_service";
/// The owner of that scope, and the audience of compute tokens.
pub const COMPUTE_CLIENT: &str = "facd7ccc-c5f4-42aa-916b-a0e270e2c2a9";

/// The resource server of the identity service's own scopes.
pub const AUTH_RESOURCE_SERVER: &str = "auth.globus.org";
pub const OPENID_SCOPE: &str = "openid";
pub const EMAIL_SCOPE: &str = "email";
pub const PROFILE_SCOPE: &str = "profile";
pub const MANAGE_PROJECTS_SCOPE: &str = "urn:globus:auth:scope:auth.globus.org:manage_projects";
pub const VIEW_IDENTITIES_SCOPE: &str = "urn:globus:auth:scope:auth.globus.org:view_identities";

/// The resource server for the membership of groups.
pub const GROUPS_RESOURCE_SERVER: &str = "groups.api.globus.org";
pub const VIEW_GROUPS_SCOPE: &str =
    "urn:globus:auth:scope:groups.api.globus.org:view_my_groups_and_memberships";

/// The path of the page that shows a code to copy, below the identity service's address.
pub const CODE_PAGE: &str = "v2/web/auth-code";
