//! Becomes the user endpoint's program: its command line and its descriptors.
//!
//! Called after privileges are dropped.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::execve;

use super::document::{AUDIT_DESCRIPTOR, CREDENTIALS_DESCRIPTOR};
use super::receive::close_at_exec;
use super::request::LaunchRequest;
use super::stage::{Failure, Problem, Stage};

const PROGRAM: &str = "globus-compute-endpoint";

/// Names the submitter's SDK; an administrator who runs the endpoint release of that version sets it.
const SDK_VERSION: &str = "GC_USER_SDK_VERSION";

/// The first release whose managers start user endpoints by a command of their own.
const OWN_COMMAND: [u64; 2] = [4, 10];

/// The command line, unless the environment asks for another.
pub(super) fn default_arguments(request: &LaunchRequest) -> Vec<String> {
    [PROGRAM, "start", &request.name, "--die-with-parent"]
        .into_iter()
        .map(str::to_owned)
        .chain(request.arguments.iter().cloned())
        .collect()
}

/// The command line.
///
/// `chosen`: the variables that the administrator set. What the submitter's SDK says of itself selects nothing: the
/// program that `PATH` finds may be of any release.
pub(super) fn arguments(request: &LaunchRequest, chosen: &BTreeMap<String, String>) -> Vec<String> {
    if !chosen.get(SDK_VERSION).is_some_and(|version| has_own_command(version)) {
        return default_arguments(request);
    }
    [PROGRAM, "_start-user-endpoint", &request.name]
        .into_iter()
        .map(str::to_owned)
        .chain(request.arguments.iter().cloned())
        .collect()
}

fn has_own_command(version: &str) -> bool {
    let mut numbers = version.trim().split('.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse::<u64>().ok()
    });
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), minor) => [major, minor.unwrap_or(0)] >= OWN_COMMAND,
        (None, _) => false,
    }
}

/// Puts standard input, output and error in place.
pub(super) fn place_standard_streams(input: OwnedFd, log: File) -> Result<(), Failure> {
    let failed = |stage| move |errno| Problem::system(errno, None).at(stage);
    nix::unistd::dup2_stdin(&input).map_err(failed(Stage::StandardInput))?;
    nix::unistd::dup2_stdout(&log).map_err(failed(Stage::Log))?;
    nix::unistd::dup2_stderr(&log).map_err(failed(Stage::Log))
}

/// Puts the descriptors that the user endpoint inherits in place, and has all others closed at `exec`.
pub(super) fn place_descriptors(
    credentials: Option<&OwnedFd>,
    audit: Option<&OwnedFd>,
) -> Result<(), Failure> {
    let fail = |problem: Problem| problem.at(Stage::Descriptors);
    close_at_exec(libc::STDERR_FILENO + 1)
        .map_err(|error| fail(Problem::io(&error, Some(Path::new("/proc/self/fd")))))?;
    for (from, to) in [(credentials, CREDENTIALS_DESCRIPTOR), (audit, AUDIT_DESCRIPTOR)] {
        if let Some(from) = from {
            // SAFETY: what the launcher has open itself has higher numbers (`receive`), so nothing that is owned is
            // replaced. What a module of PAM has open there is the holder's affair.
            Errno::result(unsafe { libc::dup2(from.as_raw_fd(), to) })
                .map_err(|errno| fail(Problem::system(errno, None)))?;
        }
    }
    Ok(())
}

/// Becomes the program that `PATH` of the new environment finds. Returns only if that fails.
pub(super) fn execute(arguments: &[String], environment: &BTreeMap<String, String>) -> Failure {
    let text = |text: &str| CString::new(text).map_err(|_| Problem::new("ValueError", "embedded null byte"));
    let arguments: Result<Vec<_>, _> = arguments.iter().map(|argument| text(argument)).collect();
    let variables: Result<Vec<_>, _> =
        environment.iter().map(|(name, value)| text(&format!("{name}={value}"))).collect();
    let (arguments, variables) = match (arguments, variables) {
        (Ok(arguments), Ok(variables)) => (arguments, variables),
        (Err(problem), _) | (_, Err(problem)) => return problem.at(Stage::Execute),
    };
    let path = environment.get("PATH").map_or("", String::as_str);
    let mut failure = (Errno::ENOENT, PathBuf::from(PROGRAM));
    for place in path.split(':') {
        let candidate = Path::new(place).join(PROGRAM);
        let Ok(program) = CString::new(candidate.as_os_str().as_bytes()) else { continue };
        let Err(errno) = execve(&program, &arguments, &variables);
        // The last file that is there and does not run says more than the directories without one. A script whose
        // interpreter is missing counts as missing for the kernel.
        if !matches!(errno, Errno::ENOENT | Errno::ENOTDIR) || candidate.is_file() {
            failure = (errno, candidate);
        }
    }
    let (errno, program) = failure;
    let problem = Problem::system(errno, Some(&program));
    let private = format!(
        "Unable to find executable or to run it.\n  Executable: {PROGRAM}\n  Path: \"{path}\"\n  ({}) {}\n\n\
         A common reason for this error is permissions: is the program in a location that only root can access, like /root?",
        problem.exception, problem.text
    );
    problem.privately(private).at(Stage::Execute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_a_command_of_their_own() {
        for (version, own) in [
            ("4.10.0", true),
            ("4.10", true),
            ("4.19.0", true),
            ("5", true),
            ("10.0.1", true),
            ("4.10.0rc1", true),
            ("4.9.0", false),
            ("3.8.0", false),
            ("4", false),
            ("", false),
            ("none", false),
            ("99999999999999999999.1", false),
        ] {
            assert_eq!(has_own_command(version), own, "{version}");
        }
    }
}
