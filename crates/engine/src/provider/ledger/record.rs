//! What the ledger keeps on disk: a line for each change, the last one of a block counts.
//!
//! The reaper and the next start read it, also after a crash in the middle of a line. A line that can't be read is told
//! of, and never ends the reading: the others may stand for jobs that run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::provider::JobId;

/// A job that may exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) block: Uuid,
    pub(crate) name: String,
    /// Absent before the scheduler has answered.
    pub(crate) job: Option<JobId>,
}

/// The form of a line. `name` is absent where the entry is erased.
#[derive(Serialize, Deserialize)]
struct Line {
    v: u32,
    block: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job: Option<String>,
}

const VERSION: u32 = 1;

/// More lines than a run writes before it writes the file anew.
const MOST_LINES: usize = 1_000_000;

impl Record {
    /// The line that adds or changes this entry, with its end.
    pub(crate) fn line(&self) -> String {
        let job = self.job.as_ref().map(|job| job.0.clone());
        write(&Line { v: VERSION, block: self.block, name: Some(self.name.clone()), job })
    }
}

/// The line that erases a block's entry, with its end.
pub(crate) fn erasure(block: Uuid) -> String {
    write(&Line { v: VERSION, block, name: None, job: None })
}

/// The shortest file with these entries.
pub(crate) fn file(records: &[Record]) -> String {
    records.iter().map(Record::line).collect()
}

fn write(line: &Line) -> String {
    // A struct of texts and numbers always has a form in JSON.
    serde_json::to_string(line).map(|text| text + "\n").unwrap_or_default()
}

/// The entries of a file, and how many of its lines could not be read.
pub(crate) fn read(file: &[u8]) -> (Vec<Record>, usize) {
    let mut records = BTreeMap::new();
    let mut unread = 0;
    for line in file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).take(MOST_LINES) {
        match serde_json::from_slice::<Line>(line) {
            Ok(Line { v: VERSION, block, name, job }) => {
                match name {
                    Some(name) => records.insert(block, Record { block, name, job: job.map(JobId) }),
                    None => records.remove(&block),
                };
            }
            _ => unread += 1,
        }
    }
    (records.into_values().collect(), unread)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(number: u128, job: Option<&str>) -> Record {
        let block = Uuid::from_u128(number);
        Record { block, name: format!("parsl.x.block-{number}"), job: job.map(|id| JobId(id.into())) }
    }

    #[test]
    fn the_last_line_of_a_block_counts() {
        let lines = [
            record(1, None).line(),
            record(2, None).line(),
            record(1, Some("7;c1")).line(),
            erasure(Uuid::from_u128(2)),
            record(3, None).line(),
        ];
        let file = lines.concat();
        assert_eq!(read(file.as_bytes()), (vec![record(1, Some("7;c1")), record(3, None)], 0));
        let (records, _) = read(file.as_bytes());
        assert_eq!(read(super::file(&records).as_bytes()), (records, 0), "the same in fewer lines");
        let torn = &file.as_bytes()[..file.len() - 9];
        assert_eq!(read(torn), (vec![record(1, Some("7;c1"))], 1));
        let later = format!("{{\"v\":2,\"block\":\"{}\"}}\n{file}", Uuid::nil());
        assert_eq!(read(later.as_bytes()).1, 1, "a form of a later version is told of");
    }

    proptest! {
        #[test]
        fn no_file_makes_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }

        #[test]
        fn a_crash_at_any_byte_loses_the_last_line_at_most(cut in 0usize..200) {
            let file = [record(1, Some("5")).line(), record(2, Some("6")).line()].concat();
            let cut = cut.min(file.len());
            let (found, unread) = read(&file.as_bytes()[..cut]);
            prop_assert!(unread <= 1);
            prop_assert!(found.len() + 1 >= file[..cut].matches('\n').count());
        }
    }
}
