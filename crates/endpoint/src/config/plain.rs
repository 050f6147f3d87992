//! Reads the configuration of an endpoint that runs tasks.

use serde_json::Value as Json;

use super::engine::Engine;
use super::fields::{Fields, NOT_A_DICT, NOT_A_SWITCH};
use super::validation_error::ValidationError;
use super::yaml::{Entry, Node, Value};
use super::{BadConfig, Config, common, engine, keys};

/// Upstream's name of the configuration of an endpoint that runs tasks.
const MODEL: &str = "UserEndpointConfigModel";
/// Fields that are accepted and have no effect.
const WITHOUT_MEANING: [&str; 3] = ["log_dir", "stdout", "stderr"];
const ONLY_A_MANAGERS: &str = "only a manager has it: `configure --multi-user` makes one";

const NOT_ENCRYPTED: &str =
    "High-Assurance GlobusComputeEngines must enable the `encrypted` configuration value (type=value_error)";

/// Who wrote a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Author {
    /// The endpoint's owner, into a file.
    Owner,
    /// A manager, from its template. Only it may say that the endpoint has high assurance: it sees to what that asks for.
    Manager,
}

pub(super) fn read(file: &str, text: &str, node: &Node, author: Author) -> Result<Config, BadConfig> {
    let mut fields = Fields::of(node)?;

    if let Some(entry) = fields.given("multi_user")
        && entry.node.value != Value::Bool(false)
    {
        let what = match entry.node.value {
            Value::Bool(_) => "an endpoint that runs tasks is no manager (type=value_error)",
            _ => NOT_A_SWITCH,
        };
        fields.refuse("multi_user", what, Some(entry.at));
    }
    let common = common::read(&mut fields);
    let assured = fields.take("high_assurance").filter(|entry| entry.node.value == Value::Bool(true));
    if let (Some(entry), Author::Owner) = (assured, author) {
        let meanwhile = "leave the line out";
        let what = "a high-assurance endpoint";
        fields.add([ValidationError::unsupported("high_assurance", what, meanwhile, entry.at)]);
    }
    let engine = match fields.take("engine") {
        Some(Entry { node, .. }) if matches!(node.value, Value::Map(_)) => {
            engine::read(node).map_err(|errors| fields.add(errors)).ok()
        }
        Some(entry) => {
            fields.refuse("engine", NOT_A_DICT, Some(entry.at));
            None
        }
        None => {
            fields.refuse("engine", "field required (type=value_error.missing)", None);
            None
        }
    };
    let encrypted = |engine: &Engine| engine.resolved().get("encrypted") != Some(&Json::Bool(false));
    if assured.is_some() && !engine.as_ref().is_none_or(encrypted) {
        fields.refuse("engine -> encrypted", NOT_ENCRYPTED, None);
    }
    let idle_heartbeats_soft = fields.integer("idle_heartbeats_soft").unwrap_or(0);
    let idle_heartbeats_hard = fields.integer("idle_heartbeats_hard").unwrap_or(5760);
    let detach_endpoint = fields.boolean("detach_endpoint").unwrap_or(true);
    let endpoint_setup = fields.text("endpoint_setup").filter(|text| !text.trim().is_empty());
    let endpoint_teardown = fields.text("endpoint_teardown").filter(|text| !text.trim().is_empty());
    let heartbeat_threshold = fields.integer("heartbeat_threshold").unwrap_or(120_u64);
    let shutdown_grace = fields.integer("shutdown_grace").unwrap_or(5);
    let pass_client_identity = fields.boolean("pass_client_identity").unwrap_or(true);
    for name in WITHOUT_MEANING {
        fields.take(name);
    }

    fields.finish(MODEL, file, text, &[&keys::EVERY_ENDPOINT[..], &keys::TASKS].concat(), |name| {
        keys::MANAGER.contains(&name).then_some(ONLY_A_MANAGERS)
    })?;
    let engine = engine.expect("without an engine there is an error");
    Ok(Config {
        common,
        heartbeat_threshold,
        shutdown_grace,
        pass_client_identity,
        detach_endpoint,
        endpoint_setup,
        endpoint_teardown,
        idle_heartbeats_soft,
        idle_heartbeats_hard: idle_heartbeats_hard.max(idle_heartbeats_soft.saturating_add(1)),
        engine,
    })
}
