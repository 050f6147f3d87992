//! Administration of a service that runs, through `admin.sock` in its data directory.
//!
//! One request per connection, one line of JSON each way. Who may open the socket may administer: the directory lets
//! its owner only.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use daemon::stop::Stop;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::identity::Identity;
use crate::store::{Client, StoreError};

/// The longest line of a request.
const LINE: u64 = 64 << 10;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    AddClient { name: String },
    ListClients,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Added(AddedClient),
    Clients(Vec<KnownClient>),
    Failed(String),
}

/// A new client identity with its secret, which is shown this once.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct AddedClient {
    pub client_id: String,
    pub client_secret: String,
    pub name: String,
    pub username: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct KnownClient {
    pub client_id: String,
    pub name: String,
    pub username: String,
    pub created: String,
}

impl From<Client> for KnownClient {
    fn from(client: Client) -> KnownClient {
        KnownClient {
            client_id: client.id.to_string(),
            name: client.name,
            username: client.username,
            created: client.created.to_string(),
        }
    }
}

/// Does what `request` asks for, on the open store.
pub async fn perform(identity: &Identity, request: Request) -> Reply {
    match attempt(identity, request).await {
        Ok(reply) => reply,
        Err(error) => Reply::Failed(error.to_string()),
    }
}

async fn attempt(identity: &Identity, request: Request) -> Result<Reply, StoreError> {
    Ok(match request {
        Request::AddClient { name } => {
            let (client, client_secret) = identity.add_client(name, None).await?;
            Reply::Added(AddedClient {
                client_id: client.id.to_string(),
                client_secret,
                name: client.name,
                username: client.username,
            })
        }
        Request::ListClients => {
            Reply::Clients(identity.clients().await?.into_iter().map(KnownClient::from).collect())
        }
    })
}

/// The service's end of the socket.
#[derive(Debug)]
pub struct Server {
    socket: UnixListener,
    identity: Identity,
}

impl Server {
    /// The caller holds the data directory's lock: a socket found there was left by one that died.
    pub fn open(path: &Path, identity: Identity) -> io::Result<Server> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Server { socket, identity })
    }

    pub async fn run(self, stop: Stop) {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.begun() => return,
            };
            let Ok((stream, _)) = accepted else { continue };
            let identity = self.identity.clone();
            tokio::spawn(async move {
                match tokio::time::timeout(PATIENCE, answer(stream, &identity)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "an administration request was broken off"),
                    Err(_) => tracing::debug!("an administration request took too long"),
                }
            });
        }
    }
}

async fn answer(stream: UnixStream, identity: &Identity) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(LINE)).read_line(&mut line).await?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => perform(identity, request).await,
        Err(error) => Reply::Failed(format!("the request is not understood: {error}")),
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    writer.write_all(&text).await
}

/// Asks the service that holds the data directory.
pub async fn ask(path: &Path, request: &Request) -> io::Result<Reply> {
    let (reader, mut writer) = UnixStream::connect(path).await?.into_split();
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}
