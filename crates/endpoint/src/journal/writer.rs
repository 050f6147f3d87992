//! Writes the journal on a thread of its own, so that a slow disk does not delay results.
//!
//! All requests that come during one sync share the next one (group commit).

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

/// The number of records in a segment (2 MiB).
const RECORDS_OF_A_SEGMENT: usize = (2 << 20) / RECORD;

/// What the journal reports to its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JournalEvent {
    /// These tasks are on disk as begun.
    Begun(Vec<TaskId>),
    /// These tasks are recorded as ended: no later run counts them as lost, except after a power loss.
    Ended(Vec<TaskId>),
    /// Whether the task ever began here and was not handed back.
    LookedUp { task: TaskId, known: bool },
    /// Another process has claimed the endpoint. Nothing was written, and no event follows.
    Superseded,
    /// The journal can't be written any more. WatchEvent once; nothing follows.
    Failed(String),
}

enum Request {
    Begin(Vec<TaskId>),
    HandBack(Vec<TaskId>),
    End(Vec<TaskId>),
    LookUp(TaskId),
}

/// The journal of this run. The number of waiting requests is limited by the owner's tasks.
#[derive(Debug)]
pub(crate) struct Journal {
    requests: Option<blocking::Sender<Request>>,
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
        let (requests, inbox) = blocking::channel();
        let (outbox, written) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
            if let Err(error) = writer.work(&inbox, &outbox) {
                // The owner may be gone.
                let _ = outbox.send(JournalEvent::Failed(format!("{}: {error}", writer.directory.display())));
            }
        })?;
        Ok(Self { requests: Some(requests), written, thread: Some(thread) })
    }

    /// Records that these tasks begin; [`JournalEvent::Begun`] follows when it is on disk.
    pub(crate) fn begin(&mut self, tasks: Vec<TaskId>) {
        if !tasks.is_empty() {
            self.request(Request::Begin(tasks));
        }
    }

    /// Records that these tasks, though recorded as begun, were returned to the queue.
    pub(crate) fn hand_back(&mut self, tasks: Vec<TaskId>) {
        if !tasks.is_empty() {
            self.request(Request::HandBack(tasks));
        }
    }

    /// Records that these tasks have ended. It is synced together with later records: if it is lost, an ended task is reported as
    /// lost, and the service ignores that.
    pub(crate) fn end(&mut self, tasks: Vec<TaskId>) {
        if !tasks.is_empty() {
            self.request(Request::End(tasks));
        }
    }

    /// Looks up whether this task ever began; [`JournalEvent::LookedUp`] follows.
    pub(crate) fn look_up(&mut self, task: TaskId) {
        self.request(Request::LookUp(task));
    }

    /// The next event, in the order of the requests.
    pub(crate) async fn event(&mut self) -> Option<JournalEvent> {
        self.written.recv().await
    }

    #[cfg(test)]
    pub(super) fn event_blocking(&mut self) -> JournalEvent {
        self.written.blocking_recv().expect("the journal answers")
    }

    /// Stops writing, because another process owns the journal.
    pub(crate) fn abandon(&mut self) {
        self.requests = None;
    }

    /// Completes all requests and ends the thread. Returns the remaining events.
    pub(crate) fn close(mut self) -> Vec<JournalEvent> {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
        std::iter::from_fn(|| self.written.try_recv().ok()).collect()
    }

    fn request(&mut self, request: Request) {
        if let Some(requests) = &self.requests {
            // A thread that ended has sent `Failed` or `Superseded`.
            let _ = requests.send(request);
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
    /// Began and not ended; a new segment begins with them, so that the old one can be removed.
    open: HashSet<TaskId>,
    /// Ended in this segment.
    closed: HashSet<TaskId>,
    /// Ended before it.
    ended: Ended,
    segments: u32,
    records: usize,
    /// The length of the segment's complete records, in bytes.
    length: u64,
}

impl Writer {
    fn work(
        &mut self,
        inbox: &blocking::Receiver<Request>,
        outbox: &mpsc::UnboundedSender<JournalEvent>,
    ) -> io::Result<()> {
        while let Ok(first) = inbox.recv() {
            if !(self.fence)() {
                // The owner may be gone.
                let _ = outbox.send(JournalEvent::Superseded);
                return Ok(());
            }
            let now = (self.clock)();
            let mut batch = Batch::default();
            for request in std::iter::once(first).chain(inbox.try_iter()) {
                self.add(&mut batch, request, now);
            }
            let written = self.write(&batch);
            if written.is_err() {
                // Removes the incomplete batch: a task that never began would count as lost. Its records of ends may still find
                // room.
                self.file.set_len(self.length)?;
                self.file.write_all(&batch.settled)?;
            }
            // The owner may be gone.
            if !batch.ended.is_empty() {
                let _ = outbox.send(JournalEvent::Ended(batch.ended));
            }
            written?;
            for task in batch.look_ups {
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

    fn add(&mut self, batch: &mut Batch, request: Request, now: Duration) {
        match request {
            Request::Begin(tasks) => {
                tasks.iter().for_each(|task| encode(&mut batch.bytes, Kind::Begun(*task), now));
                self.open.extend(&tasks);
                batch.begun.extend(tasks);
            }
            Request::HandBack(tasks) => tasks.iter().for_each(|task| {
                batch.settle(Kind::Returned(*task), now);
                self.open.remove(task);
            }),
            Request::End(tasks) => {
                for task in &tasks {
                    batch.settle(Kind::Ended(*task), now);
                    self.open.remove(task);
                    self.closed.insert(*task);
                }
                batch.ended.extend(tasks);
            }
            Request::LookUp(task) => batch.look_ups.push(task),
        }
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        self.file.write_all(&batch.bytes)?;
        // Other records are synced later.
        if batch.begun.is_empty() { Ok(()) } else { self.file.sync_data() }
    }

    fn knows(&self, task: TaskId) -> io::Result<bool> {
        Ok(self.open.contains(&task) || self.closed.contains(&task) || self.ended.contains(task)?)
    }

    /// Begins a new segment; the ended tasks of the old one become a list.
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

/// The records that are written together.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Those of the records that record no beginning.
    settled: Vec<u8>,
    begun: Vec<TaskId>,
    ended: Vec<TaskId>,
    look_ups: Vec<TaskId>,
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

/// Saturates in 2106; tasks that end later are then kept too long.
fn seconds(now: Duration) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

fn path(directory: &Path, run: RunId, now: Duration, number: u32) -> PathBuf {
    directory.join(format!("{:016}-{run}-{number:06}.{EXTENSION}", now.as_millis()))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}
