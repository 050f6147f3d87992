//! Renders in a child process, so that neither a schema's expression nor a template can use up the launcher's time, memory or
//! stack.
//!
//! The engine counts its steps, but not what one step may cost: a padded format of a gigabyte, or a value nested so deeply
//! that printing it overflows the stack. In the child, such a step ends the child; the caller gets an error that says so.
//! May be called only while the process has a single thread.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, pipe2};

use super::limits::{MEMORY, OUTPUT, SECONDS, TIME};
use super::{Inputs, RenderError, render_unconfined};
use crate::waiting;

/// Checks the options and renders the template.
pub fn render(inputs: &Inputs<'_>) -> Result<String, RenderError> {
    let (from_child, to_parent) = pipe2(OFlag::O_CLOEXEC).map_err(|error| system(&error))?;
    let launcher = getpid();
    // SAFETY: the process has a single thread, so that the child may do what any process does.
    match unsafe { fork() }.map_err(|error| system(&error))? {
        ForkResult::Child => {
            drop(from_child);
            // Even a panic must not carry the child back into the caller's code.
            let outcome = catch_unwind(AssertUnwindSafe(|| child(inputs, to_parent, launcher)));
            let status = outcome.unwrap_or(1);
            // SAFETY: ends the process at once; no destructor or exit handler of the parent's runs here.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => {
            drop(to_parent);
            let answer = receive(from_child);
            if answer.is_none() {
                let _ = kill(child, Signal::SIGKILL);
            }
            let status = waiting::wait(child).ok();
            let signal = status.and_then(|status| status.signal());
            match (answer, signal) {
                (None, _) | (Some(_), Some(libc::SIGXCPU | libc::SIGKILL)) => Err(too_slow()),
                (Some(answer), None) if status.is_some_and(|status| status.success()) => {
                    serde_json::from_slice(&answer)
                        .unwrap_or_else(|error| Err(RenderError::new("OSError", error.to_string())))
                }
                (Some(_), _) => Err(RenderError::new(
                    "MemoryError",
                    format!(
                        "the template or the schema needs more than {} MB of memory, or nests values too deeply.\n  \
                         Pass smaller values; the administrator may have to correct the template.",
                        MEMORY >> 20
                    ),
                )),
            }
        }
    }
}

/// The child: renders within its limits and writes the outcome.
fn child(inputs: &Inputs<'_>, to_parent: OwnedFd, launcher: Pid) -> i32 {
    // SAFETY: takes plain numbers. The launcher has one thread, so that its end is the end of that thread.
    let bound = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if bound != 0 || getppid() != launcher {
        return 1;
    }
    let memory = present_memory().saturating_add(MEMORY);
    let limits = [(Resource::RLIMIT_AS, memory), (Resource::RLIMIT_CPU, SECONDS), (Resource::RLIMIT_CORE, 0)];
    for (resource, limit) in limits {
        // A site's own limit may be lower already.
        let limit = nix::sys::resource::getrlimit(resource).map_or(limit, |(_, hard)| limit.min(hard));
        if setrlimit(resource, limit, limit).is_err() {
            return 1;
        }
    }
    // The runtime's words about an overflow or a lack of memory would stand in the manager's log without context.
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        // SAFETY: replaces standard error of this process, which nothing else owns.
        unsafe { libc::dup2(null.as_raw_fd(), libc::STDERR_FILENO) };
    }
    let outcome = render_unconfined(inputs);
    let Ok(answer) = serde_json::to_vec(&outcome) else { return 1 };
    if File::from(to_parent).write_all(&answer).is_ok() { 0 } else { 1 }
}

/// The size of this process's address space.
fn present_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    // A process whose size is unknown is taken for a large one.
    kilobytes.and_then(|number| number.parse::<u64>().ok()).map_or(1 << 30, |kilobytes| kilobytes << 10)
}

/// What the child writes until it ends. `None`: the time is over.
fn receive(from_child: OwnedFd) -> Option<Vec<u8>> {
    let deadline = Instant::now() + TIME;
    // Escaped as JSON, a text grows six times at most.
    let (mut answer, limit) = (Vec::new(), OUTPUT * 6 + (1 << 16));
    let mut file = File::from(from_child);
    let mut buffer = [0; 1 << 16];
    loop {
        let left = deadline.checked_duration_since(Instant::now())?;
        let wait = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], wait) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(_) => return None,
        }
        match file.read(&mut buffer) {
            Ok(0) => return Some(answer),
            Ok(read) if answer.len() + read <= limit => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return None,
        }
    }
}

fn too_slow() -> RenderError {
    RenderError::new(
        "TimeoutError",
        format!(
            "the template and the schema take longer than {SECONDS} s, or than {} s on a busy machine.\n  \
             Pass smaller values; the administrator may have to correct the template.",
            TIME.as_secs()
        ),
    )
}

fn system(error: &Errno) -> RenderError {
    RenderError::new("OSError", format!("no process for the rendering of the template: {error}"))
}
