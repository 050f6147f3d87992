//! `authorization_code`: what a person consented to in the browser becomes tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use wire::rest::auth::OPENID_SCOPE;
use wire::rest::auth::error::OAuthError;

use super::{Asked, Granted, granted, shut_out};
use crate::failure::Failure;
use crate::id_token::Statement;
use crate::tokens::Order;
use crate::{audit, scope};
use store::{Code, CodeUse};

pub(super) const GRANT_TYPE: &str = "authorization_code";

pub(super) async fn answer(asked: &Asked<'_>) -> Result<Granted, Failure> {
    let text = asked.form.need("code")?;
    let verifier = asked.form.need("code_verifier")?;
    let redirect_uri = asked.form.need("redirect_uri")?;
    if !is_verifier(verifier) {
        return Err(Failure::oauth(
            OAuthError::InvalidRequest,
            "code_verifier is not 43 to 128 unreserved characters",
        ));
    }
    // Said alike whatever is wrong: whoever has half of it learns nothing about the other half.
    let refused = || {
        Failure::oauth(OAuthError::InvalidGrant, "the code is unknown, ended, used, or not for this client")
    };
    let code = asked.identity.code(text).await?.ok_or_else(refused)?;
    if !fits(&code, asked, verifier, redirect_uri) {
        return Err(refused());
    }
    asked.take_turn(code.identity)?;
    // Used up from here on. What it gave ends if this is the second time, late or not: a client does it once.
    match asked.identity.use_code(text, &code, asked.now).await? {
        CodeUse::First => {}
        CodeUse::Again => {
            audit::code_reused(code.client, code.identity);
            return Err(refused());
        }
        CodeUse::Late => {
            let text =
                format!("the code expired at {:.0}: log in again, and use the code at once", code.expires);
            return Err(Failure::oauth(OAuthError::InvalidGrant, text));
        }
    }
    let person = asked.identity.profile(code.identity).await?.ok_or_else(refused)?;
    if person.disabled {
        return Err(shut_out());
    }
    let grants = scope::grants(&code.scope).map_err(|_| refused())?;
    let order = Order {
        identity: code.identity,
        client: code.client,
        shown_by: asked.application.version(),
        grants: &grants,
        session: Some(code.session),
        grant: Some(code.grant),
        parent: None,
    };
    let issued = asked.identity.issue(order, asked.now).await?.ok_or_else(shut_out)?;
    audit::tokens_issued(GRANT_TYPE, &issued);
    let mut tokens = Vec::with_capacity(issued.len());
    for one in &issued {
        let refresh = if code.offline {
            let made =
                asked.identity.new_refresh_token(&one.token, code.session, code.grant, asked.now).await?;
            Some(made)
        } else {
            None
        };
        tokens.push(one.answer(refresh, code.state.clone()));
    }
    let id_token = if issued.iter().any(|issued| issued.token.covers(OPENID_SCOPE)) {
        let session = asked.identity.session_of(code.session).await?;
        let authenticated = session.and_then(|it| it.authentications.iter().map(|one| one.at).max());
        let statement = Statement {
            identity: code.identity,
            client: code.client,
            access_token: &issued[0].access_token,
            nonce: code.nonce.as_deref(),
            authenticated,
        };
        Some(asked.identity.id_token(statement, asked.origin, asked.now).await?)
    } else {
        None
    };
    // Used a second time in the meantime: what was made here must not outlive that.
    if asked.identity.code_replayed(text, &code).await? {
        return Err(refused());
    }
    granted(tokens, id_token)
}

/// Whether whoever asks is the one that the code was made for.
fn fits(code: &Code, asked: &Asked<'_>, verifier: &str, redirect_uri: &str) -> bool {
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    let verified: bool = challenge.as_bytes().ct_eq(code.challenge.as_bytes()).into();
    verified && code.client == asked.application.id() && code.redirect_uri == redirect_uri
}

fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._~".contains(&c))
}
