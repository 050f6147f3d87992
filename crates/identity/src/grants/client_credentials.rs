//! The grant `client_credentials`: a client gets tokens for itself, or for the person with whom it is linked.

use wire::IdentityId;
use wire::rest::auth::OPENID_SCOPE;
use wire::rest::auth::error::OAuthError;

use super::{Granted, TokenRequest, account_disabled, token_response};
use crate::audit;
use crate::end_reason::EndReason;
use crate::failure::Failure;
use crate::id_token::IdTokenContent;
use crate::tokens::TokenOrder;

pub(super) async fn answer(request: &TokenRequest<'_>) -> Result<Granted, Failure> {
    let client = request.confidential()?;
    let grants = request.scopes()?;
    let identity = acts_as(request, client.id).await?;
    request.check_rate(identity)?;
    let order = TokenOrder {
        identity,
        client: client.client_id(),
        shown_by: request.application.version(),
        grants: &grants,
        session: None,
        grant: None,
        parent: None,
    };
    let issued = request.identity.issue(order, request.now).await?.ok_or_else(account_disabled)?;
    audit::tokens_issued("client_credentials", &issued);
    let id_token = if issued.iter().any(|issued| issued.token.covers(OPENID_SCOPE)) {
        let statement = IdTokenContent {
            identity,
            client: client.client_id(),
            access_token: &issued[0].access_token,
            nonce: None,
            authenticated: None,
        };
        Some(request.identity.id_token(statement, request.origin, request.now).await?)
    } else {
        None
    };
    token_response(issued.iter().map(|issued| issued.answer(None, None)).collect(), id_token)
}

/// The first of the client's set, which must not be disabled. Read from the store, after the secret: a link that was undone a
/// moment ago gives nothing any more.
async fn acts_as(request: &TokenRequest<'_>, client: IdentityId) -> Result<IdentityId, Failure> {
    let set = request.identity.store().identity_set(client).await?;
    let refused = |text: String| Failure::oauth(OAuthError::InvalidClient, text);
    let first = set.first().ok_or_else(|| refused(EndReason::Removed.to_string()))?;
    if first.disabled {
        return Err(refused(EndReason::Disabled(first.username.clone()).to_string()));
    }
    Ok(first.id)
}
