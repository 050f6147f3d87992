//! `POST /v2/oauth2/token`. The grants are in [`grants`].

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::clock;
use crate::failure::Failure;
use crate::form::Form;
use crate::grants::{self, TokenRequest};
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
    let request =
        TokenRequest { identity: &identity, origin: &origin, application: &application, form: &form, now };
    let granted = grants::answer(request).await?;
    // No cache on the way may store tokens.
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(granted)))
}
