//! The parties at the broker: an endpoint, and a client that collects results.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use serde_json::Value;
use wire::Text;
use wire::message::{ErrorDetails, TaskResult};

use super::client::Registration;
use super::waiting::{until, within};

pub async fn open(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Waits until a connection has ended.
pub async fn connection_ends(connection: &Connection) {
    until("the end of the connection", async || (!connection.status().connected()).then_some(())).await;
}

pub async fn consume(channel: &Channel, queue: &str, exclusive: bool) -> lapin::Result<Consumer> {
    let options = BasicConsumeOptions { exclusive, ..BasicConsumeOptions::default() };
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await
}

pub struct Results {
    pub(super) connection: Connection,
    pub(super) consumer: Consumer,
}

impl Results {
    pub async fn leave(self) {
        self.connection.close(200, "".into()).await.unwrap();
    }

    /// The next result, not yet acknowledged.
    pub async fn next(&mut self) -> (Delivery, Value) {
        let delivery = within("a result in the group's queue", self.consumer.next()).await.unwrap().unwrap();
        assert_eq!(delivery.data[0], 1);
        let message = serde_json::from_slice(&delivery.data[1..]).unwrap();
        (delivery, message)
    }

    /// Takes `count` results and acknowledges them; the ids of their tasks.
    pub async fn take(&mut self, count: usize) -> Vec<String> {
        let mut tasks = Vec::new();
        for _ in 0..count {
            let (delivery, message) = self.next().await;
            delivery.ack(BasicAckOptions::default()).await.unwrap();
            tasks.push(message["data"]["task_id"].as_str().unwrap().to_owned());
        }
        tasks
    }
}

/// An endpoint's AMQP side, played by the test.
pub struct FakeEndpoint {
    pub id: String,
    connection: Connection,
    channel: Channel,
    tasks: Consumer,
}

impl FakeEndpoint {
    pub async fn connect(registration: &Registration) -> FakeEndpoint {
        let (connection, channel) = open(registration.url()).await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let queue = registration.0["task_queue_info"]["queue"].as_str().unwrap();
        let tasks = consume(&channel, queue, true).await.unwrap();
        FakeEndpoint { id: registration.id().to_owned(), connection, channel, tasks }
    }

    pub async fn leave(self) {
        self.connection.close(200, "".into()).await.unwrap();
    }

    /// Consumes nothing from now on.
    pub async fn rest(&mut self) {
        let options = lapin::options::BasicCancelOptions::default();
        self.channel.basic_cancel(self.tasks.tag(), options).await.unwrap();
    }

    /// Consumes its tasks again.
    pub async fn work_again(&mut self, registration: &Registration) {
        let queue = registration.0["task_queue_info"]["queue"].as_str().unwrap();
        self.tasks = consume(&self.channel, queue, true).await.unwrap();
    }

    /// Whether the service answers it still.
    pub async fn is_connected(&self) -> bool {
        self.connection.create_channel().await.is_ok()
    }

    /// Whether its connection lives on; waits a while for its end.
    pub async fn is_connected_after_a_while(&self) -> bool {
        for _ in 0..500 {
            if !self.connection.status().connected() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// The next task, not yet acknowledged.
    pub async fn next(&mut self) -> (Delivery, Value) {
        let delivery = within("a task in the endpoint's queue", self.tasks.next()).await.unwrap().unwrap();
        assert_eq!(delivery.data[0], 1);
        let message = serde_json::from_slice(&delivery.data[1..]).unwrap();
        (delivery, message)
    }

    /// Takes the next task and acknowledges it; its id.
    pub async fn take(&mut self) -> String {
        let (delivery, message) = self.next().await;
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        message["data"]["task_id"].as_str().unwrap().to_owned()
    }

    pub async fn publish(&self, exchange: &str, key: &str, body: &[u8]) -> lapin::Result<Confirmation> {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        self.channel.basic_publish(exchange.into(), key.into(), options, body, properties).await?.await
    }

    /// Publishes a result and waits for its confirmation.
    pub async fn finish(&self, task: &str, text: &str, error: bool) {
        let key = format!("{}.results", self.id);
        let confirmed = self.publish("results", &key, &result(task, text, error)).await.unwrap();
        assert!(matches!(confirmed, Confirmation::Ack(None)), "{confirmed:?}");
    }

    pub async fn heartbeat(&self, state: Value) {
        let id = self.id.parse().unwrap();
        let global_state = wire::json::FreeForm::from(state.as_object().unwrap());
        let report =
            wire::message::StatusReport { endpoint_id: id, global_state, task_statuses: Default::default() };
        self.publish("heartbeats", &format!("{}.heartbeats", self.id), &report.encode()).await.unwrap();
    }
}

pub fn result(task: &str, text: &str, error: bool) -> Vec<u8> {
    let error_details = error.then(|| ErrorDetails {
        code: "RemoteExecutionError".into(),
        user_message: "An error occurred during the execution of this task".into(),
    });
    let task_id = task.parse().unwrap();
    let data = Text::plain(text);
    TaskResult { task_id, data, details: None, error_details, task_statuses: None }.encode()
}
