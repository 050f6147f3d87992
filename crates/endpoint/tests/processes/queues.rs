//! The broker of these tests. All tests share it; each registration has its own queues.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use amq_protocol::types::{AMQPValue, FieldTable};
use broker::{
    AccessControl, Broker, Config, ConsumeOptions, ExchangeKind, Handle, Limits, Listener, LogInFuture,
    LoggedIn, Login, Message, Operation, Principal, Properties, QueueOptions, Refusal,
};
use serde_json::{Value, json};

const EXCHANGES: [&str; 2] = ["results", "heartbeats"];

/// Allows everything, except to a wrong password and to revoked credentials.
struct AllowAll;

fn revoked() -> &'static Mutex<HashSet<String>> {
    static REVOKED: OnceLock<Mutex<HashSet<String>>> = OnceLock::new();
    REVOKED.get_or_init(Mutex::default)
}

/// Revokes a user's credentials: the broker ends their connections and accepts no new ones.
pub(crate) fn revoke(user: &str) {
    revoked().lock().unwrap().insert(user.to_owned());
    assert!(broker().0.disconnect_user(user, "the credentials were revoked") > 0, "{user} was connected");
}

impl AccessControl for AllowAll {
    fn log_in<'a>(&'a self, login: Login) -> LogInFuture<'a> {
        Box::pin(async move {
            match login.password.as_str() {
                "p" if !revoked().lock().unwrap().contains(&login.user) => {
                    Ok(LoggedIn { principal: Principal::new(login.user), limits: Limits::default() })
                }
                _ => Err(Refusal::Denied),
            }
        })
    }

    fn may(&self, _: &Principal, _: &Operation<'_>) -> bool {
        true
    }
}

/// The broker, and its address. It ends with the tests' process.
fn broker() -> &'static (Handle, String) {
    static BROKER: OnceLock<(Handle, String)> = OnceLock::new();
    BROKER.get_or_init(|| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (broker, handle) = Broker::new(Config::default(), Arc::new(AllowAll));
        let socket = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        for exchange in EXCHANGES {
            handle.declare_exchange(exchange, ExchangeKind::Topic, true).unwrap();
            handle.declare_queue(exchange, QueueOptions::default()).unwrap();
            handle.bind(exchange, exchange, "#").unwrap();
        }
        std::thread::spawn(move || {
            runtime.block_on(broker.run(vec![Listener { socket, tls: None }], std::future::pending()));
        });
        (handle, address)
    })
}

/// A service's answer to a registration, with new queues.
pub(crate) fn registration(id: &str) -> Value {
    registration_of("u", id)
}

/// The same, with this user's credentials.
pub(crate) fn registration_of(user: &str, id: &str) -> Value {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let (handle, address) = broker();
    let tasks = format!("{id}.{number}.tasks");
    handle.declare_queue(&tasks, QueueOptions::default()).unwrap();
    let url = format!("amqp://{user}:p@{address}/");
    let publish = |name: &str| {
        json!({"connection_url": url, "exchange": name, "queue": name,
               "queue_publish_kwargs": {"exchange": name, "routing_key": format!("{id}.{name}"), "mandatory": true,
                                        "properties": {"delivery_mode": 2}}})
    };
    json!({"endpoint_id": id, "task_queue_info": {"connection_url": url, "queue": tasks, "exchange": "tasks"},
           "result_queue_info": publish("results"), "heartbeat_queue_info": publish("heartbeats")})
}

/// Puts a task of this function into the task queue of a registration, past the service.
pub(crate) fn send_task(registration: &Value, function: &str, task: &str) {
    let mut headers = FieldTable::default();
    for (name, value) in [("task_uuid", task), ("function_uuid", function)] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let properties = Properties::default().with_headers(headers);
    let queue = registration["task_queue_info"]["queue"].as_str().unwrap();
    drop(broker().0.publish(Message::new("", queue, &properties, b"x".to_vec()).unwrap()));
}

/// The command queue of a manager.
pub(crate) struct Commands {
    queue: String,
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

impl Commands {
    /// A service's answer to the registration of a manager, and its command queue.
    pub(crate) fn of_manager(id: &str) -> (Value, Self) {
        let mut registration = registration(id);
        let queue = format!("{}.commands", registration["task_queue_info"]["queue"].as_str().unwrap());
        broker().0.declare_queue(&queue, QueueOptions::default()).unwrap();
        let url = registration["task_queue_info"]["connection_url"].clone();
        registration["command_queue_info"] = json!({"connection_url": url, "queue": queue});
        (registration, Self { queue })
    }

    fn notices(&self, name: &str) -> String {
        format!("{}.{name}", self.queue)
    }

    /// The credentials of a user endpoint, whose reports go to a queue of their own.
    pub(crate) fn credentials(&self, name: &str) -> Value {
        let mut credentials = registration("00000000-0000-4000-8000-000000000002");
        let queue = self.notices(name);
        broker().0.declare_queue(&queue, QueueOptions::default()).unwrap();
        let heartbeats = &mut credentials["heartbeat_queue_info"]["queue_publish_kwargs"];
        heartbeats["exchange"] = "".into();
        heartbeats["routing_key"] = queue.into();
        credentials
    }

    pub(crate) fn send(&self, body: &[u8], timestamp: Option<u64>) {
        self.send_as("application/json", body, timestamp);
    }

    pub(crate) fn send_as(&self, content_type: &str, body: &[u8], timestamp: Option<u64>) {
        let mut properties = Properties::default().with_content_type(content_type.into());
        if let Some(timestamp) = timestamp {
            properties = properties.with_timestamp(timestamp);
        }
        let message = Message::new("", &self.queue, &properties, body.to_vec()).unwrap();
        drop(broker().0.publish(message));
    }

    /// Sends a command and waits for its notice.
    pub(crate) fn ask(&self, command: &Value, timestamp: Option<u64>, name: &str) -> String {
        self.send(command.to_string().as_bytes(), timestamp);
        let mut consumer = broker().0.consume(&self.notices(name), ConsumeOptions::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let next = async { tokio::time::timeout(std::time::Duration::from_secs(60), consumer.next()).await };
        let delivery = runtime.block_on(next).expect("a notice within a minute").unwrap();
        let report: Value = serde_json::from_slice(&delivery.message.body()[1..]).unwrap();
        assert_eq!(report["data"]["global_state"]["heartbeat_period"], 3);
        report["data"]["global_state"]["error"].as_str().unwrap().to_owned()
    }

    /// How many commands the manager has not acknowledged.
    pub(crate) fn waiting(&self) -> usize {
        let stats = broker().0.queue(&self.queue).unwrap();
        stats.ready + stats.unacknowledged
    }
}
