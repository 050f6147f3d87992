//! Administration: of a service that runs, through `admin.sock` in its data directory; of one that doesn't, on its store.
//!
//! One request per connection, one line of JSON each way. Who may open the socket may administer: the directory lets
//! its owner only. What is asked for and answered is in [`request`], what is done in a file per noun.

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
use identity::audit::By;
use identity::end_reason::Ended;
use identity::password::PasswordError;
use identity::{IdentityError, signing_keys::KeyError};
use request::{Reply, Request};
use store::{Command, EndEverything, EndEverythingFor, StoreError};

/// The longest line of a request.
const LINE: u64 = 64 << 10;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request was not done. Nothing was changed then.
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

/// What administration works on. Clones share it.
#[derive(Clone, Debug)]
pub struct Administration {
    pub identity: Identity,
    /// Absent while the service doesn't run: nobody is connected then.
    pub dispatch: Option<Dispatch>,
    /// Who asks.
    pub by: By,
}

impl Administration {
    /// Does what `request` asks for.
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

    /// Makes `change`, and with it ends all that `identity` holds: sessions, tokens, and connections to the broker, those of
    /// its endpoints too. Who is connected is told `why`.
    async fn end_everything(
        &self,
        identity: IdentityId,
        change: impl Command,
        why: &Ended,
    ) -> Result<(), StoreError> {
        let end = EndEverything { identity, now: clock::now() };
        let ended = self.identity.store().write(EndEverythingFor { change, end }).await?;
        self.cut_off(identity, &ended, why);
        Ok(())
    }

    /// What has ended in the store ends here, too.
    fn cut_off(&self, identity: IdentityId, ended: &store::Ended, why: &Ended) {
        self.identity.forget_tokens();
        self.identity.forget_applications();
        self.identity.forget_person(identity);
        if let Some(dispatch) = &self.dispatch {
            dispatch.shut_out(ended, &why.to_string(), self.by);
        }
    }
}

/// The service's end of the socket.
#[derive(Debug)]
pub struct Server {
    socket: UnixListener,
    administration: Administration,
}

impl Server {
    /// The caller holds the data directory's lock: a socket found there was left by one that died.
    pub fn open(path: &Path, administration: Administration) -> io::Result<Server> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let near = Near::new(path)?;
        let socket = UnixListener::bind(&near.path)?;
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
            let by = By::Operator { uid: peer.uid() };
            let administration = Administration { by, ..self.administration.clone() };
            tokio::spawn(async move {
                match tokio::time::timeout(PATIENCE, answer(stream, &administration)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "an administration request was broken off"),
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

/// A path for a socket's address, which holds about a hundred bytes: directories below a home may be longer. An open
/// directory has a short name.
struct Near {
    path: PathBuf,
    _directory: Option<File>,
}

impl Near {
    const LONGEST: usize = 100;

    fn new(path: &Path) -> io::Result<Near> {
        match (path.parent(), path.file_name()) {
            (Some(directory), Some(name)) if path.as_os_str().len() > Near::LONGEST => {
                let directory = File::open(directory)?;
                let short = format!("/proc/self/fd/{}", directory.as_raw_fd());
                Ok(Near { path: PathBuf::from(short).join(name), _directory: Some(directory) })
            }
            _ => Ok(Near { path: path.to_owned(), _directory: None }),
        }
    }
}

/// Asks the service that holds the data directory.
pub async fn ask(path: &Path, request: &Request) -> io::Result<Reply> {
    let near = Near::new(path)?;
    let (reader, mut writer) = UnixStream::connect(&near.path).await?.into_split();
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}
