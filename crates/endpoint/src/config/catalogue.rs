//! The table of every engine, provider and launcher that can stand under `engine:`, with their parameters and defaults.
//!
//! [`super::engine`] reads configurations with it. It also lists what this version can't run yet: a configuration must be
//! readable before an error can name what is not supported.

use serde_json::{Map, Value, json};

/// The kind of a parameter's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Flag,
    /// A whole number, zero or more.
    Count,
    Number,
    /// `HH:MM:SS`, or a number of seconds.
    Walltime,
    Texts,
    /// A count or names.
    Accelerators,
    /// Two port numbers.
    Ports,
    Map,
    /// Any value.
    Free,
    /// An address, or a mapping that says how to find one.
    Address,
    /// A name; the object of older examples is accepted too.
    Strategy,
    Containers,
}

/// The default of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fallback {
    Null,
    Required,
    Flag(bool),
    Count(u32),
    Number(f64),
    Text(&'static str),
    NoTexts,
    NoMap,
    Ports(u16, u16),
}

impl Fallback {
    pub(super) fn value(self) -> Value {
        match self {
            Self::Null | Self::Required => Value::Null,
            Self::Flag(value) => value.into(),
            Self::Count(value) => value.into(),
            Self::Number(value) => value.into(),
            Self::Text(value) => value.into(),
            Self::NoTexts => json!([]),
            Self::NoMap => Map::new().into(),
            Self::Ports(first, last) => json!([first, last]),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) fallback: Fallback,
}

/// An engine, a provider or a launcher.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) name: &'static str,
    /// The Python name of the constructor, for upstream's errors.
    pub(super) constructor: &'static str,
    pub(super) parameters: &'static [&'static [Parameter]],
    pub(super) provider: bool,
    pub(super) launcher: bool,
}

impl PartialEq for Class {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Class {
    /// How Python names the constructor in an error.
    pub(super) fn call(&self) -> String {
        // Some are functions.
        let function = self.constructor.starts_with(|letter: char| letter.is_ascii_lowercase());
        if function { format!("{}()", self.constructor) } else { format!("{}.__init__()", self.constructor) }
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&'static Parameter> {
        self.all().find(|parameter| parameter.name == name)
    }

    /// All parameters. Later groups override earlier ones: a class may have its own default.
    pub(super) fn all(&self) -> impl Iterator<Item = &'static Parameter> {
        self.parameters.iter().rev().flat_map(|group| group.iter())
    }

    /// Every parameter's default.
    pub(super) fn defaults(&self) -> Map<String, Value> {
        let mut values = Map::new();
        for parameter in self.parameters.iter().flat_map(|group| group.iter()) {
            values.insert(parameter.name.to_owned(), parameter.fallback.value());
        }
        values
    }
}

pub(super) fn find(classes: &'static [Class], name: &str) -> Option<&'static Class> {
    classes.iter().find(|class| class.name == name)
}

const fn p(name: &'static str, kind: Kind, fallback: Fallback) -> Parameter {
    Parameter { name, kind, fallback }
}

const fn text(name: &'static str) -> Parameter {
    p(name, Kind::Text, Fallback::Null)
}

const fn text_default(name: &'static str, value: &'static str) -> Parameter {
    p(name, Kind::Text, Fallback::Text(value))
}

const fn count(name: &'static str, value: u32) -> Parameter {
    p(name, Kind::Count, Fallback::Count(value))
}

const fn optional_count(name: &'static str) -> Parameter {
    p(name, Kind::Count, Fallback::Null)
}

const fn flag(name: &'static str, value: bool) -> Parameter {
    p(name, Kind::Flag, Fallback::Flag(value))
}

const fn walltime(value: &'static str) -> Parameter {
    p("walltime", Kind::Walltime, Fallback::Text(value))
}

const fn required(name: &'static str) -> Parameter {
    p(name, Kind::Text, Fallback::Required)
}

/// Parameters of every engine.
const BASE: &[Parameter] = &[
    text("label"),
    text("endpoint_id"),
    count("max_retries_on_system_failure", 0),
    text_default("working_dir", "tasks_working_dir"),
    flag("run_in_sandbox", false),
    p("allowed_serializers", Kind::Texts, Fallback::NoTexts),
    // Not upstream's.
    count("result_size_limit", 10 * 1024 * 1024),
    text("python"),
    count("worker_start_timeout", 600),
];

const BLOCKS_ENGINE: &[Parameter] = &[
    p("container_type", Kind::Containers, Fallback::Null),
    text("container_uri"),
    text("container_cmd_options"),
    flag("encrypted", true),
    p("strategy", Kind::Strategy, Fallback::Null),
    p("job_status_kwargs", Kind::Map, Fallback::NoMap),
    text("launch_cmd"),
    p("interchange_launch_cmd", Kind::Free, Fallback::Null),
    p("address", Kind::Address, Fallback::Null),
    text_default("loopback_address", "127.0.0.1"),
    optional_count("worker_port"),
    p("worker_ports", Kind::Ports, Fallback::Null),
    p("worker_port_range", Kind::Ports, Fallback::Ports(54000, 55000)),
    p("interchange_port_range", Kind::Ports, Fallback::Ports(55000, 56000)),
    p("storage_access", Kind::Free, Fallback::Null),
    flag("worker_debug", false),
    count("prefetch_capacity", 0),
    count("heartbeat_threshold", 120),
    count("heartbeat_period", 30),
    optional_count("drain_period"),
    count("poll_period", 10),
    optional_count("address_probe_timeout"),
    text("worker_logdir_root"),
    flag("block_error_handler", true),
    // Python objects, for the engine to refuse by name.
    p("executor", Kind::Free, Fallback::Null),
    p("remote_monitoring_radio", Kind::Free, Fallback::Null),
    // Not upstream's.
    flag("shared_file_system", true),
];

const WORKERS: &[Parameter] = &[
    optional_count("max_workers_per_node"),
    p("cores_per_worker", Kind::Number, Fallback::Number(1.0)),
    p("mem_per_worker", Kind::Number, Fallback::Null),
    text_default("cpu_affinity", "none"),
    p("available_accelerators", Kind::Accelerators, Fallback::NoTexts),
    p("manager_selector", Kind::Free, Fallback::Null),
];

pub(super) const COMPUTE: &str = "GlobusComputeEngine";
/// The name of `GlobusComputeEngine` in old releases.
pub(super) const FORMER: &str = "HighThroughputEngine";
pub(super) const MPI: &str = "GlobusMPIEngine";

pub(super) static ENGINES: [Class; 4] = [
    Class {
        name: COMPUTE,
        constructor: "HighThroughputExecutor",
        parameters: &[BASE, BLOCKS_ENGINE, WORKERS],
        provider: true,
        launcher: false,
    },
    Class {
        name: MPI,
        constructor: "MPIExecutor",
        parameters: &[
            BASE,
            BLOCKS_ENGINE,
            &[count("max_workers_per_block", 1), text_default("mpi_launcher", "mpiexec")],
        ],
        provider: true,
        launcher: false,
    },
    Class {
        name: "ThreadPoolEngine",
        constructor: "ThreadPoolExecutor",
        parameters: &[BASE, &[optional_count("max_workers"), text_default("thread_name_prefix", "")]],
        provider: false,
        launcher: false,
    },
    Class {
        name: "ProcessPoolEngine",
        constructor: "ProcessPoolExecutor",
        parameters: &[BASE, &[optional_count("max_workers"), optional_count("max_tasks_per_child")]],
        provider: false,
        launcher: false,
    },
];

const BLOCKS: &[Parameter] = &[
    count("nodes_per_block", 1),
    count("init_blocks", 1),
    count("min_blocks", 0),
    count("max_blocks", 1),
    p("parallelism", Kind::Number, Fallback::Number(1.0)),
];

const BATCH: &[Parameter] = &[text_default("worker_init", ""), text_default("scheduler_options", "")];

const CLOUD: &[Parameter] = &[
    count("init_blocks", 1),
    count("min_blocks", 0),
    count("max_blocks", 10),
    count("nodes_per_block", 1),
    p("parallelism", Kind::Number, Fallback::Number(1.0)),
    text_default("worker_init", ""),
];

/// A provider that has a launcher.
const fn provider(name: &'static str, parameters: &'static [&'static [Parameter]]) -> Class {
    Class { name, constructor: name, parameters, provider: false, launcher: true }
}

pub(super) const LOCAL: &str = "LocalProvider";

pub(super) static PROVIDERS: [Class; 11] = [
    provider(LOCAL, &[BLOCKS, &[text_default("worker_init", ""), count("cmd_timeout", 30)]]),
    provider(
        "SlurmProvider",
        &[
            BLOCKS,
            BATCH,
            &[
                text("partition"),
                text("account"),
                text("qos"),
                text("constraint"),
                text("clusters"),
                optional_count("cores_per_node"),
                optional_count("mem_per_node"),
                optional_count("gpus_per_node"),
                text("gres"),
                walltime("00:10:00"),
                text_default("regex_job_id", r"Submitted batch job (?P<id>\S*)"),
                count("status_batch_size", 50),
                flag("exclusive", true),
                count("cmd_timeout", 10),
            ],
        ],
    ),
    provider(
        "PBSProProvider",
        &[
            BLOCKS,
            BATCH,
            &[
                text("account"),
                text("queue"),
                text_default("select_options", ""),
                count("cpus_per_node", 1),
                walltime("00:20:00"),
                count("cmd_timeout", 120),
            ],
        ],
    ),
    provider(
        "TorqueProvider",
        &[BLOCKS, BATCH, &[text("account"), text("queue"), walltime("00:20:00"), count("cmd_timeout", 120)]],
    ),
    provider(
        "LSFProvider",
        &[
            BLOCKS,
            BATCH,
            &[
                text("project"),
                text("queue"),
                optional_count("cores_per_block"),
                optional_count("cores_per_node"),
                flag("bsub_redirection", false),
                flag("request_by_nodes", true),
                walltime("00:10:00"),
                count("cmd_timeout", 120),
            ],
        ],
    ),
    provider(
        "GridEngineProvider",
        &[BLOCKS, BATCH, &[text("queue"), walltime("00:10:00"), count("cmd_timeout", 60)]],
    ),
    provider(
        "CondorProvider",
        &[
            BLOCKS,
            BATCH,
            &[
                optional_count("cores_per_slot"),
                p("mem_per_slot", Kind::Number, Fallback::Null),
                p("environment", Kind::Map, Fallback::NoMap),
                text_default("project", ""),
                p("transfer_input_files", Kind::Texts, Fallback::NoTexts),
                text_default("requirements", ""),
                count("cmd_chunk_size", 100),
                walltime("00:10:00"),
                count("cmd_timeout", 60),
            ],
        ],
    ),
    Class {
        name: "KubernetesProvider",
        constructor: "KubernetesProvider",
        parameters: &[
            CLOUD,
            &[
                count("init_blocks", 4),
                required("image"),
                text_default("namespace", "default"),
                p("max_cpu", Kind::Number, Fallback::Number(2.0)),
                text_default("max_mem", "500Mi"),
                p("init_cpu", Kind::Number, Fallback::Number(1.0)),
                text_default("init_mem", "250Mi"),
                p("extra_requests", Kind::Map, Fallback::Null),
                p("extra_limits", Kind::Map, Fallback::Null),
                text("pod_name"),
                text("user_id"),
                text("group_id"),
                flag("run_as_non_root", false),
                text("secret"),
                p("persistent_volumes", Kind::Free, Fallback::NoTexts),
                text("service_account_name"),
                p("annotations", Kind::Map, Fallback::Null),
            ],
        ],
        provider: false,
        launcher: false,
    },
    provider(
        "AWSProvider",
        &[
            CLOUD,
            &[
                required("image_id"),
                required("key_name"),
                text_default("instance_type", "t2.small"),
                text_default("region", "us-east-2"),
                p("spot_max_bid", Kind::Number, Fallback::Number(0.0)),
                text("key_file"),
                text("profile"),
                text_default("iam_instance_profile_arn", ""),
                text_default("state_file", "awsproviderstate.json"),
                walltime("01:00:00"),
                flag("linger", false),
            ],
        ],
    ),
    provider(
        "AzureProvider",
        &[
            CLOUD,
            &[
                p("vm_reference", Kind::Map, Fallback::Required),
                text_default("location", "westus"),
                text_default("group_name", "parsl.group"),
                text_default("vnet_name", "parsl.vnet"),
                text("key_name"),
                text("key_file"),
                flag("linger", false),
            ],
        ],
    ),
    provider(
        "GoogleCloudProvider",
        &[
            CLOUD,
            &[
                required("project_id"),
                required("key_file"),
                required("region"),
                required("os_project"),
                required("os_family"),
                text_default("google_version", "v1"),
                text_default("instance_type", "n1-standard-1"),
            ],
        ],
    ),
];

/// A launcher.
const fn launcher(name: &'static str, parameters: &'static [&'static [Parameter]]) -> Class {
    Class { name, constructor: name, parameters, provider: false, launcher: false }
}

const DEBUG: &[Parameter] = &[flag("debug", true)];
const OVERRIDES: &[Parameter] = &[text_default("overrides", "")];

pub(super) const SINGLE_NODE: &str = "SingleNodeLauncher";

pub(super) static LAUNCHERS: [Class; 10] = [
    launcher("SimpleLauncher", &[DEBUG]),
    launcher(SINGLE_NODE, &[DEBUG, &[flag("fail_on_any", false)]]),
    launcher("WrappedLauncher", &[DEBUG, &[required("prepend")]]),
    launcher("SrunLauncher", &[DEBUG, OVERRIDES]),
    launcher("SrunMPILauncher", &[DEBUG, OVERRIDES]),
    launcher("AprunLauncher", &[DEBUG, OVERRIDES]),
    launcher("JsrunLauncher", &[DEBUG, OVERRIDES]),
    launcher("GnuParallelLauncher", &[DEBUG]),
    launcher("MpiExecLauncher", &[DEBUG, OVERRIDES, &[text_default("bind_cmd", "--bind-to")]]),
    launcher("MpiRunLauncher", &[DEBUG, OVERRIDES, &[text_default("bash_location", "/bin/bash")]]),
];

/// The default launcher of a provider.
pub(super) fn usual_launcher(provider: &str) -> &'static str {
    if provider == "TorqueProvider" { "AprunLauncher" } else { SINGLE_NODE }
}

/// The ways to find an address, with their parameters.
pub(super) static ADDRESSES: [Class; 4] = [
    launcher("address_by_interface", &[&[required("ifname")]]),
    launcher("address_by_hostname", &[]),
    launcher("address_by_query", &[&[count("timeout", 30)]]),
    launcher("address_by_route", &[]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_has_each_parameter_by_its_own_default() {
        let kubernetes = find(&PROVIDERS, "KubernetesProvider").unwrap();
        assert_eq!(kubernetes.defaults()["init_blocks"], 4);
        assert_eq!(kubernetes.parameter("init_blocks").unwrap().fallback, Fallback::Count(4));
        let mpi = find(&ENGINES, MPI).unwrap();
        assert!(mpi.parameter("max_workers_per_node").is_none());
        assert_eq!(mpi.defaults()["mpi_launcher"], "mpiexec");
    }
}
