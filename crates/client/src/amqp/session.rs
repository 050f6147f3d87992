//! One session of the link: its channels, its consumers, and the publications that the broker has not answered.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions,
    BasicQosOptions, ConfirmSelectOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::FieldTable;
use lapin::{Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind, PublisherConfirm};
use tokio::sync::mpsc;

use super::acks::Outstanding;
use super::backlog::Backlog;
use super::transport::OPEN_TIMEOUT;
use super::{
    Address, Command, Delivery, Event, Item, LinkConfig, PublishStatus, Tag, Target, headers, transport,
};

/// How long the broker may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

const TASK_CONSUMER: &str = "farcall.tasks";
const COMMAND_CONSUMER: &str = "farcall.commands";
/// How many unacknowledged commands the broker may deliver.
const COMMAND_PREFETCH: u16 = 16;

/// Why a session could not be opened.
pub(super) enum OpenError {
    /// The broker does not accept the credentials: a retry can't help.
    AuthenticationRefused(String),
    /// A retry may help.
    Failed(String),
}

/// Why a session is over.
pub(super) enum SessionEnd {
    Closed,
    Disconnected(Disconnect),
}

/// How a session was lost.
pub(super) struct Disconnect {
    pub(super) reason: String,
    /// Another process consumes from the task queue.
    pub(super) queue_taken: bool,
}

impl From<String> for Disconnect {
    fn from(reason: String) -> Self {
        Self { reason, queue_taken: false }
    }
}

/// The open connections and channels of a session.
pub(super) struct Channels {
    connections: Vec<Connection>,
    tasks: Channel,
    results: Channel,
    heartbeats: Channel,
    commands: Option<Channel>,
    backlog: Backlog,
}

/// Connects (once per address) and opens a channel for each purpose.
pub(super) async fn open(config: &LinkConfig) -> Result<Channels, OpenError> {
    let backlog = Backlog::default();
    let opened = tokio::time::timeout(OPEN_TIMEOUT, connect(config, &backlog)).await.unwrap_or_else(|_| {
        Err(OpenError::Failed(format!("the broker did not answer within {} s", OPEN_TIMEOUT.as_secs())))
    });
    if opened.is_err() {
        backlog.end();
    }
    opened
}

async fn connect(config: &LinkConfig, backlog: &Backlog) -> Result<Channels, OpenError> {
    let mut open: Vec<(&Address, Connection)> = Vec::new();
    let mut channels = Vec::new();
    let commands = config.commands.as_ref().map(|source| &source.address);
    for address in [&config.tasks.address, &config.results.address, &config.heartbeats.address]
        .into_iter()
        .chain(commands)
    {
        let index = match open.iter().position(|(known, _)| *known == address) {
            Some(index) => index,
            None => {
                let named = ConnectionProperties::default().with_connection_name(config.name.as_str().into());
                let tls = OwnedTLSConfig { identity: None, cert_chain: config.authorities.clone() };
                let connection = transport::connect(address.uri(), tls, named, backlog.clone())
                    .await
                    .map_err(|error| refused(&error))?;
                open.push((address, connection));
                open.len() - 1
            }
        };
        let (_, connection) = &open[index];
        channels.push(connection.create_channel().await.map_err(|error| failed(&error))?);
    }
    let commands = if config.commands.is_some() { channels.pop() } else { None };
    let [tasks, results, heartbeats] = <[Channel; 3]>::try_from(channels)
        .map_err(|_| OpenError::Failed("the channels could not be opened".to_owned()))?;
    for publisher in [&results, &heartbeats] {
        publisher.confirm_select(ConfirmSelectOptions::default()).await.map_err(|error| failed(&error))?;
    }
    tasks.basic_qos(config.prefetch, BasicQosOptions::default()).await.map_err(|error| failed(&error))?;
    let connections = open.into_iter().map(|(_, connection)| connection).collect();
    Ok(Channels { connections, tasks, results, heartbeats, commands, backlog: backlog.clone() })
}

fn refused(error: &lapin::Error) -> OpenError {
    match error.kind() {
        ErrorKind::ProtocolError(error)
            if *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) =>
        {
            OpenError::AuthenticationRefused(error.get_message().to_string())
        }
        _ => failed(error),
    }
}

fn failed(error: &lapin::Error) -> OpenError {
    OpenError::Failed(error.to_string())
}

/// A running session.
struct Session<'a> {
    config: &'a LinkConfig,
    number: u32,
    channels: &'a Channels,
    consumer: Option<Consumer>,
    command_consumer: Option<Consumer>,
    /// The consumer was cancelled; it still yields the deliveries that were under way.
    cancelled: bool,
    outstanding: Outstanding,
    confirms: FuturesUnordered<Confirming>,
    events: &'a mpsc::Sender<Event>,
}

type Confirming = std::pin::Pin<Box<dyn Future<Output = (Item, lapin::Result<Confirmation>)> + Send>>;

/// Carries messages until the session is lost or closed.
pub(super) async fn run(
    config: &LinkConfig,
    number: u32,
    channels: Channels,
    consume: &mut bool,
    commands: &mut mpsc::UnboundedReceiver<Command>,
    events: &mpsc::Sender<Event>,
) -> SessionEnd {
    let session = Session {
        config,
        number,
        channels: &channels,
        consumer: None,
        command_consumer: None,
        cancelled: false,
        outstanding: Outstanding::default(),
        confirms: FuturesUnordered::new(),
        events,
    };
    let end = session.run(consume, commands).await;
    if matches!(end, SessionEnd::Closed) {
        for connection in &channels.connections {
            // The session is over, whether or not the broker answers.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "stopping".into())).await;
        }
    }
    channels.backlog.end();
    end
}

impl Session<'_> {
    async fn run(
        mut self,
        consume: &mut bool,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> SessionEnd {
        let mut failures = futures_util::stream::select_all(
            self.channels.connections.iter().map(|connection| Box::pin(connection.events_listener())),
        );
        if let Err(disconnect) = self.open_queue(*consume).await {
            return SessionEnd::Disconnected(disconnect);
        }
        self.command_consumer = consume_commands(self.config, self.channels).await;
        loop {
            let done = tokio::select! {
                biased;
                Some((item, confirmation)) = self.confirms.next(), if !self.confirms.is_empty() => {
                    self.settled(item, confirmation).await.map_err(Disconnect::from)
                }
                command = commands.recv() => match command {
                    Some(Command::Close) | None => return SessionEnd::Closed,
                    Some(command) => self.execute(command, consume).await,
                },
                command = next(&mut self.command_consumer) => self.command_received(command).await.map_err(Disconnect::from),
                delivery = next(&mut self.consumer) => self.delivered(delivery, *consume).await,
                Some(event) = failures.next() => match event {
                    lapin::Event::Error(error) => Err(error.to_string().into()),
                    _ => Ok(()),
                },
            };
            if let Err(disconnect) = done {
                return SessionEnd::Disconnected(disconnect);
            }
        }
    }

    /// Requests the task queue before anything else, even if no tasks are wanted yet: the process that consumes from it owns the
    /// endpoint.
    async fn open_queue(&mut self, consume: bool) -> Result<(), Disconnect> {
        if consume || self.config.exclusive {
            self.start_consuming().await?;
        }
        send(self.events, Event::Up { session: self.number }).await?;
        if consume { Ok(()) } else { Ok(self.stop_consuming().await?) }
    }

    async fn start_consuming(&mut self) -> Result<(), Disconnect> {
        let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        let queue = self.config.tasks.queue.clone();
        match self
            .channels
            .tasks
            .basic_consume(queue, TASK_CONSUMER.into(), options, FieldTable::default())
            .await
        {
            Ok(consumer) => {
                self.consumer = Some(consumer);
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::ProtocolError(error)
                    if *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) =>
                {
                    let reason = format!(
                        "another process already takes this endpoint's tasks or commands ({})",
                        error.get_message()
                    );
                    Err(Disconnect { reason, queue_taken: true })
                }
                _ => Err(error.to_string().into()),
            },
        }
    }

    async fn command_received(
        &mut self,
        delivery: Option<lapin::Result<lapin::message::Delivery>>,
    ) -> Result<(), String> {
        let Some(Ok(delivery)) = delivery else {
            tracing::warn!("the broker ended the consumer of commands");
            self.command_consumer = None;
            return Ok(());
        };
        self.channels.backlog.remove(delivery.data.len());
        send(self.events, Event::Commanded(delivery.data)).await?;
        let Some(channel) = &self.channels.commands else { return Ok(()) };
        let options = BasicAckOptions { multiple: false };
        channel.basic_ack(delivery.delivery_tag, options).await.map_err(|error| error.to_string())
    }

    async fn stop_consuming(&mut self) -> Result<(), String> {
        if self.consumer.is_some() && !self.cancelled {
            self.cancelled = true;
            self.channels
                .tasks
                .basic_cancel(TASK_CONSUMER.into(), BasicCancelOptions::default())
                .await
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn execute(&mut self, command: Command, consume: &mut bool) -> Result<(), Disconnect> {
        let ours = |tags: Vec<Tag>| {
            let session = self.number;
            tags.into_iter().filter(move |tag| tag.session == session).map(|tag| tag.number)
        };
        match command {
            Command::Publish { session, item, body } if session == self.number => {
                Ok(self.publish(item, &body).await?)
            }
            Command::Publish { .. } => Ok(()),
            Command::Acknowledge(tags) => {
                for ack in self.outstanding.acknowledge(ours(tags)) {
                    let options = BasicAckOptions { multiple: ack.multiple };
                    self.channels
                        .tasks
                        .basic_ack(ack.number, options)
                        .await
                        .map_err(|error| error.to_string())?;
                }
                Ok(())
            }
            Command::Requeue(tags) => Ok(self.nack(ours(tags).collect(), true).await?),
            Command::Reject(tags) => Ok(self.nack(ours(tags).collect(), false).await?),
            Command::Consume(take) => {
                *consume = take;
                match take {
                    // A cancelled consumer must be emptied first.
                    true if self.consumer.is_none() => self.start_consuming().await,
                    true => Ok(()),
                    false => Ok(self.stop_consuming().await?),
                }
            }
            // The caller ends the session.
            Command::Close => Ok(()),
        }
    }

    async fn nack(&mut self, numbers: Vec<u64>, requeue: bool) -> Result<(), String> {
        for number in numbers {
            if self.outstanding.settled(number) {
                let options = BasicNackOptions { multiple: false, requeue };
                self.channels.tasks.basic_nack(number, options).await.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    async fn publish(&mut self, item: Item, body: &[u8]) -> Result<(), String> {
        let (channel, target): (&Channel, &Target) = match item {
            Item::Result(_) => (&self.channels.results, &self.config.results),
            Item::Heartbeat => (&self.channels.heartbeats, &self.config.heartbeats),
        };
        let options = BasicPublishOptions { mandatory: target.mandatory, immediate: false };
        let confirm: PublisherConfirm = channel
            .basic_publish(
                target.exchange.clone(),
                target.routing_key.clone(),
                options,
                body,
                target.properties.clone(),
            )
            .await
            .map_err(|error| error.to_string())?;
        self.confirms.push(Box::pin(async move { (item, confirm.await) }));
        Ok(())
    }

    async fn settled(&mut self, item: Item, confirmation: lapin::Result<Confirmation>) -> Result<(), String> {
        let status = match confirmation.map_err(|error| error.to_string())? {
            Confirmation::Ack(None) => PublishStatus::Confirmed,
            Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
                self.channels.backlog.remove(returned.delivery.data.len());
                PublishStatus::Returned(returned.reply_text.to_string())
            }
            Confirmation::Nack(None) => PublishStatus::Refused,
            Confirmation::NotRequested => return Err("the broker dropped publisher confirms".to_owned()),
        };
        send(self.events, Event::Settled { item, status }).await
    }

    async fn delivered(
        &mut self,
        delivery: Option<lapin::Result<lapin::message::Delivery>>,
        consume: bool,
    ) -> Result<(), Disconnect> {
        match delivery {
            Some(Ok(delivery)) => {
                self.channels.backlog.remove(delivery.data.len());
                let tag = Tag { session: self.number, number: delivery.delivery_tag };
                self.outstanding.delivered(tag.number);
                let properties = &delivery.properties;
                let delivery = Delivery {
                    tag,
                    content_type: properties.content_type().as_ref().map(ToString::to_string),
                    timestamp: *properties.timestamp(),
                    headers: headers::to_json(properties),
                    body: delivery.data,
                };
                Ok(send(self.events, Event::Delivered(delivery)).await?)
            }
            Some(Err(error)) => Err(error.to_string().into()),
            None if self.cancelled => {
                self.consumer = None;
                self.cancelled = false;
                if consume { self.start_consuming().await } else { Ok(()) }
            }
            None => Err("the broker ended the consumer".to_owned().into()),
        }
    }
}

async fn send(events: &mpsc::Sender<Event>, event: Event) -> Result<(), String> {
    events.send(event).await.map_err(|_| "the owner of the link is gone".to_owned())
}

/// The next delivery; waits for ever without a consumer.
async fn next(consumer: &mut Option<Consumer>) -> Option<lapin::Result<lapin::message::Delivery>> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}

/// Consumes commands. An endpoint works without them too.
async fn consume_commands(config: &LinkConfig, channels: &Channels) -> Option<Consumer> {
    let (source, channel) = (config.commands.as_ref()?, channels.commands.as_ref()?);
    let consumer = async {
        channel.basic_qos(COMMAND_PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        channel
            .basic_consume(source.queue.clone(), COMMAND_CONSUMER.into(), options, FieldTable::default())
            .await
    };
    consumer.await.inspect_err(|error| tracing::warn!(%error, "the endpoint can't receive commands")).ok()
}
