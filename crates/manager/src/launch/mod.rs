//! The launcher: the program that becomes a user endpoint. The only one that runs as root for a submitter.
//!
//! The manager has threads, so it must not fork and go on: it starts its own file again as this program, which has one
//! thread, does one thing, and is gone. It takes its request from a file in memory that only the manager can have written
//! ([`receive`]), goes through the stages in order ([`stages`]), and reports each failure with its stage ([`stage`]).
//!
//! | privilege | where it is used | where it ends |
//! |---|---|---|
//! | root | look up the user ([`user`]), read the administrator's files, PAM ([`pam`]) | [`privileges`] |
//! | root, with PAM | two processes wait for the user endpoint, end it, close its session ([`session`], [`stand_in`]) | with the user endpoint |
//! | the user | its directory and log ([`directory`]), the template, the start document ([`document`]), the program ([`execute`]) | — |
//!
//! What it never does: talk to the network (but for what the name service and PAM's modules do), touch a file below a
//! user's home as root, take a path from a submitter, or go on after a failure.

mod clock;
mod directory;
mod document;
mod ending;
mod execute;
mod holding;
mod keyring;
mod pam;
mod pam_library;
mod privileges;
mod receive;
mod reporter;
mod reports;
mod request;
mod rights;
mod session;
mod signal_as;
mod signals;
mod spawn;
mod stage;
mod stages;
mod stand_in;
mod title;
mod user;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

pub use pam_library::{PamMissing, check_pam};
pub use reports::{LaunchEnd, Reports};
pub use request::{LaunchFailure, LaunchReport, LaunchRequest, ManagerFiles, MappedIdentity};
pub use signal_as::{SIGNAL, signal, signal_as};
pub use spawn::{Launch, OpenFiles, start};

use reporter::Reporter;
use stage::{Problem, Stage};
use title::Title;

/// The first argument that makes a process a launcher. `main` must look for it before it does anything else.
pub const LAUNCH: &str = "__launch";

/// With PAM, the signal by which the manager has a holder kill its user endpoint with the process group, and
/// close the session. The manager itself must not signal that group: only the holder knows whether the number is still the
/// user endpoint's. A holder that is still there a while later may be killed itself; its stand-in closes the session.
pub const KILL_USER_ENDPOINT: Signal = signals::KILL;

/// The launcher. `arguments`: those after [`LAUNCH`].
pub fn main(arguments: impl Iterator<Item = OsString>) -> ! {
    let status = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| launch(arguments))) {
        Ok(Ok(status)) => status,
        // Without a report: the manager says that the launcher was lost.
        Ok(Err(_)) | Err(_) => Stage::Read as u8,
    };
    std::process::exit(status.into())
}

/// Reports to the manager from the first moment at which that is possible.
fn launch(arguments: impl Iterator<Item = OsString>) -> io::Result<u8> {
    signals::begin();
    let title = Title::find();
    let (socket, reports) = receive::take_over_descriptors()?;
    let mut reporter = Reporter::new(reports);
    match receive_request(arguments, socket) {
        Ok((received, manager)) => {
            let mut launch = stages::Launch::new(received, reporter, title, manager);
            let failure = launch.run();
            let status = failure.status;
            launch.report(&LaunchReport::Failed(failure));
            Ok(status)
        }
        Err(error) => {
            let problem = Problem::new("RuntimeError", "failed to start endpoint")
                .privately(format!("launcher: {error}"));
            let failure = problem.at(Stage::Read).report("the local user", false);
            let status = failure.status;
            reporter.send(&LaunchReport::Failed(failure));
            Ok(status)
        }
    }
}

/// Takes the request from the parent, which must be the manager that the arguments name, and must have started this
/// process alone.
fn receive_request(
    mut arguments: impl Iterator<Item = OsString>,
    socket: OwnedFd,
) -> io::Result<(receive::Received, Pid)> {
    let manager = arguments.next().and_then(|number| number.to_str()?.parse().ok()).map(Pid::from_raw);
    let manager = manager.ok_or_else(|| io::Error::other("only a manager starts it"))?;
    if getppid() != manager {
        return Err(io::Error::other("the manager is gone"));
    }
    if let Some(limit) = arguments.next() {
        let limit = limit.to_str().and_then(OpenFiles::of_argument);
        limit.ok_or_else(|| io::Error::other("the limit of open files is not two numbers"))?.set()?;
    }
    if !privileges::single_threaded()? {
        return Err(io::Error::other("the process has more than one thread"));
    }
    Ok((receive::receive(socket)?, manager))
}
