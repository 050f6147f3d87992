//! `POST /v2/oauth2/token`. What is done for which grant lies in [`grants`].

use axum::extract::State;
use axum::response::Response;

use super::failure::Failure;
use super::form::Form;
use crate::ambient;
use crate::identity::grants::{self, Asked};
use crate::identity::{Identity, audit};
use crate::origin::Origin;

pub(super) async fn token(
    State(identity): State<Identity>,
    origin: Origin,
    form: Result<Form, Failure>,
) -> Result<Response, Failure> {
    let refused = |failure: &Failure| audit::token_refused("any", None, failure.oauth_error());
    let form = form.inspect_err(refused)?;
    let now = ambient::now();
    let application = form.application(&identity, now).await.inspect_err(refused)?;
    let asked = Asked { identity: &identity, origin: &origin, application: &application, form: &form, now };
    grants::answer(asked).await
}
