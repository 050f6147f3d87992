//! Registers the endpoint again when the broker no longer accepts its credentials.
//!
//! If the service refuses, the endpoint stops; if the service does not answer, the endpoint retries.

use std::pin::Pin;
use std::time::Duration;

use client::Credentials;
use client::amqp::LinkConfig;

use super::link_config;
use crate::account::AccountSettings;
use crate::config::Config;
use crate::directory::{Base, EndpointDir};
use crate::exit::{Failure, block_on, status};
use crate::pid::Claim;
use crate::start::{RunDocument, refuse_if_active, register};

/// The first and the longest pause between registrations, in case the broker refuses the new credentials as well.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How many registrations in a row may bring credentials that the broker refuses.
const MAX_REGISTRATIONS: u32 = 10;

type Registering = Pin<Box<dyn Future<Output = Result<LinkConfig, Failure>>>>;

/// Registers again on request.
pub(super) struct Renewal {
    settings: Option<RegistrationSettings>,
    registering: Option<Registering>,
    attempts: u32,
}

/// What a registration needs.
#[derive(Clone)]
struct RegistrationSettings {
    base: Base,
    endpoint: EndpointDir,
    config: Config,
    options: engine::Options,
    text: String,
    authorities: Option<String>,
    client: Option<Credentials>,
    /// Absent until this process has claimed the endpoint.
    claim: Option<Claim>,
}

impl Renewal {
    pub(super) fn new(
        endpoint: &EndpointDir,
        config: &Config,
        options: &engine::Options,
        document: &RunDocument,
    ) -> Self {
        let settings = document.registers.as_ref().map(|base| RegistrationSettings {
            claim: None,
            base: Base::at(base.clone()),
            endpoint: endpoint.clone(),
            config: config.clone(),
            options: options.clone(),
            text: document.config.clone(),
            authorities: document.authorities.clone(),
            client: document.client.as_ref().map(|client| Credentials {
                client_id: client.id.clone(),
                client_secret: client.secret.clone(),
            }),
        });
        Self { settings, registering: None, attempts: 0 }
    }

    /// Begins a registration; the next link counts its sessions from `first_session`. False: this endpoint can't register itself,
    /// or has done so too often.
    pub(super) fn begin(&mut self, first_session: u32) -> bool {
        let Some(settings) = &self.settings else { return false };
        if self.attempts >= MAX_REGISTRATIONS {
            return false;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.attempts).min(LONGEST_PAUSE);
        self.attempts += 1;
        self.registering = Some(Box::pin(settings.clone().register(pause, first_session)));
        true
    }

    /// From now on it only registers while `claim` holds.
    pub(super) fn claimed(&mut self, claim: Claim) {
        if let Some(settings) = &mut self.settings {
            settings.claim = Some(claim);
        }
    }

    /// Resets the count: the broker has accepted the credentials.
    pub(super) fn accepted(&mut self) {
        self.attempts = 0;
    }

    /// Waits for the result of the registration; for ever if none is under way.
    pub(super) async fn done(&mut self) -> Result<LinkConfig, Failure> {
        match &mut self.registering {
            Some(registering) => {
                let result = registering.await;
                self.registering = None;
                result
            }
            None => std::future::pending().await,
        }
    }
}

impl RegistrationSettings {
    async fn register(self, first: Duration, first_session: u32) -> Result<LinkConfig, Failure> {
        let mut pause = first;
        loop {
            tokio::time::sleep(pause).await;
            // It reads the token store, on a file system that may stall.
            let settings = self.clone();
            let once = tokio::task::spawn_blocking(move || block_on(settings.once()));
            match once.await.map_err(Failure::error)? {
                Ok(config) => return Ok(LinkConfig { first_session, ..config }),
                // The service can't be reached: retry.
                Err(failure) if failure.status == status::TEMPFAIL => {
                    tracing::warn!("{}", failure.text);
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn once(&self) -> Result<LinkConfig, Failure> {
        // Another process may have registered, which made our credentials invalid: then only its own count.
        match &self.claim {
            Some(claim) if !claim.holds() => {
                return Err(Failure::new(status::ALREADY_ACTIVE, "another process runs the endpoint"));
            }
            Some(_) => {}
            None => refuse_if_active(&self.endpoint, &self.config.common)?,
        }
        let settings = AccountSettings {
            endpoint: Some((&self.endpoint, self.config.common.service())),
            client: self.client.as_ref(),
            ..AccountSettings::of(&self.base)
        };
        let account = settings.account().await?;
        let known = self.endpoint.registered_id();
        let registration = register(&account, &self.endpoint, &self.config, &self.text, known).await?;
        link_config(&registration, &self.config, &self.options, self.authorities.clone())
    }
}
