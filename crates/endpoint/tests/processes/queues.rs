//! The broker of these tests. All tests share it; each registration has its own queues.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use broker::{
    AccessControl, Broker, Config, ExchangeKind, Handle, Limits, Listener, LogInFuture, LoggedIn, Login,
    Operation, Principal, QueueOptions, Refusal,
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
