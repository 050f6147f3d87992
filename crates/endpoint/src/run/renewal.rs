//! Gets new credentials when the broker no longer accepts the endpoint's: registers again, or, below a manager, waits for
//! those that the manager gets with the next start command.
//!
//! If the service refuses, the endpoint stops; if the service does not answer, the endpoint retries.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use client::Credentials;
use client::amqp::LinkConfig;
use tokio::time::Instant;
use wire::queue::Registration;

use super::link_config;
use super::renewed_credentials::RenewedCredentials;
use crate::account::AccountSettings;
use crate::config::Config;
use crate::directory::{Base, EndpointDir};
use crate::exit::{Failure, block_on, status};
use crate::pid::Claim;
use crate::start::{RunDocument, refuse_if_active, register, registration_body};

/// The first and the longest pause between registrations, in case the broker refuses the new credentials as well.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How many registrations in a row may bring credentials that the broker refuses.
const MAX_REGISTRATIONS: u32 = 10;
/// How long a user endpoint waits for its manager: the service sends a start command when somebody submits, or when there
/// are open tasks.
const MANAGER_PATIENCE: Duration = Duration::from_secs(60);
/// How often it looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The link with the new credentials, and the credentials.
type Renewed = (LinkConfig, Registration);
type Registering = Pin<Box<dyn Future<Output = Result<Renewed, Failure>>>>;

/// Registers again on request.
pub(super) struct Renewal {
    settings: Option<RegistrationSettings>,
    from_manager: Option<FromManager>,
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
        file: Option<&Arc<RenewedCredentials>>,
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
        let from_manager = file.map(|file| FromManager {
            file: file.clone(),
            current: document.registration.clone(),
            config: config.clone(),
            options: options.clone(),
            authorities: document.authorities.clone(),
        });
        Self { settings, from_manager, registering: None, attempts: 0 }
    }

    /// Begins a registration; the next link counts its sessions from `first_session`. False: this endpoint can't register itself,
    /// or has done so too often.
    pub(super) fn begin(&mut self, first_session: u32) -> bool {
        if self.attempts >= MAX_REGISTRATIONS {
            return false;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.attempts).min(LONGEST_PAUSE);
        self.attempts += 1;
        self.registering = match (&self.settings, &self.from_manager) {
            (Some(settings), _) => Some(Box::pin(settings.clone().register(pause, first_session))),
            (None, Some(from_manager)) => Some(Box::pin(from_manager.clone().wait(first_session))),
            (None, None) => return false,
        };
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
                let (link, registration) = result?;
                if let Some(from_manager) = &mut self.from_manager {
                    from_manager.current = registration;
                }
                Ok(link)
            }
            None => std::future::pending().await,
        }
    }
}

impl RegistrationSettings {
    async fn register(self, first: Duration, first_session: u32) -> Result<Renewed, Failure> {
        let mut pause = first;
        loop {
            tokio::time::sleep(pause).await;
            // It reads the token store, on a file system that may stall.
            let settings = self.clone();
            let once = tokio::task::spawn_blocking(move || block_on(settings.once()));
            match once.await.map_err(Failure::error)? {
                Ok((config, registration)) => {
                    return Ok((LinkConfig { first_session, ..config }, registration));
                }
                // The service can't be reached: retry.
                Err(failure) if failure.status == status::TEMPFAIL => {
                    tracing::warn!("{}", failure.text);
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn once(&self) -> Result<Renewed, Failure> {
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
        let body = registration_body(&self.endpoint, &self.config, &self.text);
        let registration = register(&account, &body, known).await?;
        let link = link_config(&registration, &self.config, &self.options, self.authorities.clone())?;
        Ok((link, registration))
    }
}

/// How a user endpoint gets new credentials.
#[derive(Clone)]
struct FromManager {
    file: Arc<RenewedCredentials>,
    /// The credentials that the broker refused.
    current: Registration,
    config: Config,
    options: engine::Options,
    authorities: Option<String>,
}

impl FromManager {
    /// Waits until the manager has written others.
    async fn wait(self, first_session: u32) -> Result<Renewed, Failure> {
        let deadline = Instant::now() + MANAGER_PATIENCE;
        loop {
            if let Some(registration) = self.file.read().filter(|it| *it != self.current) {
                let link = link_config(&registration, &self.config, &self.options, self.authorities.clone())?;
                return Ok((LinkConfig { first_session, ..link }, registration));
            }
            if Instant::now() >= deadline {
                let seconds = MANAGER_PATIENCE.as_secs();
                let text = format!("Error: the manager gave no new credentials within {seconds} s");
                return Err(Failure::new(status::NOPERM, text));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}
