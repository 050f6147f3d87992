//! What workers print: to one bounded file per worker.
//!
//! When a file has reached its bound it becomes `<name>.1` and a new one begins: the newest output is always there
//! and never more than twice the bound is kept.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use tokio::net::unix::pipe;

/// Per file.
const BOUND: u64 = 8 << 20;

pub(crate) struct Log {
    path: PathBuf,
    /// Open while there is something to write: there may be many workers, and most print nothing most of the time.
    file: Option<File>,
    written: u64,
}

impl Log {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(&path)?;
        let written = file.metadata()?.len();
        Ok(Self { path, file: None, written })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.written + bytes.len() as u64 > BOUND {
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

/// Copies until every writer has closed. A full disk must not stop a worker: what can't be written is dropped.
pub(crate) async fn copy(from: pipe::Receiver, mut log: Log) {
    let mut buffer = vec![0; 1 << 16];
    while from.readable().await.is_ok() {
        match from.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => drop(log.write(&buffer[..count])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => log.file = None,
            Err(_) => return,
        }
    }
}

/// The end of a file, of `most` bytes at most; a character that is cut begins with a replacement.
pub(crate) fn tail(path: &Path, most: u64) -> io::Result<String> {
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
        assert!(kept <= 2 * BOUND, "{kept}");
        assert_eq!(tail(&path, 5).unwrap(), "words");
        fs::write(&path, "é").unwrap();
        assert_eq!(tail(&path, 1024).unwrap(), "é");
        assert_eq!(tail(&path, 1).unwrap(), "\u{fffd}");
    }
}
