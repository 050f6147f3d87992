//! Makes the report on a block's job that has ended: its exit status, and the beginning and end of its output.

use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use crate::core::{BlockEnd, ExitReport};
use crate::provider::{JobOutput, JobState};

/// The longest excerpt of each output, in bytes.
const SUMMARY: u64 = 2048;

/// How a job ended; none while it waits or runs.
pub(crate) fn read_block_end(state: JobState) -> Option<BlockEnd> {
    match state {
        JobState::Pending | JobState::Running | JobState::Held => None,
        JobState::Completed(output) | JobState::TimedOut(output) => {
            Some(BlockEnd::Completed(read_report(output)))
        }
        JobState::Failed(output) => Some(BlockEnd::Failed(read_report(output))),
        JobState::Gone => {
            let message = Some("The scheduler does not know this job any more".to_owned());
            Some(BlockEnd::Completed(ExitReport { message, ..ExitReport::default() }))
        }
        JobState::Cancelled(message) => {
            let message = Some(message).filter(|message| !message.is_empty());
            Some(BlockEnd::Cancelled(ExitReport { message, ..ExitReport::default() }))
        }
    }
}

fn read_report(output: JobOutput) -> ExitReport {
    let read = |path: Option<PathBuf>| read_summary(&path?).ok();
    ExitReport {
        message: output.message,
        exit_code: output.exit_code,
        stdout: read(output.stdout),
        stderr: read(output.stderr),
    }
}

/// A file's text, or the beginning and the end of a long one.
fn read_summary(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let size = file.metadata()?.len();
    let mut text = |from: u64, length: u64| -> io::Result<String> {
        file.seek(io::SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        io::Read::by_ref(&mut file).take(length).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    if size <= SUMMARY {
        return text(0, SUMMARY);
    }
    Ok(format!("{}\n...\n{}", text(0, SUMMARY / 2)?, text(size - SUMMARY / 2, SUMMARY / 2)?))
}
