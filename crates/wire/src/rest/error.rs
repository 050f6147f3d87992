//! The body of every failure, in a form that clients of every version understand.
//!
//! Clients show `code` and `message`, and compare `code` with names; older ones read `reason`. A body that carries
//! `authorization_parameters` asks for re-authentication (a GARE): clients that can log in do so and try again.

use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::id::{EndpointId, FunctionId, IdentityId, PolicyId};
use crate::json;

macro_rules! codes {
    ($($variant:ident $name:literal $number:literal $status:literal;)+) => {
        /// The kinds of failures that clients know. Each has a name, a number that older services sent, and an HTTP status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($variant),+
        }

        impl Code {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// Negative for a kind without a number.
            const fn signed_number(self) -> i16 {
                match self { $(Self::$variant => $number),+ }
            }

            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $status),+ }
            }
        }
    };
}

codes! {
    UnknownError "UNKNOWN_ERROR" 0 500;
    UserUnauthenticated "USER_UNAUTHENTICATED" 1 401;
    UserNotFound "USER_NOT_FOUND" 2 404;
    FunctionNotFound "FUNCTION_NOT_FOUND" 3 404;
    EndpointNotFound "ENDPOINT_NOT_FOUND" 4 404;
    ContainerNotFound "CONTAINER_NOT_FOUND" 5 404;
    TaskNotFound "TASK_NOT_FOUND" 6 404;
    AuthGroupNotFound "AUTH_GROUP_NOT_FOUND" 7 404;
    FunctionAccessForbidden "FUNCTION_ACCESS_FORBIDDEN" 8 403;
    EndpointAccessForbidden "ENDPOINT_ACCESS_FORBIDDEN" 9 403;
    FunctionNotPermitted "FUNCTION_NOT_PERMITTED" 10 403;
    EndpointAlreadyRegistered "ENDPOINT_ALREADY_REGISTERED" 11 403;
    ForwarderRegistrationError "FORWARDER_REGISTRATION_ERROR" 12 502;
    ForwarderContactError "FORWARDER_CONTACT_ERROR" 13 502;
    EndpointStatsError "ENDPOINT_STATS_ERROR" 14 500;
    LivenessStatsError "LIVENESS_STATS_ERROR" 15 502;
    RequestKeyError "REQUEST_KEY_ERROR" 16 400;
    RequestMalformed "REQUEST_MALFORMED" 17 400;
    InternalError "INTERNAL_ERROR" 18 500;
    EndpointOutdated "ENDPOINT_OUTDATED" 19 400;
    TaskGroupNotFound "TASK_GROUP_NOT_FOUND" 20 404;
    TaskGroupAccessForbidden "TASK_GROUP_ACCESS_FORBIDDEN" 21 403;
    InvalidUuid "INVALID_UUID" 22 400;
    InvalidAuthToken "INVALID_AUTH_TOKEN" 23 401;
    InsufficientAuthScope "INSUFFICIENT_AUTH_SCOPE" 24 403;
    ResourceLocked "RESOURCE_LOCKED" 25 423;
    ResourceConflict "RESOURCE_CONFLICT" 26 409;
    BatchRunTooLarge "BATCH_RUN_TOO_LARGE" 27 413;
    TaskPayloadTooLarge "TASK_PAYLOAD_TOO_LARGE" 28 413;
    SemanticallyInvalid "SEMANTICALLY_INVALID" -1 422;
    // Upstream's names for these are not known; clients go by the HTTP status and by `authorization_parameters`.
    AuthenticationPolicy "AUTHENTICATION_POLICY" -1 403;
    MaxRequestsExceeded "MAX_REQUESTS_EXCEEDED" -1 429;
    ServiceUnavailable "SERVICE_UNAVAILABLE" -1 503;
}

impl Code {
    /// The integer that older services sent in place of the name.
    pub fn number(self) -> Option<u16> {
        u16::try_from(self.signed_number()).ok()
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }

    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.number() == Some(number))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let known = match &value {
            Value::String(name) => Self::from_name(name),
            Value::Number(number) => {
                number.as_u64().and_then(|number| u16::try_from(number).ok()).and_then(Self::from_number)
            }
            _ => None,
        };
        Ok(known.unwrap_or(Self::UnknownError))
    }
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Always `Failed`.
    #[serde(default = "failed")]
    pub status: String,
    pub code: Code,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub http_status_code: u16,
    #[serde(default, deserialize_with = "json::list")]
    pub error_args: Vec<Value>,
    /// If present, the client must log in again with these parameters and repeat the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_parameters: Option<AuthorizationParameters>,
}

fn failed() -> String {
    "Failed".to_owned()
}

/// The requirements on a log-in. If all are absent, any fresh log-in satisfies them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationParameters {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_required_identities: Option<Vec<IdentityId>>,
    /// A list, or one string with commas.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "list_or_commas")]
    pub session_required_policies: Option<Vec<PolicyId>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::list_or_null")]
    pub session_required_single_domain: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_required_mfa: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::list_or_null")]
    pub required_scopes: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
}

fn list_or_commas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<PolicyId>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        List(Vec<PolicyId>),
        Commas(String),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => None,
        Some(Either::List(list)) => Some(list),
        Some(Either::Commas(text)) => {
            let ids = text.split(',').map(str::trim).filter(|id| !id.is_empty());
            Some(ids.map(|id| id.parse().map_err(D::Error::custom)).collect::<Result<_, _>>()?)
        }
    })
}

impl ErrorBody {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status: failed(),
            code,
            reason: message.clone(),
            message,
            http_status_code: code.http_status(),
            error_args: Vec::new(),
            authorization_parameters: None,
        }
    }

    pub fn with_args<T: Into<Value>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.error_args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Makes the failure ask for re-authentication.
    pub fn with_authorization(mut self, parameters: AuthorizationParameters) -> Self {
        self.authorization_parameters = Some(parameters);
        self
    }

    pub fn endpoint_not_found(endpoint: EndpointId) -> Self {
        Self::new(Code::EndpointNotFound, format!("Endpoint {endpoint} could not be resolved"))
            .with_args([endpoint.to_string()])
    }

    pub fn function_not_permitted(function: FunctionId, endpoint: EndpointId) -> Self {
        let message = format!("Function {function} not permitted on endpoint {endpoint}");
        Self::new(Code::FunctionNotPermitted, message).with_args([function.to_string(), endpoint.to_string()])
    }

    /// A user endpoint could not be started; `report` is the reason from its manager.
    pub fn failed_validation(report: &str) -> Self {
        Self::new(Code::SemanticallyInvalid, format!("Request payload failed validation: {report}"))
    }
}
