//! Converts YAML values to plain types, as leniently as upstream does.

use serde_json::{Value as Json, json};

use super::yaml::{Node, Value};

/// A boolean, in every spelling that upstream accepts.
pub(super) fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Int(0) => Some(false),
        Value::Int(1) => Some(true),
        Value::Text(text) => match text.to_lowercase().as_str() {
            "1" | "true" | "t" | "yes" | "y" | "on" => Some(true),
            "0" | "false" | "f" | "no" | "n" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A UUID in any spelling that Python accepts.
pub(super) fn uuid<T: std::str::FromStr>(value: &Value) -> Option<T> {
    let Value::Text(text) = value else { return None };
    uuid::Uuid::parse_str(text.trim()).ok()?.hyphenated().to_string().parse().ok()
}

pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

pub(super) fn count(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

pub(super) fn number(value: &Value) -> Option<Json> {
    match value {
        Value::Int(number) => Some((*number).into()),
        Value::Float(number) => Some((*number).into()),
        Value::Text(text) => text.trim().parse::<f64>().ok().map(Json::from),
        _ => None,
    }
}

/// Schedulers take more forms than this checks; a bare number is seconds, as YAML 1.1 reads a walltime without quotes.
pub(super) fn walltime(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) if text.contains(':') || text.contains('-') => Some(text.clone()),
        other => {
            let seconds = count(other)?;
            Some(format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60))
        }
    }
}

pub(super) fn texts(nodes: &[Node]) -> Option<Json> {
    nodes.iter().map(|node| text(&node.value).map(Json::from)).collect()
}

pub(super) fn ports(nodes: &[Node]) -> Option<Json> {
    let [first, last] = nodes else { return None };
    let port = |node: &Node| count(&node.value).and_then(|number| u16::try_from(number).ok());
    let (first, last) = (port(first)?, port(last)?);
    (first < last).then(|| json!([first, last]))
}
