//! Tells the manager how the launch goes, and ends a step that takes too long.
//!
//! A module of the name service or of PAM may hang for ever, and a hung call can't be cancelled: the alarm's handler writes
//! the report that was prepared for this case, ends the programs that the module started, and ends the process.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::alarm;

use super::request::{LaunchFailure, LaunchReport};

/// The launcher's end of the report pipe.
pub(super) struct Reporter {
    pipe: File,
}

/// What the alarm's handler needs, made beforehand: a handler may not allocate.
struct Prepared {
    descriptor: libc::c_int,
    line: Vec<u8>,
    status: libc::c_int,
}

static PREPARED: AtomicPtr<Prepared> = AtomicPtr::new(std::ptr::null_mut());

impl Reporter {
    pub(super) fn new(pipe: OwnedFd) -> Self {
        Self { pipe: File::from(pipe) }
    }

    /// Sends a report. A manager that is gone hears nothing, and whoever runs next notices that it is gone.
    pub(super) fn send(&mut self, report: &LaunchReport) {
        let _ = self.pipe.write_all(&line(report));
    }

    /// Runs one step, and ends the process with `failure` if the step takes more than `seconds`.
    pub(super) fn within<T>(&self, seconds: u32, failure: LaunchFailure, step: impl FnOnce() -> T) -> T {
        let prepared = Box::new(Prepared {
            descriptor: self.pipe.as_raw_fd(),
            status: failure.status.into(),
            line: line(&LaunchReport::Failed(failure)),
        });
        // Never freed: the handler may be running. A launch has a handful of these.
        PREPARED.store(Box::into_raw(prepared), Ordering::SeqCst);
        let action = SigAction::new(SigHandler::Handler(out_of_time), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler only loads an atomic, writes, and exits.
        let installed = unsafe { sigaction(Signal::SIGALRM, &action) };
        if installed.is_ok() {
            alarm::set(seconds);
        }
        let value = step();
        alarm::cancel();
        value
    }
}

/// One report as one line.
fn line(report: &LaunchReport) -> Vec<u8> {
    let mut line =
        serde_json::to_vec(report).expect("a report has string keys and doesn't fail to serialize");
    line.push(b'\n');
    line
}

extern "C" fn out_of_time(_signal: libc::c_int) {
    let prepared = PREPARED.load(Ordering::SeqCst);
    // SAFETY: the pointer is null or that of a value that is never freed nor changed; `write`, `_exit` and what
    // `end_children` calls may be called in a signal handler.
    unsafe {
        let Some(prepared) = prepared.as_ref() else { return };
        libc::write(prepared.descriptor, prepared.line.as_ptr().cast(), prepared.line.len());
        end_children();
        libc::_exit(prepared.status);
    }
}

/// Ends the children of this process, and the groups that they lead. No other thread can reap one of them meanwhile.
///
/// # Safety
/// Calls only what a signal handler may call. Kernels that don't list children leave them running.
unsafe fn end_children() {
    let mut list = [0_u8; 4096];
    // SAFETY: the path ends with zero; no more is read than the array holds.
    let read = unsafe {
        let file = libc::open(c"/proc/thread-self/children".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        libc::read(file, list.as_mut_ptr().cast(), list.len())
    };
    let list = usize::try_from(read).ok().and_then(|read| list.get(..read)).unwrap_or_default();
    for_each_number(list, |child| {
        // SAFETY: the calls take numbers.
        unsafe {
            libc::kill(-child, libc::SIGKILL);
            libc::kill(child, libc::SIGKILL);
        }
    });
}

/// The numbers above 1 that a space follows: the last one of a list that was cut may not be whole.
fn for_each_number(list: &[u8], mut act: impl FnMut(libc::pid_t)) {
    let mut number: libc::pid_t = 0;
    for byte in list {
        match byte {
            b'0'..=b'9' => number = number.saturating_mul(10).saturating_add((byte - b'0').into()),
            _ => {
                if number > 1 {
                    act(number);
                }
                number = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(list: &[u8]) -> Vec<libc::pid_t> {
        let mut all = Vec::new();
        for_each_number(list, |number| all.push(number));
        all
    }

    #[test]
    fn children_of_a_list() {
        assert_eq!(numbers(b"23 456 "), [23, 456]);
        assert_eq!(numbers(b"23 45"), [23]);
        assert_eq!(numbers(b"0 1 -7 "), [7]);
        assert_eq!(numbers(b""), [] as [libc::pid_t; 0]);
    }

    proptest! {
        #[test]
        fn never_everybody(list in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(numbers(&list).iter().all(|number| *number > 1));
        }
    }
}
