//! Sign-in through the site's own identity providers, by OpenID Connect.
//!
//! | file | knows |
//! |---|---|
//! | [`settings`] | the configuration, and what is unsafe in it |
//! | [`claims`] | verifies id tokens; pure |
//! | [`mapping`] | maps claims to a username; pure |
//! | [`provider`] | requests to a provider |
//!
//! [`web::provider_visit`](crate::web) sends the browser there and receives it back. The configuration calls a provider an
//! *upstream*.
//!
//! An upstream vouches only for identities of the domains that the site assigned to it; each domain has at most one. It
//! names people by a subject that never changes. The subject is bound to an identity at the first sign-in; another person
//! who later gets the same username at the upstream is refused. An identity that has a password, or another
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
use mapping::MappingError;
use provider::Provider;
use settings::{Accounts, Settings, SettingsError, UpstreamSettings};
use store::{BindSubject, Kind, Profile, StoreError};

/// The configured providers. Clones share them.
#[derive(Clone, Debug)]
pub struct Upstreams(Arc<[Provider]>);

impl Upstreams {
    pub fn new(settings: &Settings) -> Result<Upstreams, SettingsError> {
        settings.check()?;
        let providers: Result<Vec<_>, _> = settings.upstreams.iter().cloned().map(Provider::new).collect();
        Ok(Upstreams(providers?.into()))
    }

    /// The providers in the order of the sign-in page.
    pub fn all(&self) -> impl Iterator<Item = &UpstreamSettings> {
        self.0.iter().map(|provider| &provider.settings)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Provider> {
        self.0.iter().find(|provider| provider.settings.name == name)
    }
}

/// Why a person is refused although a provider vouches for them.
#[derive(Debug, thiserror::Error)]
pub enum ProviderSignInError {
    #[error(transparent)]
    Mapping(#[from] MappingError),
    #[error("the person is not known here, and nobody is added by signing in")]
    Unknown,
    #[error("the username belongs to an identity that signs in in another way")]
    Taken,
    #[error("your account is disabled: ask who administers this service")]
    Disabled,
    #[error("your login was ended by who administers this service, just now")]
    LoginEnded,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Identity {
    /// The identity that a provider's `claims` describe. At the first sign-in it is added or bound.
    pub async fn by_upstream(
        &self,
        upstream: &UpstreamSettings,
        claims: &Claims,
        now: Timestamp,
    ) -> Result<Profile, ProviderSignInError> {
        let profile = match self.store.subject(&upstream.issuer, &claims.subject).await? {
            Some(bound) => {
                let profile = self.profile(bound).await?.ok_or(ProviderSignInError::Unknown)?;
                // The site may have removed the domain from the provider since.
                if !mapping::vouches(upstream, &profile.username) {
                    return Err(MappingError::Domain.into());
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
            return Err(ProviderSignInError::Disabled);
        }
        Ok(profile)
    }

    async fn first_time(
        &self,
        upstream: &UpstreamSettings,
        claims: &Claims,
        now: Timestamp,
    ) -> Result<Profile, ProviderSignInError> {
        let person = mapping::person(upstream, &claims.all)?;
        let known = self.store.profile_named(&person.username).await?;
        let new = known.is_none();
        let profile = match known {
            Some(known) => {
                let taken = known.kind != Kind::Person
                    || self.has_password(known.id).await?
                    || self.store.has_subject(known.id).await?;
                if taken {
                    return Err(ProviderSignInError::Taken);
                }
                known
            }
            None if upstream.accounts == Accounts::Known => return Err(ProviderSignInError::Unknown),
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
            return Err(ProviderSignInError::Taken);
        }
        self.forget_person(profile.id);
        audit::bound(profile.id, &upstream.name);
        Ok(profile)
    }
}
