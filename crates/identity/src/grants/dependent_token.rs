//! `urn:globus:auth:grant_type:dependent_token`: a resource server that was given a token gets tokens with which to act
//! further on, for the same person. They end with the one it was given.

use wire::rest::auth::error::OAuthError;

use super::{Asked, Granted, shut_out};
use crate::audit;
use crate::failure::Failure;
use crate::scope;
use crate::tokens::Order;
use store::secret::Hash;

pub(super) const GRANT_TYPE: &str = "urn:globus:auth:grant_type:dependent_token";

pub(super) async fn answer(asked: &Asked<'_>) -> Result<Granted, Failure> {
    let client = asked.confidential()?;
    let Some(resource_server) = &client.resource_server else {
        return Err(Failure::oauth(OAuthError::UnauthorizedClient, "this client is no resource server"));
    };
    let given = asked.form.need("token")?;
    let token = asked.identity.check(given, asked.now).await?;
    // A token for somebody else is none, as far as this resource server is told.
    let token = token
        .filter(|token| token.resource_server == *resource_server)
        .ok_or_else(|| Failure::oauth(OAuthError::InvalidGrant, "the token is unknown or has ended"))?;
    let grants = match asked.form.get("scope") {
        Some(_) => asked.scopes()?,
        None => scope::dependent(),
    };
    if !grants.iter().flat_map(|grant| &grant.scopes).all(|scope| scope::is_dependent(scope)) {
        return Err(Failure::oauth(
            OAuthError::InvalidScope,
            "the token's scope does not depend on that one",
        ));
    }
    asked.take_turn(token.identity)?;
    let order = Order {
        identity: token.identity,
        client: client.client_id(),
        shown_by: asked.application.version(),
        grants: &grants,
        session: token.session,
        grant: None,
        parent: Some((Hash::of(given), token.expires)),
    };
    let issued = asked.identity.issue(order, asked.now).await?.ok_or_else(shut_out)?;
    audit::tokens_issued("dependent_token", &issued);
    Ok(Granted::Dependent(issued.iter().map(|issued| issued.answer(None, None)).collect()))
}
