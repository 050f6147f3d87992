//! The requests and replies of administration, as JSON. They carry passwords, which `Debug` doesn't print.

use std::fmt;

use serde::{Deserialize, Serialize};

use store::{Client, Kind, NativeApp, Profile, UserGroup};

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "about", rename_all = "kebab-case")]
pub enum Request {
    User(UserRequest),
    Client(ClientRequest),
    Group(GroupRequest),
    Key(KeyRequest),
    Endpoint(EndpointRequest),
}

/// `user` is a username or an id, wherever it stands.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum UserRequest {
    Add {
        username: String,
        name: Option<String>,
        email: Option<String>,
        organization: Option<String>,
        administrator: bool,
        /// Absent: the person signs in through an identity provider.
        password: Option<Password>,
    },
    List,
    Show {
        user: String,
    },
    Edit {
        user: String,
        name: Option<String>,
        email: Option<String>,
        organization: Option<String>,
        administrator: Option<bool>,
    },
    Enable {
        user: String,
    },
    Disable {
        user: String,
    },
    Reset {
        user: String,
        password: Password,
    },
    Link {
        user: String,
        with: String,
    },
    Unlink {
        user: String,
    },
    Remove {
        user: String,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum ClientRequest {
    Add { name: String, resource_server: Option<String> },
    AddNative { name: String, redirect_uris: Vec<String> },
    List,
    Show { client: String },
    Enable { client: String },
    Disable { client: String },
    Reset { client: String },
    Remove { client: String },
}

/// `group` is a name or an id.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum GroupRequest {
    Add { name: String, description: Option<String> },
    List,
    Members { group: String, add: Vec<String>, remove: Vec<String> },
    Remove { group: String },
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum KeyRequest {
    List,
    Rotate,
}

/// `endpoint` is an id: names of endpoints need not be unique.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum EndpointRequest {
    List,
    Show {
        endpoint: String,
    },
    Lock {
        endpoint: String,
        minutes: u32,
    },
    Unlock {
        endpoint: String,
    },
    /// Ends its waiting tasks.
    Drop {
        endpoint: String,
    },
    Delete {
        endpoint: String,
    },
}

#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Added(AddedClient),
    Client(ClientDetails),
    Clients(Vec<ClientDetails>),
    User(UserDetails),
    Users(Vec<UserDetails>),
    Group(GroupDetails),
    Groups(Vec<GroupDetails>),
    Keys(Vec<KeyDetails>),
    Endpoint(EndpointDetails),
    Endpoints(Vec<EndpointDetails>),
    Dropped(Dropped),
    Removed(Removed),
    Failed(String),
}

/// A client identity with its new secret, which is shown this once.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct AddedClient {
    pub client_id: String,
    pub client_secret: String,
    pub name: String,
    pub username: String,
}

impl fmt::Debug for AddedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddedClient").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ClientDetails {
    pub client_id: String,
    pub name: String,
    /// `confidential`, with a secret, or `native`.
    pub kind: String,
    /// Of a client with a secret, as an identity.
    pub username: Option<String>,
    pub resource_server: Option<String>,
    pub redirect_uris: Vec<String>,
    pub status: String,
    pub created: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct UserDetails {
    pub id: String,
    pub username: String,
    pub name: String,
    pub email: Option<String>,
    pub organization: Option<String>,
    pub status: String,
    pub administrator: bool,
    /// Whether they can sign in here with a password.
    pub password: bool,
    /// The username of the identity that this one is linked to.
    pub linked_to: Option<String>,
    /// The usernames of all of the set.
    pub identity_set: Vec<String>,
    pub groups: Vec<String>,
    pub last_authentication: Option<String>,
    pub created: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct GroupDetails {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    /// Usernames.
    pub members: Vec<String>,
    pub created: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct KeyDetails {
    pub kid: String,
    /// Absent for the key in use.
    pub published_until: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct EndpointDetails {
    pub id: String,
    pub name: String,
    pub display_name: Option<String>,
    /// The username of its owner, or their id if they were removed.
    pub owner: String,
    /// The manager that starts it, if it is a user endpoint.
    pub manager: Option<String>,
    /// `online`, `offline` or `locked`; `unknown` while the service doesn't run.
    pub status: String,
    pub locked_until: Option<String>,
    /// Open tasks that it has not taken, and that it has taken.
    pub waiting: i64,
    pub taken: i64,
    pub created: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Dropped {
    pub endpoint: String,
    pub dropped: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Removed {
    pub id: String,
    pub name: String,
}

pub(super) fn status(disabled: bool) -> String {
    if disabled { "disabled" } else { "enabled" }.to_owned()
}

impl From<Client> for ClientDetails {
    fn from(client: Client) -> ClientDetails {
        ClientDetails {
            client_id: client.id.to_string(),
            name: client.name,
            kind: "confidential".to_owned(),
            username: Some(client.username),
            resource_server: client.resource_server,
            redirect_uris: Vec::new(),
            status: status(client.disabled),
            created: client.created.to_string(),
        }
    }
}

impl From<NativeApp> for ClientDetails {
    fn from(app: NativeApp) -> ClientDetails {
        ClientDetails {
            client_id: app.id.to_string(),
            name: app.name,
            kind: "native".to_owned(),
            username: None,
            resource_server: None,
            redirect_uris: app.redirect_uris,
            status: status(app.disabled),
            created: app.created.to_string(),
        }
    }
}

impl UserDetails {
    pub(super) fn new(
        profile: Profile,
        set: &[Profile],
        groups: Vec<UserGroup>,
        password: bool,
    ) -> UserDetails {
        let named = |id| set.iter().find(|other| other.id == id).map(|other| other.username.clone());
        UserDetails {
            id: profile.id.to_string(),
            linked_to: profile.linked_to.and_then(named),
            identity_set: set.iter().map(|other| other.username.clone()).collect(),
            groups: groups.into_iter().map(|group| group.name).collect(),
            status: status(profile.disabled),
            administrator: profile.administrator,
            password: password && profile.kind == Kind::Person,
            last_authentication: profile.authenticated.map(|at| at.to_string()),
            created: profile.created.to_string(),
            username: profile.username,
            name: profile.name,
            email: profile.email,
            organization: profile.organization,
        }
    }
}
