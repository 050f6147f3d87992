//! What can stand under `engine:`: every engine, provider and launcher, its parameters and their defaults.
//!
//! A table and nothing else: [`super::engine`] reads configurations by it. It lists also what this version can't run
//! yet, because a configuration must be readable before it can be refused by name.

use serde_json::{Map, Value, json};

/// What a parameter takes.
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
    /// Anything.
    Free,
    /// A literal address, or how to find one.
    Address,
    /// A name; the object of older examples is read as what it means.
    Strategy,
    Containers,
}

/// What a parameter is when it is not given.
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
    /// How upstream's errors call what takes its parameters.
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
    /// How Python calls it in an error.
    pub(super) fn call(&self) -> String {
        // A function, and no class.
        let function = self.constructor.starts_with(|letter: char| letter.is_ascii_lowercase());
        if function { format!("{}()", self.constructor) } else { format!("{}.__init__()", self.constructor) }
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&'static Parameter> {
        self.all().find(|parameter| parameter.name == name)
    }

    /// Later groups go before earlier ones: a class may have another default than its kin.
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

const fn said(name: &'static str, value: &'static str) -> Parameter {
    p(name, Kind::Text, Fallback::Text(value))
}

const fn count(name: &'static str, value: u32) -> Parameter {
    p(name, Kind::Count, Fallback::Count(value))
}

const fn counted(name: &'static str) -> Parameter {
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

/// Every engine's.
const BASE: &[Parameter] = &[
    text("label"),
    text("endpoint_id"),
    count("max_retries_on_system_failure", 0),
    said("working_dir", "tasks_working_dir"),
    flag("run_in_sandbox", false),
    p("allowed_serializers", Kind::Texts, Fallback::NoTexts),
    // Ours.
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
    said("loopback_address", "127.0.0.1"),
    counted("worker_port"),
    p("worker_ports", Kind::Ports, Fallback::Null),
    p("worker_port_range", Kind::Ports, Fallback::Ports(54000, 55000)),
    p("interchange_port_range", Kind::Ports, Fallback::Ports(55000, 56000)),
    p("storage_access", Kind::Free, Fallback::Null),
    flag("worker_debug", false),
    count("prefetch_capacity", 0),
    count("heartbeat_threshold", 120),
    count("heartbeat_period", 30),
    counted("drain_period"),
    count("poll_period", 10),
    counted("address_probe_timeout"),
    text("worker_logdir_root"),
    flag("block_error_handler", true),
    // Python objects, for the engine to refuse by name.
    p("executor", Kind::Free, Fallback::Null),
    p("remote_monitoring_radio", Kind::Free, Fallback::Null),
    // Ours.
    flag("shared_file_system", true),
];

const WORKERS: &[Parameter] = &[
    counted("max_workers_per_node"),
    p("cores_per_worker", Kind::Number, Fallback::Number(1.0)),
    p("mem_per_worker", Kind::Number, Fallback::Null),
    said("cpu_affinity", "none"),
    p("available_accelerators", Kind::Accelerators, Fallback::NoTexts),
    p("manager_selector", Kind::Free, Fallback::Null),
];

pub(super) const COMPUTE: &str = "GlobusComputeEngine";
/// The first one's name in old releases.
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
            &[count("max_workers_per_block", 1), said("mpi_launcher", "mpiexec")],
        ],
        provider: true,
        launcher: false,
    },
    Class {
        name: "ThreadPoolEngine",
        constructor: "ThreadPoolExecutor",
        parameters: &[BASE, &[counted("max_workers"), said("thread_name_prefix", "")]],
        provider: false,
        launcher: false,
    },
    Class {
        name: "ProcessPoolEngine",
        constructor: "ProcessPoolExecutor",
        parameters: &[BASE, &[counted("max_workers"), counted("max_tasks_per_child")]],
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

const BATCH: &[Parameter] = &[said("worker_init", ""), said("scheduler_options", "")];

const CLOUD: &[Parameter] = &[
    count("init_blocks", 1),
    count("min_blocks", 0),
    count("max_blocks", 10),
    count("nodes_per_block", 1),
    p("parallelism", Kind::Number, Fallback::Number(1.0)),
    said("worker_init", ""),
];

/// A provider that runs launchers.
const fn provider(name: &'static str, parameters: &'static [&'static [Parameter]]) -> Class {
    Class { name, constructor: name, parameters, provider: false, launcher: true }
}

pub(super) const LOCAL: &str = "LocalProvider";

pub(super) static PROVIDERS: [Class; 11] = [
    provider(LOCAL, &[BLOCKS, &[said("worker_init", ""), count("cmd_timeout", 30)]]),
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
                counted("cores_per_node"),
                counted("mem_per_node"),
                counted("gpus_per_node"),
                text("gres"),
                walltime("00:10:00"),
                said("regex_job_id", r"Submitted batch job (?P<id>\S*)"),
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
                said("select_options", ""),
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
                counted("cores_per_block"),
                counted("cores_per_node"),
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
                counted("cores_per_slot"),
                p("mem_per_slot", Kind::Number, Fallback::Null),
                p("environment", Kind::Map, Fallback::NoMap),
                said("project", ""),
                p("transfer_input_files", Kind::Texts, Fallback::NoTexts),
                said("requirements", ""),
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
                said("namespace", "default"),
                p("max_cpu", Kind::Number, Fallback::Number(2.0)),
                said("max_mem", "500Mi"),
                p("init_cpu", Kind::Number, Fallback::Number(1.0)),
                said("init_mem", "250Mi"),
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
                said("instance_type", "t2.small"),
                said("region", "us-east-2"),
                p("spot_max_bid", Kind::Number, Fallback::Number(0.0)),
                text("key_file"),
                text("profile"),
                said("iam_instance_profile_arn", ""),
                said("state_file", "awsproviderstate.json"),
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
                said("location", "westus"),
                said("group_name", "parsl.group"),
                said("vnet_name", "parsl.vnet"),
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
                said("google_version", "v1"),
                said("instance_type", "n1-standard-1"),
            ],
        ],
    ),
];

/// A launcher; each takes `debug`.
const fn launcher(name: &'static str, parameters: &'static [&'static [Parameter]]) -> Class {
    Class { name, constructor: name, parameters, provider: false, launcher: false }
}

const DEBUG: &[Parameter] = &[flag("debug", true)];
const OVERRIDES: &[Parameter] = &[said("overrides", "")];

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
    launcher("MpiExecLauncher", &[DEBUG, OVERRIDES, &[said("bind_cmd", "--bind-to")]]),
    launcher("MpiRunLauncher", &[DEBUG, OVERRIDES, &[said("bash_location", "/bin/bash")]]),
];

/// The launcher of a provider that names none.
pub(super) fn usual_launcher(provider: &str) -> &'static str {
    if provider == "TorqueProvider" { "AprunLauncher" } else { SINGLE_NODE }
}

/// How an address is found when it is not given literally, and what each way takes.
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
