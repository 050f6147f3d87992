//! The shared file of a run's most recent results. It is only appended to: most results are confirmed so soon that a file of
//! their own would cost more than everything else about a task.
//!
//! ```text
//! | task (16) | length (4, BE) | the result |  and the next
//! ```
//!
//! When every result in it is confirmed, the file is emptied; if it grows long before that, the unconfirmed results are moved to
//! files of their own.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;
use wire::message::TaskResult;
use wire::{RunId, TaskId};

/// The beginning of these files' names; the run's id follows.
const NAME: &str = ".recent";

const HEAD: usize = 20;
/// Emptying a short file is not worth the call.
const WORTH_EMPTYING: u64 = 1 << 20;
/// At this size the unconfirmed results are moved out.
const LONG: u64 = 32 << 20;

/// The file, and the position of each unconfirmed result in it.
#[derive(Debug)]
pub(super) struct Recent {
    file: File,
    path: PathBuf,
    size: u64,
    positions: HashMap<TaskId, (u64, usize)>,
}

impl Recent {
    /// Creates this run's file in `directory`.
    pub(super) fn create(directory: &Path, run: RunId) -> io::Result<Self> {
        let path = directory.join(format!("{NAME}-{run}"));
        let file = OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path, size: 0, positions: HashMap::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends results, all or none.
    pub(super) fn append(&mut self, results: &[(TaskId, Vec<u8>)]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(results.iter().map(|(_, result)| result.len() + HEAD).sum());
        let mut positions = Vec::with_capacity(results.len());
        for (task, result) in results {
            let length = u32::try_from(result.len()).map_err(io::Error::other)?;
            bytes.extend_from_slice(task.as_uuid().as_bytes());
            bytes.extend_from_slice(&length.to_be_bytes());
            positions.push((*task, (self.size + bytes.len() as u64, result.len())));
            bytes.extend_from_slice(result);
        }
        if let Err(error) = self.file.write_all(&bytes) {
            // An incomplete record would hide those that follow.
            self.file.set_len(self.size)?;
            return Err(error);
        }
        self.size += bytes.len() as u64;
        self.positions.extend(positions);
        Ok(())
    }

    /// Reads a result; `None` if it is not in the file.
    pub(super) fn read(&self, task: TaskId) -> Option<io::Result<Vec<u8>>> {
        let (offset, length) = *self.positions.get(&task)?;
        let mut bytes = vec![0; length];
        Some(self.file.read_exact_at(&mut bytes, offset).map(|()| bytes))
    }

    /// Removes a result; false if it was not in the file.
    pub(super) fn forget(&mut self, task: TaskId) -> io::Result<bool> {
        let known = self.positions.remove(&task).is_some();
        if known && self.positions.is_empty() && self.size >= WORTH_EMPTYING {
            self.empty()?;
        }
        Ok(known)
    }

    pub(super) fn is_long(&self) -> bool {
        self.size >= LONG
    }

    /// The tasks whose results in the file are unconfirmed.
    pub(super) fn waiting(&self) -> Vec<TaskId> {
        self.positions.keys().copied().collect()
    }

    /// Empties the file. Its unconfirmed results must have been moved.
    pub(super) fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.size = 0;
        self.positions.clear();
        Ok(())
    }
}

/// Whether a file of the spool is a shared file.
pub(super) fn is_recent_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NAME))
}

/// The complete results in a file, up to the first that is incomplete.
pub(super) fn read_results(path: &Path) -> io::Result<Vec<(TaskId, Vec<u8>)>> {
    let bytes = fs::read(path)?;
    let mut results = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((task, result, after)) = first(rest) {
        results.push((task, result.to_vec()));
        rest = after;
    }
    Ok(results)
}

fn first(bytes: &[u8]) -> Option<(TaskId, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let task = TaskId::from_uuid(Uuid::from_slice(head.get(..16)?).ok()?);
    let length = u32::from_be_bytes(head.get(16..)?.try_into().ok()?);
    let (result, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    (TaskResult::decode(result).ok()?.task_id == task).then_some((task, result, after))
}
