//! An endpoint that does no work: it answers every task with a result made beforehand.
//!
//! It obeys the hand-over rule as a real endpoint must: a task is acknowledged only once the broker has confirmed
//! its result. What it measures is therefore the least that an endpoint behind this broker can cost.

use std::io::Read;

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation};
use wire::Text;
use wire::message::{Message, TaskResult, decode, encode};
use wire::start_document::StartDocument;

use crate::link;

/// Results published and not yet confirmed.
const WINDOW: usize = 1000;

pub(crate) async fn run() -> anyhow::Result<()> {
    let mut document = Vec::new();
    std::io::stdin().read_to_end(&mut document)?;
    let document = StartDocument::decode(&document).context("standard input holds no start document")?;
    let registration = document.amqp_creds.context("the start document holds no credentials")?;
    let tasks = registration.task_queue_info.context("no task queue")?;
    let results = registration.result_queue_info.context("no result queue")?.queue_publish_kwargs;
    let mode = results.properties.as_ref().and_then(|properties| properties.get("delivery_mode")?.as_u64());
    let properties = match mode {
        Some(2) => BasicProperties::default().with_delivery_mode(2),
        _ => BasicProperties::default(),
    };
    // The configuration carries the answer: a real endpoint would compute it.
    let answer = document.config.context("no answer to give")?;

    let connection = link::connect(&tasks.connection_url).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut deliveries = channel
        .basic_consume(
            tasks.queue.as_str().into(),
            "echo".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;

    let mut open = FuturesOrdered::new();
    loop {
        tokio::select! {
            delivery = deliveries.next(), if open.len() < WINDOW => {
                let Some(delivery) = delivery else { return Ok(()) };
                let delivery = delivery?;
                let Message::Task(task) = decode(&delivery.data)? else { continue };
                let body = encode(&Message::Result(TaskResult {
                    task_id: task.task_id,
                    data: Text::plain(answer.as_str()),
                    details: None,
                    error_details: None,
                    task_statuses: None,
                }));
                let confirm = channel
                    .basic_publish(
                        results.exchange.as_str().into(),
                        results.routing_key.as_str().into(),
                        BasicPublishOptions { mandatory: results.mandatory.unwrap_or(false), ..Default::default() },
                        &body,
                        properties.clone(),
                    )
                    .await?;
                open.push_back(async move { (confirm.await, delivery.acker) });
            }
            Some((confirmation, acker)) = open.next(), if !open.is_empty() => {
                if matches!(confirmation?, Confirmation::Ack(None)) {
                    acker.ack(BasicAckOptions::default()).await?;
                }
            }
        }
    }
}
