//! `farcall up`: starts a service, an identity and an endpoint on this machine with one command.
//!
//! What runs already is used and left running at the end; what does not run is started, and stopped at the end.
//! No other part of the service may depend on this module: it uses the service as an operator would.
//!
//! ```text
//! DIR/up/             0700
//!   identity.json     the client identity's id and secret, and the person for whom it acts
//!   environment       the shell setup for a client
//!   environment.lock  held by the process whose forwarder `environment` names
//!   hello.py          an example to run
//!   service.log       the service's log, if it was started here
//!   start.log         the output of the endpoint's `start`
//!   endpoints/        configuration directory of the endpoint `local`; the client's tokens, too
//! ```
//!
//! The SDK of COMMAND, of shells and of tasks reaches the service by a [forwarder](crate::client_side::connect) in this
//! process, also on the port that the SDK knows: `localhost` may be an address at which another user's program listens.

mod endpoint;
mod environment;
mod published_environment;
mod service;

use std::fs;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use daemon::open_files::InheritedLimit;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::client_side::connect::{Forwarder, PrintLine};
use crate::client_side::environment::Proxies;
use crate::operate::administration;
use crate::operate::administration::request::{AddedClient, ClientRequest, Reply, Request, UserRequest};
use crate::operate::data_directory::Directory;
use identity::people;
use store::private_file;

pub use endpoint::Endpoint;
use endpoint::Program;
pub use environment::Environment;
use published_environment::PublishedEnvironment;
pub use service::Running;

const EXAMPLE: &str = include_str!("../../../../examples/hello.py");

/// The options of `farcall up`.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// The limit of open files for the endpoint, if this process raised its own.
    pub open_files: Option<InheritedLimit>,
    pub http_listen: Option<SocketAddr>,
    pub amqp_listen: Option<SocketAddr>,
    /// The path of `globus-compute-endpoint`, if it is neither beside this program nor on the PATH.
    pub endpoint_binary: Option<PathBuf>,
    /// Tells the user that the service can't be reached.
    pub say: PrintLine,
}

/// The directory `up/` in the service's data directory.
#[derive(Clone, Debug)]
pub struct UpDirectory {
    root: PathBuf,
}

impl UpDirectory {
    /// Makes the directories that are missing.
    pub fn prepare(data: &Directory) -> anyhow::Result<UpDirectory> {
        let up_directory = UpDirectory { root: data.root().join("up") };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(up_directory.endpoints())
            .with_context(|| format!("cannot make {}", up_directory.root.display()))?;
        Ok(up_directory)
    }

    /// The service's data directory.
    pub fn data(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    pub fn environment(&self) -> PathBuf {
        self.root.join("environment")
    }

    fn environment_lock(&self) -> PathBuf {
        self.root.join("environment.lock")
    }

    pub fn hello(&self) -> PathBuf {
        self.root.join("hello.py")
    }

    pub fn service_log(&self) -> PathBuf {
        self.root.join("service.log")
    }

    pub fn endpoint_log(&self) -> PathBuf {
        self.endpoints().join(endpoint::NAME).join("endpoint.log")
    }

    fn start_log(&self) -> PathBuf {
        self.root.join("start.log")
    }

    fn identity(&self) -> PathBuf {
        self.root.join("identity.json")
    }

    fn endpoints(&self) -> PathBuf {
        self.root.join("endpoints")
    }
}

/// A running service and a running endpoint.
#[derive(Debug)]
pub struct Up {
    pub up_directory: UpDirectory,
    pub environment: Environment,
    /// The username of the person who owns the endpoint.
    pub person: String,
    service: Running,
    forwarding: JoinHandle<()>,
    sockets: Vec<RawFd>,
    endpoint: Endpoint,
    /// Absent: another process has written the file, and it holds for as long as that runs.
    published: Option<PublishedEnvironment>,
}

/// Finds or starts everything. Returns when tasks can be submitted and run.
pub async fn up(directory: Directory, up_directory: UpDirectory, options: UpOptions) -> anyhow::Result<Up> {
    let program = Program::find(options.endpoint_binary.clone(), options.open_files)?;
    let service = Running::find_or_start(&directory, &options).await?;
    match start_endpoint(&directory, &up_directory, &program, &service, options.say).await {
        Ok(Rest { environment, person, forwarding, mut sockets, endpoint, published }) => {
            sockets.extend(service.sockets());
            Ok(Up { up_directory, environment, person, service, forwarding, sockets, endpoint, published })
        }
        Err(error) => {
            service.stop().await;
            Err(error)
        }
    }
}

/// What is up beside the service.
struct Rest {
    environment: Environment,
    person: String,
    forwarding: JoinHandle<()>,
    /// On which the forwarder listens.
    sockets: Vec<RawFd>,
    endpoint: Endpoint,
    published: Option<PublishedEnvironment>,
}

async fn start_endpoint(
    directory: &Directory,
    up_directory: &UpDirectory,
    program: &Program,
    service: &Running,
    say: PrintLine,
) -> anyhow::Result<Rest> {
    let identity = identity(directory, up_directory).await?;
    let reach = environment::reach(service.addresses())?;
    let forwarder = Forwarder::to_this_machine(reach, Proxies::here(), say).await?;
    let (variables, sockets) = (forwarder.variables(), forwarder.sockets());
    let forwarding = tokio::spawn(forwarder.run());
    let mut environment = Environment::new(variables, service.addresses(), &identity, up_directory);
    let endpoint = Endpoint::find_or_start(program, up_directory, &environment).await?;
    environment.endpoint(endpoint.id);
    let written = PublishedEnvironment::write(up_directory, &environment.script())
        .and_then(|published| {
            private_file::write(&up_directory.hello(), EXAMPLE.as_bytes()).map(|()| published)
        })
        .with_context(|| format!("cannot write into {}", up_directory.root.display()));
    match written {
        Ok(published) => {
            Ok(Rest { environment, person: identity.person, forwarding, sockets, endpoint, published })
        }
        Err(error) => {
            endpoint.stop().await;
            Err(error)
        }
    }
}

impl Up {
    /// Whether anything runs here only as long as this does: the service, the endpoint, or the forwarder that the written
    /// environment names.
    pub fn holds_something(&self) -> bool {
        self.service.is_ours() || self.endpoint.is_ours() || self.published.is_some()
    }

    /// The sockets that listen here, for COMMAND to hold: it sends its tokens to their ports.
    pub fn sockets(&self) -> Vec<RawFd> {
        self.sockets.clone()
    }

    /// The process of the endpoint, if it was started here.
    pub fn endpoint_process(&self) -> Option<Pid> {
        self.endpoint.process()
    }

    /// Waits until the endpoint that was started here ends; for ever, if none was.
    pub async fn endpoint_ended(&mut self) -> String {
        self.endpoint.ended().await
    }

    /// Stops what was started here, the endpoint first, so that its last results still reach the service.
    pub async fn down(self) {
        self.endpoint.stop().await;
        if let Some(published) = self.published {
            published.remove();
        }
        self.forwarding.abort();
        self.service.stop().await;
    }
}

/// A client identity that needs no browser, and the person it acts for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ClientIdentity {
    client_id: String,
    client_secret: String,
    /// The username of that person.
    person: String,
}

/// Reads the identity of an earlier run, or adds one if the service does not know it.
async fn identity(directory: &Directory, up_directory: &UpDirectory) -> anyhow::Result<ClientIdentity> {
    let path = up_directory.identity();
    if let Ok(text) = fs::read_to_string(&path)
        && let Ok(identity) = serde_json::from_str::<ClientIdentity>(&text)
    {
        let reply =
            administration::ask(&directory.admin_socket(), &Request::Client(ClientRequest::List)).await?;
        if matches!(reply, Reply::Clients(known) if known.iter().any(|one| one.client_id == identity.client_id))
        {
            return Ok(identity);
        }
    }
    let person = person(directory).await?;
    let add = Request::Client(ClientRequest::Add { name: "up".to_owned(), resource_server: None });
    let added: AddedClient = match administration::ask(&directory.admin_socket(), &add).await? {
        Reply::Added(added) => added,
        reply => anyhow::bail!("no client identity could be made: {}", why(reply)),
    };
    let link = Request::User(UserRequest::Link { user: added.client_id.clone(), with: person.clone() });
    match administration::ask(&directory.admin_socket(), &link).await? {
        Reply::User(_) => {}
        reply => anyhow::bail!("the client identity could not be linked with {person}: {}", why(reply)),
    }
    let identity = ClientIdentity { client_id: added.client_id, client_secret: added.client_secret, person };
    let text = serde_json::to_string(&identity)?;
    private_file::write(&path, text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(identity)
}

/// The person who owns the endpoint, without a password: `farcall user reset` sets one.
async fn person(directory: &Directory) -> anyhow::Result<String> {
    let name = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    let username = name
        .and_then(|name| people::username(&format!("{name}@localhost")))
        .unwrap_or_else(|| "me@localhost".to_owned());
    let show = Request::User(UserRequest::Show { user: username.clone() });
    if matches!(administration::ask(&directory.admin_socket(), &show).await?, Reply::User(_)) {
        return Ok(username);
    }
    let add = UserRequest::Add {
        username,
        name: None,
        email: None,
        organization: None,
        administrator: true,
        password: None,
    };
    match administration::ask(&directory.admin_socket(), &Request::User(add)).await? {
        Reply::User(person) => Ok(person.username),
        reply => anyhow::bail!("no person could be made: {}", why(reply)),
    }
}

fn why(reply: Reply) -> String {
    match reply {
        Reply::Failed(why) => why,
        reply => format!("{reply:?}"),
    }
}
