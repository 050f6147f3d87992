//! Applications that request tokens: client identities, which keep a secret, and native applications, which cannot.
//!
//! A client identity acts for itself. A native application only ever acts for the person who logged in through it.

use std::sync::Arc;

use jiff::Timestamp;
use wire::{ClientId, IdentityId};

use super::Identity;
use super::end_reason::EndReason;
use crate::{clock, random};
use store::secret::{self, Hash};
use store::{AccountVersion, AddClient, Client, NativeApp, StoreError};

/// The domain of client identities' usernames.
const CLIENT_DOMAIN: &str = "clients.auth.globus.org";

/// A registered application that is not disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Application {
    Confidential(Client),
    Native(NativeApp),
}

impl Application {
    pub fn id(&self) -> ClientId {
        match self {
            Application::Confidential(client) => client.client_id(),
            Application::Native(app) => app.id,
        }
    }

    /// The account whose secret it has shown, as it was read with the secret.
    pub fn version(&self) -> Option<AccountVersion> {
        match self {
            Application::Confidential(client) => Some(client.version()),
            Application::Native(_) => None,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Application::Confidential(client) => &client.name,
            Application::Native(app) => &app.name,
        }
    }

    /// Where its codes may be sent, besides the service's own page that shows them.
    pub fn redirect_uris(&self) -> &[String] {
        match self {
            Application::Confidential(_) => &[],
            Application::Native(app) => &app.redirect_uris,
        }
    }
}

impl Identity {
    /// The application with this id, unless it is disabled.
    pub async fn application(
        &self,
        id: ClientId,
        now: Timestamp,
    ) -> Result<Option<Arc<Application>>, StoreError> {
        let read = async {
            if let Some(client) = self.store.client(IdentityId::from_uuid(*id.as_uuid())).await? {
                return Ok((!client.disabled).then(|| Arc::new(Application::Confidential(client))));
            }
            let app = self.store.native_app(id).await?;
            Ok(app.filter(|app| !app.disabled).map(|app| Arc::new(Application::Native(app))))
        };
        self.applications.get(id, now, read).await
    }

    /// The client identity with this id and secret, unless it is disabled.
    pub async fn client(
        &self,
        id: &str,
        secret: &str,
        now: Timestamp,
    ) -> Result<Option<Arc<Application>>, StoreError> {
        let Ok(id) = id.parse::<ClientId>() else { return Ok(None) };
        let known = self.application(id, now).await?;
        Ok(known.filter(|known| match &**known {
            Application::Confidential(client) => client.secret.admits(secret),
            Application::Native(_) => false,
        }))
    }

    /// The reason to report if the client identity with this id and secret is disabled.
    pub async fn disabled_client(&self, id: &str, secret: &str) -> Result<Option<EndReason>, StoreError> {
        let Ok(id) = id.parse::<IdentityId>() else { return Ok(None) };
        let known = self.store.client(id).await?;
        let known = known.filter(|client| client.disabled && client.secret.admits(secret));
        Ok(known.map(|client| EndReason::Disabled(client.username)))
    }

    /// Adds a client identity. Returns it with its secret, which is not stored.
    pub async fn add_client(
        &self,
        name: String,
        resource_server: Option<String>,
    ) -> Result<(Client, String), StoreError> {
        let id = IdentityId::from_uuid(random::random_id());
        let secret = secret::fresh();
        let client = Client {
            id,
            username: format!("{id}@{CLIENT_DOMAIN}"),
            name,
            secret: Hash::of(&secret),
            disabled: false,
            resource_server,
            generation: 0,
            created: clock::now(),
        };
        self.store.write(AddClient(client.clone())).await?;
        Ok((client, secret))
    }

    /// To be called when much was ended in the store.
    pub fn forget_applications(&self) {
        self.applications.forget(|_, _| true);
    }

    /// Empties the cache. Called after an application was changed in the store.
    pub fn forget_application(&self, id: ClientId) {
        self.applications.forget(|known, _| *known == id);
    }
}
