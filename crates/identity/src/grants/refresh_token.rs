//! The grant `refresh_token`: exchanges a refresh token for an access token and the next refresh token.

use wire::rest::auth::error::OAuthError;

use super::{Granted, TokenRequest, account_disabled, token_response};
use crate::failure::Failure;
use crate::tokens::TokenOrder;
use crate::{audit, scope};
use store::{EndTokens, RefreshToken, Rotation};

pub(super) const GRANT_TYPE: &str = "refresh_token";

pub(super) async fn answer(request: &TokenRequest<'_>) -> Result<Granted, Failure> {
    let text = request.form.need("refresh_token")?;
    let refused = || {
        Failure::oauth(OAuthError::InvalidGrant, "the refresh token is unknown, ended, used, or another's")
    };
    let why = async || {
        let why = request.identity.end_reason(text, request.form.peer, request.now).await?;
        Ok::<Failure, Failure>(
            why.map_or_else(refused, |why| Failure::oauth(OAuthError::InvalidGrant, why.to_string())),
        )
    };
    let Some(known) = request.identity.refresh_token(text).await? else { return Err(why().await?) };
    if known.client != request.application.id() {
        return Err(refused());
    }
    let scope = narrowed(request.form.get("scope"), &known)?;
    let person = request.identity.profile(known.identity).await?;
    if known.expires <= request.now {
        return Err(why().await?);
    }
    if person.is_none_or(|person| person.disabled) {
        return Err(account_disabled());
    }
    request.check_rate(known.identity)?;
    let next = match request.identity.rotate(text, &known, request.now).await? {
        Ok(next) => next,
        Err(Rotation::Reused) => {
            audit::refresh_token_reused(known.client, known.identity);
            let text = "the refresh token was used before: another program has a copy, so the login has ended: log in \
                        again";
            return Err(Failure::oauth(OAuthError::InvalidGrant, text));
        }
        Err(_) => return Err(refused()),
    };
    let grants = scope::grants(&scope).map_err(|_| refused())?;
    let order = TokenOrder {
        identity: known.identity,
        client: known.client,
        shown_by: request.application.version(),
        grants: &grants,
        session: Some(known.session),
        grant: Some(known.grant),
        parent: None,
    };
    let issued = request.identity.issue(order, request.now).await?.ok_or_else(account_disabled)?;
    audit::tokens_issued(GRANT_TYPE, &issued);
    // If the chain was ended meanwhile, these tokens must end too.
    if request.identity.refresh_token(&next).await?.is_none() {
        request.identity.end_tokens(EndTokens::Grant(known.grant)).await?;
        return Err(refused());
    }
    let mut next = Some(next);
    token_response(issued.iter().map(|issued| issued.answer(next.take(), None)).collect(), None)
}

/// The scopes of the new access token: those of the refresh token, or fewer if the request names fewer.
fn narrowed(request: Option<&str>, known: &RefreshToken) -> Result<String, Failure> {
    let Some(request) = request else { return Ok(known.scope.clone()) };
    let own: Vec<&str> = known.scope.split(' ').collect();
    let wanted = wire::rest::auth::token::scopes(request);
    if wanted.is_empty() || wanted.iter().any(|scope| !own.contains(scope)) {
        return Err(Failure::oauth(OAuthError::InvalidScope, "more than the refresh token reaches"));
    }
    Ok(wanted.join(" "))
}
