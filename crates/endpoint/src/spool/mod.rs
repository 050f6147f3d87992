//! Keeps results on disk, in `unacked_results/`, until the broker has confirmed them.
//!
//! A file named by a task contains its result exactly as it is published, so results that upstream's endpoint left there are sent
//! too. The most recent results share one file ([`recent`]). Other names that begin with a dot are temporary files. A result is
//! written before it is published, and not synced: it survives the end of this process, even SIGKILL. After a power loss the
//! journal still knows that the task began.

mod io_thread;
mod recent;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use wire::TaskId;
use wire::message::TaskResult;

pub(crate) use io_thread::{SpoolEvent, SpoolThread};

/// The directory of results.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    directory: PathBuf,
}

/// Larger files are not read: no result is as large.
const FILE_LIMIT: u64 = wire::message::LIMIT as u64;

impl Spool {
    /// Opens the directory, or creates it, and tests that files in it can be written, read, listed and removed: an endpoint that
    /// can't keep results must not take tasks.
    pub(crate) fn open(directory: PathBuf) -> io::Result<Self> {
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let spool = Self { directory };
        let test = spool.directory.join(".test-reading-and-writing.txt");
        let text = b"written to see that results can be kept here";
        write(&test, text)?;
        let read = fs::read(&test)?;
        let listed = fs::read_dir(&spool.directory)?.filter_map(Result::ok).any(|entry| entry.path() == test);
        fs::remove_file(&test)?;
        if read != text || !listed {
            return Err(io::Error::other("what was written can't be read again"));
        }
        Ok(spool)
    }

    /// Moves the results that earlier runs left in their shared files to files of their own, except those of tasks that have
    /// `ended`. With `leave`, the shared files stay: a suspended run may still write to its own.
    pub(crate) fn adopt(&self, leave: bool, ended: impl Fn(TaskId) -> io::Result<bool>) -> io::Result<()> {
        for path in self.shared_files()? {
            for (task, result) in recent::read_results(&path)? {
                if !ended(task)? {
                    self.keep(task, &result)?;
                }
            }
            if !leave {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Which of these tasks have a result by now; moves each to a file of its own. `own` is this run's shared file; `read` are the
    /// lengths at which the others were read before.
    fn find(
        &self,
        wanted: &[TaskId],
        own: &Path,
        read: &mut HashMap<PathBuf, u64>,
    ) -> io::Result<Vec<TaskId>> {
        let missing: HashSet<_> = wanted.iter().copied().collect();
        for path in self.shared_files()?.into_iter().filter(|path| path != own) {
            let length = fs::metadata(&path)?.len();
            if read.get(&path) == Some(&length) {
                continue;
            }
            for (task, result) in recent::read_results(&path)? {
                if missing.contains(&task) {
                    self.keep(task, &result)?;
                }
            }
            read.insert(path, length);
        }
        Ok(wanted.iter().copied().filter(|task| holds_result_of(&self.path(*task), *task)).collect())
    }

    /// Removes the shared files of other runs.
    fn remove_others(&self, own: &Path) -> io::Result<()> {
        self.shared_files()?.iter().filter(|path| *path != own).try_for_each(fs::remove_file)
    }

    /// The shared files of all runs.
    fn shared_files(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if recent::is_recent_file(&path) {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// Writes a result atomically.
    pub(crate) fn keep(&self, task: TaskId, message: &[u8]) -> io::Result<()> {
        let draft = self.directory.join(format!(".{task}"));
        write(&draft, message).inspect_err(|_| {
            // An incomplete temporary file must not take space.
            let _ = fs::remove_file(&draft);
        })?;
        fs::rename(&draft, self.path(task))
    }

    /// Removes a result: the broker has it.
    pub(crate) fn forget(&self, task: TaskId) -> io::Result<()> {
        match fs::remove_file(self.path(task)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads a result.
    pub(crate) fn read(&self, task: TaskId) -> io::Result<Vec<u8>> {
        read(&self.path(task))
    }

    /// The tasks whose results are in the directory. Other files are left alone and logged.
    pub(crate) fn tasks(&self) -> io::Result<Vec<TaskId>> {
        let mut tasks = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if recent::is_recent_file(&path) {
                continue;
            }
            if name.starts_with('.') {
                // A temporary file of a run that was killed; the task counts as lost.
                let _ = fs::remove_file(&path);
                continue;
            }
            match name.parse::<TaskId>().ok().filter(|task| holds_result_of(&path, *task)) {
                Some(task) => tasks.push(task),
                None => {
                    tracing::warn!(path = %path.display(), "not the result of a task; the file is left alone")
                }
            }
        }
        tasks.sort();
        Ok(tasks)
    }

    fn path(&self, task: TaskId) -> PathBuf {
        self.directory.join(task.to_string())
    }
}

fn holds_result_of(path: &Path, task: TaskId) -> bool {
    read(path).is_ok_and(|bytes| TaskResult::decode(&bytes).is_ok_and(|result| result.task_id == task))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path)?.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
    if read as u64 > FILE_LIMIT {
        return Err(io::Error::other("larger than any result"));
    }
    Ok(bytes)
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Text;

    fn message(task: TaskId) -> Vec<u8> {
        let data = Text::plain("00\ngARLAy4=\n");
        TaskResult { task_id: task, data, details: None, error_details: None, task_statuses: None }.encode()
    }

    #[test]
    fn a_result_is_kept_until_it_is_forgotten() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("unacked_results");
        let spool = Spool::open(directory.clone()).unwrap();
        let task = TaskId::from_uuid(uuid::Uuid::from_u128(7));
        spool.keep(task, &message(task)).unwrap();
        let spool = Spool::open(directory.clone()).unwrap();
        assert_eq!(spool.tasks().unwrap(), [task]);
        assert_eq!(spool.read(task).unwrap(), message(task));
        assert_eq!(
            fs::read(directory.join(task.to_string())).unwrap(),
            message(task),
            "upstream could send it"
        );
        spool.forget(task).unwrap();
        spool.forget(task).unwrap();
        assert_eq!(spool.tasks().unwrap(), []);
    }

    #[test]
    fn other_files_are_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let spool = Spool::open(scratch.path().to_owned()).unwrap();
        let task = TaskId::from_uuid(uuid::Uuid::from_u128(7));
        let other = TaskId::from_uuid(uuid::Uuid::from_u128(8));
        fs::write(scratch.path().join("notes.txt"), "hello").unwrap();
        fs::write(scratch.path().join(task.to_string()), &message(task)[..20]).unwrap();
        fs::write(scratch.path().join(other.to_string()), message(task)).unwrap();
        fs::write(scratch.path().join(format!(".{task}")), "draft").unwrap();
        assert_eq!(spool.tasks().unwrap(), []);
        assert!(!scratch.path().join(format!(".{task}")).exists(), "a draft of an earlier run is removed");
        assert!(scratch.path().join("notes.txt").exists());
    }

    fn task(number: u128) -> TaskId {
        TaskId::from_uuid(uuid::Uuid::from_u128(number))
    }

    /// A running spool thread. Unless it is closed, it leaves what SIGKILL leaves.
    fn spool_thread(directory: &Path) -> SpoolThread {
        let run = crate::random::run_id();
        SpoolThread::start(Spool::open(directory.to_owned()).unwrap(), run).unwrap()
    }

    async fn kept(spool_thread: &mut SpoolThread, numbers: &[u128]) {
        for number in numbers {
            spool_thread.keep(task(*number), message(task(*number)));
        }
        for number in numbers {
            match spool_thread.event().await {
                Some(SpoolEvent::Kept { task: known, result }) => {
                    assert_eq!((known, result), (task(*number), message(task(*number))));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn unconfirmed_results_get_files_of_their_own_at_the_end() {
        let scratch = tempfile::tempdir().unwrap();
        let mut spool_thread = spool_thread(scratch.path());
        kept(&mut spool_thread, &[1, 2, 3]).await;
        spool_thread.load(task(2));
        assert!(
            matches!(spool_thread.event().await, Some(SpoolEvent::Loaded { result: Ok(bytes), .. }) if bytes == message(task(2)))
        );
        spool_thread.forget(task(1));
        spool_thread.forget(task(9));
        spool_thread.close();
        let spool = Spool::open(scratch.path().to_owned()).unwrap();
        assert_eq!(spool.tasks().unwrap(), [task(2), task(3)]);
        assert_eq!(spool.read(task(3)).unwrap(), message(task(3)));
    }

    #[tokio::test]
    async fn results_of_a_killed_run_are_adopted_except_for_ended_tasks() {
        let scratch = tempfile::tempdir().unwrap();
        let mut killed = spool_thread(scratch.path());
        kept(&mut killed, &[1, 2, 3]).await;
        std::mem::forget(killed);
        let spool = Spool { directory: scratch.path().to_owned() };
        let recent = spool.shared_files().unwrap().remove(0);
        let whole = fs::read(&recent).unwrap();
        for torn in 0..=whole.len() {
            fs::write(&recent, &whole[..torn]).unwrap();
            assert!(recent::read_results(&recent).unwrap().len() <= 3, "{torn} bytes");
        }
        fs::write(&recent, [&whole[..], &[0; 50]].concat()).unwrap();
        let spool = Spool::open(scratch.path().to_owned()).unwrap();
        assert_eq!(spool.tasks().unwrap(), [], "not before they are adopted");
        spool.adopt(false, |ended| Ok(ended == task(2))).unwrap();
        assert_eq!(spool.tasks().unwrap(), [task(1), task(3)]);
        assert!(!recent.exists());
        // The next spool thread reads them from their files.
        let mut spool_thread = spool_thread(scratch.path());
        spool_thread.load(task(1));
        assert!(
            matches!(spool_thread.event().await, Some(SpoolEvent::Loaded { result: Ok(bytes), .. }) if bytes == message(task(1)))
        );
        spool_thread.forget(task(1));
        spool_thread.close();
        assert_eq!(spool.tasks().unwrap(), [task(3)]);
    }

    #[tokio::test]
    async fn a_long_file_is_emptied_early() {
        let scratch = tempfile::tempdir().unwrap();
        let mut spool_thread = spool_thread(scratch.path());
        let data = "x".repeat(4 << 20);
        let long = |number| {
            let data = Text::plain(data.as_str());
            TaskResult {
                task_id: task(number),
                data,
                details: None,
                error_details: None,
                task_statuses: None,
            }
            .encode()
        };
        for number in 1..=9 {
            spool_thread.keep(task(number), long(number));
            spool_thread.event().await;
            if number > 1 {
                spool_thread.forget(task(number));
            }
        }
        spool_thread.load(task(1));
        assert!(
            matches!(spool_thread.event().await, Some(SpoolEvent::Loaded { result: Ok(bytes), .. }) if bytes == long(1))
        );
        let spool = Spool { directory: scratch.path().to_owned() };
        assert!(fs::metadata(&spool.shared_files().unwrap()[0]).unwrap().len() < 10 << 20);
        spool_thread.close();
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        Spool::open(file.join("below")).unwrap_err();
        Spool::open(file).unwrap_err();
    }
}
