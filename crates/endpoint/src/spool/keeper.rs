//! Works the spool on a thread of its own: a slow disk must not hold up what needs none.

use std::io;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use wire::TaskId;

use super::Spool;

enum Order {
    Keep { task: TaskId, result: Vec<u8> },
    Load(TaskId),
    Forget(TaskId),
}

/// What was done, in the order it was asked for.
#[derive(Debug)]
pub(crate) enum Done {
    Kept { task: TaskId, result: Vec<u8> },
    NotKept { task: TaskId, result: Vec<u8>, error: io::Error },
    Loaded { task: TaskId, result: io::Result<Vec<u8>> },
}

/// The spool at work. The orders that wait are bounded by the tasks the owner holds.
#[derive(Debug)]
pub(crate) struct Keeper {
    orders: Option<blocking::Sender<Order>>,
    done: mpsc::UnboundedReceiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(crate) fn start(spool: Spool) -> io::Result<Self> {
        let (orders, inbox) = blocking::channel();
        let (outbox, done) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("spool".to_owned()).spawn(move || {
            for order in inbox {
                let answer = match order {
                    Order::Keep { task, result } => match spool.keep(task, &result) {
                        Ok(()) => Done::Kept { task, result },
                        Err(error) => Done::NotKept { task, result, error },
                    },
                    Order::Load(task) => Done::Loaded { task, result: spool.read(task) },
                    Order::Forget(task) => {
                        if let Err(error) = spool.forget(task) {
                            // It is sent once more at the next start, and the service knows it.
                            tracing::warn!(%task, %error, "a result that was sent could not be removed");
                        }
                        continue;
                    }
                };
                // An owner that has gone needs no answer; what is kept is kept.
                let _ = outbox.send(answer);
            }
        })?;
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

    pub(crate) async fn done(&mut self) -> Option<Done> {
        self.done.recv().await
    }

    /// Finishes what was asked for.
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
