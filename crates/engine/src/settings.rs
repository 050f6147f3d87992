//! Converts the user's options into the core's rules and the configuration of nodes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::EngineConfig;
use crate::core::{Rules, ScalingRules};
use crate::link::keys;
use crate::link::message;
use crate::node;

/// The rules that the core decides by.
pub(crate) fn core_rules(config: &EngineConfig) -> Rules {
    let options = &config.options;
    let blocks = &options.provider.blocks;
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
        scaling: ScalingRules {
            strategy: scaling.strategy,
            init: blocks.init_blocks,
            min: blocks.min_blocks,
            max: blocks.max_blocks,
            nodes_per_block: blocks.nodes_per_block,
            workers_per_node,
            parallelism: blocks.parallelism,
            max_idle: scaling.max_idle,
            failures_end_engine: options.block_error_handler,
        },
    }
}

/// What belongs to one run of an engine.
pub(crate) struct RunSettings {
    pub(crate) id: String,
    /// Where nodes connect to it.
    pub(crate) engines: Vec<SocketAddr>,
    pub(crate) keys: keys::LinkKeys,
    pub(crate) allowed_serializers: Vec<&'static str>,
}

/// The configuration of all nodes of a run. `library` holds the worker's Python, for nodes that see the endpoint's
/// files.
pub(crate) fn node_config(config: &EngineConfig, run: RunSettings, library: PathBuf) -> node::Config {
    let options = &config.options;
    let shared = options.shared_file_system;
    let logs = options.worker_logdir_root.as_ref().map(|root| root.join(config.executor_label()));
    let pool = options.kind.pool_size(node::count_cores());
    let traits = options.kind.traits();
    node::Config {
        version: message::VERSION.to_owned(),
        run: run.id,
        engines: run.engines,
        probe: Duration::from_secs(options.address_probe_timeout.unwrap_or(30)),
        debug: options.worker_debug,
        keys: run.keys,
        heartbeat_period: config.heartbeat_period(),
        heartbeat_threshold: config.heartbeat_threshold(),
        logs: logs.or_else(|| shared.then(|| config.engine_dir())),
        workers: options.kind.workers(),
        max_workers: pool.or(options.max_workers_per_node),
        // The number of cores does not limit a pool.
        cores_per_worker: if pool.is_some() { f64::MIN_POSITIVE } else { options.cores_per_worker },
        mem_per_worker: options.mem_per_worker,
        cpu_affinity: options.cpu_affinity.clone(),
        accelerators: options.available_accelerators.clone(),
        python: options.python.clone(),
        worker_library: shared.then_some(library),
        start_limit: Duration::from_secs(options.worker_start_timeout),
        worker: node::WorkerConfig {
            endpoint_id: config.endpoint,
            working_dir: if shared {
                config.run_dir.join(&options.working_dir)
            } else {
                options.working_dir.clone()
            },
            run_in_sandbox: options.run_in_sandbox && !traits.threads,
            variables: traits.has_blocks,
            thread_name_prefix: None,
            allowed: run.allowed_serializers.into_iter().map(str::to_owned).collect(),
            result_size_limit: options.result_size_limit,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::allowlist;
    use crate::config::{Options, address};
    use crate::provider::{self, Job, Secret, Staging};

    /// Everything that options change, as text: the core's rules, the nodes' configuration, the block's script, the
    /// engine's address.
    fn effect(options: Options) -> String {
        let address = address::resolve(options.address.as_ref()).unwrap();
        let ports = options.ports();
        let endpoint = wire::EndpointId::from_uuid(uuid::Uuid::nil());
        let config = EngineConfig {
            endpoint,
            run_dir: "/run".into(),
            node_command: Vec::new(),
            open_files: None,
            reports_blocks: false,
            options,
        };
        let run = RunSettings {
            id: String::new(),
            engines: address::with_port(&address.advertise, 1),
            keys: keys::generate().unwrap().1,
            allowed_serializers: allowlist::resolve(&config.options.allowed_serializers).unwrap(),
        };
        let mut nodes = serde_json::to_value(node_config(&config, run, "/library".into())).unwrap();
        nodes.as_object_mut().unwrap().remove("keys");
        let staging = Staging::Secret(Secret::new(String::new()));
        let job = Job { name: "job".into(), node_command: vec!["node".into()], staging };
        let blocks = &config.options.provider.blocks;
        let script = provider::script(blocks, &job, "/node.json", Path::new("/scripts"));
        format!("{:?}\n{nodes}\n{script}\n{address:?} {ports:?}", core_rules(&config))
    }

    /// An option that is read and then forgotten fails here.
    fn check_effect_or_reason(base: &Value, option: &str, value: &Value) {
        let mut changed = base.clone();
        let (path, name) = option.rsplit_once('/').unwrap_or(("", option));
        let parent = changed.pointer_mut(&if path.is_empty() { String::new() } else { format!("/{path}") });
        parent.unwrap()[name] = value.clone();
        let before = Options::from_value(base.clone()).unwrap();
        let after = Options::from_value(changed).unwrap_or_else(|error| panic!("{option}: {error}"));
        let named = option.replace('/', ".");
        let reason =
            after.without_effect().into_iter().find(|(noted, _)| noted.split(", ").any(|one| one == named));
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
            ("loopback_address", json!("127.0.0.2")),
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
            ("poll_period", json!(20)),
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
            ("provider/cmd_timeout", json!(60)),
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
            check_effect_or_reason(&base, option, &value);
        }
        let mut period = base.clone();
        period["job_status_kwargs"] = json!({"strategy_period": 5.0});
        assert_eq!(
            Options::from_value(period).unwrap().without_effect()[0].0,
            "job_status_kwargs.strategy_period"
        );
        let mut two = base.clone();
        two["provider"]["nodes_per_block"] = json!(2);
        check_effect_or_reason(&two, "provider/launcher/fail_on_any", &json!(true));
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
            check_effect_or_reason(&base, &format!("provider/launcher/{option}"), &json!(value));
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
                check_effect_or_reason(&json!({"type": engine}), option, value);
            }
        }
    }

    #[test]
    fn unsupported_options_are_refused_with_an_alternative() {
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
