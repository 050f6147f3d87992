//! Starts an engine. Errors of the configuration and of the machine are reported here, before anything runs.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::allowlist::{self, InvalidAllowlist};
use crate::config::{EngineConfig, InvalidOptions, Options, address};
use crate::core::Core;
use crate::driver::Driver;
use crate::handle::{Events, Handle};
use crate::link::keys::{self, KeyError};
use crate::link::server;
use crate::node::library;
use crate::provider::{self, Provider, Secret, Staging, StagingKind};
use crate::random;
use crate::settings::{self, RunSettings};

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Options(#[from] InvalidOptions),
    #[error(transparent)]
    AllowedSerializers(#[from] InvalidAllowlist),
    #[error("the directory {0} of the endpoint is not an absolute path")]
    RelativeRunDir(PathBuf),
    #[error("cannot write {path}: {error}")]
    Write { path: PathBuf, error: io::Error },
    #[error("cannot determine the address of the engine: {0}")]
    Address(io::Error),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: String, error: io::Error },
    #[error("{0}")]
    Keys(String),
}

impl From<KeyError> for StartError {
    fn from(error: KeyError) -> Self {
        Self::Keys(error.to_string())
    }
}

/// Starts engines.
pub struct Engine;

impl Engine {
    /// Starts an engine on the runtime of the caller (a current-thread one is fastest) and asks for its first blocks
    /// at once. Every file and socket exists when this returns.
    pub async fn start(config: EngineConfig) -> Result<(Handle, Events), StartError> {
        let provider = provider::build(&config.options.provider, config.scripts(), config.open_files);
        Self::start_on(config, provider).await
    }

    /// Like [`Self::start`], with a provider that the caller supplies.
    pub async fn start_on(
        config: EngineConfig,
        provider: Arc<dyn Provider>,
    ) -> Result<(Handle, Events), StartError> {
        config.options.check()?;
        if !config.run_dir.is_absolute() {
            return Err(StartError::RelativeRunDir(config.run_dir));
        }
        let allowed = allowlist::resolve(&config.options.allowed_serializers)?;
        let (engine_keys, node_keys) = keys::generate()?;
        let acceptor = TlsAcceptor::from(Arc::new(engine_keys.server()?));
        let address = address::resolve(config.options.address.as_ref()).map_err(StartError::Address)?;
        let listener = listen(&config.options, address.listen).await?;
        let port = listener
            .local_addr()
            .map_err(|error| StartError::Listen { address: address.listen.to_string(), error })?
            .port();
        let run = RunSettings {
            id: random::run_id(),
            engines: address::with_port(&address.advertise, port),
            keys: node_keys,
            allowed_serializers: allowed,
        };
        let run_id = run.id.clone();
        // On another thread: the file system may stall, and the endpoint must send heartbeats meanwhile.
        let staging = {
            let (config, kind) = (config.clone(), provider.staging());
            tokio::task::spawn_blocking(move || stage(&config, run, kind)).await
        };
        let staging = staging.unwrap_or_else(|error| {
            Err(StartError::Write { path: config.engine_dir(), error: io::Error::other(error) })
        })?;

        let (commands, inbox) = mpsc::unbounded_channel();
        let (outbox, events) = mpsc::unbounded_channel();
        let (sender, node_events) = mpsc::unbounded_channel();
        let period = config.heartbeat_period();
        let listening = tokio::spawn(server::accept_nodes(listener, acceptor, run_id, sender, period));
        let core = Core::new(settings::core_rules(&config));
        let driver = Driver::new(config, core, staging, provider, outbox);
        tokio::spawn(async move {
            driver.run(inbox, node_events).await;
            listening.abort();
        });
        Ok((Handle { commands }, events))
    }
}

/// Creates the directories and files of this run, and returns how nodes get their configuration. Blocks as long as
/// the file system does.
fn stage(config: &EngineConfig, run: RunSettings, kind: StagingKind) -> Result<Staging, StartError> {
    let directory = config.engine_dir();
    create_directory(&directory)?;
    create_directory(&config.scripts())?;
    let write = |path: &Path| {
        let path = path.to_owned();
        move |error| StartError::Write { path, error }
    };
    let shared = config.options.shared_file_system;
    let mut library = directory.join("worker");
    if shared {
        library = library::install(&library).map_err(write(&library))?;
    }
    let nodes = settings::node_config(config, run, library);
    let file = directory.join("node.json");
    match kind {
        StagingKind::Secret if !shared => return Ok(Staging::Secret(Secret::new(nodes.to_text()))),
        StagingKind::Secret | StagingKind::TransferredFile => {}
    }
    nodes.write(&file).map_err(write(&file))?;
    Ok(if shared { Staging::SharedFile(file) } else { Staging::TransferredFile(file) })
}

fn create_directory(path: &Path) -> Result<(), StartError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| StartError::Write { path: path.to_owned(), error })
}

async fn listen(options: &Options, address: IpAddr) -> Result<TcpListener, StartError> {
    let ports = options.ports();
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "worker_port_range is empty");
    for port in ports.clone() {
        match TcpListener::bind(SocketAddr::new(address, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    let address = format!("{address}, ports {} to {}", ports.start, ports.end.saturating_sub(1));
    Err(StartError::Listen { address, error: last })
}
