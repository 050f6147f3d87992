//! `migrate-to-template-capable`: turns an endpoint that runs tasks into a manager of its owner's, as 4.x does.
//!
//! What concerns the endpoint stays in `config.yaml`; the rest becomes the template of its user endpoints.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use clap::Args;

use crate::config::{Configuration, ManagerConfig, top_level};
use crate::console::{ask, complain, note};
use crate::directory::{Base, EndpointDir, unwritable, write_private};
use crate::exit::{CommandResult, Failure};
use crate::host::changes_user;
use crate::pid::{self, ProcessState};

/// Settings that move to the manager.
const MANAGERS: [&str; 5] =
    ["admins", "display_name", "allowed_functions", "authentication_policy", "subscription_id"];
/// Settings that both have.
const SHARED: [&str; 8] = [
    "debug",
    "amqp_port",
    "heartbeat_period",
    "local_compute_services",
    "environment",
    "service_url",
    "ca_certificates",
    "log_size_limit",
];

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The endpoint's name, or the ID it is registered under
    #[arg(default_value = "default", value_name = "NAME_OR_UUID")]
    name: String,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(base: &Base, options: &Options) -> CommandResult {
    let endpoint = base.find(&options.name)?;
    let name = endpoint.name();
    if !options.yes && !confirmed(&name)? {
        return Err(Failure::new(1, "Aborted!"));
    }
    migrate(&endpoint).map_err(|why| Failure::error(format!("Failed to migrate endpoint: {why}")))?;
    note(format_args!("Endpoint {name} successfully migrated to template capable."));
    if changes_user() {
        note(format_args!(
            "As root it needs an identity mapping: name it with identity_mapping_config_path in {}.",
            endpoint.config().display()
        ));
    }
    Ok(())
}

fn confirmed(name: &str) -> Result<bool, Failure> {
    let question = format!(
        "> Are you sure you want to migrate endpoint '{name}' to be template capable? This is a one-way operation. \
         [y/N]: "
    );
    loop {
        match ask(&question)?.to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "" | "n" | "no" => return Ok(false),
            _ => complain("Error: invalid input"),
        }
    }
}

/// Splits the configuration. The old one stays beside it; the manager's replaces it last, so that a failure before leaves an
/// endpoint that works.
fn migrate(endpoint: &EndpointDir) -> Result<(), String> {
    let name = endpoint.name();
    let (configuration, text) = Configuration::load(endpoint).map_err(|failure| failure.bare().to_owned())?;
    if let Configuration::Manager(_) = configuration {
        return Err(format!("Endpoint '{name}' is already template capable."));
    }
    if let ProcessState::Alive(_) | ProcessState::Elsewhere(_) = pid::process_state(endpoint) {
        return Err(format!("Endpoint '{name}' is currently running."));
    }
    let (manager, template) = split(&text).ok_or("the configuration is no mapping")?;
    let path = endpoint.config();
    ManagerConfig::read(&path.display().to_string(), &manager).map_err(|bad| bad.0)?;
    let backup = endpoint.path().join("config.yaml.backup");
    let failed = |path: &Path, error: &std::io::Error| unwritable(path, error).bare().to_owned();
    fs::hard_link(&path, &backup).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => format!(
            "Tried to back up '{}' to '{}', but the latter already exists.",
            path.display(),
            backup.display()
        ),
        _ => failed(&backup, &error),
    })?;
    let template_path = endpoint.user_config_template();
    write_private(&template_path, template.as_bytes()).map_err(|error| failed(&template_path, &error))?;
    write_private(&path, manager.as_bytes()).map_err(|error| failed(&path, &error))
}

/// The configuration of the manager, and the template.
fn split(text: &str) -> Option<(String, String)> {
    let shared = |key: &str| SHARED.contains(&key);
    let mut manager = top_level::only(text, |key| shared(key) || MANAGERS.contains(&key))?;
    if manager.is_empty() {
        "# The generated config file is currently empty\n".clone_into(&mut manager);
    }
    let template = top_level::only(text, |key| key != "multi_user" && !MANAGERS.contains(&key))?;
    // What looks like a template's syntax was text until now.
    let template = match ["{{", "{%", "{#"].iter().any(|mark| template.contains(mark)) {
        true => format!("{{% raw %}}{template}{{% endraw %}}"),
        false => template,
    };
    Some((manager, template))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_split() {
        let text = "# My cluster\ndisplay_name: x\namqp_port: 443\n# Blocks\nengine:\n  type: GlobusComputeEngine\n\
                    detach_endpoint: false\nallowed_functions: []\nmulti_user: false\n";
        let (manager, template) = split(text).unwrap();
        assert_eq!(manager, "# My cluster\ndisplay_name: x\namqp_port: 443\nallowed_functions: []\n");
        assert_eq!(
            template,
            "amqp_port: 443\n# Blocks\nengine:\n  type: GlobusComputeEngine\ndetach_endpoint: false\n"
        );
        assert!(split("engine: {}\n").unwrap().0.starts_with("# "));
    }

    #[test]
    fn text_that_looks_like_a_template_stays_text() {
        let (_, template) = split("engine: {}\nendpoint_setup: 'echo {{ x }}'\n").unwrap();
        assert_eq!(template, "{% raw %}engine: {}\nendpoint_setup: 'echo {{ x }}'\n{% endraw %}");
    }

    #[test]
    fn an_endpoint_is_migrated_once() {
        let scratch = tempfile::tempdir().unwrap();
        let endpoint = EndpointDir::at(scratch.path().join("ep"));
        endpoint.create().unwrap();
        fs::write(endpoint.config(), crate::config::INITIAL).unwrap();
        migrate(&endpoint).unwrap();
        let (configuration, text) = Configuration::load(&endpoint).unwrap();
        assert!(matches!(configuration, Configuration::Manager(_)));
        assert_eq!(text, "display_name: null\n");
        let kept = fs::read_to_string(endpoint.path().join("config.yaml.backup")).unwrap();
        assert_eq!(kept, crate::config::INITIAL);
        assert_eq!(migrate(&endpoint).unwrap_err(), "Endpoint 'ep' is already template capable.");
        fs::write(endpoint.config(), crate::config::INITIAL).unwrap();
        assert!(migrate(&endpoint).unwrap_err().ends_with("but the latter already exists."));
    }
}
