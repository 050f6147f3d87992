//! One life of the connection: its channels, its consumer, its publications without an answer.

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
use super::{Address, Command, Delivery, Event, Item, Outcome, Plan, Tag, Target, headers, transport};

/// Opening takes no longer; then it counts as failed.
pub(super) const OPENING: Duration = Duration::from_secs(30);
/// Closing politely takes no longer.
const CLOSING: Duration = Duration::from_secs(2);

const CONSUMER: &str = "farcall.tasks";
const COMMANDS: &str = "farcall.commands";
/// So many commands wait with us at most.
const COMMANDS_AHEAD: u16 = 16;

/// Why no session came to be.
pub(super) enum Opening {
    /// For good.
    AuthenticationRefused(String),
    /// For now.
    Failed(String),
}

/// Why a session is over.
pub(super) enum Lost {
    Closed,
    Broken(Broken),
}

/// What broke a session.
pub(super) struct Broken {
    pub(super) reason: String,
    /// Another process has the task queue.
    pub(super) taken: bool,
}

impl From<String> for Broken {
    fn from(reason: String) -> Self {
        Self { reason, taken: false }
    }
}

/// Everything a session holds open.
pub(super) struct Channels {
    connections: Vec<Connection>,
    tasks: Channel,
    results: Channel,
    heartbeats: Channel,
    commands: Option<Channel>,
    backlog: Backlog,
}

/// Connects (once per address) and opens a channel for each purpose.
pub(super) async fn open(plan: &Plan) -> Result<Channels, Opening> {
    let backlog = Backlog::default();
    let opened = tokio::time::timeout(OPENING, connect(plan, &backlog)).await.unwrap_or_else(|_| {
        Err(Opening::Failed(format!("the broker did not answer within {} s", OPENING.as_secs())))
    });
    if opened.is_err() {
        backlog.end();
    }
    opened
}

async fn connect(plan: &Plan, backlog: &Backlog) -> Result<Channels, Opening> {
    let mut open: Vec<(&Address, Connection)> = Vec::new();
    let mut channels = Vec::new();
    let commands = plan.commands.as_ref().map(|source| &source.address);
    for address in
        [&plan.tasks.address, &plan.results.address, &plan.heartbeats.address].into_iter().chain(commands)
    {
        let index = match open.iter().position(|(known, _)| *known == address) {
            Some(index) => index,
            None => {
                let named = ConnectionProperties::default().with_connection_name(plan.name.as_str().into());
                let tls = OwnedTLSConfig { identity: None, cert_chain: plan.authorities.clone() };
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
    let commands = if plan.commands.is_some() { channels.pop() } else { None };
    let [tasks, results, heartbeats] = <[Channel; 3]>::try_from(channels)
        .map_err(|_| Opening::Failed("the channels could not be opened".to_owned()))?;
    for publisher in [&results, &heartbeats] {
        publisher.confirm_select(ConfirmSelectOptions::default()).await.map_err(|error| failed(&error))?;
    }
    tasks.basic_qos(plan.prefetch, BasicQosOptions::default()).await.map_err(|error| failed(&error))?;
    let connections = open.into_iter().map(|(_, connection)| connection).collect();
    Ok(Channels { connections, tasks, results, heartbeats, commands, backlog: backlog.clone() })
}

fn refused(error: &lapin::Error) -> Opening {
    match error.kind() {
        ErrorKind::ProtocolError(said)
            if *said.kind() == AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) =>
        {
            Opening::AuthenticationRefused(said.get_message().to_string())
        }
        _ => failed(error),
    }
}

fn failed(error: &lapin::Error) -> Opening {
    Opening::Failed(error.to_string())
}

/// A session at work.
struct Session<'a> {
    plan: &'a Plan,
    number: u32,
    channels: &'a Channels,
    consumer: Option<Consumer>,
    commanded: Option<Consumer>,
    /// The consumer was cancelled; what was on its way still comes out of it.
    cancelled: bool,
    outstanding: Outstanding,
    confirms: FuturesUnordered<Confirming>,
    events: &'a mpsc::Sender<Event>,
}

type Confirming = std::pin::Pin<Box<dyn Future<Output = (Item, lapin::Result<Confirmation>)> + Send>>;

/// Carries messages until the session is lost or closed.
pub(super) async fn run(
    plan: &Plan,
    number: u32,
    channels: Channels,
    consume: &mut bool,
    commands: &mut mpsc::UnboundedReceiver<Command>,
    events: &mpsc::Sender<Event>,
) -> Lost {
    let session = Session {
        plan,
        number,
        channels: &channels,
        consumer: None,
        commanded: None,
        cancelled: false,
        outstanding: Outstanding::default(),
        confirms: FuturesUnordered::new(),
        events,
    };
    let lost = session.carry(consume, commands).await;
    if matches!(lost, Lost::Closed) {
        for connection in &channels.connections {
            // A broker that doesn't answer the farewell is left without one.
            let _ = tokio::time::timeout(CLOSING, connection.close(200, "stopping".into())).await;
        }
    }
    channels.backlog.end();
    lost
}

impl Session<'_> {
    async fn carry(mut self, consume: &mut bool, commands: &mut mpsc::UnboundedReceiver<Command>) -> Lost {
        let mut failures = futures_util::stream::select_all(
            self.channels.connections.iter().map(|connection| Box::pin(connection.events_listener())),
        );
        if let Err(broken) = self.begin(*consume).await {
            return Lost::Broken(broken);
        }
        self.commanded = consume_commands(self.plan, self.channels).await;
        loop {
            let done = tokio::select! {
                biased;
                Some((item, confirmation)) = self.confirms.next(), if !self.confirms.is_empty() => {
                    self.settled(item, confirmation).await.map_err(Broken::from)
                }
                command = commands.recv() => match command {
                    Some(Command::Close) | None => return Lost::Closed,
                    Some(command) => self.obey(command, consume).await,
                },
                command = next(&mut self.commanded) => self.commanded(command).await.map_err(Broken::from),
                delivery = next(&mut self.consumer) => self.delivered(delivery, *consume).await,
                Some(event) = failures.next() => match event {
                    lapin::Event::Error(error) => Err(error.to_string().into()),
                    _ => Ok(()),
                },
            };
            if let Err(broken) = done {
                return Lost::Broken(broken);
            }
        }
    }

    /// The task queue is asked for before anything else, whether tasks are wanted or not: who has it has the endpoint.
    async fn begin(&mut self, consume: bool) -> Result<(), Broken> {
        if consume || self.plan.exclusive {
            self.start_consuming().await?;
        }
        tell(self.events, Event::Up { session: self.number }).await?;
        if consume { Ok(()) } else { Ok(self.stop_consuming().await?) }
    }

    async fn start_consuming(&mut self) -> Result<(), Broken> {
        let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        let queue = self.plan.tasks.queue.clone();
        match self.channels.tasks.basic_consume(queue, CONSUMER.into(), options, FieldTable::default()).await
        {
            Ok(consumer) => {
                self.consumer = Some(consumer);
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::ProtocolError(said)
                    if *said.kind() == AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) =>
                {
                    let reason = format!(
                        "another process already takes this endpoint's tasks ({})",
                        said.get_message()
                    );
                    Err(Broken { reason, taken: true })
                }
                _ => Err(error.to_string().into()),
            },
        }
    }

    async fn commanded(
        &mut self,
        delivery: Option<lapin::Result<lapin::message::Delivery>>,
    ) -> Result<(), String> {
        let Some(Ok(delivery)) = delivery else {
            tracing::warn!("the broker ended the consumer of commands");
            self.commanded = None;
            return Ok(());
        };
        self.channels.backlog.taken(delivery.data.len());
        tell(self.events, Event::Commanded(delivery.data)).await?;
        let Some(channel) = &self.channels.commands else { return Ok(()) };
        let options = BasicAckOptions { multiple: false };
        channel.basic_ack(delivery.delivery_tag, options).await.map_err(|error| error.to_string())
    }

    async fn stop_consuming(&mut self) -> Result<(), String> {
        if self.consumer.is_some() && !self.cancelled {
            self.cancelled = true;
            self.channels
                .tasks
                .basic_cancel(CONSUMER.into(), BasicCancelOptions::default())
                .await
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn obey(&mut self, command: Command, consume: &mut bool) -> Result<(), Broken> {
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
            Command::GiveBack(tags) => Ok(self.nack(ours(tags).collect(), true).await?),
            Command::Reject(tags) => Ok(self.nack(ours(tags).collect(), false).await?),
            Command::Consume(take) => {
                *consume = take;
                match take {
                    // A cancelled consumer runs dry first.
                    true if self.consumer.is_none() => self.start_consuming().await,
                    true => Ok(()),
                    false => Ok(self.stop_consuming().await?),
                }
            }
            // The caller ends the session itself.
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
            Item::Result(_) => (&self.channels.results, &self.plan.results),
            Item::Heartbeat => (&self.channels.heartbeats, &self.plan.heartbeats),
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
        let outcome = match confirmation.map_err(|error| error.to_string())? {
            Confirmation::Ack(None) => Outcome::Confirmed,
            Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
                self.channels.backlog.taken(returned.delivery.data.len());
                Outcome::Returned(returned.reply_text.to_string())
            }
            Confirmation::Nack(None) => Outcome::Refused,
            Confirmation::NotRequested => return Err("the broker dropped publisher confirms".to_owned()),
        };
        tell(self.events, Event::Settled { item, outcome }).await
    }

    async fn delivered(
        &mut self,
        delivery: Option<lapin::Result<lapin::message::Delivery>>,
        consume: bool,
    ) -> Result<(), Broken> {
        match delivery {
            Some(Ok(delivery)) => {
                self.channels.backlog.taken(delivery.data.len());
                let tag = Tag { session: self.number, number: delivery.delivery_tag };
                self.outstanding.delivered(tag.number);
                let headers = headers::to_json(&delivery.properties);
                Ok(tell(self.events, Event::Delivered(Delivery { tag, headers, body: delivery.data }))
                    .await?)
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

async fn tell(events: &mpsc::Sender<Event>, event: Event) -> Result<(), String> {
    events.send(event).await.map_err(|_| "nobody listens".to_owned())
}

/// The next delivery; without a consumer there is none to come.
async fn next(consumer: &mut Option<Consumer>) -> Option<lapin::Result<lapin::message::Delivery>> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}

/// Commands are a convenience: an endpoint that gets none still does its work.
async fn consume_commands(plan: &Plan, channels: &Channels) -> Option<Consumer> {
    let (source, channel) = (plan.commands.as_ref()?, channels.commands.as_ref()?);
    let consumer = async {
        channel.basic_qos(COMMANDS_AHEAD, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        channel.basic_consume(source.queue.clone(), COMMANDS.into(), options, FieldTable::default()).await
    };
    consumer.await.inspect_err(|error| tracing::warn!(%error, "no commands can be received")).ok()
}
