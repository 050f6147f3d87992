//! The lock, and everything that happens when it is released.
//!
//! Whoever changes the state takes the lock, lets the core decide, and hands the effects on before letting go: outputs
//! go into the outboxes **under** the lock (their order is the core's), the owner's objects are called **after** it.
//! What a connection caused is called from its task. What the owner caused itself, through the handle, is called from
//! a task of the broker: the owner may hold locks of its own that its sinks and backings take too.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::arriving::Arriving;
use super::handshakes::Handshakes;
use super::outbox::{Outbox, STOP};
use crate::access::AccessControl;
use crate::ambient;
use crate::config::Config;
use crate::core::{ConnectionKey, Core, Effect, Entry, QueueKey, Settings};
use crate::handle::Confirmation;
use crate::owner::{Backing, Credit, DropReason, PublishReply, Published, Sink};
use crate::state::{State, Ties};

/// The broker, as its connections and its handles share it.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) access: Arc<dyn AccessControl>,
    pub(crate) log_ins: Arc<Semaphore>,
    /// Kilobytes that arriving bodies may take.
    pub(crate) arriving: Arriving,
    /// Makes the names the server gives unguessable.
    pub(crate) secret: u64,
    pub(crate) timer: Notify,
    /// When the timer fires, in milliseconds; `u64::MAX` is never.
    armed: AtomicU64,
    started: Instant,
    guarded: Mutex<Guarded>,
    handshakes: Mutex<Handshakes>,
    calls: CallSender,
    /// Told whenever a connection ends.
    pub(crate) ended: Notify,
}

pub(crate) struct Guarded {
    pub(crate) state: State,
    outboxes: HashMap<ConnectionKey, Arc<Outbox>>,
    /// How many of them have sockets.
    remote: usize,
    confirms: HashMap<u64, oneshot::Sender<Confirmation>>,
    next_confirm: u64,
    stopping: bool,
}

/// What is done once the lock is released.
struct After<'a> {
    shared: &'a Arc<Shared>,
    /// The owner is on the stack: its objects are called from elsewhere.
    by_owner: bool,
    wakes: Vec<Arc<Outbox>>,
    calls: Vec<Call>,
    garbage: Vec<VecDeque<Entry>>,
}

pub(crate) enum Call {
    Offer { sink: Arc<dyn Sink>, published: Published, ticket: u64 },
    GrantCredit { backing: Arc<dyn Backing>, queue: Arc<str>, credit: Credit },
    Acknowledged { backing: Arc<dyn Backing>, queue: Arc<str>, user: Arc<str>, tokens: Vec<u64> },
    Dropped { backing: Arc<dyn Backing>, queue: Arc<str>, tokens: Vec<u64>, why: DropReason },
    Ended { backing: Arc<dyn Backing>, queue: Arc<str>, window: u64, unacknowledged: Vec<u64> },
}

/// Calls that were caused by the owner, on their way to the task that makes them.
pub(crate) type CallSender = mpsc::UnboundedSender<(Arc<Shared>, Vec<Call>)>;
pub(crate) type CallReceiver = mpsc::UnboundedReceiver<(Arc<Shared>, Vec<Call>)>;

/// The lock, taken.
pub(crate) struct Locked<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    guard: MutexGuard<'a, Guarded>,
    after: After<'a>,
}

impl Shared {
    pub(crate) fn new(config: Config, access: Arc<dyn AccessControl>, calls: CallSender) -> Shared {
        let core = Core::new(Settings {
            memory_limit: config.memory_limit,
            output_window: config.output_window,
            delivery_limit: config.delivery_limit,
        });
        let guarded = Guarded {
            state: State { core, ties: HashMap::new() },
            outboxes: HashMap::new(),
            remote: 0,
            confirms: HashMap::new(),
            next_confirm: 0,
            stopping: false,
        };
        Shared {
            log_ins: Arc::new(Semaphore::new(config.log_ins)),
            arriving: Arriving::new(config.arriving_limit >> 10),
            secret: ambient::secret(),
            timer: Notify::new(),
            armed: AtomicU64::new(u64::MAX),
            started: ambient::now(),
            guarded: Mutex::new(guarded),
            handshakes: Mutex::default(),
            calls,
            ended: Notify::new(),
            config,
            access,
        }
    }

    /// For the tasks of the broker itself.
    pub(crate) fn lock(self: &Arc<Self>) -> Locked<'_> {
        self.take_lock(false)
    }

    /// For what the owner calls.
    pub(crate) fn lock_by_owner(self: &Arc<Self>) -> Locked<'_> {
        self.take_lock(true)
    }

    fn take_lock(self: &Arc<Self>, by_owner: bool) -> Locked<'_> {
        let mut guard = self.guarded.lock().unwrap_or_else(PoisonError::into_inner);
        guard.state.core.set_now(self.millis(ambient::now()));
        let after =
            After { shared: self, by_owner, wakes: Vec::new(), calls: Vec::new(), garbage: Vec::new() };
        Locked { shared: self, guard, after }
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// The answers of a sink.
    pub(crate) fn settle(self: &Arc<Self>, tickets: &[u64], safe: bool) {
        self.lock_by_owner().core().settle_tickets(tickets, safe);
    }

    /// Fires what is due, and sleeps until the next is.
    pub(crate) async fn keep_time(self: &Arc<Self>) {
        loop {
            let deadline = {
                let mut locked = self.lock();
                locked.core().tick();
                let deadline = locked.core().deadline();
                self.armed.store(deadline.unwrap_or(u64::MAX), Ordering::Release);
                deadline
            };
            match deadline {
                Some(at) => {
                    let at = self.started + std::time::Duration::from_millis(at);
                    let _ = tokio::time::timeout_at(at, self.timer.notified()).await;
                }
                None => self.timer.notified().await,
            }
        }
    }

    /// A connection begins its handshake; the oldest of too many of its address has to go.
    pub(crate) fn begin_handshake(&self, outbox: &Arc<Outbox>, peer: Option<SocketAddr>) {
        let mut handshakes = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        handshakes.begin(outbox, peer.map(|peer| peer.ip()), self.config.handshakes);
    }

    /// Connections whose tasks have not ended.
    pub(crate) fn remote_connections(&self) -> usize {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner).remote
    }
}

impl Locked<'_> {
    pub(crate) fn core(&mut self) -> &mut Core {
        &mut self.guard.state.core
    }

    pub(crate) fn state(&mut self) -> &mut State {
        &mut self.guard.state
    }

    /// A connection with its outbox. The outbox is told at once when the server stops already.
    pub(crate) fn connect(&mut self, local: bool) -> (ConnectionKey, Arc<Outbox>) {
        let key = self.core().open_connection(local);
        let outbox = Arc::new(Outbox::default());
        self.guard.outboxes.insert(key, outbox.clone());
        self.guard.remote += usize::from(!local);
        if self.guard.stopping {
            outbox.signal(STOP);
        }
        (key, outbox)
    }

    pub(crate) fn disconnect(&mut self, key: ConnectionKey, local: bool) {
        self.guard.remote -= usize::from(!local);
        self.core().close_connection(key);
        self.hand_on(None);
        self.guard.outboxes.remove(&key);
        self.shared.ended.notify_waiters();
    }

    /// Tells one connection's task something.
    pub(crate) fn signal(&self, key: ConnectionKey, what: u8) {
        if let Some(outbox) = self.guard.outboxes.get(&key) {
            outbox.signal(what);
        }
    }

    /// Tells every connection that the server stops.
    pub(crate) fn stop(&mut self) {
        self.guard.stopping = true;
        for outbox in self.guard.outboxes.values() {
            outbox.signal(STOP);
        }
    }

    /// Waits for the outcome of a publish from inside the process.
    pub(crate) fn expect_confirm(&mut self) -> (u64, oneshot::Receiver<Confirmation>) {
        self.guard.next_confirm += 1;
        let number = self.guard.next_confirm;
        let (sender, receiver) = oneshot::channel();
        self.guard.confirms.insert(number, sender);
        (number, receiver)
    }

    pub(crate) fn forget_confirm(&mut self, number: u64) -> Option<oneshot::Sender<Confirmation>> {
        self.guard.confirms.remove(&number)
    }

    /// Hands the effects on. `own`: the connection that is being served, whose task needs no waking.
    pub(crate) fn hand_on(&mut self, own: Option<ConnectionKey>) {
        let guarded = &mut *self.guard;
        let after = &mut self.after;
        let mut last: Option<(ConnectionKey, Arc<Outbox>)> = None;
        for effect in guarded.state.core.effects.drain(..) {
            match effect {
                Effect::Send(key, output) => {
                    if last.as_ref().is_none_or(|it| it.0 != key) {
                        last = guarded.outboxes.get(&key).map(|it| (key, it.clone()));
                    }
                    if let Some((_, outbox)) = &last
                        && outbox.push(output)
                        && own != Some(key)
                    {
                        after.wakes.push(outbox.clone());
                    }
                }
                Effect::Resume(key) => after.wakes.extend(guarded.outboxes.get(&key).cloned()),
                Effect::Confirmed { local, safe } => {
                    if let Some(waiting) = guarded.confirms.remove(&local) {
                        // Whoever forgot the answer has not forgotten the message.
                        let _ =
                            waiting.send(if safe { Confirmation::Confirmed } else { Confirmation::Refused });
                    }
                }
                Effect::Deleted(queue) => {
                    guarded.state.ties.remove(&queue);
                }
                Effect::Discard(entries) if entries.is_empty() => {}
                Effect::Discard(entries) => after.garbage.push(entries),
                Effect::Offer { queue, ticket, user, message } => {
                    if let Some(ties) = guarded.state.ties.get(&queue)
                        && let Some(sink) = ties.sink.clone()
                    {
                        let published = Published { queue: ties.queue.clone(), user, message };
                        after.calls.push(Call::Offer { sink, published, ticket });
                    }
                }
                Effect::GrantCredit { queue, window, messages, bytes } => {
                    if let Some((queue, backing)) = backing(&guarded.state.ties, queue) {
                        let credit = Credit { window, messages, bytes };
                        after.calls.push(Call::GrantCredit { backing, queue, credit });
                    }
                }
                Effect::Acknowledged { queue, user, token } => {
                    if let Some((queue, backing)) = backing(&guarded.state.ties, queue) {
                        match after.calls.last_mut() {
                            Some(Call::Acknowledged { queue: same, user: by, tokens, .. })
                                if *same == queue && *by == user =>
                            {
                                tokens.push(token);
                            }
                            _ => {
                                let tokens = vec![token];
                                after.calls.push(Call::Acknowledged { backing, queue, user, tokens });
                            }
                        }
                    }
                }
                Effect::Dropped { queue, token, why } => {
                    if let Some((queue, backing)) = backing(&guarded.state.ties, queue) {
                        match after.calls.last_mut() {
                            Some(Call::Dropped { queue: same, tokens, why: because, .. })
                                if *same == queue && *because == why =>
                            {
                                tokens.push(token);
                            }
                            _ => after.calls.push(Call::Dropped { backing, queue, tokens: vec![token], why }),
                        }
                    }
                }
                Effect::Ended { queue, window, unacknowledged } => {
                    if let Some((queue, backing)) = backing(&guarded.state.ties, queue) {
                        after.calls.push(Call::Ended { backing, queue, window, unacknowledged });
                    }
                }
            }
        }
        if guarded.state.core.effects.capacity() > 16_384 {
            guarded.state.core.effects.shrink_to(1_024);
        }
        if let Some(deadline) = guarded.state.core.deadline()
            && deadline < self.shared.armed.load(Ordering::Acquire)
        {
            self.shared.armed.store(deadline, Ordering::Release);
            self.shared.timer.notify_one();
        }
    }
}

fn backing(ties: &HashMap<QueueKey, Ties>, queue: QueueKey) -> Option<(Arc<str>, Arc<dyn Backing>)> {
    let ties = ties.get(&queue)?;
    Some((ties.queue.clone(), ties.backing.clone()?))
}

/// Letting go of the lock hands on what is left, then does what had to wait for it.
impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.hand_on(None);
    }
}

/// Done after the lock: the fields of [`Locked`] are dropped in their order, the guard before this.
impl Drop for After<'_> {
    fn drop(&mut self) {
        for outbox in self.wakes.drain(..) {
            outbox.waker.wake();
        }
        if self.calls.is_empty() {
            return;
        }
        let calls = std::mem::take(&mut self.calls);
        if self.by_owner {
            // Nobody listens any more once the broker has stopped.
            let _ = self.shared.calls.send((self.shared.clone(), calls));
        } else {
            perform(self.shared, calls);
        }
    }
}

/// Calls the owner's objects.
pub(crate) fn perform(shared: &Arc<Shared>, calls: Vec<Call>) {
    for call in calls {
        match call {
            Call::Offer { sink, published, ticket } => {
                sink.accept(published, PublishReply { ticket: Some(ticket), shared: shared.clone() });
            }
            Call::GrantCredit { backing, queue, credit } => backing.grant(&queue, credit),
            Call::Acknowledged { backing, queue, user, tokens } => {
                backing.acknowledged(&queue, &user, &tokens);
            }
            Call::Dropped { backing, queue, tokens, why } => backing.dropped(&queue, &tokens, why),
            Call::Ended { backing, queue, window, unacknowledged } => {
                backing.ended(&queue, window, &unacknowledged);
            }
        }
    }
}
