//! Authorization codes: issued when a person consents, exchanged by a client for tokens.

use jiff::{SignedDuration, Timestamp};

use super::Identity;
use crate::random;
use store::secret::{self, Hash};
use store::{AddCode, Code, CodeUse, EndTokens, StoreError, UseCode};

/// How long a code is valid.
pub const CODE_LIFE: SignedDuration = SignedDuration::from_mins(10);
/// How long a used code is kept: as long as its access tokens are valid.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(48);

impl Identity {
    /// Issues a code for the person who consented with `cookie`. Sets its fields `grant` and `expires`. Returns nothing if
    /// the session has ended meanwhile.
    pub async fn new_code(
        &self,
        code: Code,
        cookie: Hash,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        let text = secret::fresh();
        let code = Code { grant: random::random_id(), expires: now + CODE_LIFE, ..code };
        let forget = now - REMEMBERED;
        let added = self.store.write(AddCode { hash: Hash::of(&text), code, cookie, forget }).await?;
        Ok(added.then_some(text))
    }

    /// The stored code, expired or not.
    pub async fn code(&self, code: &str) -> Result<Option<Code>, StoreError> {
        self.store.code(Hash::of(code)).await
    }

    /// Exchanges a code. A second exchange ends all tokens of the first.
    pub async fn use_code(&self, text: &str, code: &Code, now: Timestamp) -> Result<CodeUse, StoreError> {
        let used = self.store.write(UseCode { hash: Hash::of(text), now }).await?;
        if used == CodeUse::Repeated {
            self.end_tokens(EndTokens::Grant(code.grant)).await?;
        }
        Ok(used)
    }

    /// Whether the code was exchanged a second time; then this has ended its tokens.
    pub async fn code_replayed(&self, text: &str, code: &Code) -> Result<bool, StoreError> {
        let replayed = self.store.code_replayed(Hash::of(text)).await?;
        if replayed {
            self.end_tokens(EndTokens::Grant(code.grant)).await?;
        }
        Ok(replayed)
    }
}
