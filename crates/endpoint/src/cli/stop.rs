//! `stop`: ends an endpoint that runs on this machine.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ambient;
use crate::cli::note;
use crate::config::Config;
use crate::directory::{Base, EndpointDir};
use crate::exit::{Failure, Outcome, status};
use crate::pid::{self, Standing};

/// An orderly stop takes the tasks' grace and at most so much more.
const BEYOND_GRACE: Duration = Duration::from_secs(8);
/// After the second signal, and after the last.
const HURRIED: Duration = Duration::from_secs(5);
/// How often to look whether the process is gone. It is nobody's child here, so nothing wakes us.
const LOOKING: Duration = Duration::from_millis(50);

pub(super) fn run(base: &Base, name: &str) -> Outcome {
    let endpoint = base.find(name)?;
    let name = endpoint.name();
    match pid::standing(&endpoint.pid_file()) {
        Standing::Absent => {
            note(format_args!("Endpoint <{name}> is not active."));
            Ok(())
        }
        Standing::Dead => {
            remove_pid_file(&endpoint)?;
            note(format_args!("Endpoint <{name}> has been cleaned up."));
            Ok(())
        }
        Standing::Alive(pid) => end(&endpoint, &name, pid),
    }
}

/// First signal: stop in order. Second: stop now. Last: be stopped.
fn end(endpoint: &EndpointDir, name: &str, pid: Pid) -> Outcome {
    let grace = Config::load(endpoint).map_or(5, |(config, _)| config.shutdown_grace);
    let patience = Duration::from_secs(grace) + BEYOND_GRACE;
    for (signal, wait) in
        [(Signal::SIGTERM, patience), (Signal::SIGTERM, HURRIED), (Signal::SIGKILL, HURRIED)]
    {
        match kill(pid, signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => {
                return Err(Failure::new(
                    status::NOPERM,
                    format!("Error: process {pid} can't be ended: {error}"),
                ));
            }
        }
        if gone(endpoint, pid, wait) {
            let orderly = signal == Signal::SIGTERM;
            remove_pid_file(endpoint)?;
            if !orderly {
                note(format_args!("Endpoint <{name}> did not gracefully shutdown"));
            }
            note(format_args!("Endpoint <{name}> is now stopped"));
            return Ok(());
        }
    }
    Err(Failure::error(format!("Endpoint <{name}> could not be terminated (process {pid})")))
}

fn gone(endpoint: &EndpointDir, pid: Pid, wait: Duration) -> bool {
    let since = ambient::now();
    loop {
        if pid::standing(&endpoint.pid_file()) != Standing::Alive(pid) && !pid::runs_endpoint(pid.as_raw()) {
            return true;
        }
        if ambient::now().duration_since(since) >= wait {
            return false;
        }
        sleep(LOOKING);
    }
}

fn remove_pid_file(endpoint: &EndpointDir) -> Outcome {
    let path = endpoint.pid_file();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::error(format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
