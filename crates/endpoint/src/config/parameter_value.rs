//! Converts the value of one parameter to the kind that the catalogue names.

use serde_json::Value as Json;

use super::catalogue::{Kind, Parameter};
use super::scalar::{boolean, count, number, ports, text, texts, walltime};
use super::yaml::{Node, Value};

/// The value of a parameter.
#[derive(Debug)]
pub(super) enum ParameterValue {
    Value(Json),
    /// Counts as not given.
    Nothing,
    /// The idle time of a strategy that is written as an object.
    IdleTime(Json),
}

/// Converts a value as its parameter requires. An address that is no text is not for this function.
pub(super) fn read(parameter: &Parameter, node: &Node) -> Result<ParameterValue, String> {
    let read = match (parameter.kind, &node.value) {
        (Kind::Text, value) => Json::from(text(value).ok_or("str type expected (type=type_error.str)")?),
        (Kind::Flag, value) => {
            Json::from(boolean(value).ok_or("value could not be parsed to a boolean (type=type_error.bool)")?)
        }
        (Kind::Count, value) => {
            Json::from(count(value).ok_or("value is not a valid integer (type=type_error.integer)")?)
        }
        (Kind::Number, value) => number(value).ok_or("value is not a valid float (type=type_error.float)")?,
        (Kind::Walltime, value) => Json::from(
            walltime(value)
                .ok_or("a time as HH:MM:SS expected, or a number of seconds (type=value_error)")?,
        ),
        (Kind::Texts, Value::List(nodes)) => {
            texts(nodes).ok_or("a list of texts expected (type=type_error.list)")?
        }
        (Kind::Accelerators, Value::List(nodes)) => {
            texts(nodes).ok_or("a list of names expected, or a count (type=type_error.list)")?
        }
        (Kind::Accelerators, value) => {
            Json::from(count(value).ok_or("a list of names expected, or a count (type=type_error.list)")?)
        }
        (Kind::Ports, Value::List(nodes)) => {
            ports(nodes).ok_or("two port numbers expected (type=value_error)")?
        }
        (Kind::Map, Value::Map(_)) | (Kind::Free, _) => node.to_json(),
        (Kind::Map, _) => return Err("value is not a valid dict (type=type_error.dict)".to_owned()),
        (Kind::Address, Value::Text(address)) => Json::from(address.as_str()),
        (Kind::Strategy, Value::Text(name)) => match name.as_str() {
            "None" => return Ok(ParameterValue::Nothing),
            "simple" | "htex_auto_scale" | "none" => Json::from(name.as_str()),
            other => {
                return Err(format!(
                    "{other} is no strategy; there are simple, htex_auto_scale and none (type=value_error)"
                ));
            }
        },
        (Kind::Strategy, Value::Map(_)) => {
            return Ok(match node.to_json().get("max_idletime") {
                Some(seconds) => ParameterValue::IdleTime(seconds.clone()),
                None => ParameterValue::Nothing,
            });
        }
        (Kind::Strategy, _) => return Err("str type expected (type=type_error.str)".to_owned()),
        (Kind::Containers, Value::Text(name)) => match name.as_str() {
            "None" | "none" | "null" => return Ok(ParameterValue::Nothing),
            "docker" | "podman" | "podman-hpc" | "apptainer" | "singularity" | "custom" => {
                Json::from(name.as_str())
            }
            other => return Err(format!("{other} is not a valid container_type (type=value_error)")),
        },
        (Kind::Texts, _) => return Err("value is not a valid list (type=type_error.list)".to_owned()),
        (Kind::Ports, _) => return Err("two port numbers expected (type=value_error)".to_owned()),
        (Kind::Address | Kind::Containers, _) => {
            return Err("str type expected (type=type_error.str)".to_owned());
        }
    };
    Ok(ParameterValue::Value(read))
}
