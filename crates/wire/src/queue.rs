//! Names of exchanges, queues, keys and headers, and the connection information handed to endpoints and clients.

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, IdentityId, TaskGroupId};
use crate::json::{self, Object};

/// Exchange and queue of everything that goes to and comes from endpoints.
pub mod exchange {
    /// Direct: to endpoints' task queues, by the queue's name.
    pub const TASKS: &str = "tasks";
    /// Topic: from endpoints, `<endpoint>.results`.
    pub const RESULTS: &str = "results";
    /// Topic: from endpoints, `<endpoint>.heartbeats`.
    pub const HEARTBEATS: &str = "heartbeats";
    /// Direct: to endpoints' command queues, by the queue's name.
    pub const COMMANDS: &str = "commands";
}

/// The queue all endpoints' results come to, and the key it is bound with.
pub const RESULT_QUEUE: &str = "results";
pub const RESULT_BINDING: &str = "*.results";

/// The queue all endpoints' heartbeats come to, and the key it is bound with.
pub const HEARTBEAT_QUEUE: &str = "heartbeats";
pub const HEARTBEAT_BINDING: &str = "*.heartbeats";

/// AMQP headers of messages.
pub mod header {
    /// Of a task: the registered function, as a string.
    pub const FUNCTION_UUID: &str = "function_uuid";
    /// Of a task: its id, as a string.
    pub const TASK_UUID: &str = "task_uuid";
    /// Of a task: a string that holds JSON; `null` or absent without one.
    pub const RESOURCE_SPECIFICATION: &str = "resource_specification";
    /// Of a task: an array of import paths, to be tried in order.
    pub const RESULT_SERIALIZERS: &str = "result_serializers";
    /// Of a command: the manager logs it, with passwords struck out.
    pub const DEBUG: &str = "debug";
}

/// Where an endpoint's tasks wait; also their routing key.
pub fn task_queue(endpoint: EndpointId) -> String {
    format!("{endpoint}.tasks")
}

/// Where commands for an endpoint wait; also their routing key.
pub fn command_queue(endpoint: EndpointId) -> String {
    format!("{endpoint}.commands")
}

pub fn result_key(endpoint: EndpointId) -> String {
    format!("{endpoint}.results")
}

pub fn heartbeat_key(endpoint: EndpointId) -> String {
    format!("{endpoint}.heartbeats")
}

/// The `queue_prefix` of a client: a group's id appended to it names the queue of that group's results.
pub fn client_prefix(identity: IdentityId) -> String {
    format!("client.{identity}.")
}

/// Where the results of a task group wait.
pub fn client_queue(identity: IdentityId, group: TaskGroupId) -> String {
    format!("client.{identity}.{group}")
}

/// A queue or routing key, by what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Name {
    Tasks(EndpointId),
    Commands(EndpointId),
    /// The routing key of an endpoint's results.
    ResultsOf(EndpointId),
    /// The routing key of an endpoint's heartbeats.
    HeartbeatsOf(EndpointId),
    Client(IdentityId, TaskGroupId),
}

impl Name {
    /// Takes only the spelling that the functions above write.
    pub fn parse(name: &str) -> Option<Self> {
        let parsed = if let Some(rest) = name.strip_prefix("client.") {
            let (identity, group) = rest.split_once('.')?;
            Self::Client(identity.parse().ok()?, group.parse().ok()?)
        } else {
            let (endpoint, what) = name.rsplit_once('.')?;
            let endpoint = endpoint.parse().ok()?;
            match what {
                "tasks" => Self::Tasks(endpoint),
                "commands" => Self::Commands(endpoint),
                "results" => Self::ResultsOf(endpoint),
                "heartbeats" => Self::HeartbeatsOf(endpoint),
                _ => return None,
            }
        };
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tasks(endpoint) => write!(f, "{endpoint}.tasks"),
            Self::Commands(endpoint) => write!(f, "{endpoint}.commands"),
            Self::ResultsOf(endpoint) => write!(f, "{endpoint}.results"),
            Self::HeartbeatsOf(endpoint) => write!(f, "{endpoint}.heartbeats"),
            Self::Client(identity, group) => write!(f, "client.{identity}.{group}"),
        }
    }
}

/// How to reach a queue one consumes from.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueInfo {
    pub connection_url: String,
    pub queue: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
}

/// How to publish. The exchange and the queue are only looked up, to see that they exist.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishInfo {
    pub connection_url: String,
    pub queue: String,
    pub exchange: String,
    pub queue_publish_kwargs: PublishArguments,
}

/// Arguments of the publish call, handed to it as they are: upstream's endpoint breaks on any other key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishArguments {
    pub exchange: String,
    pub routing_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mandatory: Option<bool>,
    /// AMQP basic properties by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<Object>,
}

/// What an endpoint is told when it registers, and what a manager hands to a user endpoint.
///
/// A manager needs the command queue, everyone else the task and result queues; the service sends all to all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    pub endpoint_id: EndpointId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_queue_info: Option<QueueInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_queue_info: Option<PublishInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_queue_info: Option<PublishInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_queue_info: Option<QueueInfo>,
    /// Shown to whoever started the endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "json::list")]
    pub warnings: Vec<String>,
}

impl QueueInfo {
    pub fn tasks(endpoint: EndpointId, connection_url: &str) -> Self {
        Self {
            connection_url: connection_url.to_owned(),
            queue: task_queue(endpoint),
            exchange: Some(exchange::TASKS.to_owned()),
        }
    }

    pub fn commands(endpoint: EndpointId, connection_url: &str) -> Self {
        Self {
            connection_url: connection_url.to_owned(),
            queue: command_queue(endpoint),
            exchange: Some(exchange::COMMANDS.to_owned()),
        }
    }
}

impl PublishInfo {
    /// Results are kept on disk by whichever broker it is.
    pub fn results(endpoint: EndpointId, connection_url: &str) -> Self {
        let persistent = Object::from_iter([("delivery_mode".to_owned(), 2.into())]);
        Self::new(connection_url, exchange::RESULTS, RESULT_QUEUE, result_key(endpoint), Some(persistent))
    }

    pub fn heartbeats(endpoint: EndpointId, connection_url: &str) -> Self {
        Self::new(connection_url, exchange::HEARTBEATS, HEARTBEAT_QUEUE, heartbeat_key(endpoint), None)
    }

    fn new(url: &str, exchange: &str, queue: &str, routing_key: String, properties: Option<Object>) -> Self {
        Self {
            connection_url: url.to_owned(),
            queue: queue.to_owned(),
            exchange: exchange.to_owned(),
            queue_publish_kwargs: PublishArguments {
                exchange: exchange.to_owned(),
                routing_key,
                mandatory: Some(true),
                properties,
            },
        }
    }
}

impl Registration {
    /// Everything an endpoint of any kind and age needs, on one connection's URL.
    pub fn new(endpoint: EndpointId, connection_url: &str) -> Self {
        Self {
            endpoint_id: endpoint,
            task_queue_info: Some(QueueInfo::tasks(endpoint, connection_url)),
            result_queue_info: Some(PublishInfo::results(endpoint, connection_url)),
            heartbeat_queue_info: Some(PublishInfo::heartbeats(endpoint, connection_url)),
            command_queue_info: Some(QueueInfo::commands(endpoint, connection_url)),
            warnings: Vec::new(),
        }
    }
}

/// Where a client finds the results of its task groups.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultConnection {
    pub queue_prefix: String,
    pub connection_url: String,
}

/// `amqp://user:password@host` without what nobody may read in a log.
pub fn redacted(connection_url: &str) -> String {
    let Some((scheme, rest)) = connection_url.split_once("://") else { return "***".to_owned() };
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        Some(at) => format!("{scheme}://***:***{}", &rest[at..]),
        None => connection_url.to_owned(),
    }
}

impl std::fmt::Debug for QueueInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueInfo")
            .field("connection_url", &redacted(&self.connection_url))
            .field("queue", &self.queue)
            .field("exchange", &self.exchange)
            .finish()
    }
}

impl std::fmt::Debug for PublishInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishInfo")
            .field("connection_url", &redacted(&self.connection_url))
            .field("queue", &self.queue)
            .field("exchange", &self.exchange)
            .field("queue_publish_kwargs", &self.queue_publish_kwargs)
            .finish()
    }
}

impl std::fmt::Debug for ResultConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResultConnection")
            .field("queue_prefix", &self.queue_prefix)
            .field("connection_url", &redacted(&self.connection_url))
            .finish()
    }
}
