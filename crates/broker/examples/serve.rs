//! A broker for trying and testing clients: everything in memory, users and limits from the command line.
//!
//! ```text
//! cargo run --example serve -- --listen 127.0.0.1:0 --user guest:guest:all --kept tasks
//! ```
//!
//! It prints `listening on ADDRESS` when it accepts connections, and stops on SIGTERM or SIGINT. It also shows how a
//! program embeds the broker for a queue that must not lose messages: [`StoreSender`] is a sink and a backing over a
//! [`Store`], which here is only a map in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use broker::{
    AccessControl, Backing, Broker, Config, Credit, CreditBalance, DropReason, Handle, Limits, Listener,
    LogInFuture, LoggedIn, Login, Message, Operation, Principal, PublishReply, Published, QueueOptions,
    Refusal, Sink, StoredMessage,
};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What a user may do.
#[derive(Clone)]
enum Rule {
    All,
    /// Not even open the virtual host.
    Nothing,
    /// Only queues and exchanges, and when publishing routing keys, that begin with this.
    Prefix(String),
}

struct User {
    password: String,
    rule: Rule,
}

struct Users {
    users: HashMap<String, User>,
    limits: Limits,
}

impl AccessControl for Users {
    fn log_in<'a>(&'a self, login: Login) -> LogInFuture<'a> {
        Box::pin(async move {
            match self.users.get(&login.user) {
                Some(user) if user.password == login.password => Ok(LoggedIn {
                    principal: Principal::new(login.user).with(Arc::new(user.rule.clone())),
                    limits: self.limits,
                }),
                _ => Err(Refusal::Denied),
            }
        })
    }

    fn may(&self, who: &Principal, operation: &Operation<'_>) -> bool {
        let prefix = match who.get::<Rule>() {
            Some(Rule::All) => return true,
            Some(Rule::Prefix(prefix)) => prefix,
            Some(Rule::Nothing) | None => return false,
        };
        match operation {
            Operation::Open { .. } => true,
            Operation::DeclareExchange { passive: true, .. }
            | Operation::DeclareQueue { passive: true, .. } => true,
            Operation::DeclareExchange { exchange, .. } | Operation::DeleteExchange { exchange } => {
                exchange.starts_with(prefix)
            }
            Operation::DeclareQueue { queue, .. }
            | Operation::DeleteQueue { queue }
            | Operation::PurgeQueue { queue }
            | Operation::Consume { queue }
            | Operation::Get { queue } => queue.starts_with(prefix),
            Operation::Bind { queue, exchange, .. } => {
                queue.starts_with(prefix) && exchange.starts_with(prefix)
            }
            Operation::BindExchange { destination, source, .. } => {
                destination.starts_with(prefix) && source.starts_with(prefix)
            }
            Operation::Publish { exchange, routing_key } => {
                exchange.starts_with(prefix) && routing_key.starts_with(prefix)
            }
        }
    }
}

/// What the broker reports about a kept queue.
enum StoreEvent {
    Published(Published, PublishReply),
    Credit(Credit),
    Gone(Vec<u64>),
    Ended(u64, Vec<u64>),
}

/// The sink and backing of a kept queue: sends everything to the task that owns the store.
struct StoreSender(mpsc::UnboundedSender<StoreEvent>);

impl StoreSender {
    fn send(&self, event: StoreEvent) {
        // The task runs as long as the process. If it did not, dropping the event would refuse its message.
        let _ = self.0.send(event);
    }
}

impl Sink for StoreSender {
    fn accept(&self, message: Published, reply: PublishReply) {
        self.send(StoreEvent::Published(message, reply));
    }
}

impl Backing for StoreSender {
    fn grant(&self, _queue: &Arc<str>, credit: Credit) {
        self.send(StoreEvent::Credit(credit));
    }

    fn acknowledged(&self, _queue: &Arc<str>, _user: &Arc<str>, tokens: &[u64]) {
        self.send(StoreEvent::Gone(tokens.to_vec()));
    }

    fn dropped(&self, _queue: &Arc<str>, tokens: &[u64], why: DropReason) {
        // A real store might keep the messages of a deleted queue.
        if why != DropReason::Deleted {
            self.send(StoreEvent::Gone(tokens.to_vec()));
        }
    }

    fn ended(&self, _queue: &Arc<str>, window: u64, unacknowledged: &[u64]) {
        self.send(StoreEvent::Ended(window, unacknowledged.to_vec()));
    }
}

struct Stored {
    message: Message,
    redelivered: bool,
}

/// The messages of one kept queue that were published and not yet acknowledged, by token.
struct Store {
    queue: String,
    messages: BTreeMap<u64, Stored>,
    last: u64,
    /// The token of the last message that was fed in this window.
    fed: u64,
    credit: CreditBalance,
}

impl Store {
    async fn run(mut self, mut events: mpsc::UnboundedReceiver<StoreEvent>, handle: Arc<OnceLock<Handle>>) {
        while let Some(event) = events.recv().await {
            match event {
                StoreEvent::Published(published, reply) => match copy(&published) {
                    Ok(message) => {
                        self.last += 1;
                        self.messages.insert(self.last, Stored { message, redelivered: false });
                        reply.safe();
                    }
                    Err(_) => reply.refuse(),
                },
                StoreEvent::Credit(credit) => {
                    if self.credit.add(credit) {
                        self.fed = 0;
                    }
                }
                StoreEvent::Gone(tokens) => {
                    for token in tokens {
                        self.messages.remove(&token);
                    }
                }
                StoreEvent::Ended(window, unacknowledged) => {
                    if window == self.credit.window() {
                        self.credit.close();
                    }
                    for token in unacknowledged {
                        if let Some(stored) = self.messages.get_mut(&token) {
                            stored.redelivered = true;
                        }
                    }
                }
            }
            if let Some(handle) = handle.get() {
                self.feed(handle);
            }
        }
    }

    fn feed(&mut self, handle: &Handle) {
        let mut batch = Vec::new();
        for (token, stored) in self.messages.range(self.fed + 1..) {
            if !self.credit.take(stored.message.body().len()) {
                break;
            }
            self.fed = *token;
            batch.push(StoredMessage {
                token: *token,
                message: stored.message.clone(),
                redelivered: stored.redelivered,
            });
        }
        if !batch.is_empty() && handle.feed(&self.queue, self.credit.window(), batch).is_err() {
            // The window has ended meanwhile. The next one is fed from the start.
            self.credit.close();
        }
    }
}

fn copy(published: &Published) -> Result<Message, broker::BadProperties> {
    Message::raw(
        published.exchange(),
        published.routing_key(),
        published.raw_properties().clone(),
        published.body().clone(),
    )
}

/// What the command line asks for.
struct Settings {
    listen: String,
    users: Users,
    kept: Vec<String>,
    config: Config,
}

fn settings(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Settings> {
    let mut settings = Settings {
        listen: "127.0.0.1:0".into(),
        users: Users { users: HashMap::new(), limits: Limits::default() },
        kept: Vec::new(),
        config: Config::default(),
    };
    while let Some(flag) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{flag} needs a value"))?;
        let config = &mut settings.config;
        let limits = &mut settings.users.limits;
        match flag.as_str() {
            "--listen" => settings.listen = value,
            "--user" => {
                let [name, password, rule] = value.split(':').collect::<Vec<_>>()[..] else {
                    bail!("--user NAME:PASSWORD:all|nothing|PREFIX, not {value}");
                };
                let rule = match rule {
                    "all" => Rule::All,
                    "nothing" => Rule::Nothing,
                    prefix => Rule::Prefix(prefix.into()),
                };
                settings.users.users.insert(name.into(), User { password: password.into(), rule });
            }
            "--kept" => settings.kept.push(value),
            "--memory-limit" => config.memory_limit = value.parse()?,
            "--arriving-limit" => config.arriving_limit = value.parse()?,
            "--handshakes" => config.handshakes = value.parse()?,
            "--handshake-timeout" => {
                config.handshake_timeout = std::time::Duration::from_secs(value.parse()?)
            }
            "--connections" => limits.connections = value.parse()?,
            "--channels" => limits.channels = value.parse()?,
            "--consumers" => limits.consumers = value.parse()?,
            _ => bail!("{flag} is unknown"),
        }
    }
    Ok(settings)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = settings(std::env::args().skip(1))?;
    let socket = TcpListener::bind(&settings.listen).await?;
    let address = socket.local_addr()?;
    let (broker, handle) = Broker::new(settings.config, Arc::new(settings.users));
    let late = Arc::new(OnceLock::new());
    for queue in settings.kept {
        let (sender, receiver) = mpsc::unbounded_channel();
        let sender = Arc::new(StoreSender(sender));
        let store = Store {
            queue: queue.clone(),
            messages: BTreeMap::new(),
            last: 0,
            fed: 0,
            credit: CreditBalance::default(),
        };
        tokio::spawn(store.run(receiver, late.clone()));
        let options = QueueOptions {
            durable: true,
            sink: Some(sender.clone()),
            backing: Some(sender),
            ..QueueOptions::default()
        };
        handle.declare_queue(&queue, options)?;
    }
    late.get_or_init(|| handle);
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    say(&format!("listening on {address}"));
    let stop = async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    };
    broker.run(vec![Listener { socket, tls: None }], stop).await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the line that the caller waits for")]
fn say(line: &str) {
    println!("{line}");
}
