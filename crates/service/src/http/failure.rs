//! Refusals: builds the error body of the compute routes, which every version of the client understands.
//!
//! Permissions and the store say what went wrong in their own types; here it becomes the body. Internal errors are logged,
//! and the client is told only that the service failed.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use wire::json::Malformed;
use wire::rest::error::{Code, ErrorBody};
use wire::{ContainerId, EndpointId, FunctionId, GroupId, TaskGroupId, TaskId};

use identity::store_failure::{RETRY_AFTER, StoreFailure};
use store::StoreError;

/// A refused request. Boxed: it travels in every `Result`.
#[derive(Clone, Debug)]
pub struct Failure(Box<Refusal>);

#[derive(Clone, Debug)]
struct Refusal {
    body: ErrorBody,
    /// When the client may try again, in seconds.
    retry_after: u32,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure::of(ErrorBody::new(code, message))
    }

    fn of(body: ErrorBody) -> Failure {
        Failure(Box::new(Refusal { body, retry_after: RETRY_AFTER }))
    }

    pub fn unknown_endpoint(endpoint: EndpointId) -> Failure {
        Failure::of(ErrorBody::endpoint_not_found(endpoint))
    }

    pub fn forbidden_endpoint(endpoint: EndpointId) -> Failure {
        let message = format!("Unauthorized access to endpoint {endpoint}");
        let body = ErrorBody::new(Code::EndpointAccessForbidden, message);
        Failure::of(body.with_args([endpoint.to_string()]))
    }

    pub fn unknown_function(function: FunctionId) -> Failure {
        let message = format!("Function {function} could not be resolved");
        Failure::of(ErrorBody::new(Code::FunctionNotFound, message).with_args([function.to_string()]))
    }

    pub fn forbidden_function(function: FunctionId) -> Failure {
        let message = format!("Unauthorized access to function {function}");
        let body = ErrorBody::new(Code::FunctionAccessForbidden, message);
        Failure::of(body.with_args([function.to_string()]))
    }

    pub fn unknown_share(group: GroupId) -> Failure {
        let message = format!("Group {group} could not be resolved");
        Failure::of(ErrorBody::new(Code::AuthGroupNotFound, message).with_args([group.to_string()]))
    }

    pub fn unknown_container(container: ContainerId) -> Failure {
        let message = format!("Container {container} could not be resolved");
        Failure::of(ErrorBody::new(Code::ContainerNotFound, message).with_args([container.to_string()]))
    }

    pub fn locked(endpoint: EndpointId, until: Timestamp) -> Failure {
        let message = format!("Endpoint {endpoint} was stopped from afar and is locked until {until:.0}");
        Failure::of(ErrorBody::new(Code::ResourceLocked, message).with_args([endpoint.to_string()]))
    }

    /// The caller's login was ended after this request began.
    pub fn login_ended() -> Failure {
        Failure::new(Code::InvalidAuthToken, "The login was ended while this was asked: log in again")
    }

    pub fn too_many_endpoints(kind: &str, most: u32) -> Failure {
        let message = format!(
            "You have {most} {kind}, as many as one identity may have here: delete one, or ask the service's \
             administrator to raise limits.endpoints_per_identity"
        );
        Failure::new(Code::ResourceConflict, message)
    }

    pub fn too_many_requests(retry_after: u32) -> Failure {
        let message = format!("Too many requests; come again in {retry_after} s");
        let mut failure = Failure::new(Code::MaxRequestsExceeded, message);
        failure.0.retry_after = retry_after;
        failure
    }

    pub fn not_permitted(function: FunctionId, endpoint: EndpointId) -> Failure {
        Failure::of(ErrorBody::function_not_permitted(function, endpoint))
    }

    pub fn unknown_task(task: TaskId) -> Failure {
        let message = format!("Task {task} could not be resolved");
        Failure::of(ErrorBody::new(Code::TaskNotFound, message).with_args([task.to_string()]))
    }

    pub fn unknown_group(group: TaskGroupId) -> Failure {
        let message = format!("Task group {group} could not be resolved");
        Failure::of(ErrorBody::new(Code::TaskGroupNotFound, message).with_args([group.to_string()]))
    }

    /// A member of a body asks for something that this service doesn't have. It is refused by name rather than ignored.
    pub fn not_served(member: &str) -> Failure {
        Failure::new(Code::SemanticallyInvalid, format!("{member}: not served by this service"))
    }

    pub fn unavailable(message: impl Into<String>) -> Failure {
        Failure::new(Code::ServiceUnavailable, message)
    }

    /// With another HTTP status than its code's.
    pub fn with_status(mut self, status: u16) -> Failure {
        self.0.body.http_status_code = status;
        self
    }

    #[cfg(test)]
    pub fn message(&self) -> &str {
        &self.0.body.message
    }

    pub fn code(&self) -> Code {
        self.0.body.code
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let store_failure = StoreFailure::of(&error);
        let message = match store_failure {
            StoreFailure::Nul => {
                let message =
                    "The request holds the character NUL (U+0000) in a text that the service would store";
                return Failure::new(Code::RequestMalformed, message);
            }
            StoreFailure::Conflict => {
                "Others were changing the same at this moment, and nothing was done: send the request again"
            }
            StoreFailure::Outage => {
                "The service cannot reach its database at the moment: send the request again in some seconds. If that does \
                 not help, tell who runs the service"
            }
            StoreFailure::Other => "The service's store does not answer; try again later",
        };
        let mut failure = Failure::unavailable(message);
        failure.0.retry_after = store_failure.retry_after();
        failure
    }
}

impl From<Malformed> for Failure {
    fn from(error: Malformed) -> Failure {
        let code = match error {
            Malformed::TooLarge { .. } => Code::TaskPayloadTooLarge,
            _ => Code::RequestMalformed,
        };
        Failure::new(code, format!("The request's body is not valid: {error}"))
    }
}

/// The body with the request's id, by which the log is searched.
#[derive(Serialize)]
struct IdentifiedBody<'a> {
    #[serde(flatten)]
    body: &'a ErrorBody,
    request_id: &'a str,
}

impl IntoResponse for Failure {
    /// The failure rides along in the response's extensions until [`Failure::response`] writes it.
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl Failure {
    /// Writes the answer, now that the request's id is known.
    pub fn response(&self, request_id: &str) -> Response {
        let status =
            StatusCode::from_u16(self.0.body.http_status_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(IdentifiedBody { body: &self.0.body, request_id })).into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, self.0.retry_after.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"farcall\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
