//! `client_credentials`: a client identity gets tokens for itself, or for the person it is linked with.

use wire::IdentityId;
use wire::rest::auth::OPENID_SCOPE;
use wire::rest::auth::error::OAuthError;

use super::{Asked, Granted, granted, shut_out};
use crate::audit;
use crate::end_reason::Ended;
use crate::failure::Failure;
use crate::id_token::Statement;
use crate::tokens::Order;

pub(super) async fn answer(asked: &Asked<'_>) -> Result<Granted, Failure> {
    let client = asked.confidential()?;
    let grants = asked.scopes()?;
    let identity = acts_as(asked, client.id).await?;
    asked.take_turn(identity)?;
    let order = Order {
        identity,
        client: client.client_id(),
        shown_by: asked.application.version(),
        grants: &grants,
        session: None,
        grant: None,
        parent: None,
    };
    let issued = asked.identity.issue(order, asked.now).await?.ok_or_else(shut_out)?;
    audit::tokens_issued("client_credentials", &issued);
    let id_token = if issued.iter().any(|issued| issued.token.covers(OPENID_SCOPE)) {
        let statement = Statement {
            identity,
            client: client.client_id(),
            access_token: &issued[0].access_token,
            nonce: None,
            authenticated: None,
        };
        Some(asked.identity.id_token(statement, asked.origin, asked.now).await?)
    } else {
        None
    };
    granted(issued.iter().map(|issued| issued.answer(None, None)).collect(), id_token)
}

/// The first of the client's set, who must not be disabled. Read from the store, after the secret: a link that was undone a
/// moment ago gives nothing any more.
async fn acts_as(asked: &Asked<'_>, client: IdentityId) -> Result<IdentityId, Failure> {
    let set = asked.identity.store().identity_set(client).await?;
    let refused = |text: String| Failure::oauth(OAuthError::InvalidClient, text);
    let first = set.first().ok_or_else(|| refused(Ended::Removed.to_string()))?;
    if first.disabled {
        return Err(refused(Ended::Disabled(first.username.clone()).to_string()));
    }
    Ok(first.id)
}
