//! A broker on a free port, with permissions that tests can change, and what embeds it: a sink and a store.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test kit: each test uses its part, a failed unwrap is a failed test"
)]

pub mod piped;

use std::collections::HashMap;
use std::panic::Location;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::{
    AccessControl, Backing, Broker, Config, Credit, CreditBalance, DropReason, Handle, Limits, Listener,
    LogInFuture, LoggedIn, Login, Message, Operation, Principal, Properties, PublishReply, Published,
    QueueOptions, Refusal, Sink, StoredMessage,
};
use lapin::{Connection, ConnectionProperties};
use tokio::sync::{mpsc, oneshot};

type May = Box<dyn Fn(&str, &Operation<'_>) -> bool + Send + Sync>;
type Unknown = Box<dyn Fn(&str, &str) -> Option<QueueOptions> + Send + Sync>;

/// Every user may log in with the password "secret"; `may` decides the rest.
pub struct Permissions {
    pub may: May,
    pub unknown: Unknown,
    pub limits: Limits,
    pub log_ins: Mutex<u64>,
}

impl Default for Permissions {
    fn default() -> Permissions {
        Permissions {
            may: Box::new(|_, _| true),
            unknown: Box::new(|_, _| None),
            limits: Limits::default(),
            log_ins: Mutex::new(0),
        }
    }
}

impl AccessControl for Permissions {
    fn log_in<'a>(&'a self, login: Login) -> LogInFuture<'a> {
        Box::pin(async move {
            *self.log_ins.lock().unwrap() += 1;
            match login.password.as_str() {
                "secret" => Ok(LoggedIn { principal: Principal::new(login.user), limits: self.limits }),
                "later" => Err(Refusal::Unavailable),
                _ => Err(Refusal::Denied),
            }
        })
    }

    fn may(&self, who: &Principal, operation: &Operation<'_>) -> bool {
        (self.may)(who.user(), operation)
    }

    fn unknown_queue(&self, who: &Principal, queue: &str) -> Option<QueueOptions> {
        (self.unknown)(who.user(), queue)
    }
}

pub struct Server {
    pub handle: Handle,
    pub address: std::net::SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    pub task: Option<tokio::task::JoinHandle<()>>,
}

impl Server {
    pub async fn start(config: Config, permissions: Permissions) -> Server {
        let (broker, handle) = Broker::new(config, Arc::new(permissions));
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move {
            let _ = stopped.await;
        };
        let task = tokio::spawn(broker.run(vec![Listener { socket, tls: None }], stopped));
        Server { handle, address, stop: Some(stop), task: Some(task) }
    }

    pub async fn plain() -> Server {
        Server::start(quick(), Permissions::default()).await
    }

    pub fn url(&self, user: &str) -> String {
        format!("amqp://{user}:secret@{}/%2F", self.address)
    }

    pub async fn connect(&self, user: &str) -> Connection {
        Connection::connect(&self.url(user), ConnectionProperties::default()).await.unwrap()
    }

    pub fn stop(&mut self) {
        self.stop.take();
    }
}

/// The default settings, without the delays that would only slow a test down.
pub fn quick() -> Config {
    Config { refusal_delay: Duration::ZERO, ..Config::default() }
}

/// A sink that sends everything to the test.
pub struct TestSink(pub mpsc::UnboundedSender<(Published, PublishReply)>);

impl Sink for TestSink {
    fn accept(&self, message: Published, reply: PublishReply) {
        let _ = self.0.send((message, reply));
    }
}

pub fn sink() -> (Arc<dyn Sink>, mpsc::UnboundedReceiver<(Published, PublishReply)>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Arc::new(TestSink(sender)), receiver)
}

/// What the broker reported to a backing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackingEvent {
    Acknowledged(Vec<u64>),
    Dropped(Vec<u64>, DropReason),
    Ended(Vec<u64>),
}

/// A store of numbered messages behind one queue, as an embedder keeps it.
pub struct Store {
    pub handle: Mutex<Option<Handle>>,
    pub inner: Mutex<Inner>,
    pub events: mpsc::UnboundedSender<BackingEvent>,
    pub body: usize,
}

#[derive(Default)]
pub struct Inner {
    pub credit: CreditBalance,
    /// What is not acknowledged, by token.
    pub messages: std::collections::BTreeMap<u64, bool>,
    pub next: u64,
    pub fed: HashMap<u64, u32>,
    pub most_in_window: usize,
}

impl Store {
    pub fn new(count: u64, body: usize) -> (Arc<Store>, mpsc::UnboundedReceiver<BackingEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let messages = (0..count).map(|it| (it, false)).collect();
        let inner = Mutex::new(Inner { messages, ..Inner::default() });
        (Arc::new(Store { handle: Mutex::new(None), inner, events, body }), receiver)
    }

    /// Feeds while there is credit and something to feed.
    pub fn pump(&self, queue: &str) {
        let handle = self.handle.lock().unwrap().clone().unwrap();
        let mut inner = self.inner.lock().unwrap();
        let mut batch = Vec::new();
        let inner = &mut *inner;
        for (token, redelivered) in inner.messages.range(inner.next..) {
            if !inner.credit.take(self.body) {
                break;
            }
            let text = format!("{token:08}");
            let mut body = text.into_bytes();
            body.resize(self.body.max(8), b'.');
            let message = Message::new("", queue, &Properties::default(), body).unwrap();
            batch.push(StoredMessage { token: *token, message, redelivered: *redelivered });
            inner.next = token + 1;
            *inner.fed.entry(*token).or_default() += 1;
        }
        if !batch.is_empty() && handle.feed(queue, inner.credit.window(), batch).is_err() {
            inner.credit.close();
        }
    }
}

impl Backing for Store {
    fn grant(&self, queue: &Arc<str>, credit: Credit) {
        {
            let mut inner = self.inner.lock().unwrap();
            if inner.credit.add(credit) {
                inner.next = 0;
            }
        }
        self.pump(queue);
    }

    fn acknowledged(&self, _queue: &Arc<str>, _user: &Arc<str>, tokens: &[u64]) {
        let mut inner = self.inner.lock().unwrap();
        for token in tokens {
            assert!(inner.messages.remove(token).is_some(), "{token} was acknowledged twice");
        }
        let _ = self.events.send(BackingEvent::Acknowledged(tokens.to_vec()));
    }

    fn dropped(&self, _queue: &Arc<str>, tokens: &[u64], why: DropReason) {
        let mut inner = self.inner.lock().unwrap();
        for token in tokens {
            assert!(inner.messages.remove(token).is_some(), "{token} was dropped twice");
        }
        let _ = self.events.send(BackingEvent::Dropped(tokens.to_vec(), why));
    }

    fn ended(&self, _queue: &Arc<str>, _window: u64, unacknowledged: &[u64]) {
        let mut inner = self.inner.lock().unwrap();
        for token in unacknowledged {
            inner.messages.insert(*token, true);
        }
        let _ = self.events.send(BackingEvent::Ended(unacknowledged.to_vec()));
    }
}

/// How long a test waits for what must happen, before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
#[track_caller]
pub fn until(mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = Location::caller();
    let wait = async move {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    async move { tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("in vain at {caller}")) }
}

/// Waits for `future`, for a limited time.
#[track_caller]
pub fn in_time<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move { tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("in vain at {caller}")) }
}

pub fn message(queue: &str, body: &str) -> Message {
    Message::new("", queue, &Properties::default(), body.to_owned()).unwrap()
}
