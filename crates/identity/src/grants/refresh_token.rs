//! `refresh_token`: a client that a person let act for them gets a fresh access token, and the next refresh token.

use wire::rest::auth::error::OAuthError;

use super::{Asked, Granted, granted, shut_out};
use crate::failure::Failure;
use crate::tokens::Order;
use crate::{audit, scope};
use store::{EndTokens, RefreshToken, Rotation};

pub(super) const GRANT_TYPE: &str = "refresh_token";

pub(super) async fn answer(asked: &Asked<'_>) -> Result<Granted, Failure> {
    let text = asked.form.need("refresh_token")?;
    let refused = || {
        Failure::oauth(OAuthError::InvalidGrant, "the refresh token is unknown, ended, used, or another's")
    };
    let why = async || {
        let why = asked.identity.why_ended(text, asked.form.peer, asked.now).await?;
        Ok::<Failure, Failure>(
            why.map_or_else(refused, |why| Failure::oauth(OAuthError::InvalidGrant, why.to_string())),
        )
    };
    let Some(known) = asked.identity.refresh_token(text).await? else { return Err(why().await?) };
    if known.client != asked.application.id() {
        return Err(refused());
    }
    let scope = narrowed(asked.form.get("scope"), &known)?;
    let person = asked.identity.profile(known.identity).await?;
    if known.expires <= asked.now {
        return Err(why().await?);
    }
    if person.is_none_or(|person| person.disabled) {
        return Err(shut_out());
    }
    asked.take_turn(known.identity)?;
    let next = match asked.identity.rotate(text, &known, asked.now).await? {
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
    let order = Order {
        identity: known.identity,
        client: known.client,
        shown_by: asked.application.version(),
        grants: &grants,
        session: Some(known.session),
        grant: Some(known.grant),
        parent: None,
    };
    let issued = asked.identity.issue(order, asked.now).await?.ok_or_else(shut_out)?;
    audit::tokens_issued(GRANT_TYPE, &issued);
    // Ended in the meantime: what was made here must not outlive that.
    if asked.identity.refresh_token(&next).await?.is_none() {
        asked.identity.end_tokens(EndTokens::Grant(known.grant)).await?;
        return Err(refused());
    }
    let mut next = Some(next);
    granted(issued.iter().map(|issued| issued.answer(next.take(), None)).collect(), None)
}

/// The scopes of the new access token: those of the refresh token, or fewer when fewer are asked for.
fn narrowed(asked: Option<&str>, known: &RefreshToken) -> Result<String, Failure> {
    let Some(asked) = asked else { return Ok(known.scope.clone()) };
    let own: Vec<&str> = known.scope.split(' ').collect();
    let wanted = wire::rest::auth::token::scopes(asked);
    if wanted.is_empty() || wanted.iter().any(|scope| !own.contains(scope)) {
        return Err(Failure::oauth(OAuthError::InvalidScope, "more than the refresh token reaches"));
    }
    Ok(wanted.join(" "))
}
