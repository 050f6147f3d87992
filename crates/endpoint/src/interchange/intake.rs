//! Parses a delivered message: which task it is, whether it may run, and what the engine needs.

use std::collections::HashSet;

use client::amqp::Delivery;
use engine::Submission;
use serde_json::{Map, Value};
use wire::extensions::FUNCTION_PYTHON;
use wire::message::{LIMIT, Task};
use wire::queue::header;
use wire::{EndpointId, FunctionId, TaskId};

use super::error_results;

/// Which tasks are accepted.
#[derive(Clone, Debug)]
pub(super) struct Intake {
    pub(super) endpoint: EndpointId,
    pub(super) allowed: Option<HashSet<FunctionId>>,
}

/// A task that will not run, with its error result.
#[derive(Debug)]
pub(super) struct RefusedTask {
    pub(super) result: Vec<u8>,
    pub(super) why: String,
    /// Its function is not on the list.
    pub(super) not_permitted: bool,
}

impl Intake {
    /// The task of a message: from its header, else from its body.
    pub(super) fn identify(&self, delivery: &Delivery) -> Result<TaskId, String> {
        match text(&delivery.headers, header::TASK_UUID) {
            Some(text) => text.parse().map_err(|_| format!("{} is no id: {:.60}", header::TASK_UUID, text)),
            None => match Task::decode(&delivery.body) {
                Ok(task) => Ok(task.task_id),
                Err(error) => {
                    Err(format!("no header {}, and no task as its body: {error}", header::TASK_UUID))
                }
            },
        }
    }

    /// The function of a message, if it names one.
    pub(super) fn function(delivery: &Delivery) -> Option<FunctionId> {
        text(&delivery.headers, header::FUNCTION_UUID)?.parse().ok()
    }

    /// The function, and the submission for the engine. Only the size of the body is checked; the worker parses it.
    pub(super) fn admit(
        &self,
        task: TaskId,
        delivery: Delivery,
    ) -> Result<(FunctionId, Submission), RefusedTask> {
        let failed = |why: String| RefusedTask {
            result: error_results::failed_to_start(task, &why),
            why,
            not_permitted: false,
        };
        // A longer frame would end the link to a node, and with it all tasks that run there.
        if delivery.body.len() > LIMIT {
            return Err(failed(format!(
                "the message has {} bytes, and at most {LIMIT} are taken",
                delivery.body.len()
            )));
        }
        let headers = &delivery.headers;
        let function = text(headers, header::FUNCTION_UUID)
            .ok_or_else(|| failed(format!("the message has no header {}", header::FUNCTION_UUID)))?;
        let function: FunctionId =
            function.parse().map_err(|_| failed(format!("the header {} is no id", header::FUNCTION_UUID)))?;
        let resource_specification = specification(headers.get(header::RESOURCE_SPECIFICATION))
            .map_err(|why| failed(format!("the header {}: {why}", header::RESOURCE_SPECIFICATION)))?;
        let result_serializers = serializers(headers.get(header::RESULT_SERIALIZERS)).ok_or_else(|| {
            failed(format!("the header {} is no list of texts", header::RESULT_SERIALIZERS))
        })?;
        self.allows(task, function)?;
        let submission = Submission {
            id: task,
            resource_specification,
            result_serializers,
            function_python: text(headers, FUNCTION_PYTHON).map(str::to_owned),
            body: delivery.body.into(),
        };
        Ok((function, submission))
    }

    /// Whether the task may run this function.
    pub(super) fn allows(&self, task: TaskId, function: FunctionId) -> Result<(), RefusedTask> {
        if self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&function)) {
            return Ok(());
        }
        let (result, why) = error_results::not_allowed(task, function, self.endpoint);
        Err(RefusedTask { result, why, not_permitted: true })
    }
}

fn text<'a>(headers: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    headers.get(name)?.as_str()
}

/// A text with JSON in it. An absent header, null and the text `null` all mean an empty object.
fn specification(header: Option<&Value>) -> Result<Map<String, Value>, String> {
    let value = match header {
        None | Some(Value::Null) => return Ok(Map::new()),
        Some(Value::String(text)) => {
            serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?
        }
        Some(other) => other.clone(),
    };
    match value {
        Value::Null => Ok(Map::new()),
        Value::Object(map) => Ok(map),
        _ => Err("not an object".to_owned()),
    }
}

fn serializers(header: Option<&Value>) -> Option<Vec<String>> {
    match header {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(names)) => names.iter().map(|name| Some(name.as_str()?.to_owned())).collect(),
        Some(_) => None,
    }
}
