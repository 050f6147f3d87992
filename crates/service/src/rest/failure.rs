//! The one door through which errors leave the compute routes.
//!
//! A rule or a store says what went wrong in its own type; here it becomes the body that all generations of clients
//! understand. What went wrong inside is logged and not told.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use wire::json::Malformed;
use wire::rest::error::{Code, ErrorBody};
use wire::{EndpointId, FunctionId, TaskGroupId, TaskId};

use crate::store::StoreError;

/// A refused request. Boxed: it travels in every `Result`.
#[derive(Clone, Debug)]
pub struct Failure(Box<ErrorBody>);

/// How soon a client may come again when we cannot help it now, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure(Box::new(ErrorBody::new(code, message)))
    }

    pub fn unknown_endpoint(endpoint: EndpointId) -> Failure {
        Failure(Box::new(ErrorBody::endpoint_not_found(endpoint)))
    }

    pub fn forbidden_endpoint(endpoint: EndpointId) -> Failure {
        let message = format!("Unauthorized access to endpoint {endpoint}");
        let body = ErrorBody::new(Code::EndpointAccessForbidden, message);
        Failure(Box::new(body.with_args([endpoint.to_string()])))
    }

    pub fn unknown_function(function: FunctionId) -> Failure {
        let message = format!("Function {function} could not be resolved");
        Failure(Box::new(ErrorBody::new(Code::FunctionNotFound, message).with_args([function.to_string()])))
    }

    pub fn not_permitted(function: FunctionId, endpoint: EndpointId) -> Failure {
        Failure(Box::new(ErrorBody::function_not_permitted(function, endpoint)))
    }

    pub fn unknown_task(task: TaskId) -> Failure {
        let message = format!("Task {task} could not be resolved");
        Failure(Box::new(ErrorBody::new(Code::TaskNotFound, message).with_args([task.to_string()])))
    }

    pub fn unknown_group(group: TaskGroupId) -> Failure {
        let message = format!("Task group {group} could not be resolved");
        Failure(Box::new(ErrorBody::new(Code::TaskGroupNotFound, message).with_args([group.to_string()])))
    }

    /// A member of a body names something that is not built: refused by name rather than ignored.
    pub fn not_served(member: &str) -> Failure {
        Failure::new(Code::SemanticallyInvalid, format!("{member}: not served by this service"))
    }

    pub fn unavailable(message: impl Into<String>) -> Failure {
        Failure::new(Code::ServiceUnavailable, message)
    }

    /// With another HTTP status than its code's.
    pub fn with_status(mut self, status: u16) -> Failure {
        self.0.http_status_code = status;
        self
    }

    pub fn code(&self) -> Code {
        self.0.code
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        tracing::error!(%error, "a request failed at the store");
        Failure::unavailable("The service's store does not answer; try again later")
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

/// The body with the id under which our log knows the request.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    body: &'a ErrorBody,
    request_id: &'a str,
}

impl IntoResponse for Failure {
    /// The failure rides along in the response's extensions until [`Failure::tell`] writes it.
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl Failure {
    /// Writes the answer, now that the request's id is known.
    pub fn tell(&self, request_id: &str) -> Response {
        let status =
            StatusCode::from_u16(self.0.http_status_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(Told { body: &self.0, request_id })).into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"farcall\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
