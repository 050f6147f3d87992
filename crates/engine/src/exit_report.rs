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
    let (stdout, stderr) = (read(output.stdout), read(output.stderr));
    let hint = if gains_privileges() { None } else { unprivileged(&[&stderr, &stdout]) };
    ExitReport { message: output.message, exit_code: output.exit_code, stdout, stderr, hint }
}

/// Whether programs can gain privileges here. A manager's user endpoints and their jobs can't, unless PAM lets them in.
fn gains_privileges() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| !status.contains("NoNewPrivs:\t1"))
}

/// Programs that need privileges of their own, and how users know that one of them was at work.
const NEED_PRIVILEGES: [(&str, &str); 6] = [
    ("newuidmap", "newuidmap"),
    ("newgidmap", "newgidmap"),
    ("fusermount", "fusermount"),
    ("starter-suid", "starter-suid"),
    ("pbs_iff", "pbs_iff"),
    ("\"no new privileges\" flag", "sudo"),
];

/// What users may need to know of a job that spoke of such a program.
fn unprivileged(outputs: &[&Option<String>]) -> Option<String> {
    let said = |words: &str| outputs.iter().any(|it| it.as_ref().is_some_and(|text| text.contains(words)));
    let (_, program) = NEED_PRIVILEGES.iter().find(|(words, _)| said(words))?;
    Some(format!(
        "{program} needs privileges, and no program can gain any in this endpoint. If a manager started it: the administrator \
         of the manager may set `pam.enable: true`"
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_need_privileges_are_named() {
        for (said, program) in [
            ("newuidmap: write to uid_map failed: Operation not permitted", Some("newuidmap")),
            (
                "pbs_iff: error returned: 15031\nNo Permission.\nqsub: cannot connect to server",
                Some("pbs_iff"),
            ),
            (
                "sudo: The \"no new privileges\" flag is set, which prevents sudo from running as root.",
                Some("sudo"),
            ),
            ("bash: sudo: command not found", None),
            ("", None),
        ] {
            let hint = unprivileged(&[&None, &Some(said.to_owned())]);
            assert_eq!(hint.as_ref().and_then(|it| it.split(' ').next()), program, "{said}");
            assert!(hint.is_none_or(|it| it.contains("pam.enable")), "{said}");
        }
    }
}
