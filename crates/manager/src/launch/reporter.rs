//! Tells the manager how the launch goes, and ends a step that takes too long.
//!
//! A module of the name service may hang for ever, and a hung call can't be cancelled: the alarm's handler writes the
//! report that was prepared for this case and ends the process.

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
    // SAFETY: the pointer is null or that of a value that is never freed nor changed; `write` and `_exit` may be called in
    // a signal handler.
    unsafe {
        let Some(prepared) = prepared.as_ref() else { return };
        libc::write(prepared.descriptor, prepared.line.as_ptr().cast(), prepared.line.len());
        libc::_exit(prepared.status);
    }
}
