//! Reads the top level of a configuration, field by field.

use super::nearest::nearest;
use super::scalar::{boolean, uuid};
use super::validation_error::{ValidationError, report};
use super::yaml::{Entry, Node, Value};
use super::{BadConfig, Config, common, engine};

/// Fields that are accepted and have no effect.
const WITHOUT_MEANING: [&str; 3] = ["log_dir", "stdout", "stderr"];

/// The fields of an endpoint that runs tasks, besides those of every endpoint.
const OWN: [&str; 14] = [
    "detach_endpoint",
    "endpoint_setup",
    "endpoint_teardown",
    "engine",
    "heartbeat_threshold",
    "high_assurance",
    "idle_heartbeats_hard",
    "idle_heartbeats_soft",
    "log_dir",
    "multi_user",
    "pass_client_identity",
    "shutdown_grace",
    "stderr",
    "stdout",
];

/// Upstream's name of the configuration of an endpoint that runs tasks.
const MODEL: &str = "UserEndpointConfigModel";

const NOT_AN_INTEGER: &str = "value is not a valid integer (type=type_error.integer)";
const NOT_A_BOOLEAN: &str = "value could not be parsed to a boolean (type=type_error.bool)";
const NOT_TEXT: &str = "str type expected (type=type_error.str)";
const NOT_A_UUID: &str = "value is not a valid uuid (type=type_error.uuid)";
const NOT_A_LIST: &str = "value is not a valid list (type=type_error.list)";
const NOT_A_DICT: &str = "value is not a valid dict (type=type_error.dict)";

/// Takes the fields of a mapping one by one; those that are left at the end are unknown.
pub(super) struct Fields<'a> {
    left: Vec<&'a Entry>,
    errors: Vec<ValidationError>,
}

pub(super) fn read(file: &str, text: &str, node: &Node) -> Result<Config, BadConfig> {
    let mut fields = Fields::of(node)?;

    if let Some(entry) = fields.take("multi_user")
        && entry.node.value == Value::Bool(true)
    {
        let meanwhile = "start single-user endpoints, one per user";
        let error = ValidationError::unsupported(
            "multi_user",
            "a multi-user endpoint (multi_user: true)",
            meanwhile,
            entry.at,
        );
        return Err(report(MODEL, file, text, &[error]));
    }
    let common = common::read(&mut fields);
    if let Some(entry) = fields.take("high_assurance")
        && entry.node.value == Value::Bool(true)
    {
        let meanwhile = "leave the line out";
        fields.errors.push(ValidationError::unsupported(
            "high_assurance",
            "a high-assurance endpoint",
            meanwhile,
            entry.at,
        ));
    }
    let engine = match fields.take("engine") {
        Some(Entry { node, .. }) if matches!(node.value, Value::Map(_)) => {
            engine::read(node).map_err(|errors| fields.errors.extend(errors)).ok()
        }
        Some(entry) => {
            fields.errors.push(ValidationError::new("engine", NOT_A_DICT, Some(entry.at)));
            None
        }
        None => {
            fields.errors.push(ValidationError::new(
                "engine",
                "field required (type=value_error.missing)",
                None,
            ));
            None
        }
    };
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

    fields.finish(MODEL, file, text, &[&common::KEYS[..], &OWN].concat())?;
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

impl<'a> Fields<'a> {
    /// The fields of a document.
    pub(super) fn of(node: &'a Node) -> Result<Self, BadConfig> {
        let Value::Map(entries) = &node.value else {
            return Err(BadConfig(
                "Invalid config syntax: the document is not a mapping of keys to values".to_owned(),
            ));
        };
        Ok(Self { left: entries.iter().collect(), errors: Vec::new() })
    }

    /// Reports all errors, unknown fields among them.
    pub(super) fn finish(
        mut self,
        model: &str,
        file: &str,
        text: &str,
        known: &[&'static str],
    ) -> Result<(), BadConfig> {
        // Sorted by name, as upstream reports them.
        self.left.sort_by(|one, other| one.key.cmp(&other.key));
        self.errors.extend(self.left.into_iter().map(|entry| {
            let what = "extra fields not permitted (type=value_error.extra)";
            let near = nearest(&entry.key, known.iter().copied());
            ValidationError::new(&entry.key, what, Some(entry.at)).near(near)
        }));
        if self.errors.is_empty() { Ok(()) } else { Err(report(model, file, text, &self.errors)) }
    }

    pub(super) fn take(&mut self, name: &str) -> Option<&'a Entry> {
        let index = self.left.iter().position(|entry| entry.key == name)?;
        Some(self.left.remove(index))
    }

    /// A field with a value; null counts as not given.
    pub(super) fn given(&mut self, name: &str) -> Option<&'a Entry> {
        self.take(name).filter(|entry| entry.node.value != Value::Null)
    }

    fn read<T>(&mut self, name: &str, what: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let entry = self.given(name)?;
        let value = read(&entry.node.value);
        if value.is_none() {
            self.errors.push(ValidationError::new(name, what, Some(entry.at)));
        }
        value
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.read(name, NOT_TEXT, |value| match value {
            Value::Text(text) => Some(text.clone()),
            Value::Int(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            _ => None,
        })
    }

    pub(super) fn boolean(&mut self, name: &str) -> Option<bool> {
        self.read(name, NOT_A_BOOLEAN, boolean)
    }

    pub(super) fn integer<T: TryFrom<i64>>(&mut self, name: &str) -> Option<T> {
        self.read(name, NOT_AN_INTEGER, |value| {
            let number = match value {
                Value::Int(number) => *number,
                // A float beyond the range ends at its edge and is refused there.
                #[allow(clippy::cast_possible_truncation, reason = "as Python's int(): towards zero")]
                Value::Float(number) if number.is_finite() => number.trunc() as i64,
                Value::Text(text) => text.trim().parse().ok()?,
                _ => return None,
            };
            T::try_from(number).ok()
        })
    }

    pub(super) fn id<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        self.read(name, NOT_A_UUID, uuid)
    }

    pub(super) fn ids<T: std::str::FromStr>(&mut self, name: &str) -> Option<Vec<T>> {
        let entry = self.given(name)?;
        let Value::List(nodes) = &entry.node.value else {
            self.errors.push(ValidationError::new(name, NOT_A_LIST, Some(entry.at)));
            return None;
        };
        let mut ids = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            match uuid(&node.value) {
                Some(id) => ids.push(id),
                None => self.errors.push(ValidationError::new(
                    format!("{name} -> {index}"),
                    NOT_A_UUID,
                    Some(node.at),
                )),
            }
        }
        Some(ids)
    }
}
