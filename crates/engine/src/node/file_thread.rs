//! The thread on which a node makes the calls that a stalled file system can block: it starts worker processes, because
//! `exec` reads the interpreter, and it removes directories.
//!
//! The node's own thread sends heartbeats and must not wait for files. This thread lives as long as the node, because a
//! worker's parent-death signal is bound to the thread that started it: the worker dies when this thread ends.

use std::io;
use std::sync::mpsc;

use tokio::runtime::Handle;

type Call = Box<dyn FnOnce() + Send>;

/// Hands calls to the thread, which makes one after another. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct FileThread {
    calls: mpsc::Sender<Call>,
}

impl FileThread {
    /// Starts the thread. Its calls may use the runtime that this is called on.
    pub(super) fn start() -> io::Result<Self> {
        let (calls, inbox) = mpsc::channel::<Call>();
        let runtime = Handle::current();
        std::thread::Builder::new().name("worker-files".to_owned()).spawn(move || {
            let _entered = runtime.enter();
            inbox.into_iter().for_each(|call| call());
        })?;
        Ok(Self { calls })
    }

    pub(super) fn run(&self, call: impl FnOnce() + Send + 'static) {
        let _ = self.calls.send(Box::new(call)); // the thread ends after this sender
    }
}
