//! Starting an engine: everything that can be wrong with a configuration or a machine is found out here.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::allowlist::{self, InvalidAllowlist};
use crate::config::{EngineConfig, EngineKind, InvalidOptions, Options, address};
use crate::core::{Core, Rules, Wanted};
use crate::handle::Event;
use crate::link::keys::{self, KeyError};
use crate::link::server;
use crate::node::{self, worker};
use crate::provider::Provider;
use crate::shell::{Command, NodeConfig, Shell};

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
    #[error("cannot find the address: {0}")]
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

/// Makes every file and socket, and sets the engine going.
pub(crate) async fn start(
    config: EngineConfig,
    provider: Arc<dyn Provider>,
    inbox: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<Event>,
) -> Result<(), StartError> {
    config.options.check()?;
    if !config.run_dir.is_absolute() {
        return Err(StartError::RelativeRunDir(config.run_dir));
    }
    for (option, why) in config.options.without_meaning() {
        tracing::warn!(option, "accepted without effect: {why}");
    }
    let allowed = allowlist::resolve(&config.options.allowed_serializers)?;
    let (engine_keys, node_keys) = keys::make()?;
    let acceptor = TlsAcceptor::from(Arc::new(engine_keys.server()?));
    let place = address::resolve(config.options.address.as_ref()).map_err(StartError::Address)?;
    let listener = listen(&config.options, place.listen).await?;
    let port = listener
        .local_addr()
        .map_err(|error| StartError::Listen { address: place.listen.to_string(), error })?
        .port();
    let addresses = address::with_port(&place.advertise, port);

    let directory = config.engine_dir();
    let library = directory.join("worker");
    make_directory(&directory)?;
    make_directory(&config.scripts())?;
    let write = |path: &Path| {
        let path = path.to_owned();
        move |error| StartError::Write { path, error }
    };
    let nodes = node_config(&config, addresses, node_keys, allowed, library.clone());
    let nodes = if config.options.shared_file_system {
        worker::install(&library).map_err(write(&library))?;
        let file = directory.join("node.json");
        nodes.write(&file).map_err(write(&file))?;
        NodeConfig::File(file)
    } else {
        NodeConfig::Environment(nodes.to_text())
    };
    let (sender, calls) = mpsc::unbounded_channel();
    let listening = tokio::spawn(server::answer_calls(listener, acceptor, sender, config.heartbeat_period()));
    let core = Core::new(rules(&config));
    let (shell, block_news) = Shell::new(config, core, nodes, provider, events);
    tokio::spawn(async move {
        shell.run(inbox, calls, block_news).await;
        listening.abort();
    });
    Ok(())
}

fn rules(config: &EngineConfig) -> Rules {
    let options = &config.options;
    let blocks = options.provider.blocks();
    let accelerators =
        u32::try_from(options.available_accelerators.names().len()).ok().filter(|count| *count > 0);
    let workers_per_node = options.max_workers_per_node.into_iter().chain(accelerators).min().unwrap_or(1);
    let scaling = options.scaling().unwrap_or_default();
    Rules {
        max_retries: options.max_retries_on_system_failure,
        prefetch: options.prefetch_capacity,
        heartbeat_period: config.heartbeat_period(),
        heartbeat_threshold: config.heartbeat_threshold(),
        executor: config.executor_label().into(),
        drain_period: options.drain_period.map(Duration::from_secs),
        wanted: Wanted {
            strategy: scaling.strategy,
            init: blocks.init_blocks,
            min: blocks.min_blocks,
            max: blocks.max_blocks,
            nodes_per_block: blocks.nodes_per_block,
            workers_per_node,
            parallelism: blocks.parallelism,
            max_idle: scaling.max_idle,
            mind_failures: options.block_error_handler,
        },
    }
}

fn node_config(
    config: &EngineConfig,
    engines: Vec<SocketAddr>,
    keys: keys::Side,
    allowed: Vec<&'static str>,
    worker_library: PathBuf,
) -> node::Config {
    let options = &config.options;
    let shared = options.shared_file_system;
    let logs = options.worker_logdir_root.as_ref().map(|root| root.join(config.executor_label()));
    let pool = options.kind.pool_size(node::cores_here());
    let workers = match &options.kind {
        EngineKind::Compute => node::Workers::Processes { max_tasks: None },
        EngineKind::ProcessPool { max_tasks_per_child, .. } => {
            node::Workers::Processes { max_tasks: *max_tasks_per_child }
        }
        EngineKind::ThreadPool { thread_name_prefix, .. } => {
            node::Workers::Threads { name_prefix: thread_name_prefix.clone() }
        }
    };
    let threads = matches!(workers, node::Workers::Threads { .. });
    node::Config {
        engines,
        probe: Duration::from_secs(options.address_probe_timeout.unwrap_or(30)),
        debug: options.worker_debug,
        keys,
        heartbeat_period: config.heartbeat_period(),
        heartbeat_threshold: config.heartbeat_threshold(),
        logs: logs.or_else(|| shared.then(|| config.engine_dir())),
        workers,
        max_workers: pool.or(options.max_workers_per_node),
        // A pool is as large as it is told to be.
        cores_per_worker: if pool.is_some() { f64::MIN_POSITIVE } else { options.cores_per_worker },
        mem_per_worker: options.mem_per_worker,
        cpu_affinity: options.cpu_affinity.clone(),
        accelerators: options.available_accelerators.names(),
        python: options.python.clone(),
        worker_library: shared.then_some(worker_library),
        worker: node::WorkerConfig {
            endpoint_id: config.endpoint,
            working_dir: if shared {
                config.run_dir.join(&options.working_dir)
            } else {
                options.working_dir.clone()
            },
            run_in_sandbox: options.run_in_sandbox && !threads,
            variables: options.kind == EngineKind::Compute,
            thread_name_prefix: None,
            allowed: allowed.into_iter().map(str::to_owned).collect(),
            result_size_limit: options.result_size_limit,
        },
    }
}

fn make_directory(path: &Path) -> Result<(), StartError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| StartError::Write { path: path.to_owned(), error })
}

/// The ports that sites open for nodes.
const USUAL_PORTS: (u16, u16) = (54000, 55000);

async fn listen(options: &Options, address: IpAddr) -> Result<TcpListener, StartError> {
    let ports = match (options.worker_port, options.worker_port_range) {
        (Some(port), _) => port..port.saturating_add(1),
        (None, Some((low, high))) => low..high,
        // Nobody filters what stays on this machine.
        (None, None) if address.is_loopback() => 0..1,
        (None, None) => USUAL_PORTS.0..USUAL_PORTS.1,
    };
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "worker_port_range is empty");
    for port in ports.clone() {
        match TcpListener::bind((address, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    let address = format!("{address}, ports {} to {}", ports.start, ports.end.saturating_sub(1));
    Err(StartError::Listen { address, error: last })
}
