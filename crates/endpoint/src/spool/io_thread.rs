//! Works the spool on a thread of its own: a slow disk must not hold up what needs none.

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

enum Order {
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
    /// Another run has the spool.
    Abandon,
}

/// What was done, in the order it was asked for.
#[derive(Debug)]
pub(crate) enum SpoolEvent {
    Kept { task: TaskId, result: Vec<u8> },
    NotKept { task: TaskId, result: Vec<u8>, error: String },
    Loaded { task: TaskId, result: io::Result<Vec<u8>> },
    Found { tasks: Vec<TaskId>, last: bool },
}

/// The spool at work. The orders that wait are bounded by the tasks the owner holds.
#[derive(Debug)]
pub(crate) struct SpoolThread {
    orders: Option<blocking::Sender<Order>>,
    done: mpsc::UnboundedReceiver<SpoolEvent>,
    thread: Option<JoinHandle<()>>,
}

impl SpoolThread {
    pub(crate) fn start(spool: Spool, run: RunId) -> io::Result<Self> {
        let recent = Recent::create(&spool.directory, run)?;
        let (orders, inbox) = blocking::channel();
        let (outbox, done) = mpsc::unbounded_channel();
        let mut worker = Worker { spool, recent, outbox, read: HashMap::new(), abandoned: false };
        let thread =
            std::thread::Builder::new().name("spool".to_owned()).spawn(move || worker.work(&inbox))?;
        Ok(Self { orders: Some(orders), done, thread: Some(thread) })
    }

    pub(crate) fn keep(&self, task: TaskId, result: Vec<u8>) {
        self.order(Order::Keep { task, result });
    }

    pub(crate) fn load(&self, task: TaskId) {
        self.order(Order::Load(task));
    }

    pub(crate) fn forget(&self, task: TaskId) {
        self.order(Order::Forget(task));
    }

    /// Looks whether an earlier run has put results of these tasks here; the last time, its file is removed.
    pub(crate) fn find(&self, tasks: Vec<TaskId>, last: bool) {
        self.order(Order::Find { tasks, last });
    }

    /// The spool is another run's now: what still comes goes to the end of this run's own file, where that run looks.
    pub(crate) fn abandon(&self) {
        self.order(Order::Abandon);
    }

    pub(crate) async fn done(&mut self) -> Option<SpoolEvent> {
        self.done.recv().await
    }

    /// Finishes what was asked for and leaves each result that still waits in a file of its own.
    pub(crate) fn close(mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing more to do.
            let _ = thread.join();
        }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The thread lives as long as the orders come.
            let _ = orders.send(order);
        }
    }
}

struct Worker {
    spool: Spool,
    recent: Recent,
    outbox: mpsc::UnboundedSender<SpoolEvent>,
    /// How long the files of earlier runs were when they were read.
    read: HashMap<PathBuf, u64>,
    abandoned: bool,
}

impl Worker {
    fn work(&mut self, inbox: &blocking::Receiver<Order>) {
        while let Ok(first) = inbox.recv() {
            let mut keeping = Vec::new();
            for order in std::iter::once(first).chain(inbox.try_iter()) {
                match order {
                    Order::Keep { task, result } => keeping.push((task, result)),
                    Order::Load(task) => {
                        self.keep(std::mem::take(&mut keeping));
                        let result = self.recent.read(task).unwrap_or_else(|| self.spool.read(task));
                        self.tell(SpoolEvent::Loaded { task, result });
                    }
                    Order::Forget(task) => self.forget(task),
                    Order::Find { tasks, last } => self.find(&tasks, last),
                    Order::Abandon => self.abandoned = true,
                }
            }
            self.keep(keeping);
            if self.recent.is_long()
                && !self.abandoned
                && let Err(error) = self.move_out()
            {
                tracing::warn!(%error, "results that wait could not be given files of their own");
            }
        }
        if self.abandoned {
            return;
        }
        if let Err(error) = self.move_out().and_then(|()| fs::remove_file(self.recent.path())) {
            tracing::error!(%error, "results that wait stay where the next start finds them");
        }
    }

    /// All that came at once, with one write.
    fn keep(&mut self, results: Vec<(TaskId, Vec<u8>)>) {
        if results.is_empty() {
            return;
        }
        match self.recent.append(&results) {
            Ok(()) => {
                results.into_iter().for_each(|(task, result)| self.tell(SpoolEvent::Kept { task, result }))
            }
            Err(error) => {
                let error = error.to_string();
                for (task, result) in results {
                    self.tell(SpoolEvent::NotKept { task, result, error: error.clone() });
                }
            }
        }
    }

    fn find(&mut self, tasks: &[TaskId], last: bool) {
        let found = self.spool.find(tasks, self.recent.path(), &mut self.read).unwrap_or_else(|error| {
            tracing::warn!(%error, "the results of an earlier run can't be read");
            Vec::new()
        });
        if last && let Err(error) = self.spool.tidy(self.recent.path()) {
            tracing::warn!(%error, "an earlier run's file of results can't be removed; the next start does it");
        }
        self.tell(SpoolEvent::Found { tasks: found, last });
    }

    fn forget(&mut self, task: TaskId) {
        let forgotten = match self.recent.forget(task) {
            Ok(true) => Ok(()),
            Ok(false) => self.spool.forget(task),
            Err(error) => Err(error),
        };
        if let Err(error) = forgotten {
            // It is sent once more at the next start, and the service knows it.
            tracing::warn!(%task, %error, "a result that was sent could not be removed");
        }
    }

    /// Gives every result that waits a file of its own, and empties the common one.
    fn move_out(&mut self) -> io::Result<()> {
        for task in self.recent.waiting() {
            if let Some(result) = self.recent.read(task) {
                self.spool.keep(task, &result?)?;
            }
        }
        self.recent.empty()
    }

    fn tell(&self, done: SpoolEvent) {
        // An owner that has gone needs no answer; what is kept is kept.
        let _ = self.outbox.send(done);
    }
}
