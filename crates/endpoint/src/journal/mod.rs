//! Which tasks began and which ended, on disk before anybody relies on it.
//!
//! A run of the endpoint writes its own segments; a segment is never written to by two runs, so a torn tail (after
//! SIGKILL or a power loss) only ever ends a segment. A record of a task that began is on disk before the task goes to
//! a worker; that of its end follows when the broker has its result. At the next start, what began and has not ended
//! was lost, unless its result lies in the spool.
//!
//! Segments are kept as long as a message could come again ([`KEPT`]).

mod record;
mod writer;

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wire::{RunId, TaskId};

pub(crate) use writer::{Journal, Written};

use record::{Kind, RECORD, Record};

/// How long a task is remembered after its end.
pub(crate) const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Tells the time since 1970.
pub(crate) type Clock = fn() -> Duration;

/// What earlier runs left behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// Began, and no end is known.
    pub(crate) open: HashSet<TaskId>,
    /// Ended.
    pub(crate) ended: HashSet<TaskId>,
}

/// A segment that was read.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    /// When its last record was written, in seconds since 1970.
    newest: u32,
}

/// Opens the journal in `directory`: reads what earlier runs left, begins a segment of this run, and drops segments
/// that nobody will ask for again.
pub(crate) fn open(directory: &Path, run: RunId, clock: Clock) -> io::Result<(Journal, Past)> {
    let now = clock();
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let (segments, past) = read(directory)?;
    let journal = Journal::start(directory.to_owned(), run, clock, &past.open)?;
    // Open tasks of old segments stand in the new one by now.
    for segment in segments {
        if Duration::from_secs(u64::from(segment.newest)) + KEPT < now {
            fs::remove_file(&segment.path)?;
        }
    }
    Ok((journal, past))
}

/// Reads all segments, oldest first.
fn read(directory: &Path) -> io::Result<(Vec<Segment>, Past)> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == writer::EXTENSION) {
            paths.push(path);
        }
    }
    // Their names begin with the time they were begun at.
    paths.sort();
    let mut past = Past::default();
    let mut segments = Vec::new();
    for path in paths {
        let mut newest = 0;
        let mut bytes = Vec::new();
        fs::File::open(&path)?.read_to_end(&mut bytes)?;
        for record in records(&bytes) {
            newest = record.seconds;
            match record.kind {
                Kind::Run(_) => {}
                Kind::Begun(task) => {
                    // An end that was carried over may stand before a begin that was carried over too.
                    if !past.ended.contains(&task) {
                        past.open.insert(task);
                    }
                }
                Kind::Returned(task) => {
                    past.open.remove(&task);
                }
                Kind::Ended(task) => {
                    past.open.remove(&task);
                    past.ended.insert(task);
                }
            }
        }
        segments.push(Segment { path, newest });
    }
    Ok((segments, past))
}

/// The records of a segment up to the first that is torn.
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
    fn live(directory: &Path, number: u128, clock: Clock, begun: &[u128], ended: &[u128]) -> Past {
        let (mut journal, past) = open(directory, run(number), clock).unwrap();
        journal.begin(begun.iter().map(|number| task(*number)).collect());
        if !begun.is_empty() {
            assert_eq!(journal.written_blocking(), Written::Begun(begun.iter().map(|n| task(*n)).collect()));
        }
        journal.end(ended.iter().map(|number| task(*number)).collect());
        journal.close();
        past
    }

    #[test]
    fn the_next_run_knows_what_was_open() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("journal");
        assert_eq!(live(&directory, 1, now, &[1, 2, 3], &[2]), Past::default());
        let past = live(&directory, 2, now, &[4], &[1, 4]);
        assert_eq!(past, Past { open: tasks(&[1, 3]), ended: tasks(&[2]) });
        let past = live(&directory, 3, now, &[], &[]);
        assert_eq!(past, Past { open: tasks(&[3]), ended: tasks(&[1, 2, 4]) });
    }

    #[test]
    fn what_was_handed_back_may_begin_again() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("journal");
        let (mut journal, _) = open(&directory, run(1), now).unwrap();
        journal.begin(vec![task(1), task(2)]);
        journal.written_blocking();
        journal.hand_back(vec![task(1), task(2)]);
        journal.begin(vec![task(2)]);
        journal.written_blocking();
        journal.close();
        assert_eq!(read(&directory).unwrap().1, Past { open: tasks(&[2]), ended: HashSet::new() });
    }

    #[test]
    fn a_torn_tail_ends_a_segment_and_nothing_else() {
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
            let (_, past) = read(&directory).unwrap();
            let complete = keep / RECORD;
            assert_eq!(past.open.len(), complete.saturating_sub(1).min(2), "{keep} bytes");
        }
        let past = live(&directory, 2, now, &[3], &[]);
        assert_eq!(past.open, tasks(&[1, 2]));
        assert_eq!(read(&directory).unwrap().1.open, tasks(&[1, 2, 3]), "the new run's segment is whole");
    }

    #[test]
    fn old_segments_go_and_open_tasks_stay() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("journal");
        live(&directory, 1, now, &[1, 2], &[2]);
        assert_eq!(live(&directory, 2, late, &[], &[]).ended, tasks(&[2]));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "the first run's segment is gone");
        let past = live(&directory, 3, late, &[], &[]);
        assert_eq!(past, Past { open: tasks(&[1]), ended: HashSet::new() });
    }

    #[test]
    fn a_long_run_begins_new_segments() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("journal");
        let (mut journal, _) = open(&directory, run(1), now).unwrap();
        let many: Vec<TaskId> =
            (0..u128::try_from(writer::RECORDS_OF_A_SEGMENT).unwrap() + 10).map(task).collect();
        let (most, last) = many.split_at(many.len() - 1);
        journal.begin(most.to_vec());
        journal.written_blocking();
        journal.end(most[1..].to_vec());
        journal.begin(last.to_vec());
        journal.written_blocking();
        journal.close();
        assert!(fs::read_dir(&directory).unwrap().count() > 1);
        let (_, past) = read(&directory).unwrap();
        assert_eq!(past.open, [many[0], last[0]].into());
        assert_eq!(past.ended.len(), most.len() - 1);
    }

    proptest! {
        /// Whatever bytes lie there, reading them never panics and never goes past a torn record.
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(records(&bytes).count() <= bytes.len() / RECORD);
        }

        #[test]
        fn a_record_survives_and_a_flipped_bit_shows(number: u128, seconds: u32, bit in 0..RECORD * 8, kind in 0..4) {
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
}
