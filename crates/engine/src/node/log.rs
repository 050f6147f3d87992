//! Writes the output of workers to one bounded log file per worker, all on one thread.
//!
//! A full file becomes `<name>.1` and a new one begins: the newest output is always kept, and never more than twice
//! the limit. A stalled file system blocks this thread, and in the end a worker that prints more than its pipe holds;
//! the node and its heartbeats never wait.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// The largest file, in bytes.
const MAX_SIZE: u64 = 8 << 20;
/// How many bytes of a worker's output are quoted when it does not start.
const TAIL_LENGTH: u64 = 1024;
/// The most bytes that are read from a worker at once, and how many such chunks may wait for the thread.
const CHUNK: usize = 1 << 16;
const CHUNKS: usize = 64;

enum LogCommand {
    Write {
        path: Arc<PathBuf>,
        bytes: Vec<u8>,
    },
    /// This file is complete.
    Close {
        path: Arc<PathBuf>,
        /// Gets the end of what has been written.
        written: oneshot::Sender<String>,
    },
}

/// The thread that writes the logs. It ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter {
    commands: mpsc::Sender<LogCommand>,
}

impl LogWriter {
    pub(crate) fn start() -> io::Result<Self> {
        let (commands, inbox) = mpsc::channel(CHUNKS);
        std::thread::Builder::new().name("worker-logs".to_owned()).spawn(move || write_logs(inbox))?;
        Ok(Self { commands })
    }

    /// Copies what comes out of `from` to the file at `path`. The task ends when every writer has closed and all is
    /// in the file, and gives the end of it.
    pub(crate) fn copy_output(&self, from: OwnedFd, path: PathBuf) -> io::Result<JoinHandle<String>> {
        let from = pipe::Receiver::from_owned_fd(from)?;
        Ok(tokio::spawn(copy(from, Arc::new(path), self.commands.clone())))
    }
}

async fn copy(from: pipe::Receiver, path: Arc<PathBuf>, commands: mpsc::Sender<LogCommand>) -> String {
    // The file exists from the start: an empty one says that the worker has printed nothing.
    let begun = LogCommand::Write { path: Arc::clone(&path), bytes: Vec::new() };
    if commands.send(begun).await.is_err() {
        return String::new();
    }
    while from.readable().await.is_ok() {
        // There may be many workers, and most print nothing most of the time: a buffer is made when it is needed.
        let mut bytes = Vec::with_capacity(CHUNK);
        match from.try_read_buf(&mut bytes) {
            Ok(1..) => {
                let command = LogCommand::Write { path: Arc::clone(&path), bytes };
                if commands.send(command).await.is_err() {
                    return String::new();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => break,
        }
    }
    let (written, done) = oneshot::channel();
    match commands.send(LogCommand::Close { path, written }).await {
        Ok(()) => done.await.unwrap_or_default(),
        Err(_) => String::new(), // the thread has gone
    }
}

/// Executes the commands. A full disk must not stop a worker: what can't be written is dropped.
fn write_logs(mut inbox: mpsc::Receiver<LogCommand>) {
    let mut logs: HashMap<Arc<PathBuf>, Log> = HashMap::new();
    while let Some(command) = inbox.blocking_recv() {
        match command {
            LogCommand::Write { path, bytes } => {
                if !logs.contains_key(&path)
                    && let Ok(log) = Log::open(path.to_path_buf())
                {
                    logs.insert(Arc::clone(&path), log);
                }
                if let Some(log) = logs.get_mut(&path) {
                    let _ = log.write(&bytes);
                }
            }
            LogCommand::Close { path, written } => {
                logs.remove(&path);
                let _ = written.send(read_tail(&path, TAIL_LENGTH).unwrap_or_default()); // nobody waits for it
            }
        }
        if inbox.is_empty() {
            logs.values_mut().for_each(|log| log.file = None);
        }
    }
}

struct Log {
    path: PathBuf,
    /// Open only while there is something to write, to save a descriptor for each worker.
    file: Option<File>,
    written: u64,
}

impl Log {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(&path)?;
        let written = file.metadata()?.len();
        Ok(Self { path, file: Some(file), written })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.written + bytes.len() as u64 > MAX_SIZE {
            fs::rename(&self.path, self.path.with_added_extension("1"))?;
            self.file = None;
            self.written = 0;
        }
        let file = match &mut self.file {
            Some(file) => file,
            closed => closed.insert(File::options().create(true).append(true).open(&self.path)?),
        };
        file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// The end of a file, of at most `most` bytes. Half a character becomes a replacement character.
fn read_tail(path: &Path, most: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_the_newest_and_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker_0.log");
        let mut log = Log::open(path.clone()).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..40 {
            log.write(&chunk).unwrap();
        }
        log.write(b"last words").unwrap();
        assert!(fs::read(&path).unwrap().ends_with(b"last words"));
        let kept: u64 = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(kept <= 2 * MAX_SIZE, "{kept}");
        assert_eq!(read_tail(&path, 5).unwrap(), "words");
        fs::write(&path, "é").unwrap();
        assert_eq!(read_tail(&path, 1024).unwrap(), "é");
        assert_eq!(read_tail(&path, 1).unwrap(), "\u{fffd}");
    }

    #[tokio::test]
    async fn output_is_in_the_file_when_the_copying_ends() {
        let dir = tempfile::tempdir().unwrap();
        let writer = LogWriter::start().unwrap();
        let (reading, writing) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let path = dir.path().join("worker_0.log");
        let copying = writer.copy_output(reading, path.clone()).unwrap();
        File::from(writing).write_all(b"words").unwrap();
        copying.await.unwrap();
        assert_eq!(fs::read(path).unwrap(), b"words");
    }

    /// The log file is a pipe: writing blocks until somebody reads.
    #[tokio::test]
    async fn a_stalled_log_file_blocks_only_the_worker() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker_0.log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut file = File::options().read(true).write(true).open(&path).unwrap();
        let writer = LogWriter::start().unwrap();
        let (reading, writing) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let copying = writer.copy_output(reading, path.clone()).unwrap();
        let printing = tokio::task::spawn_blocking(move || {
            let _ = File::from(writing).write_all(&vec![b'x'; 16 << 20]);
        });
        // This thread goes on; only the printing process waits, and memory is bounded.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert!(!printing.is_finished() && !copying.is_finished());
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            let mut buffer = vec![0; CHUNK];
            while file.read(&mut buffer).is_ok() {}
        });
        printing.await.unwrap();
        copying.await.unwrap();
    }
}
