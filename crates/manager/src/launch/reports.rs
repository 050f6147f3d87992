//! Reads what a launcher reports: the manager's end of the pipe.
//!
//! By the time of its last reports the launcher runs with a user's rights, so its reports are read as a stranger's
//! words: bounded, and typed.

use super::request::{LaunchFailure, LaunchReport};

/// The maximum size of all reports of one launch, in bytes.
const LIMIT: usize = 256 * 1024;

/// Collects the reports of one launch.
#[derive(Debug, Default)]
pub struct Reports {
    /// Bytes without their end of line yet.
    rest: Vec<u8>,
    read: usize,
    running: bool,
    executing: bool,
    failure: Option<LaunchFailure>,
    malformed: bool,
}

/// How a launch ended: known once the report pipe is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaunchEnd {
    /// The user endpoint's program runs.
    Started,
    Failed(LaunchFailure),
    /// The launcher ended without a word: a signal, or a defect.
    Lost,
}

impl Reports {
    /// Takes what was read from the pipe; yields the reports that it completes.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<LaunchReport> {
        self.read = self.read.saturating_add(bytes.len());
        if self.malformed || self.read > LIMIT {
            self.malformed = true;
            return Vec::new();
        }
        self.rest.extend_from_slice(bytes);
        let mut reports = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                // The manager signals the process and the group of this number: 1, 0, and negative ones mean others.
                Ok(LaunchReport::Running { pid }) if pid <= 1 || self.running || self.executing => {
                    self.malformed = true;
                    break;
                }
                Ok(report) => reports.push(self.note(report)),
                Err(_) => {
                    self.malformed = true;
                    break;
                }
            }
        }
        reports
    }

    fn note(&mut self, report: LaunchReport) -> LaunchReport {
        match &report {
            LaunchReport::Executing => self.executing = true,
            LaunchReport::Failed(failure) => self.failure = Some(failure.clone()),
            LaunchReport::Running { .. } => self.running = true,
            LaunchReport::UserFound { .. } | LaunchReport::Warning { .. } => {}
        }
        report
    }

    /// What the end of the pipe means.
    pub fn end(self) -> LaunchEnd {
        match self.failure {
            Some(failure) => LaunchEnd::Failed(failure),
            None if self.executing && !self.malformed => LaunchEnd::Started,
            None => LaunchEnd::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(report: &LaunchReport) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(report).unwrap();
        bytes.push(b'\n');
        bytes
    }

    fn failure() -> LaunchFailure {
        LaunchFailure { status: 88, notice: "no".to_owned(), private: "PATH".to_owned() }
    }

    #[test]
    fn ends() {
        let found = LaunchReport::UserFound { uid: 1000, gid: 100 };
        let failed = LaunchReport::Failed(failure());
        for (sent, end) in [
            (vec![], LaunchEnd::Lost),
            (vec![found.clone()], LaunchEnd::Lost),
            (vec![found.clone(), LaunchReport::Executing], LaunchEnd::Started),
            (vec![found.clone(), failed.clone()], LaunchEnd::Failed(failure())),
            // The program could not be executed.
            (vec![found, LaunchReport::Executing, failed], LaunchEnd::Failed(failure())),
        ] {
            let bytes: Vec<u8> = sent.iter().flat_map(line).collect();
            let mut whole = Reports::default();
            assert_eq!(whole.push(&bytes), sent);
            assert_eq!(whole.end(), end);
            let mut bit_by_bit = Reports::default();
            let reports: Vec<_> = bytes.iter().flat_map(|byte| bit_by_bit.push(&[*byte])).collect();
            assert_eq!(reports, sent);
            assert_eq!(bit_by_bit.end(), end);
        }
    }

    #[test]
    fn floods_and_nonsense_are_no_start() {
        let mut flood = Reports::default();
        for _ in 0..1000 {
            flood.push(&[b'x'; 4096]);
        }
        assert!(flood.rest.len() <= LIMIT);
        assert_eq!(flood.end(), LaunchEnd::Lost);

        let mut nonsense = Reports::default();
        let text = [line(&LaunchReport::Executing), b"{\"event\":\"party\"}\n".to_vec()].concat();
        nonsense.push(&text);
        assert_eq!(nonsense.end(), LaunchEnd::Lost);
    }

    #[test]
    fn numbers_that_may_not_be_signalled() {
        let running = |pid| line(&LaunchReport::Running { pid });
        let good = LaunchReport::Running { pid: 2 };
        for (sent, taken) in [
            (running(1), vec![]),
            (running(0), vec![]),
            (running(-1), vec![]),
            (running(-4321), vec![]),
            // Once, and before the user endpoint's program runs.
            ([running(2), running(3)].concat(), vec![good.clone()]),
            ([line(&LaunchReport::Executing), running(2)].concat(), vec![LaunchReport::Executing]),
        ] {
            let mut reports = Reports::default();
            assert_eq!(reports.push(&sent), taken);
            assert_eq!(reports.end(), LaunchEnd::Lost);
        }
        assert_eq!(Reports::default().push(&running(2)), [good]);
    }

    proptest! {
        #[test]
        fn any_bytes(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20)) {
            let mut reports = Reports::default();
            for part in parts {
                reports.push(&part);
            }
            prop_assert_ne!(reports.end(), LaunchEnd::Started);
        }
    }
}
