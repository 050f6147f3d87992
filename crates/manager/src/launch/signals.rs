//! What signals do to the launcher.
//!
//! Programs that the launcher starts (PAM's modules start some, and the user endpoint) begin with default actions and
//! nothing blocked. So the launcher itself handles signals instead of ignoring or blocking them: `exec` undoes handlers, and
//! nothing else.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};

/// Asks the holder of a session to kill the user endpoint at once, with its group.
pub(super) const KILL: Signal = Signal::SIGUSR1;

/// Ask a process to end.
pub(super) const ENDING: [Signal; 5] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, KILL];

static ASKED_TO_END: AtomicBool = AtomicBool::new(false);
static ASKED_TO_KILL: AtomicBool = AtomicBool::new(false);

/// Undoes what the launcher inherited and would suffer from: blocked signals, and children that are reaped unseen because
/// SIGCHLD is ignored. A write to a pipe that nobody reads fails, and no more.
pub(super) fn begin() {
    unblock_all();
    set_default(Signal::SIGCHLD);
    handle(Signal::SIGPIPE, SigHandler::Handler(nothing));
}

/// Notes that the process was asked to end, instead of ending: a session that was opened has to be closed.
pub(super) fn note_requests_to_end() {
    for signal in ENDING {
        handle(signal, SigHandler::Handler(note));
    }
    unblock_all();
}

/// Keeps requests to end waiting, so that a child that is made now loses none of its own.
pub(super) fn hold_requests_to_end() {
    let requests: SigSet = ENDING.into_iter().collect();
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&requests), None);
}

pub(super) fn asked_to_end() -> bool {
    ASKED_TO_END.load(Ordering::SeqCst)
}

pub(super) fn asked_to_kill() -> bool {
    ASKED_TO_KILL.load(Ordering::SeqCst)
}

/// Ends at a request to end, as any process, also at one that waits.
pub(super) fn end_when_asked() {
    for signal in ENDING {
        set_default(signal);
    }
    unblock_all();
}

fn unblock_all() {
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

pub(super) fn set_default(signal: Signal) {
    handle(signal, SigHandler::SigDfl);
}

/// Gives all signals their default action and unblocks them. Whoever started the manager may have changed others than the
/// launcher did, and PAM's modules, too.
pub(super) fn reset() {
    for signal in 1..=libc::SIGRTMAX() {
        set_default_number(signal);
    }
    unblock_all();
}

/// Sends itself a signal, with its default action.
pub(super) fn raise_default(signal: libc::c_int) {
    set_default_number(signal);
    unblock_all();
    // SAFETY: the call takes numbers.
    unsafe { libc::kill(libc::getpid(), signal) };
}

/// The C library's own function leaves out the two signals that it keeps for itself, hence the system call. Two others
/// can't be set, and have no other action than the default.
fn set_default_number(signal: libc::c_int) {
    /// The kernel's `struct sigaction` with the default action: no handler, no flags, no mask.
    const DEFAULT: [u64; 4] = [0; 4];
    /// The size of the kernel's set of signals, in bytes.
    const SET: usize = 8;
    // SAFETY: the default action is no handler, and the constants live through the call.
    unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), std::ptr::null_mut::<u64>(), SET);
    }
}

fn handle(signal: Signal, handler: SigHandler) {
    // A call that waits goes on after the handler.
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handlers below store an atomic at most.
    let _ = unsafe { sigaction(signal, &action) };
}

extern "C" fn nothing(_signal: libc::c_int) {}

extern "C" fn note(signal: libc::c_int) {
    let asked = if signal == KILL as libc::c_int { &ASKED_TO_KILL } else { &ASKED_TO_END };
    asked.store(true, Ordering::SeqCst);
}
