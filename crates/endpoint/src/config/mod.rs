//! An endpoint's configuration: `config.yaml`, or the text that a user endpoint gets on standard input.
//!
//! Errors begin with upstream's lines, which tools and support pages match; then follows the position with a caret.

mod catalogue;
mod common;
mod component;
mod engine;
mod exposed;
mod fields;
mod initial;
mod keys;
mod kind;
mod manager;
mod nearest;
mod parameter_value;
mod plain;
mod problem;
mod scalar;
mod site;
#[cfg(test)]
mod sites;
pub(crate) mod top_level;
mod validation_error;
mod yaml;

use crate::exit::Failure;

pub(crate) use common::{Common, ServiceSettings};
pub(crate) use initial::{ENVIRONMENT, IDENTITY_MAPPING, INITIAL, SCHEMA, TEMPLATE};
pub(crate) use kind::Configuration;
pub(crate) use manager::ManagerConfig;
pub(crate) use nearest::nearest;
pub(crate) use site::Site;

/// The settings of an endpoint, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) common: Common,
    /// In seconds. Has no effect; kept because configurations contain it.
    pub(crate) heartbeat_threshold: u64,
    /// Not upstream's: seconds that running tasks may take to end when the endpoint stops.
    pub(crate) shutdown_grace: u64,
    /// Not upstream's: whether tasks inherit the client identity in the endpoint's environment. Upstream's always do.
    pub(crate) pass_client_identity: bool,
    pub(crate) detach_endpoint: bool,
    pub(crate) endpoint_setup: Option<String>,
    pub(crate) endpoint_teardown: Option<String>,
    /// The endpoint stops after this many heartbeats without a task, once it has had one; 0 is never.
    pub(crate) idle_heartbeats_soft: u64,
    /// The same for an endpoint that never had a task.
    pub(crate) idle_heartbeats_hard: u64,
    pub(crate) engine: engine::Engine,
}

/// The text of what is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadConfig(pub(crate) String);

impl std::fmt::Display for BadConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<BadConfig> for Failure {
    fn from(bad: BadConfig) -> Self {
        Self::error(bad)
    }
}

impl Config {
    /// Reads a configuration; errors name it `file`.
    pub(crate) fn read(file: &str, text: &str) -> Result<Self, BadConfig> {
        plain::read(file, text, &parsed(text)?, plain::Author::Owner)
    }

    /// Reads a configuration that a manager rendered. A list of allowed functions that came out empty allows none: a
    /// template that names no functions for somebody must not allow them all.
    pub(crate) fn read_rendered(file: &str, text: &str) -> Result<Self, BadConfig> {
        let node = parsed(text)?;
        let mut config = plain::read(file, text, &node, plain::Author::Manager)?;
        if node.has_key("allowed_functions") {
            config.common.allowed_functions.get_or_insert_default();
        }
        Ok(config)
    }

    /// All settings as JSON, with every default filled in.
    pub(crate) fn resolved(&self) -> serde_json::Value {
        let mut all = self.common.resolved();
        all.extend([
            ("heartbeat_threshold".to_owned(), self.heartbeat_threshold.into()),
            ("shutdown_grace".to_owned(), self.shutdown_grace.into()),
            ("pass_client_identity".to_owned(), self.pass_client_identity.into()),
            ("detach_endpoint".to_owned(), self.detach_endpoint.into()),
            ("endpoint_setup".to_owned(), self.endpoint_setup.clone().into()),
            ("endpoint_teardown".to_owned(), self.endpoint_teardown.clone().into()),
            ("idle_heartbeats_soft".to_owned(), self.idle_heartbeats_soft.into()),
            ("idle_heartbeats_hard".to_owned(), self.idle_heartbeats_hard.into()),
            ("engine".to_owned(), self.engine.resolved().into()),
        ]);
        all.into()
    }
}

/// Parses the text of a configuration.
fn parsed(text: &str) -> Result<yaml::Node, BadConfig> {
    yaml::read(text).map_err(|error| BadConfig(format!("Invalid config syntax: {error}")))
}

/// The refusal of a `config.py`.
fn python_configuration(endpoint: &crate::directory::EndpointDir) -> Failure {
    Failure::error(format!(
        "{} is a Python program, which this endpoint does not run.\n\n\
                 To convert it, write to config.yaml beside it each argument of Config(...) as a line, and each object\n\
                 as a mapping with its class as `type`:\n\n    \
                 Config(                                     display_name: My cluster\n      \
                 display_name=\"My cluster\",                 engine:\n      \
                 executors=[GlobusComputeEngine(               type: GlobusComputeEngine\n        \
                 max_workers_per_node=2,                       max_workers_per_node: 2\n        \
                 provider=SlurmProvider(                       provider:\n          \
                 partition=\"debug\",                             type: SlurmProvider\n        \
                 ))])                                            partition: debug\n\n\
                 `globus-compute-endpoint check {}` then says whether it will do. Last, remove config.py.",
        endpoint.config_py().display(),
        endpoint.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "engine:\n  type: GlobusComputeEngine\n";

    fn good(text: &str) -> Config {
        Config::read("config.yaml", text).unwrap_or_else(|bad| panic!("{bad}"))
    }

    fn bad(text: &str) -> String {
        Config::read("config.yaml", text).map(|config| format!("accepted: {config:?}")).unwrap_err().0
    }

    /// The lines upstream's 3.8.0 prints (seen by running it), which come first in ours.
    #[test]
    fn a_rendered_list_of_functions_that_is_empty_allows_none() {
        let allowed = |line: &str| {
            let text = format!("{LEAST}{line}");
            Config::read_rendered("f", &text).unwrap().common.allowed_functions
        };
        assert_eq!(allowed(""), None);
        for line in ["allowed_functions:\n", "allowed_functions: null\n", "allowed_functions: []\n"] {
            assert_eq!(allowed(line), Some(vec![]), "{line}");
        }
        let id = "00000000-0000-4000-8000-000000000001";
        assert_eq!(allowed(&format!("allowed_functions: [{id}]\n")), Some(vec![id.parse().unwrap()]));
        let plain = Config::read("f", &format!("{LEAST}allowed_functions: null\n")).unwrap();
        assert_eq!(plain.common.allowed_functions, None, "as upstream, in a file of the owner's");
    }

    #[test]
    fn high_assurance_is_a_managers_to_say() {
        let text = format!("high_assurance: true\n{LEAST}");
        assert!(Config::read("f", &text).unwrap_err().0.contains("high_assurance"));
        assert_eq!(Config::read_rendered("f", &text).unwrap(), Config::read("f", LEAST).unwrap());
        let open = "engine:\n  type: GlobusComputeEngine\n  encrypted: false\n";
        assert!(Config::read_rendered("f", open).is_ok());
        let refused = Config::read_rendered("f", &format!("high_assurance: true\n{open}")).unwrap_err().0;
        assert!(
            refused.contains("engine -> encrypted\n  High-Assurance GlobusComputeEngines must"),
            "{refused}"
        );
    }

    #[test]
    fn errors_begin_with_upstreams_lines() {
        let one = "1 validation error for UserEndpointConfigModel\n";
        let table = [
            (
                "foo: 1\nengine:\n  type: GlobusComputeEngine\n",
                "foo\n  extra fields not permitted (type=value_error.extra)",
            ),
            ("display_name: x\n", "engine\n  field required (type=value_error.missing)"),
            ("engine:\n  type: Nope\n", "engine -> type\n  Nope could not be found (type=value_error)"),
            (
                "engine:\n  type: GlobusComputeEngine\n  provider:\n    type: NopeProvider\n",
                "engine -> provider -> type\n  NopeProvider could not be found (type=value_error)",
            ),
            (
                "engine:\n  provider:\n    type: LocalProvider\n    launcher:\n      type: NopeLauncher\n",
                "engine -> provider -> launcher -> type\n  NopeLauncher could not be found (type=value_error)",
            ),
            (
                "engine:\n  type: GlobusComputeEngine\n  nope: 1\n",
                "engine\n  HighThroughputExecutor.__init__() got an unexpected keyword argument 'nope' (type=value_error)",
            ),
            (
                "engine:\n  provider:\n    type: LocalProvider\n    nope: 1\n",
                "engine -> provider\n  LocalProvider.__init__() got an unexpected keyword argument 'nope' (type=value_error)",
            ),
            ("engine: 3\n", "engine\n  value is not a valid dict (type=type_error.dict)"),
        ];
        for (text, expected) in table {
            let found = bad(text);
            assert!(found.starts_with(&format!("{one}{expected}\n")), "{text}\n{found}");
        }
    }

    #[test]
    fn all_errors_are_reported_together() {
        let text = format!(
            "{LEAST}heartbeat_period: abc\nallowed_functions: [x]\ndetach_endpoint: maybe\namqp_port: z\n"
        );
        let expected = "4 validation errors for UserEndpointConfigModel\n\
            allowed_functions -> 0\n  value is not a valid uuid (type=type_error.uuid)\n\
            amqp_port\n  value is not a valid integer (type=type_error.integer)\n\
            heartbeat_period\n  value is not a valid integer (type=type_error.integer)\n\
            detach_endpoint\n  value could not be parsed to a boolean (type=type_error.bool)\n";
        let found = bad(&text);
        assert!(found.starts_with(expected), "{found}");
    }

    #[test]
    fn an_error_points_at_its_place() {
        insta::assert_snapshot!(bad("display_name: x\nengine:\n  type: GlobusComputeEngine\nheart_beat_period: 3\n"), @r"
        1 validation error for UserEndpointConfigModel
        heart_beat_period
          extra fields not permitted (type=value_error.extra)

         --> config.yaml:4:1
          |
        4 | heart_beat_period: 3
          | ^^^^^^^^^^^^^^^^^
          = help: the nearest name there is: heartbeat_period
        ");
    }

    #[test]
    fn only_a_mapping_is_accepted() {
        for text in ["", "- a\n", "text\n", "a: [\n"] {
            assert!(bad(text).starts_with("Invalid config syntax: "), "{text:?}: {}", bad(text));
        }
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let config = good(LEAST);
        assert_eq!(config.common.heartbeat_period, 30);
        assert_eq!(config.idle_heartbeats_soft, 0);
        assert_eq!(config.idle_heartbeats_hard, 5760);
        assert!(config.detach_endpoint);
        assert_eq!(config.common.allowed_functions, None);
        assert_eq!(config.shutdown_grace, 5);
        assert!(config.pass_client_identity);
        assert_eq!(config.engine.resolved()["provider"]["max_blocks"], 1);
    }

    #[test]
    fn the_initial_configuration_is_valid() {
        let config = good(INITIAL);
        let options = config.engine.runnable().unwrap();
        assert_eq!(options.max_workers_per_node, Some(1));
    }

    #[test]
    fn values_are_read_as_upstream_reads_them() {
        let config = good(&format!(
            "{LEAST}display_name: None\nheartbeat_period: 7.9\nallowed_functions: []\namqp_port: 443\n\
             detach_endpoint: 'off'\npass_client_identity: no\nheartbeat_threshold: 200\nlog_dir: null\n"
        ));
        assert_eq!(config.common.display_name, None);
        assert_eq!(config.common.heartbeat_period, 7);
        assert_eq!(config.common.allowed_functions, Some(vec![]));
        assert_eq!(config.common.amqp_port, Some(443));
        assert!(!config.detach_endpoint);
        assert!(!config.pass_client_identity);
        assert!(bad(&format!("{LEAST}pass_client_identity: maybe\n")).contains("pass_client_identity"));
        assert_eq!(
            good(&format!("{LEAST}heartbeat_period: 1\n")).common.heartbeat_period,
            common::LEAST_HEARTBEAT_PERIOD
        );
        assert_eq!(
            good(&format!("{LEAST}idle_heartbeats_soft: 9\nidle_heartbeats_hard: 3\n")).idle_heartbeats_hard,
            10
        );
    }

    #[test]
    fn unsupported_settings_are_refused_with_an_alternative() {
        for (text, name) in [
            (format!("{LEAST}high_assurance: true\n").as_str(), "high_assurance"),
            ("engine:\n  type: GlobusMPIEngine\n", "GlobusMPIEngine"),
            ("engine:\n  provider:\n    type: SlurmProvider\n", "SlurmProvider"),
            ("engine:\n  container_type: docker\n  container_uri: x\n", "container_type"),
        ] {
            let found = match Config::read("config.yaml", text) {
                Ok(config) => config.engine.runnable().unwrap_err(),
                Err(bad) => bad.0,
            };
            assert!(found.contains(name) && found.contains("meanwhile"), "{text}\n{found}");
        }
        good("engine:\n  container_type: None\n");
        good("multi_user: false\nengine: {}\n");
    }
}
