//! The authorization request that a browser sends, and the code in the answer.

use serde::{Deserialize, Serialize};

use crate::id::ClientId;

/// Query of `GET /v2/oauth2/authorize`. Scopes are separated by blanks, the entries of the `session_required_*` lists
/// by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    #[serde(default)]
    pub redirect_uri: String,
    #[serde(default)]
    pub scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(default)]
    pub response_type: String,
    /// `offline` requests refresh tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_challenge: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_challenge_method: Option<String>,
    /// A label for the consent, such as `app on host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_named_grant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_required_identities: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_required_policies: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_required_mfa: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_required_single_domain: Option<String>,
}

/// The query that is appended to the redirect URI.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    pub code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}
