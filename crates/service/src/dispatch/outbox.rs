//! From an outbox in the store to the window of a backed queue.
//!
//! The outbox is the truth. The broker opens a window when a queue gets its first consumer and says how much it wants;
//! a [`Line`] per queue decides what to load next, and the [`Feeder`]'s task loads and feeds. Nothing polls: a grant, a
//! commit, an acknowledgement wakes it.
//!
//! ```text
//! grant, wake --> Line --load--> store --loaded--> Line --feed--> broker --acknowledged--> store
//! ```
//!
//! A new window starts again at the beginning of the outbox, but not before the acknowledgements of the last one have
//! been written: else what a consumer has would be sent to the next one.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use broker::{Backing, Credit, CreditBalance, DropReason, Handle, Message, StoredMessage};
use tokio::sync::{mpsc, oneshot};

use store::StoreError;

/// Rows loaded at a time, and bytes of them.
pub(super) const ROWS: usize = 500;
pub(super) const BYTES: usize = 8 << 20;
/// How long a store that failed is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// What the store holds for the consumers of a kind of queue.
pub(super) trait Outbox: Send + Sync + 'static {
    /// The first rows of `queue` after `after`, at most `count` of them and about [`BYTES`].
    fn load(
        &self,
        queue: &str,
        after: i64,
        count: usize,
    ) -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// A consumer has these, which logged in as `user`.
    fn acknowledged(
        &self,
        queue: &str,
        user: &str,
        seqs: &[i64],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Consumers refused these for good.
    fn refused(
        &self,
        queue: &str,
        seqs: &[i64],
        why: DropReason,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// What a load found.
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

/// Read from the outbox after this row, at most so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load {
    window: u64,
    after: i64,
    count: usize,
}

/// One queue: what its window wants, and how far it has been fed.
#[derive(Debug, Default)]
struct Line {
    /// A window is open: what it has been fed must be remembered, however little it wants at the moment.
    open: bool,
    credit: CreditBalance,
    fed: i64,
    /// The outbox may hold rows after `fed`.
    more: bool,
    loading: bool,
    /// Something was written to the outbox while a load was on its way.
    written: bool,
    /// Acknowledgements on their way to the store.
    settling: usize,
    /// This window waits for those of the last one.
    held: bool,
    /// Delivered in an earlier window and not acknowledged.
    redelivered: HashSet<i64>,
}

impl Line {
    fn granted(&mut self, credit: Credit) -> Option<Load> {
        if self.credit.add(credit) {
            self.open = true;
            self.fed = 0;
            self.more = true;
            self.held = self.settling > 0;
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
        self.settling -= count;
        if self.settling == 0 {
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

    /// Whether nothing would be lost by forgetting it.
    fn idle(&self) -> bool {
        !self.open && !self.loading && self.settling == 0 && self.redelivered.is_empty()
    }
}

/// What became of messages.
#[derive(Clone, Debug)]
enum End {
    /// By this user.
    Acknowledged(Arc<str>),
    Dropped(DropReason),
}

#[derive(Debug)]
enum Event {
    Credit(Arc<str>, Credit),
    /// Something was written to the outbox of this queue.
    Woken(Arc<str>),
    Loaded(Arc<str>, u64, Result<Loaded, StoreError>),
    Settle(Arc<str>, Vec<u64>, End),
    Settled(Arc<str>, usize),
    Ended(Arc<str>, u64, Vec<u64>),
    /// Answer when nothing is on its way to the store any more.
    Finish(oneshot::Sender<()>),
    /// This queue is no more.
    Gone(Arc<str>),
    /// Answer which queues are remembered.
    #[cfg(test)]
    Lines(oneshot::Sender<Vec<Arc<str>>>),
}

/// Tells the feeding task what happened; the broker's [`Backing`] of every queue of a kind. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Feeder {
    // Not bounded by itself: the broker's windows bound what it can be told, one wake per commit the rest.
    events: mpsc::UnboundedSender<Event>,
}

/// The feeding task, before it runs.
#[derive(Debug)]
pub(super) struct Feeding {
    feeder: Feeder,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Feeder {
    pub(super) fn new() -> (Feeder, Feeding) {
        let (sender, events) = mpsc::unbounded_channel();
        let feeder = Feeder { events: sender };
        (feeder.clone(), Feeding { feeder, events })
    }

    /// Rows have been committed to the outbox of `queue`.
    pub(super) fn wake(&self, queue: String) {
        self.tell(Event::Woken(queue.into()));
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
    pub(super) async fn lines(&self) -> Vec<Arc<str>> {
        let (answer, answered) = oneshot::channel();
        self.tell(Event::Lines(answer));
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
        self.tell(Event::Settle(queue.clone(), tokens.to_vec(), End::Acknowledged(user.clone())));
    }

    fn dropped(&self, queue: &Arc<str>, tokens: &[u64], why: DropReason) {
        self.tell(Event::Settle(queue.clone(), tokens.to_vec(), End::Dropped(why)));
    }

    fn ended(&self, queue: &Arc<str>, window: u64, unacknowledged: &[u64]) {
        self.tell(Event::Ended(queue.clone(), window, unacknowledged.to_vec()));
    }
}

impl Feeding {
    /// Feeds `broker` from `outbox` until the service's last handle on it is dropped or the task is aborted.
    pub(super) async fn run<O: Outbox>(mut self, broker: Handle, outbox: Arc<O>) {
        let mut lines: HashMap<Arc<str>, Line> = HashMap::new();
        let mut finishing = Vec::new();
        while let Some(event) = self.events.recv().await {
            match event {
                Event::Finish(answer) => finishing.push(answer),
                event => self.handle(event, &mut lines, &broker, &outbox),
            }
            if !finishing.is_empty() && lines.values().all(|line| line.settling == 0) {
                for answer in finishing.drain(..) {
                    let _ = answer.send(());
                }
            }
        }
    }

    fn handle<O: Outbox>(
        &self,
        event: Event,
        lines: &mut HashMap<Arc<str>, Line>,
        broker: &Handle,
        outbox: &Arc<O>,
    ) {
        match event {
            Event::Credit(queue, credit) => {
                let load = lines.entry(queue.clone()).or_default().granted(credit);
                self.load(queue, load, outbox);
            }
            Event::Woken(queue) => {
                // Without a line nobody consumes; whoever does reads from the beginning.
                let load = lines.get_mut(&queue).and_then(Line::woken);
                self.load(queue, load, outbox);
            }
            Event::Loaded(queue, window, Ok(loaded)) => {
                let Some(line) = lines.get_mut(&queue) else { return };
                let sizes: Vec<_> =
                    loaded.rows.iter().map(|row| (row.seq, row.message.body().len())).collect();
                let count = line.loaded(window, &sizes, loaded.more);
                let messages = loaded.rows.into_iter().take(count).map(|row| StoredMessage {
                    token: row.seq.cast_unsigned(),
                    message: row.message,
                    redelivered: line.redelivered.remove(&row.seq),
                });
                let messages: Vec<_> = messages.collect();
                if !messages.is_empty() && broker.feed(&queue, window, messages).is_err() {
                    line.close();
                }
                let load = line.next();
                self.load(queue.clone(), load, outbox);
                forget_idle(lines, &queue);
            }
            Event::Loaded(queue, window, Err(error)) => {
                tracing::error!(%error, %queue, "the outbox could not be read");
                if let Some(line) = lines.get_mut(&queue) {
                    line.loaded(window, &[], true);
                }
                let feeder = self.feeder.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(PAUSE).await;
                    feeder.tell(Event::Woken(queue));
                });
            }
            Event::Settle(queue, tokens, end) => {
                lines.entry(queue.clone()).or_default().settling += tokens.len();
                self.settle(queue, tokens, end, outbox);
            }
            Event::Settled(queue, count) => {
                let load = lines.get_mut(&queue).and_then(|line| line.settled(count));
                self.load(queue.clone(), load, outbox);
                forget_idle(lines, &queue);
            }
            Event::Finish(_) => {}
            Event::Gone(queue) => {
                lines.remove(&queue);
            }
            #[cfg(test)]
            Event::Lines(answer) => answer.send(lines.keys().cloned().collect()).unwrap(),
            Event::Ended(queue, window, unacknowledged) => {
                if let Some(line) = lines.get_mut(&queue) {
                    // Of a queue that is no more, it doesn't matter any more what was delivered.
                    let lasts = broker.queue(&queue).is_some();
                    line.ended(window, if lasts { &unacknowledged } else { &[] });
                }
                forget_idle(lines, &queue);
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
    fn settle<O: Outbox>(&self, queue: Arc<str>, tokens: Vec<u64>, end: End, outbox: &Arc<O>) {
        let (feeder, outbox) = (self.feeder.clone(), outbox.clone());
        let seqs: Vec<i64> = tokens.into_iter().map(u64::cast_signed).collect();
        tokio::spawn(async move {
            for seqs in seqs.chunks(ROWS) {
                loop {
                    let written = match &end {
                        End::Acknowledged(user) => outbox.acknowledged(&queue, user, seqs).await,
                        End::Dropped(why) => outbox.refused(&queue, seqs, *why).await,
                    };
                    match written {
                        Ok(()) | Err(StoreError::Closed) => break,
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
fn forget_idle(lines: &mut HashMap<Arc<str>, Line>, queue: &Arc<str>) {
    if lines.get(queue).is_some_and(Line::idle) {
        lines.remove(queue);
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
        let mut line = Line::default();
        assert_eq!(line.granted(credit(1, 3)), load(1, 0, 3));
        assert_eq!(line.granted(credit(1, 1)), None, "one load at a time");
        assert_eq!(line.loaded(1, &[(5, 10), (6, 10), (9, 10)], false), 3);
        assert_eq!(line.next(), None, "the outbox is empty");
        assert_eq!(line.woken(), load(1, 9, 1));
        assert_eq!(line.loaded(1, &[(10, 10)], false), 1);
        assert_eq!(line.woken(), None, "nothing more is wanted");
        assert_eq!(line.granted(credit(1, 2)), load(1, 10, 2), "and the wake was not forgotten");
    }

    #[test]
    fn what_is_written_during_a_load_is_not_missed() {
        let mut line = Line::default();
        line.granted(credit(1, 10)).unwrap();
        assert_eq!(line.woken(), None);
        assert_eq!(line.loaded(1, &[], false), 0);
        assert_eq!(line.next(), load(1, 0, 10));
        line.loaded(1, &[], false);
        assert_eq!(line.next(), None);
    }

    #[test]
    fn rows_beyond_the_wanted_bytes_are_loaded_again() {
        let mut line = Line::default();
        line.granted(Credit { window: 1, messages: 10, bytes: 15 }).unwrap();
        assert_eq!(line.loaded(1, &[(1, 10), (2, 10), (3, 10)], false), 2);
        assert_eq!(line.next(), None);
        assert_eq!(line.granted(Credit { window: 1, messages: 0, bytes: 20 }), load(1, 2, 8));
    }

    #[test]
    fn a_new_window_waits_for_the_acknowledgements_of_the_last() {
        let mut line = Line::default();
        line.granted(credit(1, 3)).unwrap();
        line.loaded(1, &[(1, 1), (2, 1)], false);
        line.settling += 1;
        line.ended(1, &[2]);
        assert!(!line.idle());
        assert_eq!(line.granted(credit(2, 3)), None, "1 is on its way to the store");
        assert_eq!(line.settled(1), load(2, 0, 3));
        assert!(line.redelivered.contains(&2));
    }

    #[test]
    fn a_window_that_wants_nothing_at_the_moment_is_not_forgotten() {
        let mut line = Line::default();
        line.granted(credit(1, 2)).unwrap();
        assert_eq!(line.loaded(1, &[(1, 1), (2, 1)], true), 2);
        assert!(!line.idle(), "it has been fed up to 2");
        assert_eq!(line.granted(credit(1, 2)), load(1, 2, 2));
        line.loaded(1, &[], false);
        line.ended(1, &[]);
        assert!(line.idle());
    }

    #[test]
    fn what_concerns_a_past_window_changes_nothing() {
        let mut line = Line::default();
        line.granted(credit(1, 3)).unwrap();
        assert_eq!(line.granted(credit(2, 3)), None, "a load is on its way");
        assert_eq!(line.loaded(1, &[(1, 1)], false), 0, "for the past window");
        assert_eq!(line.next(), load(2, 0, 3));
        line.ended(1, &[]);
        assert_eq!(line.loaded(2, &[(1, 1)], false), 1);
    }
}
