//! The bodies of every HTTP route, one module per noun: what the stock SDK and endpoint (3.8.0 and 4.19.0) send, and
//! the answers that they need.
//!
//! A member without a value is left out, unless its documentation says that it is sent as null: clients
//! take `"result": null` for a result. Unknown members are ignored.
//!
//! | route | request | response |
//! |---|---|---|
//! | `GET /v2/version` | [`version::Query`] | [`version::Versions`], or a bare string |
//! | `POST /v3/functions` | [`function::Register`] | [`function::Registered`] |
//! | `GET /v2/functions/{id}` | | [`function::Function`] |
//! | `DELETE /v2/functions/{id}` | | [`Deleted`] |
//! | `POST /v3/endpoints/{id}/submit` | [`submit::Submit`] | [`submit::Submitted`] |
//! | `GET /v2/tasks/{id}` | | [`task::Document`] |
//! | `POST /v2/batch_status` | [`task::Batch`] | [`task::Documents`] |
//! | `GET /v2/taskgroup/{id}` | | [`task_group::TaskGroup`] |
//! | `GET /v2/get_amqp_result_connection_url` | | [`crate::queue::ResultConnection`] |
//! | `POST /v3/endpoints`, `PUT /v3/endpoints/{id}` | [`endpoint::Register`] | [`crate::queue::Registration`] |
//! | `GET /v2/endpoints` | [`endpoint::Query`] | array of [`endpoint::Listed`] |
//! | `GET /v2/endpoints/{id}` | | [`endpoint::Endpoint`] |
//! | `GET /v2/endpoints/{id}/status` | | [`endpoint::Status`] |
//! | `POST /v2` or `/v3/endpoints/{id}/lock` | nothing, or `{}` | [`endpoint::Locked`] |
//! | `DELETE /v2/endpoints/{id}` | | [`Deleted`] |
//! | `GET /v3/endpoints/{id}/allowed_functions` | | [`endpoint::AllowedFunctions`] |
//! | `POST /v2/containers` | [`container::Register`] | [`container::Registered`] |
//! | `GET /v2/containers/{id}/{type}` | | [`container::ContainerResponse`] |
//! | `POST /v2/containers/build` | [`container::Build`] | [`container::Registered`] |
//! | `GET /v2/containers/build/{id}` | | [`container::BuildStatus`] |
//! | any, on failure | | [`error::ErrorBody`] |
//!
//! The identity part has its own table in [`auth`].

pub mod auth;
pub mod container;
pub mod endpoint;
pub mod error;
pub mod function;
pub mod submit;
pub mod task;
pub mod task_group;
pub mod version;

use serde::{Deserialize, Serialize};

/// The maximum size of a body, in bytes, except of a submit. A reader may set a lower limit.
pub const LIMIT: usize = 16 << 20;

/// The maximum size of a submit's body, in bytes: room for a payload of 64 MiB with its escapes.
pub const SUBMIT_LIMIT: usize = 80 << 20;

/// The answer to a deletion. The number is upstream's; the HTTP status is 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    pub result: u16,
}

impl Default for Deleted {
    fn default() -> Self {
        Self { result: 302 }
    }
}
