//! The grant `urn:globus:auth:grant_type:dependent_token`: a resource server exchanges a token that was presented to it for
//! tokens for other services, for the same person. They end with the presented token.

use wire::rest::auth::error::OAuthError;

use super::{Granted, TokenRequest, account_disabled};
use crate::audit;
use crate::failure::Failure;
use crate::scope;
use crate::tokens::TokenOrder;
use store::secret::Hash;

pub(super) const GRANT_TYPE: &str = "urn:globus:auth:grant_type:dependent_token";

pub(super) async fn answer(request: &TokenRequest<'_>) -> Result<Granted, Failure> {
    let client = request.confidential()?;
    let Some(resource_server) = &client.resource_server else {
        return Err(Failure::oauth(OAuthError::UnauthorizedClient, "this client is no resource server"));
    };
    let given = request.form.need("token")?;
    let token = request.identity.check(given, request.now).await?;
    // A token for another resource server is reported as unknown.
    let token = token
        .filter(|token| token.resource_server == *resource_server)
        .ok_or_else(|| Failure::oauth(OAuthError::InvalidGrant, "the token is unknown or has ended"))?;
    let grants = match request.form.get("scope") {
        Some(_) => request.scopes()?,
        None => scope::dependent(),
    };
    if !grants.iter().flat_map(|grant| &grant.scopes).all(|scope| scope::is_dependent(scope)) {
        return Err(Failure::oauth(
            OAuthError::InvalidScope,
            "the token's scope does not depend on that one",
        ));
    }
    request.check_rate(token.identity)?;
    let order = TokenOrder {
        identity: token.identity,
        client: client.client_id(),
        shown_by: request.application.version(),
        grants: &grants,
        session: token.session,
        grant: None,
        parent: Some((Hash::of(given), token.expires)),
    };
    let issued = request.identity.issue(order, request.now).await?.ok_or_else(account_disabled)?;
    audit::tokens_issued("dependent_token", &issued);
    Ok(Granted::Dependent(issued.iter().map(|issued| issued.answer(None, None)).collect()))
}
