//! The ids of ended tasks on disk: sorted lists in files that are never changed. A look-up takes a few reads and no memory.
//!
//! ```text
//! SECONDS-RUN-NUMBER.ended:  | id (16) | id (16) | ... | checksum (8, BE) |
//! ```
//!
//! SECONDS is when the newest task in it ended: a file is removed when its retention is over ([`KEPT`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;
use wire::{RunId, TaskId};

use super::record::checksum;
use super::{Filter, KEPT};

const EXTENSION: &str = "ended";
const ID: usize = 16;
const SUM: usize = 8;
/// Files with fewer ids are merged at the next start.
const FEW: u64 = 4096;

/// The files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    directory: PathBuf,
    indexes: Vec<Index>,
}

#[derive(Clone, Debug)]
struct Index {
    path: PathBuf,
    /// In seconds since 1970.
    newest: u32,
    count: u64,
    first: u128,
    last: u128,
}

impl Ended {
    /// Reads the files in `directory` into a filter, and removes those whose retention is over.
    pub(super) fn open(directory: &Path, now: Duration) -> io::Result<(Self, Filter)> {
        let mut filter = Filter::default();
        let mut indexes = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') {
                // A temporary file of a run that was killed; its segment still exists.
                fs::remove_file(&path)?;
                continue;
            }
            let ids = newest_of(&name).and_then(|newest| Some((newest, ids(&fs::read(&path).ok()?)?)));
            let Some((newest, ids)) = ids else {
                tracing::error!(path = %path.display(), "not a list of ended tasks; the file is left alone");
                continue;
            };
            for id in &ids {
                filter.insert(*id);
            }
            indexes.extend(Index::of(path, newest, &ids));
        }
        let mut ended = Self { directory: directory.to_owned(), indexes };
        ended.expire(now)?;
        Ok((ended, filter))
    }

    /// Whether a task ended.
    pub(crate) fn contains(&self, task: TaskId) -> io::Result<bool> {
        let wanted = task.as_uuid().as_u128();
        for index in &self.indexes {
            if (index.first..=index.last).contains(&wanted) && index.contains(wanted)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds ended tasks; `newest` is when the last of them ended.
    pub(super) fn add(
        &mut self,
        run: RunId,
        number: u32,
        newest: u32,
        mut tasks: Vec<TaskId>,
    ) -> io::Result<()> {
        tasks.sort_unstable();
        tasks.dedup();
        let path = self.directory.join(format!("{newest:010}-{run}-{number:06}.{EXTENSION}"));
        let draft = self.directory.join(format!(".{newest:010}-{run}-{number:06}.{EXTENSION}"));
        let mut bytes = Vec::with_capacity(tasks.len() * ID + SUM);
        tasks.iter().for_each(|task| bytes.extend_from_slice(task.as_uuid().as_bytes()));
        bytes.extend_from_slice(&checksum(&bytes).to_be_bytes());
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        fs::rename(&draft, &path)?;
        File::open(&self.directory)?.sync_all()?;
        self.indexes.extend(Index::of(path, newest, &tasks));
        Ok(())
    }

    /// Merges files with few ids and `tasks` into one file, so that many short runs leave few files.
    pub(super) fn gather(&mut self, run: RunId, mut newest: u32, mut tasks: Vec<TaskId>) -> io::Result<()> {
        let (short, long): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.indexes).into_iter().partition(|index| index.count < FEW);
        self.indexes = long;
        if let ([alone], []) = (short.as_slice(), tasks.as_slice()) {
            self.indexes.push(alone.clone());
            return Ok(());
        }
        for index in &short {
            newest = newest.max(index.newest);
            tasks.extend(ids(&fs::read(&index.path)?).unwrap_or_default());
        }
        if !tasks.is_empty() {
            self.add(run, 0, newest, tasks)?;
        }
        short.iter().try_for_each(|index| fs::remove_file(&index.path))
    }

    /// Removes the files whose retention is over.
    pub(super) fn expire(&mut self, now: Duration) -> io::Result<()> {
        for index in &self.indexes {
            if is_over(index.newest, now) {
                fs::remove_file(&index.path)?;
            }
        }
        self.indexes.retain(|index| !is_over(index.newest, now));
        Ok(())
    }
}

/// Whether the retention of tasks is over that ended at this second.
pub(super) fn is_over(newest: u32, now: Duration) -> bool {
    Duration::from_secs(u64::from(newest)) + KEPT < now
}

impl Index {
    fn of(path: PathBuf, newest: u32, sorted: &[TaskId]) -> Option<Self> {
        let id = |task: &TaskId| task.as_uuid().as_u128();
        let (first, last) = (id(sorted.first()?), id(sorted.last()?));
        Some(Self { path, newest, count: sorted.len() as u64, first, last })
    }

    fn contains(&self, wanted: u128) -> io::Result<bool> {
        let file = File::open(&self.path)?;
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut id = [0; ID];
            file.read_exact_at(&mut id, middle * ID as u64)?;
            match u128::from_be_bytes(id).cmp(&wanted) {
                std::cmp::Ordering::Equal => return Ok(true),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(false)
    }
}

fn newest_of(name: &str) -> Option<u32> {
    name.split_once('-')?.0.parse().ok()
}

/// The ids in a file; `None` if it is damaged.
fn ids(bytes: &[u8]) -> Option<Vec<TaskId>> {
    let (ids, sum) = bytes.split_last_chunk::<SUM>()?;
    if ids.len() % ID != 0 || checksum(ids).to_be_bytes() != *sum {
        return None;
    }
    let id = |chunk: &[u8]| Some(TaskId::from_uuid(Uuid::from_bytes(chunk.try_into().ok()?)));
    let ids: Vec<_> = ids.chunks_exact(ID).map(id).collect::<Option<_>>()?;
    ids.is_sorted().then_some(ids)
}
