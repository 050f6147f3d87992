//! Performs `farcall client …`: client identities and native applications.

use wire::rest::auth::{COMPUTE_RESOURCE_SERVER, GROUPS_RESOURCE_SERVER, NATIVE_CLIENT};
use wire::{ClientId, IdentityId};

use super::people::plain;
use super::request::{AddedClient, ClientDetails, ClientRequest, Removed, Reply};
use super::{AdminError, Administration};
use crate::clock;
use crate::random;
use identity::audit;
use identity::end_reason::EndReason;
use store::secret::{self, Hash};
use store::{
    Client, Command, NativeApp, PutNativeApp, RemoveIdentity, RemoveNativeApp, SetDisabled, SetSecret,
};

/// How many redirect URIs one native application may have.
const MOST_REDIRECTS: usize = 20;

enum RegisteredClient {
    Confidential(Client),
    Native(NativeApp),
}

impl Administration {
    pub(super) async fn client(&self, request: ClientRequest) -> Result<Reply, AdminError> {
        match request {
            ClientRequest::Add { name, resource_server } => self.add_client(name, resource_server).await,
            ClientRequest::AddNative { name, redirect_uris } => self.add_native(name, redirect_uris).await,
            ClientRequest::List => {
                let clients = self.identity.store().clients().await?.into_iter().map(ClientDetails::from);
                let apps = self.identity.store().native_apps().await?.into_iter().map(ClientDetails::from);
                Ok(Reply::Clients(clients.chain(apps).collect()))
            }
            ClientRequest::Show { client } => self.shown_client(self.find(&client).await?),
            ClientRequest::Enable { client } => self.set_disabled(&client, false).await,
            ClientRequest::Disable { client } => self.set_disabled(&client, true).await,
            ClientRequest::Reset { client } => match self.find(&client).await? {
                RegisteredClient::Confidential(client) => {
                    let client_secret = secret::fresh();
                    let change = SetSecret { client: client.id, secret: Hash::of(&client_secret) };
                    self.end_everything(client.id, change, &EndReason::LoginEnded).await?;
                    audit::administered("client reset", &client.id.to_string(), self.by);
                    Ok(Reply::Added(added(client, client_secret)))
                }
                RegisteredClient::Native(_) => Err(AdminError::Refused(format!("{client} keeps no secret"))),
            },
            ClientRequest::Remove { client } => self.remove_client(&client).await,
        }
    }

    async fn add_client(&self, name: String, resource_server: Option<String>) -> Result<Reply, AdminError> {
        plain(&name)?;
        let known = [COMPUTE_RESOURCE_SERVER, GROUPS_RESOURCE_SERVER];
        if let Some(server) = &resource_server
            && !known.contains(&server.as_str())
        {
            let text = format!("{server:?} is not a resource server; there are {}", known.join(", "));
            return Err(AdminError::Refused(text));
        }
        let (client, secret) = self.identity.add_client(name, resource_server).await?;
        audit::administered("client add", &client.id.to_string(), self.by);
        Ok(Reply::Added(added(client, secret)))
    }

    async fn add_native(&self, name: String, redirect_uris: Vec<String>) -> Result<Reply, AdminError> {
        plain(&name)?;
        if redirect_uris.len() > MOST_REDIRECTS {
            return Err(AdminError::Refused(format!("more than {MOST_REDIRECTS} redirect URIs")));
        }
        for uri in &redirect_uris {
            redirect(uri)?;
        }
        let app = NativeApp {
            id: ClientId::from_uuid(random::random_id()),
            name,
            redirect_uris,
            disabled: false,
            created: clock::now(),
        };
        self.identity.store().write(PutNativeApp(app.clone())).await?;
        audit::administered("client add", &app.id.to_string(), self.by);
        Ok(Reply::Client(app.into()))
    }

    async fn set_disabled(&self, client: &str, disabled: bool) -> Result<Reply, AdminError> {
        let (id, known) = match self.find(client).await? {
            RegisteredClient::Confidential(client) => {
                let change = SetDisabled { identity: client.id, disabled };
                self.write_disabled(client.client_id(), disabled, change, &client.username).await?;
                (client.client_id(), ClientDetails::from(Client { disabled, ..client }))
            }
            RegisteredClient::Native(app) => {
                let app = NativeApp { disabled, ..app };
                let change = PutNativeApp(app.clone());
                self.write_disabled(app.id, disabled, change, &app.name).await?;
                (app.id, ClientDetails::from(app))
            }
        };
        let what = if disabled { "client disable" } else { "client enable" };
        audit::administered(what, &id.to_string(), self.by);
        Ok(Reply::Client(known))
    }

    async fn write_disabled(
        &self,
        id: ClientId,
        disabled: bool,
        change: impl Command,
        name: &str,
    ) -> Result<(), AdminError> {
        if disabled {
            let identity = IdentityId::from_uuid(*id.as_uuid());
            self.end_everything(identity, change, &EndReason::Disabled(name.to_owned())).await?;
        } else {
            self.identity.store().write(change).await?;
        }
        self.identity.forget_application(id);
        Ok(())
    }

    async fn remove_client(&self, client: &str) -> Result<Reply, AdminError> {
        let (id, name) = match self.find(client).await? {
            RegisteredClient::Confidential(client) => {
                self.end_everything(client.id, RemoveIdentity(client.id), &EndReason::Removed).await?;
                (client.client_id(), client.name)
            }
            RegisteredClient::Native(app) if app.id.to_string() == NATIVE_CLIENT => {
                let text = "this one is built into the SDK and the endpoint; it can be disabled";
                return Err(AdminError::Refused(text.to_owned()));
            }
            RegisteredClient::Native(app) => {
                let identity = IdentityId::from_uuid(*app.id.as_uuid());
                self.end_everything(identity, RemoveNativeApp(app.id), &EndReason::Removed).await?;
                (app.id, app.name)
            }
        };
        self.identity.forget_application(id);
        audit::administered("client remove", &id.to_string(), self.by);
        Ok(Reply::Removed(Removed { id: id.to_string(), name }))
    }

    /// Finds a client by its id: names of clients need not be unique.
    async fn find(&self, client: &str) -> Result<RegisteredClient, AdminError> {
        let unknown = || AdminError::Unknown(format!("client {client}"));
        let id: ClientId = client.parse().map_err(|_| unknown())?;
        if let Some(found) = self.identity.store().client(IdentityId::from_uuid(*id.as_uuid())).await? {
            return Ok(RegisteredClient::Confidential(found));
        }
        self.identity.store().native_app(id).await?.map(RegisteredClient::Native).ok_or_else(unknown)
    }

    fn shown_client(&self, found: RegisteredClient) -> Result<Reply, AdminError> {
        Ok(Reply::Client(match found {
            RegisteredClient::Confidential(client) => client.into(),
            RegisteredClient::Native(app) => app.into(),
        }))
    }
}

fn added(client: Client, client_secret: String) -> AddedClient {
    AddedClient {
        client_id: client.id.to_string(),
        client_secret,
        name: client.name,
        username: client.username,
    }
}

/// A code may only be sent to this machine, to a private scheme, or over TLS.
fn redirect(uri: &str) -> Result<(), AdminError> {
    let refused = |why: &str| Err(AdminError::Refused(format!("{uri:?} can't be a redirect URI: {why}")));
    let Ok(parsed) = uri.parse::<axum::http::Uri>() else { return refused("it is not understood") };
    let (Some(scheme), Some(host)) = (parsed.scheme_str(), parsed.host()) else {
        return refused("it needs a scheme and a host");
    };
    if uri.contains('#') || parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return refused("it must not have a fragment or a user");
    }
    match scheme {
        "https" => Ok(()),
        "http" if ["localhost", "127.0.0.1", "[::1]"].contains(&host) => Ok(()),
        "http" => refused("http is for this machine only"),
        _ => refused("https, or http to this machine"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_to_this_machine_or_over_tls() {
        for (uri, good) in [
            ("https://app.example.org/back", true),
            ("http://localhost:8080/back", true),
            ("http://127.0.0.1/back", true),
            ("http://[::1]:9/back", true),
            ("http://app.example.org/back", false),
            ("https://app.example.org/back#x", false),
            ("https://user@app.example.org/", false),
            ("javascript:alert(1)", false),
            ("data:text/html,x", false),
            ("/back", false),
            ("", false),
        ] {
            assert_eq!(redirect(uri).is_ok(), good, "{uri}");
        }
    }
}
