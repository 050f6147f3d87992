//! The broker's lock, and what is done with the core's actions.
//!
//! Whatever changes the core takes the lock, lets the core decide, and dispatches its actions before it releases the lock:
//! outputs go into the outboxes **under** the lock (in the core's order), the embedder's callbacks are called **after**
//! it. When a connection caused the action, its task makes the call. When the embedder caused it, through the handle, a
//! task of the broker does: the embedder may hold locks that its sinks and backings take too.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::body_quota::BodyQuota;
use super::handshakes::Handshakes;
use super::outbox::{Outbox, STOP};
use crate::access_control::AccessControl;
use crate::backing::{Backing, Credit, DropReason};
use crate::callbacks::Callbacks;
use crate::config::Config;
use crate::confirmation::Confirmation;
use crate::core::{Action, ConnectionKey, Core, Entry, Error, QueueKey, Settings};
use crate::declaration::QueueOptions;
use crate::session::RequestContext;
use crate::sink::{PublishReply, Published, Sink, TakeReplies};
use crate::{clock, random};

/// The broker, as its connections and its handles share it.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) access: Arc<dyn AccessControl>,
    pub(crate) log_ins: Arc<Semaphore>,
    /// Kilobytes for large bodies that are being received.
    pub(crate) body_quota: BodyQuota,
    /// Makes the names that the server generates unguessable.
    pub(crate) secret: u64,
    pub(crate) timer: Notify,
    /// When the timer fires, in milliseconds; `u64::MAX` is never.
    armed: AtomicU64,
    started: Instant,
    guarded: Mutex<Guarded>,
    handshakes: Mutex<Handshakes>,
    calls: CallSender,
    /// Notified whenever a connection ends.
    pub(crate) ended: Notify,
}

/// What the lock guards.
struct Guarded {
    core: Core,
    callbacks: Callbacks,
    outboxes: HashMap<ConnectionKey, Arc<Outbox>>,
    /// How many of them have a socket.
    remote: usize,
    confirms: HashMap<u64, oneshot::Sender<Confirmation>>,
    next_confirm: u64,
    stopping: bool,
}

/// What is done after the lock is released.
struct AfterUnlock<'a> {
    shared: &'a Arc<Shared>,
    /// The embedder holds the lock: its callbacks must be called from another task.
    by_embedder: bool,
    wakes: Vec<Arc<Outbox>>,
    calls: Vec<Call>,
    garbage: Vec<VecDeque<Entry>>,
}

/// One call of a callback.
pub(crate) enum Call {
    Offer { sink: Arc<dyn Sink>, published: Published, ticket: u64 },
    GrantCredit { backing: Arc<dyn Backing>, queue: Arc<str>, credit: Credit },
    Acknowledged { backing: Arc<dyn Backing>, queue: Arc<str>, user: Arc<str>, tokens: Vec<u64> },
    Dropped { backing: Arc<dyn Backing>, queue: Arc<str>, tokens: Vec<u64>, why: DropReason },
    Ended { backing: Arc<dyn Backing>, queue: Arc<str>, window: u64, unacknowledged: Vec<u64> },
}

/// Calls that the embedder caused, for the task that makes them.
pub(crate) type CallSender = mpsc::UnboundedSender<(Arc<Shared>, Vec<Call>)>;
pub(crate) type CallReceiver = mpsc::UnboundedReceiver<(Arc<Shared>, Vec<Call>)>;

/// The lock, taken.
pub(crate) struct Locked<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    guard: MutexGuard<'a, Guarded>,
    after: AfterUnlock<'a>,
}

impl Shared {
    pub(crate) fn new(config: Config, access: Arc<dyn AccessControl>, calls: CallSender) -> Shared {
        let core = Core::new(Settings {
            memory_limit: config.memory_limit,
            output_window: config.output_window,
            delivery_limit: config.delivery_limit,
        });
        let guarded = Guarded {
            core,
            callbacks: Callbacks::default(),
            outboxes: HashMap::new(),
            remote: 0,
            confirms: HashMap::new(),
            next_confirm: 0,
            stopping: false,
        };
        Shared {
            log_ins: Arc::new(Semaphore::new(config.log_ins)),
            body_quota: BodyQuota::new(config.arriving_limit >> 10),
            secret: random::secret(),
            timer: Notify::new(),
            armed: AtomicU64::new(u64::MAX),
            started: clock::now(),
            guarded: Mutex::new(guarded),
            handshakes: Mutex::default(),
            calls,
            ended: Notify::new(),
            config,
            access,
        }
    }

    /// Locks for a task of the broker.
    pub(crate) fn lock(self: &Arc<Self>) -> Locked<'_> {
        self.take_lock(false)
    }

    /// Locks for a call of the embedder.
    pub(crate) fn lock_for_embedder(self: &Arc<Self>) -> Locked<'_> {
        self.take_lock(true)
    }

    fn take_lock(self: &Arc<Self>, by_embedder: bool) -> Locked<'_> {
        let mut guard = self.guarded.lock().unwrap_or_else(PoisonError::into_inner);
        guard.core.set_now(self.millis(clock::now()));
        let after = AfterUnlock {
            shared: self,
            by_embedder,
            wakes: Vec::new(),
            calls: Vec::new(),
            garbage: Vec::new(),
        };
        Locked { shared: self, guard, after }
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Expires what is due, and sleeps until the next deadline, for ever.
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

    /// A connection begins its handshake. When its address has too many, the oldest is closed.
    pub(crate) fn begin_handshake(&self, outbox: &Arc<Outbox>, peer: Option<SocketAddr>) {
        let mut handshakes = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        handshakes.begin(outbox, peer.map(|peer| peer.ip()), self.config.handshakes);
    }

    /// How many connections have tasks that have not ended.
    pub(crate) fn remote_connections(&self) -> usize {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner).remote
    }
}

impl Locked<'_> {
    pub(crate) fn core(&mut self) -> &mut Core {
        &mut self.guard.core
    }

    /// Declares a queue for the embedder.
    pub(crate) fn declare(&mut self, name: &str, options: QueueOptions) -> Result<QueueKey, Error> {
        let guarded = &mut *self.guard;
        guarded.callbacks.declare(&mut guarded.core, name, options)
    }

    /// What a session needs to perform a request.
    pub(crate) fn request_context(&mut self) -> RequestContext<'_> {
        let Guarded { core, callbacks, .. } = &mut *self.guard;
        RequestContext { core, callbacks, access: &*self.shared.access, config: &self.shared.config }
    }

    /// Opens a connection with its outbox. When the broker is stopping, the outbox has that signal already.
    pub(crate) fn open_connection(&mut self, local: bool) -> (ConnectionKey, Arc<Outbox>) {
        let key = self.core().open_connection(local);
        let outbox = Arc::new(Outbox::default());
        self.guard.outboxes.insert(key, outbox.clone());
        self.guard.remote += usize::from(!local);
        if self.guard.stopping {
            outbox.signal(STOP);
        }
        (key, outbox)
    }

    /// Removes a connection, whose task or consumer is gone, and its outbox.
    pub(crate) fn remove_connection(&mut self, key: ConnectionKey, local: bool) {
        self.guard.remote -= usize::from(!local);
        self.core().close_connection(key);
        self.dispatch(None);
        self.guard.outboxes.remove(&key);
        self.shared.ended.notify_waiters();
    }

    /// The embedder ends a connection: the core requeues at once what it held, and its task sends the client `why`.
    pub(crate) fn end_connection(&mut self, key: ConnectionKey, why: &Arc<str>) {
        self.core().close_connection(key);
        if let Some(outbox) = self.guard.outboxes.get(&key) {
            outbox.end(why);
        }
    }

    /// Sends the stop signal to every connection.
    pub(crate) fn stop(&mut self) {
        self.guard.stopping = true;
        for outbox in self.guard.outboxes.values() {
            outbox.signal(STOP);
        }
    }

    /// Registers a publish from inside the process for its confirmation.
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

    /// Performs the core's actions, or notes what must wait for the release of the lock. `own` is the connection whose task
    /// is running: it needs no waking.
    pub(crate) fn dispatch(&mut self, own: Option<ConnectionKey>) {
        let guarded = &mut *self.guard;
        let after = &mut self.after;
        let mut last: Option<(ConnectionKey, Arc<Outbox>)> = None;
        for action in guarded.core.actions.drain(..) {
            match action {
                Action::Send(key, output) => {
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
                Action::Resume(key) => after.wakes.extend(guarded.outboxes.get(&key).cloned()),
                Action::Confirmed { local, safe } => {
                    if let Some(waiting) = guarded.confirms.remove(&local) {
                        // The caller may have dropped the future.
                        let _ =
                            waiting.send(if safe { Confirmation::Confirmed } else { Confirmation::Refused });
                    }
                }
                Action::Deleted(queue) => {
                    guarded.callbacks.remove(queue);
                }
                Action::Discard(entries) if entries.is_empty() => {}
                Action::Discard(entries) => after.garbage.push(entries),
                Action::Offer { queue, ticket, user, message } => {
                    if let Some((queue, sink)) = guarded.callbacks.sink(queue) {
                        let published = Published { queue, user, message };
                        after.calls.push(Call::Offer { sink, published, ticket });
                    }
                }
                Action::GrantCredit { queue, window, messages, bytes } => {
                    if let Some((queue, backing)) = guarded.callbacks.backing(queue) {
                        let credit = Credit { window, messages, bytes };
                        after.calls.push(Call::GrantCredit { backing, queue, credit });
                    }
                }
                Action::Acknowledged { queue, user, token } => {
                    if let Some((queue, backing)) = guarded.callbacks.backing(queue) {
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
                Action::Dropped { queue, token, why } => {
                    if let Some((queue, backing)) = guarded.callbacks.backing(queue) {
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
                Action::Ended { queue, window, unacknowledged } => {
                    if let Some((queue, backing)) = guarded.callbacks.backing(queue) {
                        after.calls.push(Call::Ended { backing, queue, window, unacknowledged });
                    }
                }
            }
        }
        if guarded.core.actions.capacity() > 16_384 {
            guarded.core.actions.shrink_to(1_024);
        }
        if let Some(deadline) = guarded.core.deadline()
            && deadline < self.shared.armed.load(Ordering::Acquire)
        {
            self.shared.armed.store(deadline, Ordering::Release);
            self.shared.timer.notify_one();
        }
    }
}

impl TakeReplies for Shared {
    fn take_replies(self: Arc<Self>, tickets: &[u64], safe: bool) {
        self.lock_for_embedder().core().settle_tickets(tickets, safe);
    }
}

/// Releasing the lock dispatches what is left, then does what had to wait for the release.
impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.dispatch(None);
    }
}

/// Runs after the lock is released: the fields of [`Locked`] are dropped in their order, the guard before this.
impl Drop for AfterUnlock<'_> {
    fn drop(&mut self) {
        for outbox in self.wakes.drain(..) {
            outbox.waker.wake();
        }
        if self.calls.is_empty() {
            return;
        }
        let calls = std::mem::take(&mut self.calls);
        if self.by_embedder {
            // After the broker has stopped there is no receiver.
            let _ = self.shared.calls.send((self.shared.clone(), calls));
        } else {
            perform(self.shared, calls);
        }
    }
}

/// Calls the embedder's callbacks.
pub(crate) fn perform(shared: &Arc<Shared>, calls: Vec<Call>) {
    for call in calls {
        match call {
            Call::Offer { sink, published, ticket } => {
                sink.accept(published, PublishReply::new(ticket, shared.clone()));
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
