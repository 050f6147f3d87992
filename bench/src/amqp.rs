//! The part `amqp`: endpoints behind a bare broker. Tasks are published into the endpoint's queue, results consumed from the queue
//! that all endpoints publish into, as the service would.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::Context;
use clap::Args;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, ExchangeKind};
use tokio::sync::mpsc;
use wire::message::{Message, Task, encode};
use wire::queue::{self, Registration, exchange, header};
use wire::{EndpointId, FunctionId, TaskId, Text, buffer};

use crate::children::Running;
use crate::contender::{Contender, Programs};
use crate::link::{self, Prepared};
use crate::measurements::{megabytes, milliseconds, record};
use crate::payload::NoOp;
use crate::random;
use crate::transport::{Arrival, Transport, measure};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Tasks sent one after another.
    #[arg(long, default_value_t = 1000)]
    serial: usize,
    /// Tasks sent at once.
    #[arg(long, default_value_t = 5000)]
    burst: usize,
    /// A broker that is already there, with a user who may declare, and which keeps messages on disk; else ours is
    /// started, which keeps none.
    #[arg(long)]
    broker: Option<String>,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let no_op = NoOp::packed_by(&options.programs.python)?;
    let (_broker, url) = match &options.broker {
        Some(url) => (None, url.clone()),
        None => {
            let mut command = Command::new(std::env::current_exe()?);
            let mut running = Running::start(command.arg("broker").stdout(Stdio::piped()), b"")?;
            let mut url = String::new();
            BufReader::new(running.stdout().context("a piped standard output")?).read_line(&mut url)?;
            (Some(running), url.trim().to_owned())
        }
    };
    let connection = link::connect(&url).await?;
    for contender in options.programs.contenders() {
        let directory = tempfile::tempdir()?;
        let channel = connection.create_channel().await?;
        let endpoint = EndpointId::from_uuid(random::id());
        declare(&channel, endpoint).await?;
        let results = link::arrivals(&channel, queue::RESULT_QUEUE).await?;
        let first_beat = link::first(&channel, queue::HEARTBEAT_QUEUE).await?;
        let registration = match &options.broker {
            Some(_) => Registration::new(endpoint, &url),
            None => transient(endpoint, &url),
        };
        let running = contender.start(&options.programs, directory.path(), &no_op, registration)?;
        let function = FunctionId::from_uuid(random::id());
        let mut transport =
            Amqp { channel, endpoint, function, no_op: &no_op, prepared: Vec::new(), results };
        transport.prepare(1)?;
        transport.send().await?;
        let row = measure(
            contender.name().to_owned(),
            &mut transport,
            running.started,
            running.tree(),
            contender.serial(options.serial),
            options.burst,
        )
        .await
        .with_context(|| format!("while measuring {}", contender.name()))?;
        row.record();
        // The echo sends no heartbeats.
        if !matches!(contender, Contender::Echo) {
            let ready = first_beat.await.context("it sent no heartbeat")? - running.started;
            record(contender.name(), "ready", milliseconds(ready), "ms");
            record(contender.name(), "processes", running.tree().count()? as f64, "");
        }
        if matches!(contender, Contender::Farcall) {
            record(contender.name(), "memory without workers", megabytes(running.tree().native_kib()?), "MB");
        }
        transport.channel.close(200, "measured".into()).await?;
    }
    Ok(())
}

/// The credentials as the service would hand them out, but for messages that need not survive: a bare broker has
/// nowhere to keep them, and ours confirms no message that it could lose.
fn transient(endpoint: EndpointId, url: &str) -> Registration {
    let mut registration = Registration::new(endpoint, url);
    if let Some(results) = &mut registration.result_queue_info {
        results.queue_publish_kwargs.properties = None;
    }
    registration
}

/// Makes what the service would have made before an endpoint comes.
async fn declare(channel: &Channel, endpoint: EndpointId) -> anyhow::Result<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    for name in [exchange::TASKS, exchange::RESULTS, exchange::HEARTBEATS, exchange::COMMANDS] {
        channel.exchange_declare(name.into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
    }
    let tasks = queue::task_queue(endpoint);
    let commands = queue::command_queue(endpoint);
    for (name, from, key) in [
        (queue::RESULT_QUEUE, exchange::RESULTS, queue::RESULT_BINDING),
        (queue::HEARTBEAT_QUEUE, exchange::HEARTBEATS, queue::HEARTBEAT_BINDING),
        (&tasks, exchange::TASKS, &tasks),
        (&commands, exchange::COMMANDS, &commands),
    ] {
        channel.queue_declare(name.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
        channel
            .queue_bind(
                name.into(),
                from.into(),
                key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await?;
    }
    channel.queue_purge(queue::HEARTBEAT_QUEUE.into(), QueuePurgeOptions::default()).await?;
    Ok(())
}

struct Amqp<'a> {
    channel: Channel,
    endpoint: EndpointId,
    function: FunctionId,
    no_op: &'a NoOp,
    prepared: Vec<Prepared>,
    results: mpsc::UnboundedReceiver<Arrival>,
}

impl Transport for Amqp<'_> {
    fn prepare(&mut self, tasks: usize) -> anyhow::Result<()> {
        let function = Text::plain(self.no_op.function.as_str());
        let arguments = Text::plain(self.no_op.arguments.as_str());
        for _ in 0..tasks {
            let task_id = TaskId::from_uuid(random::id());
            let task_buffer = buffer::task_buffer(&function, &arguments);
            let mut headers = FieldTable::default();
            let text = |value: String| AMQPValue::LongString(LongString::from(value));
            headers.insert(header::FUNCTION_UUID.into(), text(self.function.to_string()));
            headers.insert(header::TASK_UUID.into(), text(task_id.to_string()));
            headers.insert(header::RESOURCE_SPECIFICATION.into(), text("null".to_owned()));
            self.prepared.push(Prepared {
                exchange: exchange::TASKS,
                routing_key: queue::task_queue(self.endpoint),
                properties: BasicProperties::default().with_headers(headers),
                body: encode(&Message::Task(Task {
                    task_id,
                    container_id: None,
                    container: None,
                    task_buffer,
                })),
            });
        }
        Ok(())
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        link::publish(&self.channel, &mut self.prepared).await
    }

    fn results(&mut self) -> &mut mpsc::UnboundedReceiver<Arrival> {
        &mut self.results
    }
}
