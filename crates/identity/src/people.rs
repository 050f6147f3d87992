//! Looks up identities and their sets.
//!
//! The identities of one person form a set with a first one. A person who signs in as any of them acts as the first, so that
//! what the person owns does not depend on the login used.

use std::sync::Arc;

use jiff::Timestamp;
use wire::IdentityId;

use super::{Identity, IdentityError};
use store::{Profile, RecordAuthentication, StoreError};

/// The longest username, as `name@domain`.
pub const USERNAME_LIMIT: usize = 254;

/// Normalizes a username: lower case, one `@`, no character that a page or log could misread.
pub fn username(text: &str) -> Option<String> {
    let username = text.trim().to_lowercase();
    let (name, domain) = username.split_once('@')?;
    let plain = |text: &str, also: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || also.contains(c))
    };
    let labels =
        domain.split('.').all(|label| plain(label, "-_") && !label.starts_with('-') && !label.ends_with('-'));
    (username.len() <= USERNAME_LIMIT && plain(name, "._+-'%=~/!#$&*^|{}?") && labels).then_some(username)
}

impl Identity {
    /// The identity with this id, disabled or not.
    pub async fn profile(&self, id: IdentityId) -> Result<Option<Profile>, StoreError> {
        self.store.profile(id).await
    }

    /// The identity with this username, however it is written.
    pub async fn profile_named(&self, text: &str) -> Result<Option<Profile>, StoreError> {
        match username(text) {
            Some(username) => self.store.profile_named(&username).await,
            None => Ok(None),
        }
    }

    /// The set of `id`, itself included, the first of the set first; empty if there is no such identity.
    /// Cached for a few seconds.
    pub async fn set_of(&self, id: IdentityId, now: Timestamp) -> Result<Arc<[Profile]>, StoreError> {
        let read = async {
            let set = self.store.identity_set(id).await?;
            Ok((!set.is_empty()).then(|| Arc::from(set)))
        };
        Ok(self.sets.get(id, now, read).await?.unwrap_or_default())
    }

    /// The identity of `id`, and its set.
    pub async fn who(
        &self,
        id: IdentityId,
        now: Timestamp,
    ) -> Result<(Profile, Arc<[Profile]>), IdentityError> {
        let set = self.set_of(id, now).await?;
        let profile = set.iter().find(|profile| profile.id == id).cloned().ok_or(IdentityError::Gone)?;
        Ok((profile, set))
    }

    /// Whether `id`, or one that is linked with it, administers the service.
    pub async fn administers(&self, id: IdentityId, now: Timestamp) -> Result<bool, StoreError> {
        Ok(self.set_of(id, now).await?.iter().any(|own| own.administrator && !own.disabled))
    }

    /// Records that `id` authenticated now.
    pub async fn authenticated(&self, id: IdentityId, now: Timestamp) -> Result<(), StoreError> {
        self.store.write(RecordAuthentication { identity: id, at: now }).await?;
        self.forget_person(id);
        Ok(())
    }

    /// Empties the cache. Called after an identity was changed in the store.
    pub fn forget_person(&self, id: IdentityId) {
        self.sets.forget(|_, set| set.iter().any(|profile| profile.id == id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_have_one_spelling() {
        for (given, known) in [
            ("alice@example.edu", Some("alice@example.edu")),
            (" Alice@Example.EDU ", Some("alice@example.edu")),
            ("o'brien+x@a-b.example", Some("o'brien+x@a-b.example")),
            ("alice@localhost", Some("alice@localhost")),
            // No name of a host, but of directories; users' pages have it.
            ("alicia@legal.your_institution.com", Some("alicia@legal.your_institution.com")),
            ("ålice@example.edu", Some("ålice@example.edu")),
            ("alice", None),
            ("@example.edu", None),
            ("alice@", None),
            ("alice@@example.edu", None),
            ("alice@b@c", None),
            ("alice@.edu", None),
            ("alice@-a.edu", None),
            ("al ice@example.edu", None),
            ("alice\n@example.edu", None),
            ("alice@exam\u{202e}ple.edu", None),
            ("<b>@example.edu", None),
            ("", None),
        ] {
            assert_eq!(username(given).as_deref(), known, "{given:?}");
        }
        assert!(username(&format!("{}@example.edu", "a".repeat(250))).is_none());
    }
}
