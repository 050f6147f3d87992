//! New credentials for the broker, when it does not accept the old ones any more: the endpoint registers again.
//!
//! Nobody but the service can say whether it still wants this endpoint. Where it says no, the endpoint stops in order;
//! where it does not answer, the endpoint asks again.

use std::pin::Pin;
use std::time::Duration;

use client::Credentials;
use client::amqp::LinkConfig;

use super::plan;
use crate::account::AccountSettings;
use crate::config::Config;
use crate::directory::{Base, EndpointDir};
use crate::exit::{Failure, block_on, status};
use crate::pid::Claim;
use crate::start::{RunDocument, refuse_if_active, register};

/// Between one registration and the next, at first and at most: a service that gives credentials its broker refuses is
/// not asked in a circle.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// So many registrations in a row may bring credentials that the broker refuses.
const IN_VAIN: u32 = 10;

type Registering = Pin<Box<dyn Future<Output = Result<LinkConfig, Failure>>>>;

/// Registers again when it must.
pub(super) struct Renewal {
    way: Option<RegistrationSettings>,
    under_way: Option<Registering>,
    in_vain: u32,
}

/// What a registration takes.
#[derive(Clone)]
struct RegistrationSettings {
    base: Base,
    endpoint: EndpointDir,
    config: Config,
    options: engine::Options,
    text: String,
    authorities: Option<String>,
    client: Option<Credentials>,
    /// Absent until the endpoint is ours.
    claim: Option<Claim>,
}

impl Renewal {
    pub(super) fn new(
        endpoint: &EndpointDir,
        config: &Config,
        options: &engine::Options,
        document: &RunDocument,
    ) -> Self {
        let way = document.registers.as_ref().map(|base| RegistrationSettings {
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
        Self { way, under_way: None, in_vain: 0 }
    }

    /// Begins; false, when there is no way or no hope. Sessions go on counting at `first_session`.
    pub(super) fn begin(&mut self, first_session: u32) -> bool {
        let Some(way) = &self.way else { return false };
        if self.in_vain >= IN_VAIN {
            return false;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.in_vain).min(LONGEST_PAUSE);
        self.in_vain += 1;
        self.under_way = Some(Box::pin(way.clone().register(pause, first_session)));
        true
    }

    /// From here on it registers for the process that holds `claim` only.
    pub(super) fn claimed(&mut self, claim: Claim) {
        if let Some(way) = &mut self.way {
            way.claim = Some(claim);
        }
    }

    /// The broker accepts us.
    pub(super) fn accepted(&mut self) {
        self.in_vain = 0;
    }

    /// The outcome of what is under way; for ever, when nothing is.
    pub(super) async fn done(&mut self) -> Result<LinkConfig, Failure> {
        match &mut self.under_way {
            Some(registering) => {
                let outcome = registering.await;
                self.under_way = None;
                outcome
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
            // It reads what a login has left, on a file system that may stand still.
            let way = self.clone();
            let once = tokio::task::spawn_blocking(move || block_on(way.once()));
            match once.await.map_err(Failure::error)? {
                Ok(plan) => return Ok(LinkConfig { first_session, ..plan }),
                // The service is out of reach: it will come back.
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
            None => refuse_if_active(&self.endpoint, &self.config)?,
        }
        let settings = AccountSettings {
            endpoint: Some((&self.endpoint, &self.config)),
            client: self.client.as_ref(),
            ..AccountSettings::of(&self.base)
        };
        let account = settings.account().await?;
        let known = self.endpoint.registered_id();
        let registration = register(&account, &self.endpoint, &self.config, &self.text, known).await?;
        plan(&registration, &self.config, &self.options, self.authorities.clone())
    }
}
