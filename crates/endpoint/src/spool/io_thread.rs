//! Reads and writes the spool on a thread of its own, so that a slow disk delays nothing else.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use wire::{RunId, TaskId};

use super::Spool;
use super::recent::Recent;

enum Request {
    Keep {
        task: TaskId,
        result: Vec<u8>,
    },
    Load(TaskId),
    Forget(TaskId),
    Find {
        tasks: Vec<TaskId>,
        last: bool,
    },
    /// Another run owns the spool.
    Abandon,
}

/// What was done, in the order of the requests.
#[derive(Debug)]
pub(crate) enum SpoolEvent {
    Kept { task: TaskId, result: Vec<u8> },
    NotKept { task: TaskId, result: Vec<u8>, error: String },
    Loaded { task: TaskId, result: io::Result<Vec<u8>> },
    Found { tasks: Vec<TaskId>, last: bool },
}

/// A handle to the thread. The number of waiting requests is limited by the owner's tasks.
#[derive(Debug)]
pub(crate) struct SpoolThread {
    requests: Option<blocking::Sender<Request>>,
    events: mpsc::UnboundedReceiver<SpoolEvent>,
    thread: Option<JoinHandle<()>>,
}

impl SpoolThread {
    pub(crate) fn start(spool: Spool, run: RunId) -> io::Result<Self> {
        let recent = Recent::create(&spool.directory, run)?;
        let (requests, inbox) = blocking::channel();
        let (outbox, events) = mpsc::unbounded_channel();
        let mut spool_io = SpoolIo { spool, recent, outbox, read: HashMap::new(), abandoned: false };
        let thread =
            std::thread::Builder::new().name("spool".to_owned()).spawn(move || spool_io.run(&inbox))?;
        Ok(Self { requests: Some(requests), events, thread: Some(thread) })
    }

    pub(crate) fn keep(&self, task: TaskId, result: Vec<u8>) {
        self.request(Request::Keep { task, result });
    }

    pub(crate) fn load(&self, task: TaskId) {
        self.request(Request::Load(task));
    }

    pub(crate) fn forget(&self, task: TaskId) {
        self.request(Request::Forget(task));
    }

    /// Looks for results of these tasks that an earlier run has written meanwhile. The last time, that run's file is removed.
    pub(crate) fn find(&self, tasks: Vec<TaskId>, last: bool) {
        self.request(Request::Find { tasks, last });
    }

    /// Hands the spool to another run: from now on results are only appended to this run's own file, where that run looks.
    pub(crate) fn abandon(&self) {
        self.request(Request::Abandon);
    }

    pub(crate) async fn event(&mut self) -> Option<SpoolEvent> {
        self.events.recv().await
    }

    /// Completes all requests, moves every unconfirmed result to a file of its own, and ends the thread.
    pub(crate) fn close(mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
    }

    fn request(&self, request: Request) {
        if let Some(requests) = &self.requests {
            // The thread lives as long as this sender.
            let _ = requests.send(request);
        }
    }
}

struct SpoolIo {
    spool: Spool,
    recent: Recent,
    outbox: mpsc::UnboundedSender<SpoolEvent>,
    /// The lengths at which the files of earlier runs were read.
    read: HashMap<PathBuf, u64>,
    abandoned: bool,
}

impl SpoolIo {
    fn run(&mut self, inbox: &blocking::Receiver<Request>) {
        while let Ok(first) = inbox.recv() {
            let mut keeping = Vec::new();
            for request in std::iter::once(first).chain(inbox.try_iter()) {
                match request {
                    Request::Keep { task, result } => keeping.push((task, result)),
                    Request::Load(task) => {
                        self.keep(std::mem::take(&mut keeping));
                        let result = self.recent.read(task).unwrap_or_else(|| self.spool.read(task));
                        self.send(SpoolEvent::Loaded { task, result });
                    }
                    Request::Forget(task) => self.forget(task),
                    Request::Find { tasks, last } => self.find(&tasks, last),
                    Request::Abandon => self.abandoned = true,
                }
            }
            self.keep(keeping);
            if self.recent.is_long()
                && !self.abandoned
                && let Err(error) = self.move_out()
            {
                tracing::warn!(%error, "unconfirmed results could not be moved to files of their own");
            }
        }
        if self.abandoned {
            return;
        }
        if let Err(error) = self.move_out().and_then(|()| fs::remove_file(self.recent.path())) {
            tracing::error!(%error, "unconfirmed results stay in the shared file; the next start reads them there");
        }
    }

    /// Writes all results that came together with one call.
    fn keep(&mut self, results: Vec<(TaskId, Vec<u8>)>) {
        if results.is_empty() {
            return;
        }
        match self.recent.append(&results) {
            Ok(()) => {
                results.into_iter().for_each(|(task, result)| self.send(SpoolEvent::Kept { task, result }))
            }
            Err(error) => {
                let error = error.to_string();
                for (task, result) in results {
                    self.send(SpoolEvent::NotKept { task, result, error: error.clone() });
                }
            }
        }
    }

    fn find(&mut self, tasks: &[TaskId], last: bool) {
        let found = self.spool.find(tasks, self.recent.path(), &mut self.read).unwrap_or_else(|error| {
            tracing::warn!(%error, "the results of an earlier run can't be read");
            Vec::new()
        });
        if last && let Err(error) = self.spool.remove_others(self.recent.path()) {
            tracing::warn!(%error, "an earlier run's file of results can't be removed; the next start does it");
        }
        self.send(SpoolEvent::Found { tasks: found, last });
    }

    fn forget(&mut self, task: TaskId) {
        let forgotten = match self.recent.forget(task) {
            Ok(true) => Ok(()),
            Ok(false) => self.spool.forget(task),
            Err(error) => Err(error),
        };
        if let Err(error) = forgotten {
            // The next start sends it again, and the service ignores it.
            tracing::warn!(%task, %error, "a confirmed result could not be removed");
        }
    }

    /// Moves every unconfirmed result to a file of its own and empties the shared file.
    fn move_out(&mut self) -> io::Result<()> {
        for task in self.recent.waiting() {
            if let Some(result) = self.recent.read(task) {
                self.spool.keep(task, &result?)?;
            }
        }
        self.recent.empty()
    }

    fn send(&self, done: SpoolEvent) {
        // The owner may be gone; the results are on disk all the same.
        let _ = self.outbox.send(done);
    }
}
