//! Feeds tasks to endpoints' queues, `<endpoint>.tasks`.

use amq_protocol::types::{AMQPValue, FieldArray, FieldTable};
use broker::{DropReason, Message, Properties};
use wire::Text;
use wire::message::Task;
use wire::queue::{Name, exchange, header};
use wire::{EndpointId, extensions};

use super::broker_user::User;
use super::functions::Functions;
use super::outbox::{BYTES, Loaded, Outbox, Row};
use crate::tasks::ending::{Ending, TaskEnder};
use store::{AcknowledgeAssignments, Assignment, Function, Store, StoreError};

/// The outbox of tasks.
#[derive(Debug)]
pub(super) struct Tasks {
    pub(super) store: Store,
    pub(super) ender: TaskEnder,
    pub(super) functions: Functions,
}

impl Outbox for Tasks {
    async fn load(&self, queue: &str, after: i64, count: usize) -> Result<Loaded, StoreError> {
        let Some(endpoint) = endpoint_of(queue) else { return Ok(Loaded::default()) };
        let page = self.store.unacknowledged_assignments(endpoint, after, count, BYTES).await?;
        let mut loaded = Loaded { rows: Vec::with_capacity(page.rows.len()), more: page.more };
        let mut endings = Vec::new();
        for assignment in page.rows {
            match self.functions.get(assignment.function).await? {
                Some(function) => match message(queue, &assignment, &function) {
                    Some(message) => loaded.rows.push(Row { seq: assignment.seq, message }),
                    None => return Err(StoreError::Corrupt("payload")),
                },
                None => {
                    let why = format!("Function {} was deleted", assignment.function).into();
                    endings.push(Ending { endpoint, task: assignment.task, why });
                }
            }
        }
        self.ender.end(&endings).await?;
        Ok(loaded)
    }

    async fn acknowledged(&self, queue: &str, user: &str, seqs: &[i64]) -> Result<(), StoreError> {
        // The user that took them: a later run of the endpoint may be the consumer by now.
        let (Some(endpoint), Some(user)) = (endpoint_of(queue), User::parse(user)) else { return Ok(()) };
        let credential = user.number;
        let freed =
            self.store.write(AcknowledgeAssignments { endpoint, seqs: seqs.to_vec(), credential }).await?;
        self.store.remove_files(freed).await;
        Ok(())
    }

    async fn refused(&self, queue: &str, seqs: &[i64], why: DropReason) -> Result<(), StoreError> {
        let Some(endpoint) = endpoint_of(queue) else { return Ok(()) };
        let text = match why {
            DropReason::Rejected => "The endpoint rejected the task",
            DropReason::DeliveryLimit => "The endpoint gave the task back too often",
            DropReason::Expired | DropReason::Overflow => "The task did not reach the endpoint",
            // The service deleted the endpoint, and has ended its tasks.
            DropReason::Purged | DropReason::Deleted => return Ok(()),
        };
        let tasks = self.store.tasks_of_assignments(seqs).await?;
        let endings = tasks.into_iter().map(|task| Ending { endpoint, task, why: text.into() });
        self.ender.end(&endings.collect::<Vec<_>>()).await.map(|_| ())
    }
}

fn endpoint_of(queue: &str) -> Option<EndpointId> {
    match Name::parse(queue) {
        Some(Name::Tasks(endpoint)) => Some(endpoint),
        _ => None,
    }
}

/// The message that carries a task. `None` if the stored values fit no message, which the service never writes.
fn message(queue: &str, assignment: &Assignment, function: &Function) -> Option<Message> {
    let payload = Text::from_json(&assignment.payload).ok()?;
    let task = Task {
        task_id: assignment.task,
        container_id: None,
        container: None,
        task_buffer: wire::buffer::task_buffer(&Text::plain(&function.code), &payload),
    };
    let text = |text: String| AMQPValue::LongString(text.into());
    let mut headers = FieldTable::default();
    headers.insert(header::FUNCTION_UUID.into(), text(assignment.function.to_string()));
    headers.insert(header::TASK_UUID.into(), text(assignment.task.to_string()));
    headers.insert(header::RESOURCE_SPECIFICATION.into(), text(assignment.resource_specification.clone()));
    let mut serializers = FieldArray::default();
    for path in &assignment.result_serializers {
        serializers.push(text(path.clone()));
    }
    headers.insert(header::RESULT_SERIALIZERS.into(), AMQPValue::FieldArray(serializers));
    if let Some(python) = function.python.as_deref().and_then(minor_version) {
        headers.insert(extensions::FUNCTION_PYTHON.into(), text(python));
    }
    let properties = Properties::default().with_headers(headers).with_delivery_mode(2);
    Message::new(exchange::TASKS, queue, &properties, task.encode()).ok()
}

/// `3.11` of `3.11.7`.
fn minor_version(version: &str) -> Option<String> {
    let mut parts = version.split('.');
    let (major, minor) = (parts.next()?, parts.next()?);
    let number =
        |part: &str| !part.is_empty() && part.len() < 4 && part.bytes().all(|byte| byte.is_ascii_digit());
    (number(major) && number(minor)).then(|| format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_versions() {
        assert_eq!(minor_version("3.11.7").as_deref(), Some("3.11"));
        assert_eq!(minor_version("3.13.0rc1").as_deref(), Some("3.13"));
        for version in ["", "3", "3.", "a.b", "3.x.1", "3.11111.1"] {
            assert_eq!(minor_version(version), None, "{version:?}");
        }
    }
}
