//! The stages of a launch, their numbers, and how a failure of one is told.
//!
//! The numbers are upstream's: they are the launcher's exit status, and they reach users in the text of their error.

use std::path::Path;

use nix::errno::Errno;

use super::request::LaunchFailure;

/// What the launcher is doing, in upstream's numbers. The order of the numbers is upstream's, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The user is looked up; template, schema and environment are read.
    Read = 70,
    /// PAM is asked; the group is set.
    HostAuthentication = 71,
    SupplementaryGroups = 72,
    User = 73,
    /// The last privileges are given up, and it is tried that they don't come back.
    Privileges = 74,
    Session = 75,
    WorkingDirectory = 77,
    /// The endpoint's directory is created, the template rendered.
    Render = 78,
    /// The rendered configuration is read, the start document made.
    Document = 79,
    StandardInput = 81,
    Log = 83,
    Write = 85,
    Descriptors = 87,
    Execute = 88,
}

impl Stage {
    /// The exit status: four lower when the launcher changes no user, because four stages are left out then.
    pub(super) fn status(self, changes_user: bool) -> u8 {
        match self {
            Self::Read => Self::Read as u8,
            later if changes_user => later as u8,
            later => (later as u8).saturating_sub(4).max(Self::HostAuthentication as u8),
        }
    }
}

/// What went wrong, without the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The name of upstream's exception.
    pub(super) exception: String,
    /// For the submitter.
    pub(super) text: String,
    /// For the log, where it says more.
    pub(super) private: Option<String>,
}

impl Problem {
    pub(super) fn new(exception: &str, text: impl Into<String>) -> Self {
        Self { exception: exception.to_owned(), text: text.into(), private: None }
    }

    /// An error of the system, as Python words it.
    pub(super) fn system(errno: Errno, path: Option<&Path>) -> Self {
        let exception = match errno {
            Errno::EPERM | Errno::EACCES => "PermissionError",
            Errno::ENOENT => "FileNotFoundError",
            Errno::EEXIST => "FileExistsError",
            Errno::ENOTDIR => "NotADirectoryError",
            Errno::EISDIR => "IsADirectoryError",
            Errno::EAGAIN => "BlockingIOError",
            Errno::ETIMEDOUT => "TimeoutError",
            _ => "OSError",
        };
        let path = path.map(|path| format!(": '{}'", path.display())).unwrap_or_default();
        Self::new(exception, format!("[Errno {}] {}{path}", errno as i32, errno.desc()))
    }

    pub(super) fn io(error: &std::io::Error, path: Option<&Path>) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::system(Errno::from_raw(number), path),
            None => Self::new("OSError", error.to_string()),
        }
    }

    /// A refusal whose reason only the administrator learns.
    pub(super) fn denied(private: impl Into<String>) -> Self {
        Self::new("PermissionError", "see your system administrator").privately(private)
    }

    /// With another text for the log.
    pub(super) fn privately(self, private: impl Into<String>) -> Self {
        Self { private: Some(private.into()), ..self }
    }

    /// With more words at the end of the submitter's text.
    pub(super) fn with(self, more: &str) -> Self {
        Self { text: format!("{}{more}", self.text), ..self }
    }

    pub(super) fn at(self, stage: Stage) -> Failure {
        Failure { stage, problem: self }
    }
}

/// A problem and its stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) problem: Problem,
}

impl Failure {
    /// As reported to the manager.
    pub(super) fn report(&self, local_user: &str, changes_user: bool) -> LaunchFailure {
        let status = self.stage.status(changes_user);
        let notice = |text: &str| {
            let exception = &self.problem.exception;
            format!(
                "Unable to start user endpoint process for {local_user} [exit code: {status}; ({exception}) {text}]"
            )
        };
        let text = bounded(&self.problem.text);
        let private = self
            .problem
            .private
            .as_deref()
            .map_or_else(|| notice(text), |private| bounded(private).to_owned());
        LaunchFailure { status, notice: notice(text), private }
    }
}

/// The maximum length of a text in a report, in bytes.
const TEXT_LIMIT: usize = 16 * 1024;

/// At most [`TEXT_LIMIT`] bytes of a text.
pub(super) fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_LIMIT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        assert_eq!(Stage::Render.status(true), 78);
        assert_eq!(Stage::Render.status(false), 74);
        assert_eq!(Stage::Session.status(false), 71);
        assert_eq!(Stage::Execute.status(true), 88);
        assert_eq!(Stage::Execute.status(false), 84);
        assert_eq!(Stage::Read.status(false), 70);
    }

    #[test]
    fn reports() {
        let problem = Problem::denied("(error code: 7 [PAM_AUTH_ERR]) Authentication failure");
        let report = problem.at(Stage::HostAuthentication).report("jessica", true);
        assert_eq!(report.status, 71);
        assert_eq!(
            report.notice,
            "Unable to start user endpoint process for jessica \
             [exit code: 71; (PermissionError) see your system administrator]"
        );
        assert_eq!(report.private, "(error code: 7 [PAM_AUTH_ERR]) Authentication failure");

        let path = Path::new("/home/x/.globus_compute");
        let report = Problem::system(Errno::EEXIST, Some(path)).at(Stage::Render).report("x", false);
        assert_eq!(
            report.notice,
            "Unable to start user endpoint process for x \
             [exit code: 74; (FileExistsError) [Errno 17] File exists: '/home/x/.globus_compute']"
        );
        assert_eq!(report.private, report.notice);
    }

    #[test]
    fn long_texts_are_cut() {
        let report = Problem::new("ValueError", "é".repeat(100_000)).at(Stage::Render).report("x", true);
        assert!(report.notice.len() < TEXT_LIMIT + 200);
    }
}
