//! Names of exchanges, queues, keys and headers, and the connection information handed to endpoints and clients.

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, IdentityId, TaskGroupId};
use crate::json::{self, Object};

/// The exchanges of messages to and from endpoints.
pub mod exchange {
    /// Direct exchange: tasks to endpoints, routed by the name of the task queue.
    pub const TASKS: &str = "tasks";
    /// Topic exchange: results from endpoints, with the key `<endpoint>.results`.
    pub const RESULTS: &str = "results";
    /// Topic exchange: heartbeats from endpoints, with the key `<endpoint>.heartbeats`.
    pub const HEARTBEATS: &str = "heartbeats";
    /// Direct exchange: commands to endpoints, routed by the name of the command queue.
    pub const COMMANDS: &str = "commands";
}

/// The queue of all endpoints' results, and its binding key.
pub const RESULT_QUEUE: &str = "results";
pub const RESULT_BINDING: &str = "*.results";

/// The queue of all endpoints' heartbeats, and its binding key.
pub const HEARTBEAT_QUEUE: &str = "heartbeats";
pub const HEARTBEAT_BINDING: &str = "*.heartbeats";

/// AMQP headers of messages.
pub mod header {
    /// Of a task: the registered function, as a string.
    pub const FUNCTION_UUID: &str = "function_uuid";
    /// Of a task: its id, as a string.
    pub const TASK_UUID: &str = "task_uuid";
    /// Of a task: a string of JSON; `null` or absent if the task has no resource specification.
    pub const RESOURCE_SPECIFICATION: &str = "resource_specification";
    /// Of a task: an array of import paths of serializers, tried in this order.
    pub const RESULT_SERIALIZERS: &str = "result_serializers";
    /// Of a command: the manager logs the command, without its passwords.
    pub const DEBUG: &str = "debug";
}

/// The queue of an endpoint's tasks, and their routing key.
pub fn task_queue(endpoint: EndpointId) -> String {
    format!("{endpoint}.tasks")
}

/// The queue of the commands to an endpoint, and their routing key.
pub fn command_queue(endpoint: EndpointId) -> String {
    format!("{endpoint}.commands")
}

pub fn result_key(endpoint: EndpointId) -> String {
    format!("{endpoint}.results")
}

pub fn heartbeat_key(endpoint: EndpointId) -> String {
    format!("{endpoint}.heartbeats")
}

/// The `queue_prefix` of a client: with the id of a task group appended, the name of the queue of that group's results.
pub fn client_prefix(identity: IdentityId) -> String {
    format!("client.{identity}.")
}

/// The queue of a task group's results.
pub fn client_queue(identity: IdentityId, group: TaskGroupId) -> String {
    format!("client.{identity}.{group}")
}

/// The meaning of the name of a queue or of a routing key.
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
    /// Accepts only the spelling that the functions above write.
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

/// How to connect to a queue and consume from it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueInfo {
    pub connection_url: String,
    pub queue: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
}

/// How to connect and publish. Endpoints only check that the exchange and the queue exist.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishInfo {
    pub connection_url: String,
    pub queue: String,
    pub exchange: String,
    pub queue_publish_kwargs: PublishArguments,
}

/// The arguments of the publish call. Upstream's endpoint passes them on unchanged and fails on any other key.
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

/// The answer to an endpoint's registration, which a manager also passes to a user endpoint.
///
/// A manager needs the command queue; other endpoints need the task and result queues. The service sends all of them to each.
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
    /// Printed by the command that starts the endpoint.
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
    /// Persistent: any broker keeps results on disk.
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
    /// All that endpoints of any kind and version need, with the URL of one connection.
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

/// How a client connects to the queues of its task groups' results.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultConnection {
    pub queue_prefix: String,
    pub connection_url: String,
}

/// `amqp://user:password@host` without user and password, for logs.
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
