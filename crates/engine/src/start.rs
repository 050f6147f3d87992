//! Starting an engine: everything that can be wrong with a configuration or a machine is found out here.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
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
use crate::link::message;
use crate::link::server;
use crate::node::{self, library};
use crate::provider::Provider;
use crate::driver::{Command, Driver, NodeConfig};

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

    // The endpoint's broker already waits for its heartbeats, and its files may stand still.
    let files = {
        let config = config.clone();
        tokio::task::spawn_blocking(move || write_files(&config, addresses, node_keys, allowed))
    };
    let nodes = files.await.unwrap_or_else(|error| {
        Err(StartError::Write { path: config.engine_dir(), error: io::Error::other(error) })
    })?;
    let (sender, calls) = mpsc::unbounded_channel();
    let listening = tokio::spawn(server::answer_calls(listener, acceptor, sender, config.heartbeat_period()));
    let core = Core::new(rules(&config));
    let (driver, block_news) = Driver::new(config, core, nodes, provider, events);
    tokio::spawn(async move {
        driver.run(inbox, calls, block_news).await;
        listening.abort();
    });
    Ok(())
}

/// Makes the directories and files of this run. Blocks while the file system does.
fn write_files(
    config: &EngineConfig,
    engines: Vec<SocketAddr>,
    keys: keys::Side,
    allowed: Vec<&'static str>,
) -> Result<NodeConfig, StartError> {
    let directory = config.engine_dir();
    make_directory(&directory)?;
    make_directory(&config.scripts())?;
    let write = |path: &Path| {
        let path = path.to_owned();
        move |error| StartError::Write { path, error }
    };
    let mut library = directory.join("worker");
    if !config.options.shared_file_system {
        let nodes = node_config(config, engines, keys, allowed, library);
        return Ok(NodeConfig::Environment(nodes.to_text()));
    }
    library = library::install(&library).map_err(write(&library))?;
    let nodes = node_config(config, engines, keys, allowed, library);
    let file = directory.join("node.json");
    nodes.write(&file).map_err(write(&file))?;
    Ok(NodeConfig::File(file))
}

fn rules(config: &EngineConfig) -> Rules {
    let options = &config.options;
    let blocks = options.provider.blocks();
    let accelerators = Some(options.available_accelerators.len()).filter(|count| *count > 0);
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
        version: message::VERSION.to_owned(),
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
        accelerators: options.available_accelerators.clone(),
        python: options.python.clone(),
        worker_library: shared.then_some(worker_library),
        start_limit: Duration::from_secs(options.worker_start_timeout),
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
    let ports = ports(options, address);
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

/// The ports that may be listened on.
fn ports(options: &Options, address: IpAddr) -> Range<u16> {
    match (options.worker_port, options.worker_port_range) {
        (Some(port), _) => port..port.saturating_add(1),
        (None, Some((low, high))) => low..high,
        // Nobody filters what stays on this machine.
        (None, None) if address.is_loopback() => 0..1,
        (None, None) => USUAL_PORTS.0..USUAL_PORTS.1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::provider::Job;

    /// All that options lead to, as text: the core's rules, the nodes' configuration, the block's script, where the
    /// engine listens.
    fn effect(options: Options) -> String {
        let place = address::resolve(options.address.as_ref()).unwrap();
        let ports = ports(&options, place.listen);
        let endpoint = wire::EndpointId::from_uuid(uuid::Uuid::nil());
        let config = EngineConfig {
            endpoint,
            run_dir: "/run".into(),
            node_command: Vec::new(),
            open_files: None,
            options,
        };
        let allowed = allowlist::resolve(&config.options.allowed_serializers).unwrap();
        let (_, keys) = keys::make().unwrap();
        let nodes =
            node_config(&config, address::with_port(&place.advertise, 1), keys, allowed, "/library".into());
        let mut nodes = serde_json::to_value(nodes).unwrap();
        nodes.as_object_mut().unwrap().remove("keys");
        let job = Job { name: "job".into(), command: "node".into(), environment: Vec::new() };
        let script = config.options.provider.blocks().script(&job, Path::new("/scripts"));
        format!("{:?}\n{nodes}\n{script}\n{place:?} {ports:?}", rules(&config))
    }

    /// An option that is read and then forgotten fails here.
    fn has_an_effect_or_a_reason(base: &Value, option: &str, value: &Value) {
        let mut changed = base.clone();
        let (path, name) = option.rsplit_once('/').unwrap_or(("", option));
        let place = changed.pointer_mut(&if path.is_empty() { String::new() } else { format!("/{path}") });
        place.unwrap()[name] = value.clone();
        let before = Options::from_value(base.clone()).unwrap();
        let after = Options::from_value(changed).unwrap_or_else(|error| panic!("{option}: {error}"));
        let named = option.replace('/', ".");
        let reason =
            after.without_meaning().into_iter().find(|(noted, _)| noted.split(", ").any(|one| one == named));
        match reason {
            Some((_, why)) => assert!(!why.is_empty()),
            None => assert_ne!(effect(before), effect(after), "{option} is silently ignored"),
        }
    }

    #[test]
    fn every_option_of_the_compute_engine_has_an_effect_or_a_reason() {
        let base = json!({"type": "GlobusComputeEngine", "provider": {"type": "LocalProvider", "launcher": {"type": "SingleNodeLauncher"}}});
        for (option, value) in [
            ("label", json!("Midway")),
            ("endpoint_id", json!("00000000-0000-0000-0000-000000000000")),
            ("max_retries_on_system_failure", json!(2)),
            ("working_dir", json!("/scratch")),
            ("allowed_serializers", json!(["globus_compute_sdk.*Code", "globus_compute_sdk.*Data"])),
            ("run_in_sandbox", json!(true)),
            ("result_size_limit", json!(1000)),
            ("python", json!("python3.12")),
            ("shared_file_system", json!(false)),
            ("container_uri", json!("image")),
            ("container_cmd_options", json!("-v /a:/a")),
            ("encrypted", json!(false)),
            ("strategy", json!("htex_auto_scale")),
            ("strategy", json!({"type": "SimpleStrategy", "max_idletime": 90})),
            ("job_status_kwargs", json!({"max_idletime": 60.0})),
            ("job_status_kwargs", json!({"strategy": "none"})),
            ("launch_cmd", json!("process_worker_pool.py")),
            ("interchange_launch_cmd", json!(["interchange.py"])),
            ("address", json!("127.0.0.2")),
            ("loopback_address", json!("127.0.0.1")),
            ("worker_port", json!(54321)),
            ("worker_port_range", json!([54000, 54100])),
            ("interchange_port_range", json!([55000, 55100])),
            ("storage_access", json!([])),
            ("worker_debug", json!(true)),
            ("cores_per_worker", json!(0.5)),
            ("mem_per_worker", json!(2.5)),
            ("max_workers_per_node", json!(4)),
            ("cpu_affinity", json!("block")),
            ("available_accelerators", json!(2)),
            ("prefetch_capacity", json!(10)),
            ("heartbeat_period", json!(15)),
            ("heartbeat_threshold", json!(200)),
            ("drain_period", json!(3600)),
            ("poll_period", json!(10)),
            ("address_probe_timeout", json!(5)),
            ("worker_start_timeout", json!(1200)),
            ("worker_logdir_root", json!("/tmp/logs")),
            ("manager_selector", json!({"type": "RandomManagerSelector"})),
            ("block_error_handler", json!(false)),
            ("remote_monitoring_radio", json!({"type": "UDPRadio"})),
            ("provider/nodes_per_block", json!(2)),
            ("provider/init_blocks", json!(0)),
            ("provider/min_blocks", json!(1)),
            ("provider/max_blocks", json!(3)),
            ("provider/parallelism", json!(0.5)),
            ("provider/worker_init", json!("module load python")),
            ("provider/cmd_timeout", json!(30)),
            ("provider/launcher", json!({"type": "SimpleLauncher"})),
            ("provider/launcher", json!({"type": "WrappedLauncher", "prepend": "time"})),
            ("provider/launcher", json!({"type": "SrunLauncher"})),
            ("provider/launcher", json!({"type": "SrunMPILauncher"})),
            ("provider/launcher", json!({"type": "AprunLauncher"})),
            ("provider/launcher", json!({"type": "JsrunLauncher"})),
            ("provider/launcher", json!({"type": "MpiExecLauncher"})),
            ("provider/launcher", json!({"type": "MpiRunLauncher"})),
            ("provider/launcher", json!({"type": "GnuParallelLauncher"})),
            ("provider/launcher/debug", json!(false)),
        ] {
            has_an_effect_or_a_reason(&base, option, &value);
        }
        let mut period = base.clone();
        period["job_status_kwargs"] = json!({"strategy_period": 5.0});
        assert_eq!(
            Options::from_value(period).unwrap().without_meaning()[0].0,
            "job_status_kwargs.strategy_period"
        );
        let mut two = base.clone();
        two["provider"]["nodes_per_block"] = json!(2);
        has_an_effect_or_a_reason(&two, "provider/launcher/fail_on_any", &json!(true));
        for (launcher, option, value) in [
            ("SrunLauncher", "overrides", "-c 4"),
            ("SrunMPILauncher", "overrides", "-c 4"),
            ("AprunLauncher", "overrides", "-cc depth"),
            ("JsrunLauncher", "overrides", "-g 1"),
            ("MpiExecLauncher", "overrides", "--ppn 1"),
            ("MpiExecLauncher", "bind_cmd", "--cpu-bind"),
            ("MpiRunLauncher", "overrides", "--oversubscribe"),
            ("MpiRunLauncher", "bash_location", "/usr/bin/bash"),
        ] {
            let base = json!({"provider": {"type": "LocalProvider", "launcher": {"type": launcher}}});
            has_an_effect_or_a_reason(&base, &format!("provider/launcher/{option}"), &json!(value));
        }
    }

    #[test]
    fn every_option_of_the_pools_has_an_effect_or_a_reason() {
        let common = [
            ("label", json!("mine")),
            ("endpoint_id", json!("00000000-0000-0000-0000-000000000000")),
            ("max_retries_on_system_failure", json!(2)),
            ("working_dir", json!("/scratch")),
            ("allowed_serializers", json!(["globus_compute_sdk.*Code", "globus_compute_sdk.*Data"])),
            ("run_in_sandbox", json!(true)),
            ("result_size_limit", json!(1000)),
            ("python", json!("python3.12")),
            ("worker_start_timeout", json!(1200)),
            ("max_workers", json!(77)),
        ];
        for (engine, own) in [
            ("ThreadPoolEngine", ("thread_name_prefix", json!("x"))),
            ("ProcessPoolEngine", ("max_tasks_per_child", json!(5))),
        ] {
            for (option, value) in common.iter().chain([&own]) {
                has_an_effect_or_a_reason(&json!({"type": engine}), option, value);
            }
        }
    }

    #[test]
    fn what_cannot_be_done_yet_is_refused_with_what_to_do_meanwhile() {
        for (options, words) in [
            (
                json!({"container_type": "docker", "container_uri": "x"}),
                "container_type is not supported yet; meanwhile ",
            ),
            (
                json!({"executor": {"type": "HighThroughputExecutor"}}),
                "executor, a Python object, is not supported yet",
            ),
            (
                json!({"address": {"type": "address_by_query"}}),
                "address_by_query is not supported yet; meanwhile write",
            ),
            (
                json!({"enable_mpi_mode": true}),
                "MPI mode is not supported on GlobusComputeEngine. Use GlobusMPIEngine instead.",
            ),
            (
                json!({"mpi_launcher": "srun"}),
                "MPI mode is not supported on GlobusComputeEngine. Use GlobusMPIEngine instead.",
            ),
            (json!({"drain_period": 0}), "drain_period must be at least 1"),
            (json!({"worker_port_range": [6, 5]}), "worker_port_range must be two ports"),
        ] {
            let refused = Options::from_value(options).unwrap_err().to_string();
            assert!(refused.starts_with(words), "{refused}");
        }
    }
}
