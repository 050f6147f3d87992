//! `POST /v2/oauth2/token`. What is done for which grant lies in [`grants`].

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::clock;
use crate::failure::Failure;
use crate::form::Form;
use crate::grants::{self, Asked};
use crate::http::host_names::Origin;
use crate::{Identity, audit};

pub(super) async fn token(
    State(identity): State<Identity>,
    origin: Origin,
    form: Result<Form, Failure>,
) -> Result<impl IntoResponse, Failure> {
    let refused = |failure: &Failure| audit::token_refused("any", None, failure.oauth_error());
    let form = form.inspect_err(refused)?;
    let now = clock::now();
    let application = form.application(&identity, now).await.inspect_err(refused)?;
    let asked = Asked { identity: &identity, origin: &origin, application: &application, form: &form, now };
    let granted = grants::answer(asked).await?;
    // Tokens are for the client that asked, and for no cache on the way.
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(granted)))
}
