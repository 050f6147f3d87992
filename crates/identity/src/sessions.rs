//! Sessions of browsers: who signed in, when and how.
//!
//! A session belongs to one person: signing in as another identity of the same set adds to it, signing in as somebody
//! else begins a new one. Its cookie is exchanged at every sign-in, so one that was planted before is worth nothing.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Identity;
use super::audit;
use super::sign_in_requirements::{Shown, Terms};
use crate::random;
use store::secret::{self, Hash};
use store::{Authentication, Profile, Session, SignIn, SignOut, StoreError};
use wire::PolicyId;

/// How long the cookie of a session means something.
pub const SESSION_LIFE: SignedDuration = SignedDuration::from_hours(12);
/// How long a browser in which somebody signed in is remembered.
const BROWSER_KNOWN: SignedDuration = SignedDuration::from_hours(24 * 180);

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub struct Present {
    pub session: Session,
    /// The cookie that was shown.
    pub cookie: Hash,
    /// The identity as which the browser signed in last.
    pub profile: Profile,
    /// All of the person's identities, the first of the set first: as that one the person acts.
    pub set: Arc<[Profile]>,
}

impl Present {
    pub fn primary(&self) -> &Profile {
        self.set.first().unwrap_or(&self.profile)
    }

    /// What the session can show.
    pub fn shown(&self) -> Vec<Shown> {
        let named = |authentication: &Authentication| {
            let profile = self.set.iter().find(|profile| profile.id == authentication.identity)?;
            (!profile.disabled)
                .then(|| Shown { username: profile.username.clone(), authentication: authentication.clone() })
        };
        self.session.authentications.iter().filter_map(named).collect()
    }
}

impl Identity {
    /// Who is signed in with this cookie.
    pub async fn present(&self, cookie: &str, now: Timestamp) -> Result<Option<Present>, StoreError> {
        let cookie = Hash::of(cookie);
        let Some(session) = self.store.session_by_cookie(cookie, now).await? else {
            return Ok(None);
        };
        // Past every memory: who was disabled a moment ago is not signed in.
        let set: Arc<[Profile]> = self.store.identity_set(session.identity).await?.into();
        let Some(profile) = set.iter().find(|profile| profile.id == session.identity).cloned() else {
            return Ok(None);
        };
        let out = profile.disabled || set.first().is_some_and(|first| first.disabled);
        Ok((!out).then_some(Present { session, cookie, profile, set }))
    }

    /// Somebody showed to be `profile`, in a browser where `before` was signed in. Answers the cookie; nothing if all that
    /// the identity held was ended since the profile was read. A password must be read later than the profile.
    pub async fn sign_in(
        &self,
        profile: &Profile,
        authentication: Authentication,
        before: Option<&Present>,
        browser: Hash,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        let cookie = secret::fresh();
        let how = authentication.method.text();
        let own = before.filter(|before| before.profile.primary() == profile.primary());
        let other = before.filter(|before| before.profile.primary() != profile.primary());
        let session = self
            .store
            .write(SignIn {
                session: random::random_id(),
                continues: own.map(|own| own.session.id),
                ends: other.map(|other| other.session.id),
                cookie: Hash::of(&cookie),
                browser,
                authentication,
                generation: profile.generation,
                now,
                expires: now + SESSION_LIFE,
                forget_browsers: now - BROWSER_KNOWN,
            })
            .await?;
        if session.is_none() {
            audit::sign_in_refused(Some(profile.id), &how, "shut out meanwhile");
            return Ok(None);
        }
        self.forget_person(profile.id);
        audit::signed_in(profile.id, &how);
        Ok(Some(cookie))
    }

    pub async fn sign_out(&self, present: &Present) -> Result<(), StoreError> {
        self.store.write(SignOut(present.session.id)).await
    }

    /// Whether this identity has signed in with this browser before.
    pub async fn browser_known(&self, browser: Hash, identity: wire::IdentityId) -> Result<bool, StoreError> {
        self.store.browser_known(browser, identity).await
    }

    /// What a policy asks of a session.
    pub async fn terms(&self, policy: uuid::Uuid) -> Result<Option<Terms>, StoreError> {
        let policy = self.store.policy(PolicyId::from_uuid(policy)).await?;
        Ok(policy.as_ref().map(Terms::from))
    }

    /// The session that a token goes back to, whether or not its browser is still signed in.
    pub async fn session_of(&self, session: uuid::Uuid) -> Result<Option<Session>, StoreError> {
        self.store.session(session).await
    }
}
