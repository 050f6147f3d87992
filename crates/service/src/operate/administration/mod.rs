//! Performs the administrative commands: of a running service through `admin.sock` in its data directory, else on its store.
//!
//! One request per connection, one line of JSON each way. Who can open the socket can administer: the data directory's
//! permissions let only its owner. Requests and replies are in [`request`], and what they do is in a file per noun.

mod clients;
mod endpoints;
mod groups;
mod keys;
mod people;
pub mod request;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::stop::Stop;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use wire::IdentityId;

use crate::clock;
use crate::dispatch::Dispatch;
use identity::Identity;
use identity::audit::Initiator;
use identity::end_reason::EndReason;
use identity::password::PasswordError;
use identity::{IdentityError, signing_keys::KeyError};
use request::{Reply, Request};
use store::{Command, EndEverything, EndEverythingFor, StoreError};

/// The longest line of a request.
const LINE: u64 = 64 << 10;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request failed. It changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("there is no {0}")]
    Unknown(String),
    #[error("{0} exists already")]
    Taken(String),
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<IdentityError> for AdminError {
    fn from(error: IdentityError) -> AdminError {
        match error {
            IdentityError::Store(error) => error.into(),
            IdentityError::Key(error) => error.into(),
            IdentityError::Gone => AdminError::Unknown("such identity".to_owned()),
        }
    }
}

/// What administration needs of the service. Clones share it.
#[derive(Clone, Debug)]
pub struct Administration {
    pub identity: Identity,
    /// Absent while the service doesn't run: nobody is connected then.
    pub dispatch: Option<Dispatch>,
    /// Who administers, for the audit log.
    pub by: Initiator,
}

impl Administration {
    /// Performs `request`.
    pub async fn perform(&self, request: Request) -> Reply {
        let done = match request {
            Request::User(request) => self.user(request).await,
            Request::Client(request) => self.client(request).await,
            Request::Group(request) => self.group(request).await,
            Request::Key(request) => self.key(request).await,
            Request::Endpoint(request) => self.endpoint(request).await,
        };
        done.unwrap_or_else(|error| Reply::Failed(error.to_string()))
    }

    /// Makes `change`, and in the same transaction ends the identity's sessions, tokens and connections to the broker, and
    /// those of its endpoints. Connected programs get the reason `why`.
    async fn end_everything(
        &self,
        identity: IdentityId,
        change: impl Command,
        why: &EndReason,
    ) -> Result<(), StoreError> {
        let end = EndEverything { identity, now: clock::now() };
        let ended = self.identity.store().write(EndEverythingFor { change, end }).await?;
        self.cut_off(identity, &ended, why);
        Ok(())
    }

    /// Ends in this process what has ended in the store.
    fn cut_off(&self, identity: IdentityId, ended: &store::ConnectionsToClose, why: &EndReason) {
        self.identity.forget_tokens();
        self.identity.forget_applications();
        self.identity.forget_person(identity);
        if let Some(dispatch) = &self.dispatch {
            dispatch.disconnect(ended, &why.to_string(), self.by);
        }
    }
}

/// The server behind `admin.sock`.
#[derive(Debug)]
pub struct Server {
    socket: UnixListener,
    administration: Administration,
}

impl Server {
    /// The caller holds the data directory's lock, so an existing socket was left by a service that was killed.
    pub fn open(path: &Path, administration: Administration) -> io::Result<Server> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let short = ShortPath::new(path)?;
        let socket = UnixListener::bind(&short.path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Server { socket, administration })
    }

    pub async fn run(self, stop: Stop) {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.begun() => return,
            };
            let Ok((stream, _)) = accepted else { continue };
            let Ok(peer) = stream.peer_cred() else { continue };
            let by = Initiator::Operator { uid: peer.uid() };
            let administration = Administration { by, ..self.administration.clone() };
            tokio::spawn(async move {
                match tokio::time::timeout(PATIENCE, answer(stream, &administration)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "an administration request failed"),
                    Err(_) => tracing::debug!("an administration request took too long"),
                }
            });
        }
    }
}

async fn answer(stream: UnixStream, administration: &Administration) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(LINE)).read_line(&mut line).await?;
    let reply = match serde_json::from_str(&line) {
        // In a task of its own, which goes on when this request takes too long: a change that is in the store has to end
        // connections and caches, too.
        Ok(request) => {
            let administration = administration.clone();
            tokio::spawn(async move { administration.perform(request).await }).await?
        }
        Err(_) => {
            Reply::Failed("the request is not understood: are command and service of one version?".into())
        }
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    writer.write_all(&text).await
}

/// A path that fits into a socket's address, which holds about a hundred bytes. A longer path is reached through an open
/// descriptor of its directory.
struct ShortPath {
    path: PathBuf,
    _directory: Option<File>,
}

impl ShortPath {
    const LONGEST: usize = 100;

    fn new(path: &Path) -> io::Result<ShortPath> {
        match (path.parent(), path.file_name()) {
            (Some(directory), Some(name)) if path.as_os_str().len() > ShortPath::LONGEST => {
                let directory = File::open(directory)?;
                let short = format!("/proc/self/fd/{}", directory.as_raw_fd());
                Ok(ShortPath { path: PathBuf::from(short).join(name), _directory: Some(directory) })
            }
            _ => Ok(ShortPath { path: path.to_owned(), _directory: None }),
        }
    }
}

/// Sends a request to the running service.
pub async fn ask(path: &Path, request: &Request) -> io::Result<Reply> {
    let short = ShortPath::new(path)?;
    let (reader, mut writer) = UnixStream::connect(&short.path).await?.into_split();
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}
