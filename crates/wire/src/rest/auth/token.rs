//! Tokens: issuing, refreshing, introspecting, revoking. Requests are forms, responses are JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::ClientId;

/// Form of `POST /v2/oauth2/token`.
///
/// A confidential client authenticates by HTTP Basic; a native client sends its `client_id`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "grant_type")]
pub enum Grant {
    #[serde(rename = "authorization_code")]
    AuthorizationCode {
        code: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code_verifier: Option<String>,
        redirect_uri: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_id: Option<ClientId>,
    },
    #[serde(rename = "refresh_token")]
    RefreshToken {
        refresh_token: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_id: Option<ClientId>,
    },
    #[serde(rename = "client_credentials")]
    ClientCredentials {
        /// Separated by blanks. The SDKs 3.8 and 4.19 repeat a scope.
        #[serde(default)]
        scope: String,
    },
    /// A resource server requests tokens to act on behalf of the owner of a token that it received.
    #[serde(rename = "urn:globus:auth:grant_type:dependent_token")]
    DependentToken {
        token: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        access_type: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
    },
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AuthorizationCode { .. } => "AuthorizationCode(…)",
            Self::RefreshToken { .. } => "RefreshToken(…)",
            Self::ClientCredentials { .. } => "ClientCredentials(…)",
            Self::DependentToken { .. } => "DependentToken(…)",
        })
    }
}

/// The scopes in a blank-separated list, each once, in the order in which they first appear.
pub fn scopes(list: &str) -> Vec<&str> {
    let mut seen = Vec::new();
    for scope in list.split_whitespace() {
        if !seen.contains(&scope) {
            seen.push(scope);
        }
    }
    seen
}

/// A token for one resource server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub access_token: String,
    pub scope: String,
    /// Seconds. Clients take a token without this member for an expired one.
    pub expires_in: u64,
    #[serde(default = "bearer")]
    pub token_type: String,
    pub resource_server: String,
    /// Must be in the response to a refresh: the client overwrites its refresh token, even with nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

fn bearer() -> String {
    "Bearer".to_owned()
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("resource_server", &self.resource_server)
            .field("scope", &self.scope)
            .field("expires_in", &self.expires_in)
            .field("refresh_token", &self.refresh_token.is_some())
            .finish_non_exhaustive()
    }
}

/// Response to every grant except the one for dependent tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenResponse {
    #[serde(flatten)]
    pub token: Token,
    /// Present if the log-in requested the scope `openid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_token: Option<IdToken>,
    /// Always present, usually empty.
    #[serde(default)]
    pub other_tokens: Vec<Token>,
}

/// A signed token that says who logged in. The `Debug` form leaves it out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdToken(pub String);

impl fmt::Debug for IdToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdToken(…)")
    }
}

/// Form of `POST /v2/oauth2/token/revoke`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    pub token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_type_hint: Option<String>,
}

/// The token is not valid any more, or never was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    pub active: bool,
}

/// Form of `POST /v2/oauth2/token/introspect`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introspect {
    pub token: String,
    /// Separated by commas: `identity_set`, `identity_set_detail`, `session_info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<String>,
}

/// Response of the introspection. It describes the token only if that is active.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introspection {
    pub active: bool,
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub token: Option<ActiveToken>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveToken {
    pub token_type: String,
    pub scope: String,
    pub client_id: ClientId,
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub email: Option<String>,
    pub exp: i64,
    pub iat: i64,
    pub nbf: i64,
    pub sub: crate::id::IdentityId,
    pub aud: Vec<String>,
    pub iss: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_set: Option<Vec<crate::id::IdentityId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_set_detail: Option<Vec<crate::rest::auth::identity::Linked>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_info: Option<serde_json::Value>,
}
