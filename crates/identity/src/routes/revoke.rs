//! `POST /v2/oauth2/token/revoke`. Answers the same for unknown tokens, so that it reveals nothing.

use axum::Json;
use axum::extract::State;
use wire::rest::auth::token::Revoked;

use crate::clock;
use crate::failure::Failure;
use crate::form::Form;
use crate::{Identity, audit};

pub(super) async fn revoke(State(identity): State<Identity>, form: Form) -> Result<Json<Revoked>, Failure> {
    let application = form.application(&identity, clock::now()).await?;
    let token = form.need("token")?;
    identity.revoke(token, application.id()).await?;
    audit::token_revoked(application.id());
    Ok(Json(Revoked { active: false }))
}
