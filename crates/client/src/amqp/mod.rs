//! One supervised AMQP link: consumes tasks and commands, publishes results and heartbeats with confirms.
//!
//! ```text
//!            +--------------------- pause <---- lost ----+
//!            v                                           |
//!  start -> connecting -- Up{session} --> session -------+
//!            |                              |
//!            +--- refused ------------+     +--- close() ---> Ended(Closed)
//!                                     v
//!                                   Ended(..)
//! ```
//!
//! A session lasts from one connect to the loss of the connection. It is up once the broker has granted it the task queue,
//! which one consumer can have at a time: after `Up` the owner of the link knows that no other process takes the endpoint's
//! tasks ([`LinkConfig::exclusive`]).
//!
//! Delivery tags, and publications without an answer, are void after the `Down` of their session: the owner publishes again
//! after the next `Up`. The link retries with random pauses and reports what happens; it never looks into a message.

mod acks;
mod address;
mod backlog;
mod frame_check;
mod headers;
mod session;
mod supervisor;
mod transport;

use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::types::ShortString;
use lapin::{BasicProperties, ConnectionProperties};
use tokio::sync::mpsc;
use wire::TaskId;
use wire::queue::{PublishInfo, QueueInfo, Registration};

pub use address::{Address, BadAddress};

/// What a link connects to: the queues and exchanges, and how.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    pub tasks: Source,
    pub results: Target,
    pub heartbeats: Target,
    /// The queue of commands to the endpoint, if the service has one.
    pub commands: Option<Source>,
    /// Authorities to trust in addition to the system's, as PEM.
    pub authorities: Option<String>,
    /// The number of the first session: an owner that starts a second link continues the count.
    pub first_session: u32,
    /// A session is up only once the task queue is granted to it alone. If false, a session may only publish.
    pub exclusive: bool,
    /// How many unacknowledged tasks the broker may deliver.
    pub prefetch: u16,
    /// The connection's name in the broker's lists.
    pub name: String,
}

/// Why a registration can't be turned into a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLinkConfig {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("the address in {0}: {1}")]
    Address(&'static str, BadAddress),
    #[error("{0}: {1}")]
    Argument(&'static str, String),
}

impl LinkConfig {
    /// Takes queues and credentials from a registration; `amqp_port` replaces the ports in it.
    pub fn new(
        registration: &Registration,
        amqp_port: Option<u16>,
        authorities: Option<String>,
        prefetch: u16,
        name: String,
    ) -> Result<Self, BadLinkConfig> {
        let address =
            |what, url: &str| Address::parse(url, amqp_port).map_err(|bad| BadLinkConfig::Address(what, bad));
        let short = |what, text: &str| {
            ShortString::try_new(text)
                .map_err(|error| BadLinkConfig::Argument(what, format!("{text:?}: {error}")))
        };
        let source = |what, info: &Option<QueueInfo>| {
            let info = info.as_ref().ok_or(BadLinkConfig::Missing(what))?;
            Ok(Source { address: address(what, &info.connection_url)?, queue: short(what, &info.queue)? })
        };
        let target = |what, info: &Option<PublishInfo>| {
            let info = info.as_ref().ok_or(BadLinkConfig::Missing(what))?;
            let arguments = &info.queue_publish_kwargs;
            let wanted = arguments.properties.clone().unwrap_or_default();
            Ok(Target {
                address: address(what, &info.connection_url)?,
                exchange: short(what, &arguments.exchange)?,
                routing_key: short(what, &arguments.routing_key)?,
                mandatory: arguments.mandatory.unwrap_or(false),
                properties: headers::properties(&wanted)
                    .map_err(|error| BadLinkConfig::Argument(what, error))?,
            })
        };
        Ok(Self {
            tasks: source("task_queue_info", &registration.task_queue_info)?,
            results: target("result_queue_info", &registration.result_queue_info)?,
            heartbeats: target("heartbeat_queue_info", &registration.heartbeat_queue_info)?,
            commands: match &registration.command_queue_info {
                Some(_) => Some(source("command_queue_info", &registration.command_queue_info)?),
                None => None,
            },
            authorities,
            first_session: 0,
            exclusive: true,
            prefetch,
            name,
        })
    }
}

impl LinkConfig {
    /// The link of a manager: it takes the messages of its command queue as other endpoints take tasks, alone and
    /// acknowledging each, and publishes heartbeats only.
    pub fn of_manager(
        registration: &Registration,
        amqp_port: Option<u16>,
        authorities: Option<String>,
        prefetch: u16,
        name: String,
    ) -> Result<Self, BadLinkConfig> {
        let commands = registration.command_queue_info.clone();
        if commands.is_none() {
            return Err(BadLinkConfig::Missing("command_queue_info"));
        }
        let registration = Registration {
            task_queue_info: commands,
            result_queue_info: registration.heartbeat_queue_info.clone(),
            command_queue_info: None,
            ..registration.clone()
        };
        Self::new(&registration, amqp_port, authorities, prefetch, name)
    }
}

/// A queue to consume from.
#[derive(Clone, Debug)]
pub struct Source {
    pub address: Address,
    pub queue: ShortString,
}

/// Where and how to publish.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: Address,
    pub exchange: ShortString,
    pub routing_key: ShortString,
    pub mandatory: bool,
    pub properties: BasicProperties,
}

/// Identifies one delivery of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    pub session: u32,
    pub number: u64,
}

/// One message of the task queue; of a manager, one of its command queue.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub tag: Tag,
    pub content_type: Option<String>,
    /// When it was sent, in seconds since 1970.
    pub timestamp: Option<u64>,
    /// The AMQP headers as JSON; values without a JSON form are left out.
    pub headers: serde_json::Map<String, serde_json::Value>,
    pub body: Vec<u8>,
}

/// What a publication carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    Result(TaskId),
    Heartbeat,
}

/// The broker's answer to a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishStatus {
    Confirmed,
    /// No queue takes the message: the broker returned it, with this text.
    Returned(String),
    /// The broker answered with `basic.nack`.
    Refused,
}

/// What happens on a link, in order.
#[derive(Clone, Debug)]
pub enum Event {
    Up {
        session: u32,
    },
    Delivered(Delivery),
    /// A command to the endpoint. The link has acknowledged it.
    Commanded(Vec<u8>),
    Settled {
        item: Item,
        status: PublishStatus,
    },
    /// The session is over, or could not be opened; the next attempt follows after the pause.
    Down {
        reason: String,
        /// Another process consumes from the task queue.
        queue_taken: bool,
        pause: Duration,
    },
    /// The last event.
    Ended(LinkEnd),
}

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    Closed,
    /// The broker does not accept the credentials.
    AuthenticationRefused(String),
    /// Too many attempts failed in a row.
    GaveUp(String),
}

/// Requests of the owner.
#[derive(Debug)]
enum Command {
    Publish { session: u32, item: Item, body: Vec<u8> },
    Acknowledge(Vec<Tag>),
    Requeue(Vec<Tag>),
    Reject(Vec<Tag>),
    Consume(bool),
    Close,
}

/// Sends requests to a link. No call waits: their queue is bounded by the deliveries and publications without an answer, which
/// the owner limits.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

/// Opens a connection to the broker at `address` and closes it: checks its certificate, our credentials and the virtual host. The
/// error is the text of the refusal.
pub async fn check_connection(address: &Address, authorities: Option<String>) -> Result<(), String> {
    let tls = OwnedTLSConfig { identity: None, cert_chain: authorities };
    let named = ConnectionProperties::default().with_connection_name("doctor".into());
    let backlog = backlog::Backlog::default();
    let connection = transport::connect(address.uri(), tls, named, backlog.clone())
        .await
        .map_err(|error| error.to_string())?;
    // The check is done, whether or not the broker answers the close.
    let _ = connection.close(200, "only asking".into()).await;
    backlog.end();
    Ok(())
}

/// How many events wait while the owner is busy; further deliveries stay with the broker.
const EVENT_QUEUE: usize = 1024;

/// Starts a link on the current runtime.
pub fn start(config: LinkConfig) -> (Handle, mpsc::Receiver<Event>) {
    let (commands, inbox) = mpsc::unbounded_channel();
    let (outbox, events) = mpsc::channel(EVENT_QUEUE);
    tokio::spawn(supervisor::run(config, inbox, outbox));
    (Handle { commands }, events)
}

impl Handle {
    /// Publishes in this session; does nothing when the session is over.
    pub fn publish(&self, session: u32, item: Item, body: Vec<u8>) {
        self.send(Command::Publish { session, item, body });
    }

    /// Acknowledges messages: the endpoint has them safe.
    pub fn acknowledge(&self, tags: Vec<Tag>) {
        self.send(Command::Acknowledge(tags));
    }

    /// Returns messages to the queue.
    pub fn requeue(&self, tags: Vec<Tag>) {
        self.send(Command::Requeue(tags));
    }

    /// Rejects messages that can't be processed: the queue drops them, or dead-letters them if so configured.
    pub fn reject(&self, tags: Vec<Tag>) {
        self.send(Command::Reject(tags));
    }

    /// Starts or stops consuming, also in later sessions; delivered messages stay delivered.
    pub fn consume(&self, take: bool) {
        self.send(Command::Consume(take));
    }

    /// Closes the connection; `Ended` follows.
    pub fn close(&self) {
        self.send(Command::Close);
    }

    /// Closes the link and waits for its end, `limit` at most: whoever ends does so whether or not the broker answers.
    pub async fn close_within(&self, limit: Duration, events: &mut mpsc::Receiver<Event>) {
        self.close();
        let ended = async {
            while let Some(event) = events.recv().await {
                if matches!(event, Event::Ended(_)) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(limit, ended).await;
    }

    fn send(&self, command: Command) {
        // A link that has ended has sent `Ended` to the owner.
        let _ = self.commands.send(command);
    }
}
