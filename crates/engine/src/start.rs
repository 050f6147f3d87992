//! Starting an engine: everything that can be wrong with a configuration or a machine is found out here.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::allowlist::{self, InvalidAllowlist};
use crate::config::{EngineConfig, InvalidOptions};
use crate::core::{Core, Rules, Wanted};
use crate::handle::Event;
use crate::link::keys::{self, KeyError};
use crate::link::server;
use crate::node::{self, worker};
use crate::shell::{Command, Shell};

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
    let listener = listen(&config).await?;
    let address =
        listener.local_addr().map_err(|error| StartError::Listen { address: String::new(), error })?;

    let directory = config.engine_dir();
    let scripts = config.run_dir.join("submit_scripts");
    let library = directory.join("worker");
    make_directory(&directory)?;
    make_directory(&scripts)?;
    let write = |path: &Path| {
        let path = path.to_owned();
        move |error| StartError::Write { path, error }
    };
    worker::install(&library).map_err(write(&library))?;
    let node_file = directory.join("node.json");
    node_config(&config, address, node_keys, allowed, library)
        .write(&node_file)
        .map_err(write(&node_file))?;

    let provider = config.options.provider.build(scripts);
    let (sender, calls) = mpsc::unbounded_channel();
    let listening = tokio::spawn(server::answer_calls(listener, acceptor, sender, config.heartbeat_period()));
    let core = Core::new(rules(&config));
    let (shell, block_news) = Shell::new(config, core, node_file, provider, events);
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
    let max_idle = options.job_status_kwargs.get("max_idletime").and_then(serde_json::Value::as_f64);
    Rules {
        max_retries: options.max_retries_on_system_failure,
        prefetch: options.prefetch_capacity,
        heartbeat_period: config.heartbeat_period(),
        heartbeat_threshold: config.heartbeat_threshold(),
        executor: config.executor_label().into(),
        wanted: Wanted {
            init: blocks.init_blocks,
            min: blocks.min_blocks,
            max: blocks.max_blocks,
            nodes_per_block: blocks.nodes_per_block,
            workers_per_node,
            parallelism: blocks.parallelism,
            max_idle: max_idle
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .unwrap_or(Duration::from_secs(120)),
            mind_failures: options.block_error_handler,
        },
    }
}

fn node_config(
    config: &EngineConfig,
    engine: SocketAddr,
    keys: keys::Side,
    allowed: Vec<&'static str>,
    worker_library: PathBuf,
) -> node::Config {
    let options = &config.options;
    let logs = options.worker_logdir_root.as_ref().map(|root| root.join(config.executor_label()));
    node::Config {
        engine,
        keys,
        heartbeat_period: config.heartbeat_period(),
        heartbeat_threshold: config.heartbeat_threshold(),
        logs: logs.unwrap_or_else(|| config.engine_dir()),
        max_workers: options.max_workers_per_node,
        cores_per_worker: options.cores_per_worker,
        mem_per_worker: options.mem_per_worker,
        cpu_affinity: options.cpu_affinity.clone(),
        accelerators: options.available_accelerators.names(),
        python: options.python.clone(),
        worker_library,
        worker: node::WorkerConfig {
            endpoint_id: config.endpoint,
            working_dir: config.run_dir.join(&options.working_dir),
            run_in_sandbox: options.run_in_sandbox,
            allowed: allowed.into_iter().map(str::to_owned).collect(),
            result_size_limit: options.result_size_limit,
        },
    }
}

fn make_directory(path: &Path) -> Result<(), StartError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| StartError::Write { path: path.to_owned(), error })
}

async fn listen(config: &EngineConfig) -> Result<TcpListener, StartError> {
    let options = &config.options;
    let address = options.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let ports = match (options.worker_port, options.worker_port_range) {
        (Some(port), _) => port..port.saturating_add(1),
        (None, Some((low, high))) => low..high,
        (None, None) => 0..1,
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
