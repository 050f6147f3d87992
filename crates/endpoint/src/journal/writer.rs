//! Writes the journal on a thread of its own: waiting for a disk must not keep results waiting.
//!
//! Everything that asks while one sync is under way shares the next one (group commit).

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use wire::{RunId, TaskId};

use super::record::{Kind, RECORD, Record};
use super::{Clock, Ended, Fence};

pub(super) const EXTENSION: &str = "segment";

/// A segment holds so many records (2 MiB); then the next one begins.
const RECORDS_OF_A_SEGMENT: usize = (2 << 20) / RECORD;

/// What the journal tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JournalEvent {
    /// These tasks are on disk as begun.
    Begun(Vec<TaskId>),
    /// These tasks are written down as ended: no later run of this endpoint takes them for lost, unless the power goes.
    Ended(Vec<TaskId>),
    /// Whether the task ever began here and was not handed back.
    LookedUp { task: TaskId, known: bool },
    /// Another process has claimed the endpoint. Nothing was written, and nothing follows.
    Superseded,
    /// The journal can't be written any more. WatchEvent once; nothing follows.
    Failed(String),
}

enum Order {
    Begin(Vec<TaskId>),
    HandBack(Vec<TaskId>),
    End(Vec<TaskId>),
    LookUp(TaskId),
}

/// The journal of this run. The orders that wait are bounded by the tasks the owner holds.
#[derive(Debug)]
pub(crate) struct Journal {
    orders: Option<blocking::Sender<Order>>,
    written: mpsc::UnboundedReceiver<JournalEvent>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Begins this run's first segment with the tasks that are open from before.
    pub(super) fn start(
        directory: PathBuf,
        run: RunId,
        (clock, fence): (Clock, Fence),
        open: &HashSet<TaskId>,
        ended: Ended,
    ) -> io::Result<Self> {
        let now = clock();
        let path = path(&directory, run, now, 0);
        let mut writer = Writer {
            file: create(&path)?,
            path,
            directory,
            run,
            clock,
            fence,
            open: open.clone(),
            closed: HashSet::new(),
            ended,
            segments: 0,
            records: 0,
            length: 0,
        };
        writer.head(now)?;
        writer.file.sync_data()?;
        File::open(&writer.directory)?.sync_all()?;
        let (orders, inbox) = blocking::channel();
        let (outbox, written) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
            if let Err(error) = writer.work(&inbox, &outbox) {
                // An owner that has gone needs no answer.
                let _ = outbox.send(JournalEvent::Failed(format!("{}: {error}", writer.directory.display())));
            }
        })?;
        Ok(Self { orders: Some(orders), written, thread: Some(thread) })
    }

    /// Writes that these tasks begin; [`JournalEvent::Begun`] follows when it is on disk.
    pub(crate) fn begin(&mut self, tasks: Vec<TaskId>) {
        if !tasks.is_empty() {
            self.order(Order::Begin(tasks));
        }
    }

    /// Writes that these tasks, though written down as begun, were handed back.
    pub(crate) fn hand_back(&mut self, tasks: Vec<TaskId>) {
        if !tasks.is_empty() {
            self.order(Order::HandBack(tasks));
        }
    }

    /// Writes that these tasks have ended. It goes to disk with the next sync: losing it only means that a task is
    /// reported as lost that had ended already, and the service knows better.
    pub(crate) fn end(&mut self, tasks: Vec<TaskId>) {
        if !tasks.is_empty() {
            self.order(Order::End(tasks));
        }
    }

    /// Asks whether this task ever began; [`JournalEvent::LookedUp`] follows.
    pub(crate) fn look_up(&mut self, task: TaskId) {
        self.order(Order::LookUp(task));
    }

    /// What was written, in order.
    pub(crate) async fn written(&mut self) -> Option<JournalEvent> {
        self.written.recv().await
    }

    #[cfg(test)]
    pub(super) fn written_blocking(&mut self) -> JournalEvent {
        self.written.blocking_recv().expect("the journal answers")
    }

    /// The journal is another process's now: nothing more is written.
    pub(crate) fn abandon(&mut self) {
        self.orders = None;
    }

    /// Writes what is left and ends the thread. Returns what was written and not told yet.
    pub(crate) fn close(mut self) -> Vec<JournalEvent> {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has nothing more to write.
            let _ = thread.join();
        }
        std::iter::from_fn(|| self.written.try_recv().ok()).collect()
    }

    fn order(&mut self, order: Order) {
        if let Some(orders) = &self.orders {
            // A writer that is gone has said `Failed`.
            let _ = orders.send(order);
        }
    }
}

struct Writer {
    directory: PathBuf,
    run: RunId,
    clock: Clock,
    fence: Fence,
    /// The segment that is written.
    file: File,
    path: PathBuf,
    /// Began and not ended; a new segment begins with them, so that old ones can go.
    open: HashSet<TaskId>,
    /// Ended in this segment.
    closed: HashSet<TaskId>,
    /// Ended before it.
    ended: Ended,
    segments: u32,
    records: usize,
    /// Of the segment's whole records.
    length: u64,
}

impl Writer {
    fn work(
        &mut self,
        inbox: &blocking::Receiver<Order>,
        outbox: &mpsc::UnboundedSender<JournalEvent>,
    ) -> io::Result<()> {
        while let Ok(first) = inbox.recv() {
            if !(self.fence)() {
                // An owner that has gone needs no answer.
                let _ = outbox.send(JournalEvent::Superseded);
                return Ok(());
            }
            let now = (self.clock)();
            let mut batch = Batch::default();
            for order in std::iter::once(first).chain(inbox.try_iter()) {
                self.add(&mut batch, order, now);
            }
            let written = self.write(&batch);
            if written.is_err() {
                // What could not be written whole shall not be found: a task that never began would count as lost. What
                // only says that tasks are done with may find room, still.
                self.file.set_len(self.length)?;
                self.file.write_all(&batch.settled)?;
            }
            // Nobody waits for it any more: the owner has gone.
            if !batch.ended.is_empty() {
                let _ = outbox.send(JournalEvent::Ended(batch.ended));
            }
            written?;
            for task in batch.asked {
                let known = self.knows(task)?;
                let _ = outbox.send(JournalEvent::LookedUp { task, known });
            }
            self.length += batch.bytes.len() as u64;
            self.records += batch.bytes.len() / RECORD;
            if !batch.begun.is_empty() {
                let _ = outbox.send(JournalEvent::Begun(batch.begun));
            }
            if self.records >= RECORDS_OF_A_SEGMENT {
                self.next_segment(now)?;
            }
        }
        self.file.sync_data()
    }

    fn add(&mut self, batch: &mut Batch, order: Order, now: Duration) {
        match order {
            Order::Begin(tasks) => {
                tasks.iter().for_each(|task| encode(&mut batch.bytes, Kind::Begun(*task), now));
                self.open.extend(&tasks);
                batch.begun.extend(tasks);
            }
            Order::HandBack(tasks) => tasks.iter().for_each(|task| {
                batch.settle(Kind::Returned(*task), now);
                self.open.remove(task);
            }),
            Order::End(tasks) => {
                for task in &tasks {
                    batch.settle(Kind::Ended(*task), now);
                    self.open.remove(task);
                    self.closed.insert(*task);
                }
                batch.ended.extend(tasks);
            }
            Order::LookUp(task) => batch.asked.push(task),
        }
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        self.file.write_all(&batch.bytes)?;
        // The others go to disk with the next sync.
        if batch.begun.is_empty() { Ok(()) } else { self.file.sync_data() }
    }

    fn knows(&self, task: TaskId) -> io::Result<bool> {
        Ok(self.open.contains(&task) || self.closed.contains(&task) || self.ended.contains(task)?)
    }

    /// Begins a new segment; of the old one, what ended stays as a list.
    fn next_segment(&mut self, now: Duration) -> io::Result<()> {
        self.segments += 1;
        let path = path(&self.directory, self.run, now, self.segments);
        self.file = create(&path)?;
        let old = std::mem::replace(&mut self.path, path);
        self.head(now)?;
        self.file.sync_data()?;
        let closed: Vec<_> = std::mem::take(&mut self.closed).into_iter().collect();
        if !closed.is_empty() {
            self.ended.add(self.run, self.segments, seconds(now), closed)?;
        }
        fs::remove_file(old)?;
        self.ended.expire(now)
    }

    /// The first records of a segment.
    fn head(&mut self, now: Duration) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(&mut bytes, Kind::Run(self.run), now);
        self.open.iter().for_each(|task| encode(&mut bytes, Kind::Begun(*task), now));
        self.records = 0;
        self.length = bytes.len() as u64;
        self.file.write_all(&bytes)
    }
}

/// What is written at once.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Those of the records that make no task count as begun.
    settled: Vec<u8>,
    begun: Vec<TaskId>,
    ended: Vec<TaskId>,
    asked: Vec<TaskId>,
}

impl Batch {
    fn settle(&mut self, kind: Kind, now: Duration) {
        encode(&mut self.bytes, kind, now);
        encode(&mut self.settled, kind, now);
    }
}

fn encode(bytes: &mut Vec<u8>, kind: Kind, now: Duration) {
    bytes.extend_from_slice(&Record { kind, seconds: seconds(now) }.encode());
}

/// In 2106 the count of seconds ends and stays; what ended is then dropped late, at worst.
fn seconds(now: Duration) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

fn path(directory: &Path, run: RunId, now: Duration, number: u32) -> PathBuf {
    directory.join(format!("{:016}-{run}-{number:06}.{EXTENSION}", now.as_millis()))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}
