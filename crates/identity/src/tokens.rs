//! Access tokens: made, checked, ended.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;
use wire::{ClientId, IdentityId};

use super::Identity;
use super::scope::Grant;
use store::secret::{self, Hash};
use store::{AccountVersion, AddTokens, EndTokens, StoreError, Token};

/// How long an access token lives.
pub const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(48);

/// Which tokens to make.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// Who they act for.
    pub identity: IdentityId,
    /// Who asked for them.
    pub client: ClientId,
    /// Their account, if they have shown a secret.
    pub shown_by: Option<AccountVersion>,
    /// One token each.
    pub grants: &'a [Grant],
    /// The sign-in they go back to, if a person made it.
    pub session: Option<Uuid>,
    /// Tokens that came from one code end together.
    pub grant: Option<Uuid>,
    /// The token for which a resource server gets these, and when that one ends.
    pub parent: Option<(Hash, Timestamp)>,
}

/// A token as it is handed out.
#[derive(Debug)]
pub struct Issued {
    pub access_token: String,
    pub token: Token,
}

impl Issued {
    /// As the token routes say it.
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
    /// One more request of `identity` for tokens; or in how many seconds it may come again.
    pub fn may_ask_for_tokens(&self, identity: IdentityId, now: Timestamp) -> Result<(), u32> {
        self.tokens_asked.take(identity, now)
    }

    /// Makes the tokens of `order`: on disk when this returns. None for who is shut out, or has been since they showed
    /// their secret.
    pub async fn issue(&self, order: Order<'_>, now: Timestamp) -> Result<Option<Vec<Issued>>, StoreError> {
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

    /// What `access_token` stands for, unless it is unknown or has ended.
    pub async fn check(&self, access_token: &str, now: Timestamp) -> Result<Option<Arc<Token>>, StoreError> {
        let hash = Hash::of(access_token);
        let read = async { Ok(self.store.token(hash).await?.map(Arc::new)) };
        let token = self.tokens.get(hash, now, read).await?;
        Ok(token.filter(|token| token.expires > now))
    }

    /// Ends a token if it is one of `client`'s, and what a resource server was given for it; a refresh token as well,
    /// with the access tokens beside it.
    pub async fn revoke(&self, access_token: &str, client: ClientId) -> Result<(), StoreError> {
        self.end_tokens(EndTokens::One { hash: Hash::of(access_token), client }).await?;
        self.revoke_refresh_token(access_token, client).await
    }

    /// Ends tokens, here at once and on other processes within seconds; how many.
    pub async fn end_tokens(&self, which: EndTokens) -> Result<u64, StoreError> {
        let ended = self.store.write(which).await?;
        // Those that were made for one of them are gone from the store as well: read them all again.
        self.tokens.forget(|hash, token| which.names(hash, token) || token.parent.is_some());
        Ok(ended)
    }

    /// To be called when tokens were ended in the store.
    pub fn forget_tokens(&self) {
        self.tokens.forget(|_, _| true);
    }
}
