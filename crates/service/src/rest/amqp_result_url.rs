//! `GET /v2/get_amqp_result_connection_url`: where a client finds its results.
//!
//! Called at every (re)connection; each answer carries a credential of its own, which opens connections for a day.

use axum::Json;
use axum::extract::{Extension, State};
use jiff::SignedDuration;
use wire::queue::{self, ResultConnection};

use super::App;
use super::caller::Caller;
use super::failure::Failure;
use super::route::{Method, Route};
use crate::ambient;
use crate::front::Reached;
use crate::post::url::ConnectionUrl;
use crate::secret::{self, Hash};
use crate::store::{Holder, NewClientCredential};

pub(super) const ROUTE: Route = Route::new(
    Method::Get,
    "/v2/get_amqp_result_connection_url",
    "get_result_connection",
    "ResultConnection",
    "Where the results of one's task groups are delivered",
);

/// How long the credential opens connections.
const LIFE: SignedDuration = SignedDuration::from_hours(24);

pub(super) async fn url(
    State(app): State<App>,
    Caller(caller): Caller,
    Extension(reached): Extension<Reached>,
) -> Result<Json<ResultConnection>, Failure> {
    let secret = secret::fresh();
    let now = ambient::now();
    let command =
        NewClientCredential { identity: caller, secret: Hash::of(&secret), now, expires: now + LIFE };
    let number = app.store.write(command).await?.ok_or_else(Failure::shut_out)?;
    app.post.client_credential_made(caller, number);
    let url = ConnectionUrl { holder: Holder::Client(caller), number, secret: &secret };
    Ok(Json(ResultConnection {
        queue_prefix: queue::client_prefix(caller),
        connection_url: url.at(&app.amqp.base(reached)),
    }))
}
