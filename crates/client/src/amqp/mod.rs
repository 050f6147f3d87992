//! One supervised AMQP link: consumes tasks and commands, publishes results and heartbeats with confirms.
//!
//! ```text
//!            +--------------------- pause <---- lost ----+
//!            v                                           |
//!  start -> connecting -- Up{session} --> session -------+
//!            |                              |
//!            +--- refused for good ---+     +--- close() ---> Ended(Closed)
//!                                     v
//!                                   Ended(..)
//! ```
//!
//! A session is up once the broker has granted it the task queue, which it grants to one at a time: an owner that hears
//! `Up` knows that no other process has the endpoint's tasks ([`Plan::exclusive`]).
//!
//! A session is one life of the connection. Whatever belongs to a session (delivery tags, publications without an
//! answer) is void after its `Down`: the owner, who knows what it wanted to send, sends it again after the next `Up`.
//! The link retries, spreads its retries and says what happens; it never looks into a message.

mod acks;
mod address;
mod backlog;
mod guard;
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

/// Where messages come from and go to.
#[derive(Clone, Debug)]
pub struct Plan {
    pub tasks: Source,
    pub results: Target,
    pub heartbeats: Target,
    /// Where messages to the endpoint itself come from, if the service has such a queue.
    pub commands: Option<Source>,
    /// Authorities to trust beside the system's, as PEM.
    pub authorities: Option<String>,
    /// The number of the first session: an owner that begins a second link goes on counting.
    pub first_session: u32,
    /// No session is up unless the task queue is granted to it alone. Without it, a session may only publish.
    pub exclusive: bool,
    /// How many unacknowledged tasks the broker may give out.
    pub prefetch: u16,
    /// Shown in the broker's lists of connections.
    pub name: String,
}

/// Why a registration makes no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPlan {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("the address in {0}: {1}")]
    Address(&'static str, BadAddress),
    #[error("{0}: {1}")]
    Argument(&'static str, String),
}

impl Plan {
    /// What a registration says, with `amqp_port` in place of the ports it names.
    pub fn new(
        registration: &Registration,
        amqp_port: Option<u16>,
        authorities: Option<String>,
        prefetch: u16,
        name: String,
    ) -> Result<Self, BadPlan> {
        let address =
            |what, url: &str| Address::parse(url, amqp_port).map_err(|bad| BadPlan::Address(what, bad));
        let short = |what, text: &str| {
            ShortString::try_new(text).map_err(|error| BadPlan::Argument(what, format!("{text:?}: {error}")))
        };
        let source = |what, info: &Option<QueueInfo>| {
            let info = info.as_ref().ok_or(BadPlan::Missing(what))?;
            Ok(Source { address: address(what, &info.connection_url)?, queue: short(what, &info.queue)? })
        };
        let target = |what, info: &Option<PublishInfo>| {
            let info = info.as_ref().ok_or(BadPlan::Missing(what))?;
            let arguments = &info.queue_publish_kwargs;
            let wanted = arguments.properties.clone().unwrap_or_default();
            Ok(Target {
                address: address(what, &info.connection_url)?,
                exchange: short(what, &arguments.exchange)?,
                routing_key: short(what, &arguments.routing_key)?,
                mandatory: arguments.mandatory.unwrap_or(false),
                properties: headers::properties(&wanted).map_err(|error| BadPlan::Argument(what, error))?,
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

/// A queue to consume from, alone.
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

/// Names one delivery, in one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    pub session: u32,
    pub number: u64,
}

/// One message of the task queue.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub tag: Tag,
    /// The AMQP headers as JSON; what has no JSON form is left out.
    pub headers: serde_json::Map<String, serde_json::Value>,
    pub body: Vec<u8>,
}

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    Result(TaskId),
    Heartbeat,
}

/// What the broker said to a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Confirmed,
    /// It has no queue for the message and gave it back.
    Returned(String),
    /// It did not take responsibility.
    Refused,
}

/// What the link tells its owner, in order.
#[derive(Clone, Debug)]
pub enum Event {
    Up {
        session: u32,
    },
    Delivered(Delivery),
    /// A message to the endpoint itself; it is acknowledged by the link.
    Commanded(Vec<u8>),
    Settled {
        item: Item,
        outcome: Outcome,
    },
    /// The session is over; the next attempt follows after a pause.
    Down {
        reason: String,
        /// Another process has the task queue.
        taken: bool,
        pause: Duration,
    },
    /// Nothing follows.
    Ended(End),
}

/// Why a link ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Closed,
    /// The broker does not accept the credentials.
    AuthenticationRefused(String),
    /// So many attempts failed in a row that nobody is there any more.
    GaveUp(String),
}

/// What the owner asks of the link.
#[derive(Debug)]
enum Command {
    Publish { session: u32, item: Item, body: Vec<u8> },
    Acknowledge(Vec<Tag>),
    GiveBack(Vec<Tag>),
    Reject(Vec<Tag>),
    Consume(bool),
    Close,
}

/// Speaks to a link. Its calls never wait: the length of their queue is bounded by the deliveries and publications
/// without an answer, which the owner bounds.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

/// Whether the broker at `address` takes a connection of ours: its certificate, our credentials, the virtual host. Why not,
/// in the words of whoever refused.
pub async fn greet(address: &Address, authorities: Option<String>) -> Result<(), String> {
    let tls = OwnedTLSConfig { identity: None, cert_chain: authorities };
    let named = ConnectionProperties::default().with_connection_name("doctor".into());
    let backlog = backlog::Backlog::default();
    let connection = transport::connect(address.uri(), tls, named, backlog.clone())
        .await
        .map_err(|error| error.to_string())?;
    // It was only a greeting: a broker that doesn't answer the farewell is left without one.
    let _ = connection.close(200, "only asking".into()).await;
    backlog.end();
    Ok(())
}

/// Events wait here when the owner is busy; deliveries stay with the broker meanwhile.
const EVENTS: usize = 1024;

/// Starts a link on the runtime of the caller.
pub fn start(plan: Plan) -> (Handle, mpsc::Receiver<Event>) {
    let (commands, inbox) = mpsc::unbounded_channel();
    let (outbox, events) = mpsc::channel(EVENTS);
    tokio::spawn(supervisor::run(plan, inbox, outbox));
    (Handle { commands }, events)
}

impl Handle {
    /// Publishes in this session; when it is over, nothing happens.
    pub fn publish(&self, session: u32, item: Item, body: Vec<u8>) {
        self.send(Command::Publish { session, item, body });
    }

    /// These messages are safe with us.
    pub fn acknowledge(&self, tags: Vec<Tag>) {
        self.send(Command::Acknowledge(tags));
    }

    /// These messages go back to the queue.
    pub fn give_back(&self, tags: Vec<Tag>) {
        self.send(Command::GiveBack(tags));
    }

    /// Nobody can do anything with these messages: the queue drops them (or sets them aside, where it is told to).
    pub fn reject(&self, tags: Vec<Tag>) {
        self.send(Command::Reject(tags));
    }

    /// Takes messages, or stops taking them; what was delivered stays ours. It outlives sessions.
    pub fn consume(&self, take: bool) {
        self.send(Command::Consume(take));
    }

    /// Closes the connection in an orderly way; `Ended` follows.
    pub fn close(&self) {
        self.send(Command::Close);
    }

    fn send(&self, command: Command) {
        // A link that has ended needs no commands: its `Ended` tells the owner.
        let _ = self.commands.send(command);
    }
}
