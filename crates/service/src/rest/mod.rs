//! The HTTP routes of the compute service, one file per route.
//!
//! A route says who calls ([`caller`]), reads its body within limits ([`body`]), asks the [`rules`](crate::rules),
//! and answers or [fails](failure). What is not served has no route.

mod amqp_result_url;
mod batch_status;
mod body;
mod caller;
mod delete_endpoint;
mod failure;
mod get_endpoint;
mod get_endpoint_status;
mod get_function;
mod get_task;
mod get_task_group;
mod register_endpoint;
mod register_function;
mod submit;
mod task_document;
mod version;

use std::str::FromStr;

use axum::Router;
use axum::routing::{get, post, put};
use wire::rest::error::Code;

pub use body::Room;
pub use failure::Failure;

use crate::identity::Identity;
use crate::post::Post;
use crate::post::url::Outside;
use crate::presence::Presence;
use crate::store::Store;

/// What the routes work with. Clones share it.
#[derive(Clone, Debug)]
pub struct App {
    pub store: Store,
    pub identity: Identity,
    pub presence: Presence,
    pub post: Post,
    pub room: Room,
    /// Where the broker is found from outside.
    pub amqp: Outside,
}

pub fn router(app: App) -> Router {
    Router::new()
        .route("/v2/version", get(version::version))
        .route("/v3/functions", post(register_function::register))
        .route("/v2/functions/{id}", get(get_function::get))
        .route("/v3/endpoints", post(register_endpoint::create))
        .route("/v3/endpoints/{id}", put(register_endpoint::update))
        .route("/v2/endpoints/{id}", get(get_endpoint::get).delete(delete_endpoint::delete))
        .route("/v2/endpoints/{id}/status", get(get_endpoint_status::status))
        .route("/v3/endpoints/{id}/submit", post(submit::submit))
        .route("/v2/tasks/{id}", get(get_task::get))
        .route("/v2/batch_status", post(batch_status::batch_status))
        .route("/v2/taskgroup/{id}", get(get_task_group::get))
        .route("/v2/get_amqp_result_connection_url", get(amqp_result_url::url))
        .with_state(app)
}

/// Every path that has no route.
pub async fn nowhere() -> Failure {
    Failure::new(Code::RequestMalformed, "There is no such route").with_status(404)
}

/// An id out of a path.
fn id<T: FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(100).collect();
        Failure::new(Code::InvalidUuid, format!("{shown:?} is not a UUID"))
    })
}
