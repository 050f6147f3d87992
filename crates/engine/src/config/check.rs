//! Refuses options that no node could work with, and names those that have no effect.

use super::address::{Address, AddressFinder};
use super::error::InvalidOptions;
use super::kind::EngineKind;
use super::options::Options;
use crate::launcher::Launcher;

/// The largest result that queues take, in bytes.
const MAX_RESULT_SIZE: u64 = 64 << 20;

/// One day, in seconds.
const MAX_START_TIMEOUT: u64 = 86_400;

impl Options {
    /// Refuses values no node could work with.
    pub fn check(&self) -> Result<(), InvalidOptions> {
        let refuse = |option, must| Err(InvalidOptions::Range { option, must });
        if self.container_type.is_some() {
            let meanwhile = "run workers without a container";
            return Err(InvalidOptions::Unsupported { what: "container_type", meanwhile });
        }
        if self.executor.is_some() {
            let meanwhile = "write its options under `engine` itself";
            return Err(InvalidOptions::Unsupported { what: "executor, a Python object,", meanwhile });
        }
        if matches!(self.address, Some(Address::Finder(AddressFinder::AddressByQuery { .. }))) {
            let meanwhile = "write the address itself: the query would go to a server on the internet";
            return Err(InvalidOptions::Unsupported { what: "address_by_query", meanwhile });
        }
        if self.enable_mpi_mode || self.mpi_launcher.is_some() {
            return Err(InvalidOptions::Mpi);
        }
        if self.label.as_deref().is_some_and(|label| !is_part_of_a_name(label)) {
            let must = "part of a file's name: of 128 bytes at most, without `/` and control characters, and not `.` or `..`";
            return refuse("label", must);
        }
        if self.kind.pool_size(1) == Some(0) {
            return refuse("max_workers", "at least 1");
        }
        if matches!(self.kind, EngineKind::ProcessPool { max_tasks_per_child: Some(0), .. }) {
            return refuse("max_tasks_per_child", "at least 1");
        }
        if self.drain_period == Some(0) {
            return refuse("drain_period", "at least 1");
        }
        if self.worker_port_range.0 >= self.worker_port_range.1 {
            return refuse("worker_port_range", "two ports, the second above the first");
        }
        self.scaling()?;
        if !(self.cores_per_worker.is_finite() && self.cores_per_worker > 0.0) {
            return refuse("cores_per_worker", "greater than 0");
        }
        if self.mem_per_worker.is_some_and(|memory| !(memory.is_finite() && memory > 0.0)) {
            return refuse("mem_per_worker", "greater than 0");
        }
        if self.max_workers_per_node == Some(0) {
            return refuse("max_workers_per_node", "at least 1");
        }
        if !(128..=MAX_RESULT_SIZE).contains(&self.result_size_limit) {
            return refuse("result_size_limit", "between 128 and 67108864");
        }
        if !(1..=MAX_START_TIMEOUT).contains(&self.worker_start_timeout) {
            return refuse("worker_start_timeout", "between 1 and 86400");
        }
        if !self.shared_file_system && self.provider.blocks.launcher.needs_shared_files() {
            return Err(InvalidOptions::SharedFiles);
        }
        if self.heartbeat_period == 0 || self.heartbeat_threshold <= self.heartbeat_period {
            return refuse("heartbeat_threshold", "greater than heartbeat_period, and that at least 1");
        }
        self.provider.check()
    }

    /// The options that are set and have no effect here, each with the reason.
    pub fn without_effect(&self) -> Vec<(&'static str, &'static str)> {
        const INSIDE: &str = "the engine runs inside the endpoint";
        let mut found = Vec::new();
        let mut note = |set: bool, name, why| {
            if set {
                found.push((name, why));
            }
        };
        let (traits, usual) = (self.kind.traits(), Self::default());
        note(self.endpoint_id.is_some(), "endpoint_id", "the endpoint's directory says which one it is");
        note(
            self.scaling().is_ok_and(|scaling| scaling.period.is_some()),
            "job_status_kwargs.strategy_period",
            "blocks follow the tasks at once, without a period",
        );
        note(!self.encrypted, "encrypted", "the link to nodes is always encrypted");
        note(self.poll_period != usual.poll_period, "poll_period", "nothing polls: events wake every part");
        note(self.loopback_address != usual.loopback_address, "loopback_address", INSIDE);
        note(self.interchange_port_range != usual.interchange_port_range, "interchange_port_range", INSIDE);
        note(self.interchange_launch_cmd.is_some(), "interchange_launch_cmd", INSIDE);
        note(
            self.launch_cmd.is_some(),
            "launch_cmd",
            "nodes run the endpoint's own file, which knows no other worker pool",
        );
        note(self.storage_access.is_some(), "storage_access", "files are not staged");
        note(
            self.manager_selector.is_some(),
            "manager_selector",
            "tasks always go to the node with most room",
        );
        note(
            self.remote_monitoring_radio.is_some(),
            "remote_monitoring_radio",
            "Parsl's monitoring is not part of an endpoint",
        );
        note(
            self.container_uri.is_some() || self.container_cmd_options.is_some(),
            "container_uri, container_cmd_options",
            "without container_type, workers run in no container",
        );
        note(
            traits.threads && self.run_in_sandbox,
            "run_in_sandbox",
            "the threads of a process share one working directory",
        );
        let blocks = &self.provider.blocks;
        note(
            self.provider.kind != usual.provider.kind,
            "provider.cmd_timeout",
            "blocks on this machine are started without a command that could hang",
        );
        note(
            blocks.launcher.is_quiet(),
            "provider.launcher.debug",
            "launchers print nothing of their own; what they run is in the script, which is kept",
        );
        note(
            matches!(blocks.launcher, Launcher::SimpleLauncher { .. }) && blocks.nodes_per_block > 1,
            "provider.nodes_per_block",
            "SimpleLauncher starts one node, however many a block has",
        );
        found
    }
}

/// File names have at most 255 bytes, and contain more than the label.
const MAX_LABEL_LENGTH: usize = 128;

/// Whether directories, scripts and logs can be named by this label without leaving their directory.
fn is_part_of_a_name(label: &str) -> bool {
    label.len() <= MAX_LABEL_LENGTH
        && !["..", "."].contains(&label)
        && !label.chars().any(|character| character == '/' || character.is_control())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wire::EndpointId;

    use super::*;
    use crate::config::{CpuAffinity, EngineConfig};

    #[test]
    fn the_names_that_users_configure_are_understood() {
        let options = Options::from_value(json!({
            "label": "Midway@RCC",
            "max_workers_per_node": 2,
            "cores_per_worker": 1,
            "cpu_affinity": "LIST:0-1:2,3",
            "available_accelerators": [0, "opencl:gpu:1"],
            "worker_port_range": [50000, 51000],
            "address": "127.0.0.1",
            "encrypted": false,
            "job_status_kwargs": {"max_idletime": 90},
            "provider": {
                "type": "LocalProvider",
                "max_blocks": 3,
                "worker_init": "module load python",
                "launcher": {"type": "SingleNodeLauncher", "debug": false},
            },
        }))
        .unwrap();
        assert_eq!(options.label(), "Midway@RCC");
        assert_eq!(options.cpu_affinity, CpuAffinity::List(vec![vec![0, 1], vec![2, 3]]));
        assert_eq!(options.available_accelerators.names(), ["0", "opencl:gpu:1"]);
        assert_eq!(options.provider.blocks.max_blocks, 3);
        let names: Vec<_> = options.without_effect().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["encrypted", "provider.launcher.debug"]);
        assert_eq!(Options::from_value(json!({})).unwrap(), Options::default());
    }

    #[test]
    fn a_label_can_not_leave_its_directory() {
        for (label, fine) in [
            ("Midway@RCC.UChicago", true),
            ("..a", true),
            ("a b $x", true),
            ("", true),
            (&"x".repeat(128), true),
            ("..", false),
            (".", false),
            ("../../../tmp/x", false),
            ("/tmp/x", false),
            ("a/b", false),
            ("a\nb", false),
            ("a\0b", false),
            (&"x".repeat(129), false),
        ] {
            for kind in ["GlobusComputeEngine", "ThreadPoolEngine"] {
                let read = Options::from_value(json!({"type": kind, "label": label}));
                assert_eq!(read.is_ok(), fine, "{label:?}");
                let Ok(options) = read else { continue };
                let endpoint = EndpointId::from_uuid(uuid::Uuid::nil());
                let config = EngineConfig {
                    endpoint,
                    run_dir: "/run".into(),
                    node_command: Vec::new(),
                    open_files: None,
                    reports_blocks: false,
                    options,
                };
                assert_eq!(config.engine_dir().parent(), Some(std::path::Path::new("/run")), "{label:?}");
                assert_ne!(config.engine_dir(), config.run_dir);
            }
        }
        let refused = Options::from_value(json!({"label": "../x"})).unwrap_err().to_string();
        assert!(refused.starts_with("label must be part of a file's name: "), "{refused}");
    }

    #[test]
    fn unusable_options_are_refused_by_name() {
        for (options, words) in [
            (json!({"max_worker_per_node": 1}), "unknown field `max_worker_per_node`"),
            (json!({"provider": {"type": "NoProvider"}}), "unknown variant `NoProvider`"),
            (json!({"cores_per_worker": 0}), "cores_per_worker must be greater than 0"),
            (json!({"mem_per_worker": -1.0}), "mem_per_worker must be greater than 0"),
            (json!({"max_workers_per_node": 0}), "max_workers_per_node must be at least 1"),
            (json!({"result_size_limit": 100}), "result_size_limit must be between 128 and"),
            (json!({"worker_start_timeout": 0}), "worker_start_timeout must be between 1 and 86400"),
            (json!({"heartbeat_period": 120}), "heartbeat_threshold must be greater than heartbeat_period"),
            (json!({"cpu_affinity": "sideways"}), "cpu_affinity `sideways` is none of: none, block"),
            (json!({"cpu_affinity": "list:5-1"}), "is none of"),
            (json!({"container_type": "docker"}), "container_type is not supported yet"),
            (
                json!({"provider": {"type": "LocalProvider", "max_blocks": 1, "min_blocks": 2}}),
                "max_blocks must be",
            ),
        ] {
            let error = Options::from_value(options).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
