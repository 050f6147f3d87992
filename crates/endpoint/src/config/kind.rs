//! Which kind of endpoint a directory is: one that runs tasks, or a manager of user endpoints.
//!
//! In 3.8 a manager says `multi_user: true`; in 4.x it has a template and no `engine`. Both are read.

use super::problem::Problem;
use super::yaml::{Node, Value};
use super::{BadConfig, Config, ManagerConfig, ServiceSettings, plain};
use crate::directory::EndpointDir;
use crate::exit::Failure;
use crate::host::changes_user;

/// The configuration of an endpoint of either kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Configuration {
    Tasks(Box<Config>),
    Manager(Box<ManagerConfig>),
}

impl Configuration {
    /// Reads a configuration; errors name it `file`. `has_template`: a template lies beside it.
    pub(crate) fn read(file: &str, text: &str, has_template: bool) -> Result<Self, BadConfig> {
        let node = super::parsed(text)?;
        if is_manager(&node, has_template) {
            return ManagerConfig::read_node(file, text, &node).map(Box::new).map(Self::Manager);
        }
        plain::read(file, text, &node, plain::Author::Owner).map(Box::new).map(Self::Tasks)
    }

    /// Reads an endpoint's file. Returns its text as well. As in 4.x, a manager may be without the file.
    pub(crate) fn load(endpoint: &EndpointDir) -> Result<(Self, String), Failure> {
        if endpoint.config_py().is_file() {
            return Err(super::python_configuration(endpoint));
        }
        let path = endpoint.config();
        let has_template = endpoint.has_template();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && has_template => String::new(),
            Err(error) => return Err(Failure::error(format!("{}: {error}", path.display()))),
        };
        let configuration = Self::read(&path.display().to_string(), &text, has_template)?;
        Ok((configuration, text))
    }

    pub(crate) fn service(&self) -> ServiceSettings<'_> {
        match self {
            Self::Tasks(config) => config.common.service(),
            Self::Manager(config) => config.common.service(),
        }
    }

    /// All problems of the endpoint in this directory. Reads files and starts nothing.
    pub(crate) fn problems(&self, endpoint: &EndpointDir) -> Vec<Problem> {
        match self {
            Self::Tasks(config) => config.problems(),
            Self::Manager(config) => config.problems(endpoint, changes_user()),
        }
    }

    /// What works, and probably not as it was meant.
    pub(crate) fn warnings(&self, endpoint: &EndpointDir) -> Vec<String> {
        match self {
            Self::Tasks(_) => Vec::new(),
            Self::Manager(config) => config.warnings(endpoint, changes_user()),
        }
    }

    /// All settings as JSON, with every default filled in.
    pub(crate) fn resolved(&self) -> serde_json::Value {
        match self {
            Self::Tasks(config) => config.resolved(),
            Self::Manager(config) => config.resolved(),
        }
    }
}

fn is_manager(node: &Node, has_template: bool) -> bool {
    let entries = match &node.value {
        Value::Map(entries) => entries,
        Value::Null => return has_template,
        _ => return false,
    };
    let value = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node.value);
    let given = |key: &str| value(key).is_some_and(|value| *value != Value::Null);
    match value("multi_user") {
        Some(Value::Bool(switch)) => *switch,
        _ => !given("engine") && (has_template || given("user_config_template_path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str, has_template: bool) -> &'static str {
        match Configuration::read("config.yaml", text, has_template) {
            Ok(Configuration::Tasks(_)) => "tasks",
            Ok(Configuration::Manager(_)) => "manager",
            Err(BadConfig(text)) if text.contains("ManagerEndpointConfigModel") => "bad manager",
            Err(_) => "bad",
        }
    }

    #[test]
    fn the_kind_of_a_directory() {
        for (text, has_template, expected) in [
            ("multi_user: true\n", false, "manager"),
            ("multi_user: true\n", true, "manager"),
            ("multi_user: true\nengine: {}\n", true, "bad manager"),
            ("multi_user: false\nengine: {}\n", true, "tasks"),
            ("multi_user: false\n", true, "bad"),
            ("multi_user: 'true'\n", false, "bad"),
            ("multi_user: 'true'\n", true, "bad manager"),
            ("multi_user: 1\nengine: {}\n", false, "bad"),
            ("engine: {}\n", true, "tasks"),
            ("engine: null\n", true, "bad manager"),
            ("display_name: x\n", true, "manager"),
            ("display_name: x\n", false, "bad"),
            ("user_config_template_path: /t.j2\n", false, "manager"),
            ("", true, "manager"),
            ("# nothing\n", true, "manager"),
            ("", false, "bad"),
            ("- a\n", true, "bad"),
        ] {
            assert_eq!(kind(text, has_template), expected, "{text:?} {has_template}");
        }
    }

    #[test]
    fn without_an_engine_and_without_a_template_the_engine_is_missing() {
        let BadConfig(text) =
            Configuration::read("config.yaml", "identity_mapping_config_path: /m.json\n", false).unwrap_err();
        assert!(text.contains("engine\n  field required (type=value_error.missing)"), "{text}");
        assert!(text.contains("configure --multi-user"), "{text}");
    }
}
