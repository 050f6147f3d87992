//! Records on disk which tasks began and which ended.
//!
//! Each run of the endpoint writes its own segments, so an incomplete record (after SIGKILL or a power loss) is always the last of
//! its segment. The record that a task begins is on disk before the task goes to a worker; that of its end follows once the broker
//! has confirmed its result. At the next start, a task that began and did not end counts as lost, unless its result is in the
//! spool.
//!
//! ```text
//! begun, ended, returned --> segment --is full, or its run is over--> [`Ended`]: sorted ids, kept [`KEPT`]
//!                               |
//!                               +--open tasks--> the head of the next segment
//! ```
//!
//! The ids of ended tasks are in memory until their segment is full, and on disk for as long as their messages could be delivered
//! again. A [`Filter`] of constant size saves nearly every new task the look-up.

mod ended;
mod filter;
mod record;
mod writer;

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wire::{RunId, TaskId};

pub(crate) use ended::Ended;
pub(crate) use filter::Filter;
pub(crate) use writer::{Journal, JournalEvent};

use record::{Kind, RECORD, Record};

/// How long a task is remembered after its end.
pub(crate) const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Returns the time since 1970.
pub(crate) type Clock = fn() -> Duration;

/// Whether this process still owns the endpoint: it may have been superseded while it was suspended.
pub(crate) type Fence = Box<dyn Fn() -> bool + Send>;

/// What earlier runs left behind.
#[derive(Debug, Default)]
pub(crate) struct EarlierRuns {
    /// Tasks that began and whose end is not known.
    pub(crate) open: HashSet<TaskId>,
    /// Tasks that ended.
    pub(crate) ended: Ended,
    /// Contains every task that ended.
    pub(crate) filter: Filter,
}

/// The content of earlier runs' segments.
#[derive(Debug, Default)]
struct Segments {
    /// Oldest first.
    paths: Vec<PathBuf>,
    open: HashSet<TaskId>,
    ended: HashSet<TaskId>,
    /// When the last record was written, in seconds since 1970.
    newest: u32,
}

/// Opens the journal in `directory`: reads the records of earlier runs, begins a segment of this run, and removes tasks whose
/// retention is over.
pub(crate) fn open(
    directory: &Path,
    run: RunId,
    clock: Clock,
    fence: Fence,
) -> io::Result<(Journal, EarlierRuns)> {
    let now = clock();
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let segments = read(directory)?;
    let (mut ended, mut filter) = Ended::open(directory, now)?;
    let closed = if ended::is_over(segments.newest, now) { HashSet::new() } else { segments.ended };
    closed.iter().for_each(|task| filter.insert(*task));
    ended.gather(run, segments.newest, closed.into_iter().collect())?;
    // The ended tasks of the old segments are in a list now, and the new segment begins with their open tasks.
    let journal = Journal::start(directory.to_owned(), run, (clock, fence), &segments.open, ended.clone())?;
    // Removed oldest first, so that the rest never contains a beginning without its end.
    for path in segments.paths {
        fs::remove_file(path)?;
    }
    Ok((journal, EarlierRuns { open: segments.open, ended, filter }))
}

/// Reads all segments, oldest first.
fn read(directory: &Path) -> io::Result<Segments> {
    let mut found = Segments::default();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == writer::EXTENSION) {
            found.paths.push(path);
        }
    }
    // Their names begin with the time of their creation.
    found.paths.sort();
    for path in &found.paths {
        let mut bytes = Vec::new();
        fs::File::open(path)?.read_to_end(&mut bytes)?;
        for record in records(&bytes) {
            found.newest = found.newest.max(record.seconds);
            match record.kind {
                Kind::Run(_) => {}
                Kind::Begun(task) => {
                    // The record of an end may precede a record of the beginning that was carried over.
                    if !found.ended.contains(&task) {
                        found.open.insert(task);
                    }
                }
                Kind::Returned(task) => {
                    found.open.remove(&task);
                }
                Kind::Ended(task) => {
                    found.open.remove(&task);
                    found.ended.insert(task);
                }
            }
        }
    }
    Ok(found)
}

/// The records of a segment, up to the first that is damaged.
fn records(bytes: &[u8]) -> impl Iterator<Item = Record> {
    bytes.chunks_exact(RECORD).map_while(|chunk| Record::decode(chunk.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn now() -> Duration {
        Duration::from_secs(1_795_000_000)
    }

    /// When nothing of `now` is needed any more.
    fn late() -> Duration {
        now() + KEPT + Duration::from_secs(1)
    }

    fn task(number: u128) -> TaskId {
        TaskId::from_uuid(Uuid::from_u128(number))
    }

    fn run(number: u128) -> RunId {
        RunId::from_uuid(Uuid::from_u128(number))
    }

    fn tasks(numbers: &[u128]) -> HashSet<TaskId> {
        numbers.iter().map(|number| task(*number)).collect()
    }

    /// Writes as a run does, and leaves as SIGKILL leaves: whatever was synced is there.
    fn live(directory: &Path, number: u128, clock: Clock, begun: &[u128], ended: &[u128]) -> EarlierRuns {
        let (mut journal, earlier_runs) = open(directory, run(number), clock, Box::new(|| true)).unwrap();
        journal.begin(begun.iter().map(|number| task(*number)).collect());
        if !begun.is_empty() {
            assert_eq!(
                journal.event_blocking(),
                JournalEvent::Begun(begun.iter().map(|n| task(*n)).collect())
            );
        }
        journal.end(ended.iter().map(|number| task(*number)).collect());
        journal.close();
        earlier_runs
    }

    /// Of the first numbers, those that ended.
    fn ended(earlier_runs: &EarlierRuns) -> Vec<u128> {
        (0..10)
            .filter(|number| {
                let ended = earlier_runs.ended.contains(task(*number)).unwrap();
                assert!(!ended || earlier_runs.filter.may_hold(task(*number)));
                ended
            })
            .collect()
    }

    /// What is written next, but for ends.
    fn next(journal: &mut Journal) -> JournalEvent {
        loop {
            match journal.event_blocking() {
                JournalEvent::Ended(_) => {}
                other => return other,
            }
        }
    }

    fn asked(journal: &mut Journal, number: u128) -> bool {
        journal.look_up(task(number));
        match next(journal) {
            JournalEvent::LookedUp { task: about, known } if about == task(number) => known,
            other => panic!("{other:?}"),
        }
    }

    fn files(directory: &Path, extension: &str) -> usize {
        let all = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        all.filter(|path| path.extension().is_some_and(|it| it == extension)).count()
    }

    #[test]
    fn the_next_run_knows_the_open_tasks() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("journal");
        let earlier_runs = live(&directory, 1, now, &[1, 2, 3], &[2]);
        assert_eq!((earlier_runs.open.len(), ended(&earlier_runs)), (0, vec![]));
        let earlier_runs = live(&directory, 2, now, &[4], &[1, 4]);
        assert_eq!((earlier_runs.open.clone(), ended(&earlier_runs)), (tasks(&[1, 3]), vec![2]));
        let earlier_runs = live(&directory, 3, now, &[], &[]);
        assert_eq!((earlier_runs.open.clone(), ended(&earlier_runs)), (tasks(&[3]), vec![1, 2, 4]));
        assert_eq!(
            (files(&directory, "segment"), files(&directory, "ended")),
            (1, 1),
            "runs leave few files"
        );
    }

    #[test]
    fn a_returned_task_may_begin_again() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("journal");
        let (mut journal, _) = open(&directory, run(1), now, Box::new(|| true)).unwrap();
        journal.begin(vec![task(1), task(2)]);
        journal.event_blocking();
        journal.hand_back(vec![task(1), task(2)]);
        assert!(!asked(&mut journal, 1));
        journal.begin(vec![task(2)]);
        journal.event_blocking();
        assert!(asked(&mut journal, 2), "what began is never to begin again");
        journal.close();
        let found = read(&directory).unwrap();
        assert_eq!((found.open, found.ended), (tasks(&[2]), HashSet::new()));
    }

    #[test]
    fn an_incomplete_record_ends_only_its_segment() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("journal");
        live(&directory, 1, now, &[1, 2], &[]);
        let path = fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&path).unwrap();
        for keep in 0..=whole.len() {
            let mut torn = whole[..keep].to_vec();
            // A power loss may leave zeros where the file was lengthened and never written.
            torn.extend_from_slice(&[0; 100]);
            fs::write(&path, &torn).unwrap();
            let complete = keep / RECORD;
            assert_eq!(
                read(&directory).unwrap().open.len(),
                complete.saturating_sub(1).min(2),
                "{keep} bytes"
            );
        }
        let earlier_runs = live(&directory, 2, now, &[3], &[]);
        assert_eq!(earlier_runs.open, tasks(&[1, 2]));
        assert_eq!(read(&directory).unwrap().open, tasks(&[1, 2, 3]), "the new run's segment is whole");
    }

    #[test]
    fn old_ended_tasks_are_removed_and_open_tasks_are_not() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("journal");
        live(&directory, 1, now, &[1, 2], &[2]);
        assert_eq!(ended(&live(&directory, 2, now, &[], &[])), [2]);
        assert_eq!(files(&directory, "ended"), 1);
        let earlier_runs = live(&directory, 3, late, &[], &[]);
        assert_eq!((earlier_runs.open.clone(), ended(&earlier_runs)), (tasks(&[1]), vec![]));
        assert_eq!((files(&directory, "segment"), files(&directory, "ended")), (1, 0));
    }

    #[test]
    fn damaged_lists_of_ended_tasks_are_reported_and_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("journal");
        live(&directory, 1, now, &[1, 2], &[1, 2]);
        live(&directory, 2, now, &[], &[]);
        let path = |extension: &str| {
            let all = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
            all.into_iter().find(|path| path.extension().is_some_and(|it| it == extension)).unwrap()
        };
        let list = path("ended");
        let whole = fs::read(&list).unwrap();
        assert_eq!(whole.len(), 2 * 16 + 8);
        for (number, torn) in (3..).zip([&whole[..0], &whole[..39], &[0; 40][..]]) {
            fs::write(&list, torn).unwrap();
            assert_eq!(ended(&live(&directory, number, now, &[], &[])), [0_u128; 0]);
            assert!(list.exists());
        }
    }

    /// A million tasks, and the endpoint that ran them holds no more than before.
    #[test]
    fn ended_tasks_take_no_memory_and_are_known_for_days() {
        const ALL: u128 = 1_000_000;
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("journal");
        let (mut journal, _) = open(&directory, run(1), now, Box::new(|| true)).unwrap();
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let mut through = |numbers: std::ops::Range<u128>| {
            for from in numbers.step_by(20_000) {
                let batch: Vec<_> = (from..from + 20_000).map(task).collect();
                journal.begin(batch.clone());
                next(&mut journal);
                journal.end(batch);
            }
            assert!(asked(&mut journal, 0), "what ended first is known");
        };
        through(0..200_000);
        let before = resident();
        through(200_000..ALL);
        let grown = resident().saturating_sub(before);
        // Held in memory, 800,000 ids took five times as much.
        assert!(grown < 6_000, "{grown} kB more after a million tasks");
        assert!(asked(&mut journal, ALL / 2) && asked(&mut journal, ALL - 1) && !asked(&mut journal, ALL));
        journal.close();
        let (mut journal, earlier_runs) = open(&directory, run(2), now, Box::new(|| true)).unwrap();
        assert!(earlier_runs.open.is_empty());
        for number in [0, ALL / 3, ALL - 1] {
            assert!(
                earlier_runs.ended.contains(task(number)).unwrap()
                    && earlier_runs.filter.may_hold(task(number))
            );
            assert!(asked(&mut journal, number));
        }
        journal.close();
        let on_disk: u64 =
            fs::read_dir(&directory).unwrap().map(|it| it.unwrap().metadata().unwrap().len()).sum();
        assert!(on_disk < 17_000_000, "{on_disk} bytes for a million tasks");
    }

    proptest! {
        /// Reading arbitrary bytes never panics and never goes past a damaged record.
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(records(&bytes).count() <= bytes.len() / RECORD);
        }

        #[test]
        fn a_record_can_be_read_and_a_flipped_bit_is_detected(number: u128, seconds: u32, bit in 0..RECORD * 8, kind in 0..4) {
            let kind = match kind {
                0 => Kind::Run(run(number)),
                1 => Kind::Begun(task(number)),
                2 => Kind::Returned(task(number)),
                _ => Kind::Ended(task(number)),
            };
            let record = Record { kind, seconds };
            let mut bytes = record.encode();
            prop_assert_eq!(Record::decode(&bytes), Some(record));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Record::decode(&bytes), None);
        }
    }

    #[test]
    fn a_journal_of_another_process_is_not_written() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("journal");
        let (mut journal, _) = open(&directory, run(1), now, Box::new(|| false)).unwrap();
        let segment = || {
            let path = fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
            fs::read(path).unwrap()
        };
        let before = segment();
        journal.begin(vec![task(1)]);
        assert_eq!(journal.event_blocking(), JournalEvent::Superseded);
        journal.end(vec![task(2)]);
        assert_eq!(journal.close(), []);
        assert_eq!(segment(), before);
    }
}
