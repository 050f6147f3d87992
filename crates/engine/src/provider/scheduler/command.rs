//! Commands of schedulers and their answers, as values.
//!
//! Nothing here runs a command. An answer keeps the bytes as they came: what they mean depends on the scheduler.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use crate::provider::QueryError;

/// A command to run: words, not a line for a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    pub(crate) program: &'static str,
    pub(crate) arguments: Vec<String>,
    /// A file for its standard input; otherwise that is empty.
    pub(crate) stdin: Option<PathBuf>,
    /// Changes to the environment that it inherits from the endpoint.
    pub(crate) environment: Environment,
}

/// Changes to an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) set: &'static [(&'static str, &'static str)],
    /// Variables to remove; a name that ends with `*` stands for all that begin so.
    pub(crate) remove: &'static [&'static str],
}

/// For commands whose output is read: English, and times of one form. Not for submissions: a job may inherit their
/// environment.
pub(super) const READ: Environment = Environment { set: &[("LC_ALL", "C"), ("LANGUAGE", "C")], remove: &[] };

pub(super) const UNCHANGED: Environment = Environment { set: &[], remove: &[] };

impl Environment {
    /// The environment of the command, made of the endpoint's.
    pub(crate) fn apply<'a>(
        self,
        inherited: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>,
    ) -> Vec<(&'a OsStr, &'a OsStr)> {
        let goes = |name: &OsStr| {
            let bytes = name.as_encoded_bytes();
            let set = self.set.iter().any(|(set, _)| name == *set);
            set || self.remove.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => bytes.starts_with(beginning.as_bytes()),
                None => name == *pattern,
            })
        };
        let set = self.set.iter().map(|(name, value)| (OsStr::new(*name), OsStr::new(*value)));
        inherited.into_iter().filter(|(name, _)| !goes(name)).chain(set).collect()
    }
}

impl CommandLine {
    pub(super) fn new<A: Into<String>>(
        program: &'static str,
        arguments: impl IntoIterator<Item = A>,
        environment: Environment,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { program, arguments, stdin: None, environment }
    }
}

/// How a command has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Exited(i32),
    Killed(i32),
    /// It was killed because it took longer than this.
    TimedOut(Duration),
    /// There is no such program on the PATH.
    NoProgram,
    /// It could not be started for another reason.
    NotStarted(String),
}

/// What a command has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Whether this is all of the output, rather than what a limit has left of it.
    pub(crate) complete: bool,
}

/// The most characters of a scheduler's words that are passed on.
const LONGEST_WORDS: usize = 1024;

impl Answer {
    pub(super) fn succeeded(&self) -> bool {
        self.outcome == Outcome::Exited(0)
    }

    pub(super) fn is_silent(&self) -> bool {
        [&self.stdout, &self.stderr].into_iter().flatten().all(u8::is_ascii_whitespace)
    }

    pub(super) fn stdout(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    pub(super) fn stderr(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }

    /// Whether its errors, or its output, contain one of these.
    pub(super) fn says(&self, any: &[&str]) -> bool {
        let (errors, output) = (self.stderr(), self.stdout());
        any.iter().any(|words| errors.contains(words) || output.contains(words))
    }

    /// What has gone wrong, in the scheduler's words: its errors, else its output, else how it ended.
    pub(super) fn words(&self, program: &str) -> String {
        let how = match &self.outcome {
            Outcome::Exited(status) => format!("{program} ended with status {status}"),
            Outcome::Killed(signal) => format!("{program} was killed by signal {signal}"),
            Outcome::TimedOut(limit) => {
                format!("{program} did not answer within {} s (cmd_timeout)", limit.as_secs())
            }
            Outcome::NoProgram => {
                return format!(
                    "there is no {program} on the endpoint's PATH; start the endpoint where the batch system's \
                     commands are"
                );
            }
            Outcome::NotStarted(why) => return format!("cannot run {program}: {why}"),
        };
        let said = [self.stderr(), self.stdout()].into_iter().map(|text| shorten(text.trim()));
        match said.into_iter().find(|text| !text.is_empty()) {
            Some(said) if matches!(self.outcome, Outcome::Exited(_)) => said,
            Some(said) => format!("{how}: {said}"),
            None => format!("{how} and said nothing"),
        }
    }

    /// The error of a question that was not answered.
    pub(super) fn unanswered(&self, program: &str) -> QueryError {
        QueryError(self.words(program))
    }
}

/// A text of bounded length without control characters.
pub(super) fn shorten(text: &str) -> String {
    let clean = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    let mut short: String = text.chars().take(LONGEST_WORDS).map(clean).collect();
    if short.len() < text.len() && text.chars().nth(LONGEST_WORDS).is_some() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_loses_what_would_change_an_answer() {
        let environment = Environment { set: &[("LC_ALL", "C")], remove: &["SQUEUE_*", "SBATCH_WAIT"] };
        let inherited = [
            ("PATH", "/bin"),
            ("LC_ALL", "de_DE.UTF-8"),
            ("SQUEUE_PARTITION", "gpu"),
            ("SQUEUE", "x"),
            ("SBATCH_WAIT", "1"),
            ("SBATCH_WAIT_ALL_NODES", "1"),
        ];
        let inherited = inherited.map(|(name, value)| (OsStr::new(name), OsStr::new(value)));
        let applied: Vec<_> = environment
            .apply(inherited)
            .into_iter()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect();
        assert_eq!(applied, ["PATH=/bin", "SQUEUE=x", "SBATCH_WAIT_ALL_NODES=1", "LC_ALL=C"]);
    }

    #[test]
    fn words_are_of_bounded_length_and_have_no_control_characters() {
        assert_eq!(shorten("a\u{1b}[31m\tb\n"), "a [31m b\n");
        assert_eq!(shorten(&"é".repeat(5000)).chars().count(), LONGEST_WORDS + 3);
        assert_eq!(shorten(&"x".repeat(LONGEST_WORDS)).len(), LONGEST_WORDS);
    }
}
