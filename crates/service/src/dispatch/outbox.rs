//! Feeds rows of an outbox in the store to the window of a backed queue in the broker.
//!
//! The broker opens a window when a queue gets its first consumer, and grants credit. A [`QueueFeed`] per queue decides
//! what to load next, and the task of the [`Feeder`] loads and publishes. Nothing polls: grants, commits and
//! acknowledgements wake it.
//!
//! ```text
//! grant, wake --> QueueFeed --load--> store --loaded--> QueueFeed --feed--> broker --acknowledged--> store
//! ```
//!
//! A new window starts at the beginning of the outbox, once the acknowledgements of the last window have been written:
//! else the next consumer would get what the last one has.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use broker::{Backing, Credit, CreditBalance, DropReason, Handle, Message, StoredMessage};
use tokio::sync::{mpsc, oneshot};

use store::{StoreError, outage_log};

/// The most rows loaded at a time, and the most bytes of them.
pub(super) const ROWS: usize = 500;
pub(super) const BYTES: usize = 8 << 20;
/// The pause after the store failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The rows in the store for one kind of queue.
pub(super) trait Outbox: Send + Sync + 'static {
    /// The first rows of `queue` after `after`, at most `count` of them and about [`BYTES`].
    fn load(
        &self,
        queue: &str,
        after: i64,
        count: usize,
    ) -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// Records that a consumer, logged in as `user`, acknowledged these rows.
    fn acknowledged(
        &self,
        queue: &str,
        user: &str,
        seqs: &[i64],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records that the consumers of these rows rejected them.
    fn refused(
        &self,
        queue: &str,
        seqs: &[i64],
        why: DropReason,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The rows that a load read.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) rows: Vec<Row>,
    /// There may be more after these.
    pub(super) more: bool,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) message: Message,
}

/// A read from the outbox: rows after `after`, at most `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load {
    window: u64,
    after: i64,
    count: usize,
}

/// The state of one queue: what its window wants, and how far it has been fed.
#[derive(Debug, Default)]
struct QueueFeed {
    /// A window is open. Its position must be kept, even if it wants nothing at the moment.
    open: bool,
    credit: CreditBalance,
    fed: i64,
    /// The outbox may hold rows after `fed`.
    more: bool,
    loading: bool,
    /// Rows were written to the outbox during a load.
    written: bool,
    /// Acknowledgements that are not in the store yet.
    unsettled: usize,
    /// This window waits for the acknowledgements of the last one.
    held: bool,
    /// Rows delivered in an earlier window and not acknowledged.
    redelivered: HashSet<i64>,
}

impl QueueFeed {
    fn granted(&mut self, credit: Credit) -> Option<Load> {
        if self.credit.add(credit) {
            self.open = true;
            self.fed = 0;
            self.more = true;
            self.held = self.unsettled > 0;
        }
        self.next()
    }

    fn woken(&mut self) -> Option<Load> {
        self.more = true;
        self.written = true;
        self.next()
    }

    /// How many of the loaded rows (their sequence numbers and sizes) to feed, and what to load after that.
    fn loaded(&mut self, window: u64, rows: &[(i64, usize)], more: bool) -> usize {
        self.loading = false;
        if window != self.credit.window() {
            return 0;
        }
        let fed = rows.iter().take_while(|(_, size)| self.credit.take(*size)).count();
        if let Some((seq, _)) = rows[..fed].last() {
            self.fed = *seq;
        }
        self.more = more || self.written || fed < rows.len();
        fed
    }

    fn settled(&mut self, count: usize) -> Option<Load> {
        self.unsettled -= count;
        if self.unsettled == 0 {
            self.held = false;
        }
        self.next()
    }

    fn ended(&mut self, window: u64, unacknowledged: &[u64]) {
        if window >= self.credit.window() {
            self.close();
            self.redelivered = unacknowledged.iter().map(|&token| token.cast_signed()).collect();
        }
    }

    fn close(&mut self) {
        self.open = false;
        self.credit.close();
    }

    fn next(&mut self) -> Option<Load> {
        if self.loading || self.held || !self.more || !self.credit.open() {
            return None;
        }
        self.loading = true;
        self.written = false;
        Some(Load { window: self.credit.window(), after: self.fed, count: self.credit.messages().min(ROWS) })
    }

    /// Whether its state can be dropped.
    fn idle(&self) -> bool {
        !self.open && !self.loading && self.unsettled == 0 && self.redelivered.is_empty()
    }
}

/// How delivered messages were settled.
#[derive(Clone, Debug)]
enum Settlement {
    /// Acknowledged by this user.
    Acknowledged(Arc<str>),
    Dropped(DropReason),
}

#[derive(Debug)]
enum Event {
    Credit(Arc<str>, Credit),
    /// Rows were written to the outbox of this queue.
    Woken(Arc<str>),
    /// The same, of an unknown queue.
    AllWoken,
    Loaded(Arc<str>, u64, Result<Loaded, StoreError>),
    Settle(Arc<str>, Vec<u64>, Settlement),
    Settled(Arc<str>, usize),
    Ended(Arc<str>, u64, Vec<u64>),
    /// Answer when all acknowledgements are in the store.
    Finish(oneshot::Sender<()>),
    /// This queue was deleted.
    Gone(Arc<str>),
    /// Answer which queues are remembered.
    #[cfg(test)]
    ListQueues(oneshot::Sender<Vec<Arc<str>>>),
}

/// Tells the feeding task what happened; the broker's [`Backing`] of every queue of a kind. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Feeder {
    // Not bounded by itself: the broker's windows bound what it can be told, one wake per commit the rest.
    events: mpsc::UnboundedSender<Event>,
}

/// The feeding task, before it runs.
#[derive(Debug)]
pub(super) struct FeederTask {
    feeder: Feeder,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Feeder {
    pub(super) fn new() -> (Feeder, FeederTask) {
        let (sender, events) = mpsc::unbounded_channel();
        let feeder = Feeder { events: sender };
        (feeder.clone(), FeederTask { feeder, events })
    }

    /// Rows have been committed to the outbox of `queue`.
    pub(super) fn wake(&self, queue: String) {
        self.tell(Event::Woken(queue.into()));
    }

    /// Rows may have been committed to the outbox of any queue.
    pub(super) fn wake_all(&self) {
        self.tell(Event::AllWoken);
    }

    /// `queue` was deleted: nothing of it is remembered.
    pub(super) fn gone(&self, queue: String) {
        self.tell(Event::Gone(queue.into()));
    }

    /// Waits until every acknowledgement heard of so far is in the store: lost ones would be sent again.
    pub(super) async fn finish(&self) {
        let (answer, answered) = oneshot::channel();
        self.tell(Event::Finish(answer));
        let _ = answered.await;
    }

    #[cfg(test)]
    pub(super) async fn queues(&self) -> Vec<Arc<str>> {
        let (answer, answered) = oneshot::channel();
        self.tell(Event::ListQueues(answer));
        answered.await.unwrap()
    }

    fn tell(&self, event: Event) {
        // The task ends with the service, and then nothing is fed any more.
        let _ = self.events.send(event);
    }
}

impl Backing for Feeder {
    fn grant(&self, queue: &Arc<str>, credit: Credit) {
        self.tell(Event::Credit(queue.clone(), credit));
    }

    fn acknowledged(&self, queue: &Arc<str>, user: &Arc<str>, tokens: &[u64]) {
        self.tell(Event::Settle(queue.clone(), tokens.to_vec(), Settlement::Acknowledged(user.clone())));
    }

    fn dropped(&self, queue: &Arc<str>, tokens: &[u64], why: DropReason) {
        self.tell(Event::Settle(queue.clone(), tokens.to_vec(), Settlement::Dropped(why)));
    }

    fn ended(&self, queue: &Arc<str>, window: u64, unacknowledged: &[u64]) {
        self.tell(Event::Ended(queue.clone(), window, unacknowledged.to_vec()));
    }
}

impl FeederTask {
    /// Feeds `broker` from `outbox` until the service's last handle on it is dropped or the task is aborted.
    pub(super) async fn run<O: Outbox>(mut self, broker: Handle, outbox: Arc<O>) {
        let mut feeds: HashMap<Arc<str>, QueueFeed> = HashMap::new();
        let mut finishing = Vec::new();
        while let Some(event) = self.events.recv().await {
            match event {
                Event::Finish(answer) => finishing.push(answer),
                event => self.handle(event, &mut feeds, &broker, &outbox),
            }
            if !finishing.is_empty() && feeds.values().all(|feed| feed.unsettled == 0) {
                for answer in finishing.drain(..) {
                    let _ = answer.send(());
                }
            }
        }
    }

    fn handle<O: Outbox>(
        &self,
        event: Event,
        feeds: &mut HashMap<Arc<str>, QueueFeed>,
        broker: &Handle,
        outbox: &Arc<O>,
    ) {
        match event {
            Event::Credit(queue, credit) => {
                let load = feeds.entry(queue.clone()).or_default().granted(credit);
                self.load(queue, load, outbox);
            }
            Event::Woken(queue) => {
                // Without a line nobody consumes; whoever does reads from the beginning.
                let load = feeds.get_mut(&queue).and_then(QueueFeed::woken);
                self.load(queue, load, outbox);
            }
            Event::AllWoken => {
                let woken = feeds.iter_mut().filter_map(|(queue, feed)| Some((queue.clone(), feed.woken()?)));
                for (queue, load) in woken.collect::<Vec<_>>() {
                    self.load(queue, Some(load), outbox);
                }
            }
            Event::Loaded(queue, window, Ok(loaded)) => {
                let Some(feed) = feeds.get_mut(&queue) else { return };
                let sizes: Vec<_> =
                    loaded.rows.iter().map(|row| (row.seq, row.message.body().len())).collect();
                let count = feed.loaded(window, &sizes, loaded.more);
                let messages = loaded.rows.into_iter().take(count).map(|row| StoredMessage {
                    token: row.seq.cast_unsigned(),
                    message: row.message,
                    redelivered: feed.redelivered.remove(&row.seq),
                });
                let messages: Vec<_> = messages.collect();
                if !messages.is_empty() && broker.feed(&queue, window, messages).is_err() {
                    feed.close();
                }
                let load = feed.next();
                self.load(queue.clone(), load, outbox);
                forget_idle(feeds, &queue);
            }
            Event::Loaded(queue, window, Err(error)) => {
                if !outage_log::logs(&error) {
                    tracing::error!(%error, %queue, "the outbox could not be read");
                }
                if let Some(feed) = feeds.get_mut(&queue) {
                    feed.loaded(window, &[], true);
                }
                let feeder = self.feeder.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(PAUSE).await;
                    feeder.tell(Event::Woken(queue));
                });
            }
            Event::Settle(queue, tokens, end) => {
                feeds.entry(queue.clone()).or_default().unsettled += tokens.len();
                self.settle(queue, tokens, end, outbox);
            }
            Event::Settled(queue, count) => {
                let load = feeds.get_mut(&queue).and_then(|feed| feed.settled(count));
                self.load(queue.clone(), load, outbox);
                forget_idle(feeds, &queue);
            }
            Event::Finish(_) => {}
            Event::Gone(queue) => {
                feeds.remove(&queue);
            }
            #[cfg(test)]
            Event::ListQueues(answer) => answer.send(feeds.keys().cloned().collect()).unwrap(),
            Event::Ended(queue, window, unacknowledged) => {
                if let Some(feed) = feeds.get_mut(&queue) {
                    // Of a queue that is no more, it doesn't matter any more what was delivered.
                    let lasts = broker.queue(&queue).is_some();
                    feed.ended(window, if lasts { &unacknowledged } else { &[] });
                }
                forget_idle(feeds, &queue);
            }
        }
    }

    fn load<O: Outbox>(&self, queue: Arc<str>, load: Option<Load>, outbox: &Arc<O>) {
        let Some(load) = load else { return };
        let (feeder, outbox) = (self.feeder.clone(), outbox.clone());
        tokio::spawn(async move {
            let loaded = outbox.load(&queue, load.after, load.count).await;
            feeder.tell(Event::Loaded(queue, load.window, loaded));
        });
    }

    /// Writes what became of messages, until it is written.
    fn settle<O: Outbox>(&self, queue: Arc<str>, tokens: Vec<u64>, end: Settlement, outbox: &Arc<O>) {
        let (feeder, outbox) = (self.feeder.clone(), outbox.clone());
        let seqs: Vec<i64> = tokens.into_iter().map(u64::cast_signed).collect();
        tokio::spawn(async move {
            for seqs in seqs.chunks(ROWS) {
                loop {
                    let written = match &end {
                        Settlement::Acknowledged(user) => outbox.acknowledged(&queue, user, seqs).await,
                        Settlement::Dropped(why) => outbox.refused(&queue, seqs, *why).await,
                    };
                    match written {
                        Ok(()) | Err(StoreError::Closed) => break,
                        Err(error) if outage_log::logs(&error) => {}
                        Err(error) => {
                            tracing::error!(%error, %queue, "an acknowledgement could not be written")
                        }
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
            feeder.tell(Event::Settled(queue, seqs.len()));
        });
    }
}

/// Forgets a line that has nothing to remember.
fn forget_idle(feeds: &mut HashMap<Arc<str>, QueueFeed>, queue: &Arc<str>) {
    if feeds.get(queue).is_some_and(QueueFeed::idle) {
        feeds.remove(queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credit(window: u64, messages: usize) -> Credit {
        Credit { window, messages, bytes: 1000 }
    }

    fn load(window: u64, after: i64, count: usize) -> Option<Load> {
        Some(Load { window, after, count })
    }

    #[test]
    fn a_window_is_fed_from_the_beginning_and_goes_on_where_it_stopped() {
        let mut feed = QueueFeed::default();
        assert_eq!(feed.granted(credit(1, 3)), load(1, 0, 3));
        assert_eq!(feed.granted(credit(1, 1)), None, "one load at a time");
        assert_eq!(feed.loaded(1, &[(5, 10), (6, 10), (9, 10)], false), 3);
        assert_eq!(feed.next(), None, "the outbox is empty");
        assert_eq!(feed.woken(), load(1, 9, 1));
        assert_eq!(feed.loaded(1, &[(10, 10)], false), 1);
        assert_eq!(feed.woken(), None, "nothing more is wanted");
        assert_eq!(feed.granted(credit(1, 2)), load(1, 10, 2), "and the wake was not forgotten");
    }

    #[test]
    fn what_is_written_during_a_load_is_not_missed() {
        let mut feed = QueueFeed::default();
        feed.granted(credit(1, 10)).unwrap();
        assert_eq!(feed.woken(), None);
        assert_eq!(feed.loaded(1, &[], false), 0);
        assert_eq!(feed.next(), load(1, 0, 10));
        feed.loaded(1, &[], false);
        assert_eq!(feed.next(), None);
    }

    #[test]
    fn rows_beyond_the_wanted_bytes_are_loaded_again() {
        let mut feed = QueueFeed::default();
        feed.granted(Credit { window: 1, messages: 10, bytes: 15 }).unwrap();
        assert_eq!(feed.loaded(1, &[(1, 10), (2, 10), (3, 10)], false), 2);
        assert_eq!(feed.next(), None);
        assert_eq!(feed.granted(Credit { window: 1, messages: 0, bytes: 20 }), load(1, 2, 8));
    }

    #[test]
    fn a_new_window_waits_for_the_acknowledgements_of_the_last() {
        let mut feed = QueueFeed::default();
        feed.granted(credit(1, 3)).unwrap();
        feed.loaded(1, &[(1, 1), (2, 1)], false);
        feed.unsettled += 1;
        feed.ended(1, &[2]);
        assert!(!feed.idle());
        assert_eq!(feed.granted(credit(2, 3)), None, "1 is on its way to the store");
        assert_eq!(feed.settled(1), load(2, 0, 3));
        assert!(feed.redelivered.contains(&2));
    }

    #[test]
    fn a_window_that_wants_nothing_at_the_moment_is_not_forgotten() {
        let mut feed = QueueFeed::default();
        feed.granted(credit(1, 2)).unwrap();
        assert_eq!(feed.loaded(1, &[(1, 1), (2, 1)], true), 2);
        assert!(!feed.idle(), "it has been fed up to 2");
        assert_eq!(feed.granted(credit(1, 2)), load(1, 2, 2));
        feed.loaded(1, &[], false);
        feed.ended(1, &[]);
        assert!(feed.idle());
    }

    #[test]
    fn what_concerns_a_past_window_changes_nothing() {
        let mut feed = QueueFeed::default();
        feed.granted(credit(1, 3)).unwrap();
        assert_eq!(feed.granted(credit(2, 3)), None, "a load is on its way");
        assert_eq!(feed.loaded(1, &[(1, 1)], false), 0, "for the past window");
        assert_eq!(feed.next(), load(2, 0, 3));
        feed.ended(1, &[]);
        assert_eq!(feed.loaded(2, &[(1, 1)], false), 1);
    }
}
