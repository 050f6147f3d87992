//! The top level of a configuration, field by field.

use std::fmt::Write as _;

use super::yaml::{Entry, Node, Place, Value, excerpt};
use super::{BadConfig, Config, LEAST_HEARTBEAT_PERIOD, engine};

/// Fields that are accepted and mean nothing here.
const WITHOUT_MEANING: [&str; 4] = ["heartbeat_threshold", "log_dir", "stdout", "stderr"];

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// `engine -> provider -> type`
    pub(super) path: String,
    /// `Nope could not be found (type=value_error)`
    pub(super) what: String,
    pub(super) at: Option<Place>,
}

impl Wrong {
    pub(super) fn new(path: impl Into<String>, what: impl Into<String>, at: Option<Place>) -> Self {
        Self { path: path.into(), what: what.into(), at }
    }

    /// Something a later version will do.
    pub(super) fn later(path: &str, name: &str, meanwhile: &str, at: Place) -> Self {
        Self::new(path, format!("{name} is not part of this version yet; meanwhile {meanwhile}"), Some(at))
    }
}

const NOT_AN_INTEGER: &str = "value is not a valid integer (type=type_error.integer)";
const NOT_A_BOOLEAN: &str = "value could not be parsed to a boolean (type=type_error.bool)";
const NOT_TEXT: &str = "str type expected (type=type_error.str)";
const NOT_A_UUID: &str = "value is not a valid uuid (type=type_error.uuid)";
const NOT_A_LIST: &str = "value is not a valid list (type=type_error.list)";
const NOT_A_DICT: &str = "value is not a valid dict (type=type_error.dict)";

/// Takes the fields of a mapping one after the other; what is left over at the end is unknown.
struct Fields<'a> {
    left: Vec<&'a Entry>,
    wrong: Vec<Wrong>,
}

pub(super) fn read(file: &str, text: &str, node: &Node) -> Result<Config, BadConfig> {
    let Value::Map(entries) = &node.value else {
        return Err(BadConfig(
            "Invalid config syntax: the document is not a mapping of keys to values".to_owned(),
        ));
    };
    let mut fields = Fields { left: entries.iter().collect(), wrong: Vec::new() };

    if let Some(entry) = fields.take("multi_user")
        && entry.node.value == Value::Bool(true)
    {
        let meanwhile = "start single-user endpoints, one per user";
        let wrong =
            Wrong::later("multi_user", "a multi-user endpoint (multi_user: true)", meanwhile, entry.at);
        return Err(report(file, text, &[wrong]));
    }
    let display_name = fields.text("display_name").filter(|name| name != "None");
    let allowed_functions = fields.ids("allowed_functions");
    let admins = fields.ids("admins");
    let authentication_policy = fields.id("authentication_policy");
    let subscription_id = fields.id("subscription_id");
    let amqp_port = fields.integer("amqp_port");
    let heartbeat_period = fields.integer("heartbeat_period").unwrap_or(30_u64);
    let environment = fields.text("environment");
    let local = fields.boolean("local_compute_services").unwrap_or(false);
    if let Some(entry) = fields.take("high_assurance")
        && entry.node.value == Value::Bool(true)
    {
        let meanwhile = "leave the line out";
        fields.wrong.push(Wrong::later("high_assurance", "a high-assurance endpoint", meanwhile, entry.at));
    }
    let debug = fields.boolean("debug").unwrap_or(false);
    let engine = match fields.take("engine") {
        Some(Entry { node, .. }) if matches!(node.value, Value::Map(_)) => {
            engine::read(node).map_err(|wrong| fields.wrong.extend(wrong)).ok()
        }
        Some(entry) => {
            fields.wrong.push(Wrong::new("engine", NOT_A_DICT, Some(entry.at)));
            None
        }
        None => {
            fields.wrong.push(Wrong::new("engine", "field required (type=value_error.missing)", None));
            None
        }
    };
    let idle_heartbeats_soft = fields.integer("idle_heartbeats_soft").unwrap_or(0);
    let idle_heartbeats_hard = fields.integer("idle_heartbeats_hard").unwrap_or(5760);
    let detach_endpoint = fields.boolean("detach_endpoint").unwrap_or(true);
    let endpoint_setup = fields.text("endpoint_setup").filter(|text| !text.trim().is_empty());
    let endpoint_teardown = fields.text("endpoint_teardown").filter(|text| !text.trim().is_empty());
    let service_url = fields.text("service_url");
    let shutdown_grace = fields.integer("shutdown_grace").unwrap_or(5);
    for name in WITHOUT_MEANING {
        fields.take(name);
    }

    let unknown = std::mem::take(&mut fields.left);
    let mut wrong = fields.wrong;
    wrong.extend(unknown.into_iter().map(|entry| {
        Wrong::new(&entry.key, "extra fields not permitted (type=value_error.extra)", Some(entry.at))
    }));
    match engine {
        Some(engine) if wrong.is_empty() => Ok(Config {
            display_name,
            allowed_functions,
            admins,
            authentication_policy,
            subscription_id,
            amqp_port,
            heartbeat_period: heartbeat_period.max(LEAST_HEARTBEAT_PERIOD),
            environment: if local { Some("local".to_owned()) } else { environment },
            service_url,
            shutdown_grace,
            debug,
            detach_endpoint,
            endpoint_setup,
            endpoint_teardown,
            idle_heartbeats_soft,
            idle_heartbeats_hard: idle_heartbeats_hard.max(idle_heartbeats_soft.saturating_add(1)),
            engine,
        }),
        _ => Err(report(file, text, &wrong)),
    }
}

/// Upstream's lines, then each place with a caret.
fn report(file: &str, text: &str, wrong: &[Wrong]) -> BadConfig {
    let errors = if wrong.len() == 1 { "error" } else { "errors" };
    let mut out = format!("{} validation {errors} for UserEndpointConfigModel\n", wrong.len());
    for Wrong { path, what, .. } in wrong {
        // Writing to a string can't fail.
        let _ = writeln!(out, "{path}\n  {what}");
    }
    for at in wrong.iter().filter_map(|wrong| wrong.at) {
        let _ = writeln!(out, "\n{}", excerpt(file, text, at));
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    BadConfig(out)
}

impl<'a> Fields<'a> {
    fn take(&mut self, name: &str) -> Option<&'a Entry> {
        let index = self.left.iter().position(|entry| entry.key == name)?;
        Some(self.left.remove(index))
    }

    /// A field with a value. Null is none.
    fn given(&mut self, name: &str) -> Option<&'a Entry> {
        self.take(name).filter(|entry| entry.node.value != Value::Null)
    }

    fn read<T>(&mut self, name: &str, what: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let entry = self.given(name)?;
        let value = read(&entry.node.value);
        if value.is_none() {
            self.wrong.push(Wrong::new(name, what, Some(entry.at)));
        }
        value
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.read(name, NOT_TEXT, |value| match value {
            Value::Text(text) => Some(text.clone()),
            Value::Int(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            _ => None,
        })
    }

    fn boolean(&mut self, name: &str) -> Option<bool> {
        self.read(name, NOT_A_BOOLEAN, |value| match value {
            Value::Bool(value) => Some(*value),
            Value::Int(0) => Some(false),
            Value::Int(1) => Some(true),
            Value::Text(text) => match text.to_lowercase().as_str() {
                "1" | "true" | "t" | "yes" | "y" | "on" => Some(true),
                "0" | "false" | "f" | "no" | "n" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        })
    }

    fn integer<T: TryFrom<i64>>(&mut self, name: &str) -> Option<T> {
        self.read(name, NOT_AN_INTEGER, |value| {
            let number = match value {
                Value::Int(number) => *number,
                // As Python's int(): towards zero. A float beyond the range ends at its edge and is refused there.
                #[allow(clippy::cast_possible_truncation)]
                Value::Float(number) if number.is_finite() => number.trunc() as i64,
                Value::Text(text) => text.trim().parse().ok()?,
                _ => return None,
            };
            T::try_from(number).ok()
        })
    }

    fn id<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        self.read(name, NOT_A_UUID, uuid)
    }

    fn ids<T: std::str::FromStr>(&mut self, name: &str) -> Option<Vec<T>> {
        let entry = self.given(name)?;
        let Value::List(nodes) = &entry.node.value else {
            self.wrong.push(Wrong::new(name, NOT_A_LIST, Some(entry.at)));
            return None;
        };
        let mut ids = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            match uuid(&node.value) {
                Some(id) => ids.push(id),
                None => self.wrong.push(Wrong::new(format!("{name} -> {index}"), NOT_A_UUID, Some(node.at))),
            }
        }
        Some(ids)
    }
}

/// Any spelling of a UUID that Python takes; ours takes one.
fn uuid<T: std::str::FromStr>(value: &Value) -> Option<T> {
    let Value::Text(text) = value else { return None };
    uuid::Uuid::parse_str(text.trim()).ok()?.hyphenated().to_string().parse().ok()
}
