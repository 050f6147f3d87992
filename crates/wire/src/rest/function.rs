//! Functions: a function is registered once and then called by its id.

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, FunctionId, GroupId};
use crate::json_text::Text;

/// Body of `POST /v3/functions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Register<'a> {
    pub function_name: String,
    /// A packed buffer; raw Python source if `serialized` is false, see [`crate::buffer::from_source`].
    #[serde(borrow)]
    pub function_code: Text<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<Meta>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// The group that may run it, besides the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupId>,
    /// Makes it a high-assurance function, bound to this endpoint. Not allowed together with `public` or `group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ha_endpoint_id: Option<EndpointId>,
    /// Since 3.16; absent means true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serialized: Option<bool>,
}

impl Register<'_> {
    pub fn is_source(&self) -> bool {
        self.serialized == Some(false)
    }

    pub fn into_owned(self) -> Register<'static> {
        Register { function_code: self.function_code.into_owned(), ..self }
    }
}

/// Where a function was registered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdk_version: Option<String>,
    /// See [`crate::serialization_strategy`]. Absent for source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serde_identifier: Option<String>,
}

/// Response to a registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    pub function_uuid: FunctionId,
    /// Printed to the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ha_warning: Option<String>,
}

/// Response of `GET /v2/functions/{id}`. The `meta` of the registration is called `metadata` here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Function<'a> {
    pub function_uuid: FunctionId,
    pub function_name: String,
    #[serde(borrow)]
    pub function_code: Text<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Meta>,
}
