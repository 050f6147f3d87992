//! Sign-in through the site's own identity providers, by OpenID Connect.
//!
//! | file | knows |
//! |---|---|
//! | [`settings`] | the configuration, and what is unsafe in it |
//! | [`claims`] | whether an id token may be believed; pure |
//! | [`mapping`] | whose identity its claims are; pure |
//! | [`provider`] | the upstream over the network |
//!
//! The browser's way there and back is [`web::provider_visit`](crate::web).
//!
//! An upstream vouches for identities of the domains that the site gave it, and for no other; each domain has at most
//! one. It knows people by a subject that never changes: the subject is bound to an identity at the first sign-in, and
//! whoever is later given the same username over there is refused here. An identity that has a password, or another
//! subject, is never taken over.

pub mod claims;
pub mod mapping;
pub mod provider;
pub mod settings;

use std::sync::Arc;

use jiff::Timestamp;
use wire::IdentityId;

use super::{Identity, audit};
use crate::random;
use claims::Claims;
use mapping::NotMapped;
use provider::Provider;
use settings::{Accounts, Settings, SettingsError, UpstreamSettings};
use store::{BindSubject, Kind, Profile, StoreError};

/// All that are configured. Clones share them.
#[derive(Clone, Debug)]
pub struct Upstreams(Arc<[Provider]>);

impl Upstreams {
    pub fn new(settings: &Settings) -> Result<Upstreams, SettingsError> {
        settings.check()?;
        let providers: Result<Vec<_>, _> = settings.upstreams.iter().cloned().map(Provider::new).collect();
        Ok(Upstreams(providers?.into()))
    }

    /// As the sign-in page offers them.
    pub fn all(&self) -> impl Iterator<Item = &UpstreamSettings> {
        self.0.iter().map(|provider| &provider.settings)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Provider> {
        self.0.iter().find(|provider| provider.settings.name == name)
    }
}

/// Why nobody is signed in although the upstream vouches for somebody.
#[derive(Debug, thiserror::Error)]
pub enum NotLetIn {
    #[error(transparent)]
    NotMapped(#[from] NotMapped),
    #[error("the person is not known here, and nobody is added by signing in")]
    Unknown,
    #[error("the username belongs to an identity that signs in in another way")]
    Taken,
    #[error("your account is disabled: ask who administers this service")]
    Disabled,
    #[error("your login was ended by who administers this service, just now")]
    ShutOut,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Identity {
    /// The identity that `claims` of an upstream are about, which is added or bound when it comes for the first time.
    pub async fn by_upstream(
        &self,
        upstream: &UpstreamSettings,
        claims: &Claims,
        now: Timestamp,
    ) -> Result<Profile, NotLetIn> {
        let profile = match self.store.subject(&upstream.issuer, &claims.subject).await? {
            Some(bound) => {
                let profile = self.profile(bound).await?.ok_or(NotLetIn::Unknown)?;
                // The site may have taken the domain away from it since.
                if !mapping::vouches(upstream, &profile.username) {
                    return Err(NotMapped::Domain.into());
                }
                profile
            }
            None => self.first_time(upstream, claims, now).await?,
        };
        let primary = match profile.linked_to {
            Some(first) => self.profile(first).await?,
            None => Some(profile.clone()),
        };
        if profile.disabled || primary.is_none_or(|primary| primary.disabled) {
            return Err(NotLetIn::Disabled);
        }
        Ok(profile)
    }

    async fn first_time(
        &self,
        upstream: &UpstreamSettings,
        claims: &Claims,
        now: Timestamp,
    ) -> Result<Profile, NotLetIn> {
        let person = mapping::person(upstream, &claims.all)?;
        let known = self.store.profile_named(&person.username).await?;
        let new = known.is_none();
        let profile = match known {
            Some(known) => {
                let taken = known.kind != Kind::Person
                    || self.has_password(known.id).await?
                    || self.store.bound(known.id).await?;
                if taken {
                    return Err(NotLetIn::Taken);
                }
                known
            }
            None if upstream.accounts == Accounts::Known => return Err(NotLetIn::Unknown),
            None => Profile {
                id: IdentityId::from_uuid(random::random_id()),
                kind: Kind::Person,
                username: person.username,
                name: person.name,
                email: person.email,
                organization: Some(upstream.title.clone()),
                disabled: false,
                administrator: false,
                linked_to: None,
                generation: 0,
                authenticated: None,
                created: now,
            },
        };
        let bind = BindSubject {
            issuer: upstream.issuer.clone(),
            subject: claims.subject.clone(),
            identity: profile.id,
            new: new.then(|| profile.clone()),
            now,
        };
        if !self.store.write(bind).await? {
            return Err(NotLetIn::Taken);
        }
        self.forget_person(profile.id);
        audit::bound(profile.id, &upstream.name);
        Ok(profile)
    }
}
