//! The grant `authorization_code`: exchanges the code of a person's consent for tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use wire::rest::auth::OPENID_SCOPE;
use wire::rest::auth::error::OAuthError;

use super::{Granted, TokenRequest, account_disabled, token_response};
use crate::failure::Failure;
use crate::id_token::IdTokenContent;
use crate::tokens::TokenOrder;
use crate::{audit, scope};
use store::{Code, CodeUse};

pub(super) const GRANT_TYPE: &str = "authorization_code";

pub(super) async fn answer(request: &TokenRequest<'_>) -> Result<Granted, Failure> {
    let text = request.form.need("code")?;
    let verifier = request.form.need("code_verifier")?;
    let redirect_uri = request.form.need("redirect_uri")?;
    if !is_verifier(verifier) {
        return Err(Failure::oauth(
            OAuthError::InvalidRequest,
            "code_verifier is not 43 to 128 unreserved characters",
        ));
    }
    // The same error whatever is wrong, so that it reveals nothing.
    let refused = || {
        Failure::oauth(OAuthError::InvalidGrant, "the code is unknown, ended, used, or not for this client")
    };
    let code = request.identity.code(text).await?.ok_or_else(refused)?;
    if !matches_request(&code, request, verifier, redirect_uri) {
        return Err(refused());
    }
    request.check_rate(code.identity)?;
    // From here on the code is used. A second use ends its tokens, also after its expiry.
    match request.identity.use_code(text, &code, request.now).await? {
        CodeUse::First => {}
        CodeUse::Repeated => {
            audit::code_reused(code.client, code.identity);
            return Err(refused());
        }
        CodeUse::Expired => {
            let text =
                format!("the code expired at {:.0}: log in again, and use the code at once", code.expires);
            return Err(Failure::oauth(OAuthError::InvalidGrant, text));
        }
    }
    let person = request.identity.profile(code.identity).await?.ok_or_else(refused)?;
    if person.disabled {
        return Err(account_disabled());
    }
    let grants = scope::grants(&code.scope).map_err(|_| refused())?;
    let order = TokenOrder {
        identity: code.identity,
        client: code.client,
        shown_by: request.application.version(),
        grants: &grants,
        session: Some(code.session),
        grant: Some(code.grant),
        parent: None,
    };
    let issued = request.identity.issue(order, request.now).await?.ok_or_else(account_disabled)?;
    audit::tokens_issued(GRANT_TYPE, &issued);
    let mut tokens = Vec::with_capacity(issued.len());
    for one in &issued {
        let refresh = if code.offline {
            let made =
                request.identity.new_refresh_token(&one.token, code.session, code.grant, request.now).await?;
            Some(made)
        } else {
            None
        };
        tokens.push(one.answer(refresh, code.state.clone()));
    }
    let id_token = if issued.iter().any(|issued| issued.token.covers(OPENID_SCOPE)) {
        let session = request.identity.session_of(code.session).await?;
        let authenticated = session.and_then(|it| it.authentications.iter().map(|one| one.at).max());
        let statement = IdTokenContent {
            identity: code.identity,
            client: code.client,
            access_token: &issued[0].access_token,
            nonce: code.nonce.as_deref(),
            authenticated,
        };
        Some(request.identity.id_token(statement, request.origin, request.now).await?)
    } else {
        None
    };
    // If it was used a second time meanwhile, these tokens must end too.
    if request.identity.code_replayed(text, &code).await? {
        return Err(refused());
    }
    token_response(tokens, id_token)
}

/// Whether the request comes from the client to which the code was issued.
fn matches_request(code: &Code, request: &TokenRequest<'_>, verifier: &str, redirect_uri: &str) -> bool {
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    let verified: bool = challenge.as_bytes().ct_eq(code.challenge.as_bytes()).into();
    verified && code.client == request.application.id() && code.redirect_uri == redirect_uri
}

fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._~".contains(&c))
}
