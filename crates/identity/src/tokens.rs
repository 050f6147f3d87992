//! Issues, checks and ends access tokens.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;
use wire::{ClientId, IdentityId};

use super::Identity;
use super::scope::Grant;
use store::secret::{self, Hash};
use store::{AccountVersion, AddTokens, EndTokens, StoreError, Token};

/// How long an access token is valid.
pub const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(48);

/// The tokens to issue.
#[derive(Clone, Debug)]
pub struct TokenOrder<'a> {
    /// The identity for which they act.
    pub identity: IdentityId,
    /// The application that requested them.
    pub client: ClientId,
    /// Their account, if they have shown a secret.
    pub shown_by: Option<AccountVersion>,
    /// One token for each.
    pub grants: &'a [Grant],
    /// The session of the person's sign-in, if there was one.
    pub session: Option<Uuid>,
    /// The id shared by all tokens of one code: they end together.
    pub grant: Option<Uuid>,
    /// The token that a resource server exchanges for these, and when it expires.
    pub parent: Option<(Hash, Timestamp)>,
}

/// An issued token with its secret.
#[derive(Debug)]
pub struct Issued {
    pub access_token: String,
    pub token: Token,
}

impl Issued {
    /// The answer of the token routes.
    pub fn answer(
        &self,
        refresh_token: Option<String>,
        state: Option<String>,
    ) -> wire::rest::auth::token::Token {
        let life = self.token.expires.duration_since(self.token.issued);
        wire::rest::auth::token::Token {
            access_token: self.access_token.clone(),
            scope: self.token.scope.clone(),
            expires_in: life.as_secs().unsigned_abs(),
            token_type: "Bearer".to_owned(),
            resource_server: self.token.resource_server.clone(),
            refresh_token,
            state,
        }
    }
}

impl Identity {
    /// Counts a token request of `identity`. Over the rate limit, returns the seconds to wait.
    pub fn may_ask_for_tokens(&self, identity: IdentityId, now: Timestamp) -> Result<(), u32> {
        self.tokens_asked.take(identity, now)
    }

    /// Issues the tokens of `order`; they are on disk when this returns. None if the account is disabled, or its logins were
    /// ended since its secret was read.
    pub async fn issue(
        &self,
        order: TokenOrder<'_>,
        now: Timestamp,
    ) -> Result<Option<Vec<Issued>>, StoreError> {
        let longest = now + TOKEN_LIFE;
        let expires = order.parent.map_or(longest, |(_, ends)| ends.min(longest));
        let issued: Vec<Issued> = order
            .grants
            .iter()
            .map(|grant| Issued {
                access_token: secret::fresh(),
                token: Token {
                    identity: order.identity,
                    client: order.client,
                    scope: grant.scopes.join(" "),
                    resource_server: grant.resource_server.name().to_owned(),
                    issued: now,
                    expires,
                    session: order.session,
                    grant: order.grant,
                    parent: order.parent.map(|(parent, _)| parent),
                },
            })
            .collect();
        let tokens = issued.iter().map(|it| (Hash::of(&it.access_token), it.token.clone())).collect();
        let added = self.store.write(AddTokens { tokens, shown_by: order.shown_by }).await?;
        Ok(added.then_some(issued))
    }

    /// The token of `access_token`, unless it is unknown or expired.
    pub async fn check(&self, access_token: &str, now: Timestamp) -> Result<Option<Arc<Token>>, StoreError> {
        let hash = Hash::of(access_token);
        let read = async { Ok(self.store.token(hash).await?.map(Arc::new)) };
        let token = self.tokens.get(hash, now, read).await?;
        Ok(token.filter(|token| token.expires > now))
    }

    /// Ends an access token of `client` and the tokens that a resource server got for it; or a refresh token with its access
    /// tokens.
    pub async fn revoke(&self, access_token: &str, client: ClientId) -> Result<(), StoreError> {
        self.end_tokens(EndTokens::One { hash: Hash::of(access_token), client }).await?;
        self.revoke_refresh_token(access_token, client).await
    }

    /// Ends tokens, in this process at once and in others within seconds. Returns how many.
    pub async fn end_tokens(&self, which: EndTokens) -> Result<u64, StoreError> {
        let ended = self.store.write(which).await?;
        // Dependent tokens of these have ended in the store as well: read all of them again.
        self.tokens.forget(|hash, token| which.names(hash, token) || token.parent.is_some());
        Ok(ended)
    }

    /// Empties the cache. Called after tokens were ended in the store.
    pub fn forget_tokens(&self) {
        self.tokens.forget(|_, _| true);
    }
}
