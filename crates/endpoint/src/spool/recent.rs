//! The results of the last moments, in one file of this run that only grows: most are confirmed so soon that a file of their own
//! would cost more than all the rest of a task.
//!
//! ```text
//! | task (16) | length (4, BE) | the result |  and the next
//! ```
//!
//! When every result in it is confirmed, the file is emptied; when it grows long all the same, those that still wait
//! get files of their own.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;
use wire::message::TaskResult;
use wire::{RunId, TaskId};

/// How the names of these files begin; the run follows.
const NAME: &str = ".recent";

const HEAD: usize = 20;
/// Emptying a short file is not worth the call.
const WORTH_EMPTYING: u64 = 1 << 20;
/// Beyond it, what still waits moves out.
const LONG: u64 = 32 << 20;

/// The file and where in it each unconfirmed result lies.
#[derive(Debug)]
pub(super) struct Recent {
    file: File,
    path: PathBuf,
    size: u64,
    places: HashMap<TaskId, (u64, usize)>,
}

impl Recent {
    /// Begins this run's file in `directory`.
    pub(super) fn create(directory: &Path, run: RunId) -> io::Result<Self> {
        let path = directory.join(format!("{NAME}-{run}"));
        let file = OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path, size: 0, places: HashMap::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes results, all or none.
    pub(super) fn append(&mut self, results: &[(TaskId, Vec<u8>)]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(results.iter().map(|(_, result)| result.len() + HEAD).sum());
        let mut places = Vec::with_capacity(results.len());
        for (task, result) in results {
            let length = u32::try_from(result.len()).map_err(io::Error::other)?;
            bytes.extend_from_slice(task.as_uuid().as_bytes());
            bytes.extend_from_slice(&length.to_be_bytes());
            places.push((*task, (self.size + bytes.len() as u64, result.len())));
            bytes.extend_from_slice(result);
        }
        if let Err(error) = self.file.write_all(&bytes) {
            // Half a record would hide those that follow.
            self.file.set_len(self.size)?;
            return Err(error);
        }
        self.size += bytes.len() as u64;
        self.places.extend(places);
        Ok(())
    }

    /// Reads a result again; `None`: it is not here.
    pub(super) fn read(&self, task: TaskId) -> Option<io::Result<Vec<u8>>> {
        let (offset, length) = *self.places.get(&task)?;
        let mut bytes = vec![0; length];
        Some(self.file.read_exact_at(&mut bytes, offset).map(|()| bytes))
    }

    /// The result is not needed any more. False: it was not here.
    pub(super) fn forget(&mut self, task: TaskId) -> io::Result<bool> {
        let known = self.places.remove(&task).is_some();
        if known && self.places.is_empty() && self.size >= WORTH_EMPTYING {
            self.empty()?;
        }
        Ok(known)
    }

    pub(super) fn is_long(&self) -> bool {
        self.size >= LONG
    }

    /// The tasks whose results still wait here.
    pub(super) fn waiting(&self) -> Vec<TaskId> {
        self.places.keys().copied().collect()
    }

    /// Empties the file: whatever waited in it has a place of its own by now.
    pub(super) fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.size = 0;
        self.places.clear();
        Ok(())
    }
}

/// Whether a file of the spool is one of these.
pub(super) fn is_one(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NAME))
}

/// What a run left in its file: whole results, up to the first that is none.
pub(super) fn left_behind(path: &Path) -> io::Result<Vec<(TaskId, Vec<u8>)>> {
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
