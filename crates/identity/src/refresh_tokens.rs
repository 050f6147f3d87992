//! Refresh tokens: each can be used once and is replaced by its successor.
//!
//! The successor is derived from the token and a key of its chain, so that a client whose answer was lost gets the same one
//! again. That is allowed for [`GRACE`] and until the successor is used. Afterwards a second use means that the token was
//! copied, and all tokens of the same code end.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;
use wire::ClientId;

use super::Identity;
use crate::random;
use store::secret::{self, Hash};
use store::{
    AddRefreshToken, EndTokens, RefreshToken, RevokeRefreshToken, Rotate, Rotation, StoreError, Token,
};

/// How long an unused refresh token is valid.
pub const REFRESH_LIFE: SignedDuration = SignedDuration::from_hours(24 * 180);
/// How long after its use a refresh token may be used again, as long as its successor is not.
pub const GRACE: SignedDuration = SignedDuration::from_mins(10);

impl Identity {
    /// Issues the first refresh token of a chain beside `token`, which came from the code of `grant`.
    pub async fn new_refresh_token(
        &self,
        token: &Token,
        session: Uuid,
        grant: Uuid,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let text = secret::fresh();
        let token = RefreshToken {
            chain: random::random_id(),
            grant,
            session,
            identity: token.identity,
            client: token.client,
            scope: token.scope.clone(),
            resource_server: token.resource_server.clone(),
            chain_key: random::random_bytes().to_vec(),
            issued: now,
            expires: now + REFRESH_LIFE,
        };
        self.store.write(AddRefreshToken { hash: Hash::of(&text), token }).await?;
        Ok(text)
    }

    /// The stored token of `text`, used or not, expired or not.
    pub async fn refresh_token(&self, text: &str) -> Result<Option<RefreshToken>, StoreError> {
        self.store.refresh_token(Hash::of(text)).await
    }

    /// Exchanges `text` for its successor.
    pub async fn rotate(
        &self,
        text: &str,
        token: &RefreshToken,
        now: Timestamp,
    ) -> Result<Result<String, Rotation>, StoreError> {
        let next = successor(text, &token.chain_key);
        let rotate = Rotate {
            hash: Hash::of(text),
            successor: Hash::of(&next),
            now,
            expires: now + REFRESH_LIFE,
            grace_since: now - GRACE,
        };
        let rotation = self.store.write(rotate).await?;
        if rotation == Rotation::Reused {
            self.end_tokens(EndTokens::Grant(token.grant)).await?;
        }
        Ok(if rotation == Rotation::Done { Ok(next) } else { Err(rotation) })
    }

    /// Ends the chain of `text`, if it is `client`'s, and its access tokens.
    pub async fn revoke_refresh_token(&self, text: &str, client: ClientId) -> Result<(), StoreError> {
        let hash = Hash::of(text);
        let known = self.store.refresh_token(hash).await?;
        if self.store.write(RevokeRefreshToken { hash, client }).await?
            && let Some(known) = known
        {
            self.tokens.forget(|_, token| token.grant == Some(known.grant) || token.parent.is_some());
        }
        Ok(())
    }
}

fn successor(text: &str, key: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_follows_from_token_and_key() {
        assert_eq!(successor("a", b"k"), successor("a", b"k"));
        assert_ne!(successor("a", b"k"), successor("b", b"k"));
        assert_ne!(successor("a", b"k"), successor("a", b"l"));
        assert_eq!(successor("a", b"k").len(), secret::fresh().len());
    }
}
