//! Browser sessions: who signed in, when and how.
//!
//! A session belongs to one person. A sign-in as another identity of the same set is added to it; a sign-in as another
//! person begins a new session. Each sign-in issues a new cookie, so a cookie planted before it is worthless.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Identity;
use super::audit;
use super::sign_in_requirements::{PolicyRequirements, SignedInIdentity};
use crate::random;
use store::secret::{self, Hash};
use store::{Authentication, Profile, Session, SignIn, SignOut, StoreError};
use wire::PolicyId;

/// How long the cookie of a session is valid.
pub const SESSION_LIFE: SignedDuration = SignedDuration::from_hours(12);
/// How long a browser counts as known after a sign-in.
const BROWSER_KNOWN: SignedDuration = SignedDuration::from_hours(24 * 180);

/// The session of a signed-in person.
#[derive(Clone, Debug)]
pub struct CurrentSession {
    pub session: Session,
    /// The cookie that was shown.
    pub cookie: Hash,
    /// The identity that signed in last.
    pub profile: Profile,
    /// All of the person's identities. The person acts as the first.
    pub set: Arc<[Profile]>,
}

impl CurrentSession {
    pub fn primary(&self) -> &Profile {
        self.set.first().unwrap_or(&self.profile)
    }

    /// The identities in the session, with their authentications.
    pub fn identities(&self) -> Vec<SignedInIdentity> {
        let named = |authentication: &Authentication| {
            let profile = self.set.iter().find(|profile| profile.id == authentication.identity)?;
            (!profile.disabled).then(|| SignedInIdentity {
                username: profile.username.clone(),
                authentication: authentication.clone(),
            })
        };
        self.session.authentications.iter().filter_map(named).collect()
    }
}

impl Identity {
    /// The session with this cookie.
    pub async fn current_session(
        &self,
        cookie: &str,
        now: Timestamp,
    ) -> Result<Option<CurrentSession>, StoreError> {
        let cookie = Hash::of(cookie);
        let Some(session) = self.store.session_by_cookie(cookie, now).await? else {
            return Ok(None);
        };
        // Not from the cache: an account that was disabled a moment ago is not signed in.
        let set: Arc<[Profile]> = self.store.identity_set(session.identity).await?.into();
        let Some(profile) = set.iter().find(|profile| profile.id == session.identity).cloned() else {
            return Ok(None);
        };
        let out = profile.disabled || set.first().is_some_and(|first| first.disabled);
        Ok((!out).then_some(CurrentSession { session, cookie, profile, set }))
    }

    /// Records that `profile` authenticated in a browser with the session `before`. Returns the new cookie, or nothing if
    /// everything that the identity holds was ended since the profile was read. The caller reads the password after the
    /// profile.
    pub async fn sign_in(
        &self,
        profile: &Profile,
        authentication: Authentication,
        before: Option<&CurrentSession>,
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
            audit::sign_in_refused(Some(profile.id), &how, "disabled or reset meanwhile");
            return Ok(None);
        }
        self.forget_person(profile.id);
        audit::signed_in(profile.id, &how);
        Ok(Some(cookie))
    }

    pub async fn sign_out(&self, present: &CurrentSession) -> Result<(), StoreError> {
        self.store.write(SignOut(present.session.id)).await
    }

    /// Whether this identity has signed in in this browser before.
    pub async fn browser_known(&self, browser: Hash, identity: wire::IdentityId) -> Result<bool, StoreError> {
        self.store.browser_known(browser, identity).await
    }

    /// What a policy requires of a session.
    pub async fn policy_requirements(
        &self,
        policy: uuid::Uuid,
    ) -> Result<Option<PolicyRequirements>, StoreError> {
        let policy = self.store.policy(PolicyId::from_uuid(policy)).await?;
        Ok(policy.as_ref().map(PolicyRequirements::from))
    }

    /// The session from which a token came, whether or not its cookie is still valid.
    pub async fn session_of(&self, session: uuid::Uuid) -> Result<Option<Session>, StoreError> {
        self.store.session(session).await
    }
}
