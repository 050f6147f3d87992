//! Ends what an endpoint that died left running: its nodes on this machine. Their workers die with them.
//!
//! Most nodes end with the process that started them; what a launcher took out of that process's reach does not.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::directory::EndpointDir;

/// A node that is asked to end has so long.
const PATIENCE: Duration = Duration::from_secs(3);
/// Nobody here is its parent, so nothing wakes us.
const LOOKING: Duration = Duration::from_millis(20);

/// Ends the nodes; how many there were.
pub(super) fn end(endpoint: &EndpointDir) -> usize {
    let nodes: Vec<Pid> = all().into_iter().filter(|pid| is_node_of(*pid, endpoint)).collect();
    for (signal, looks) in [
        (Signal::SIGTERM, PATIENCE.as_millis() / LOOKING.as_millis()),
        (Signal::SIGKILL, PATIENCE.as_millis() / LOOKING.as_millis()),
    ] {
        let alive = || nodes.iter().filter(|pid| is_node_of(**pid, endpoint));
        for pid in alive() {
            // Gone in the meantime, or not ours to end: the next look tells.
            let _ = kill(*pid, signal);
        }
        for _ in 0..looks {
            if alive().next().is_none() {
                return nodes.len();
            }
            sleep(LOOKING);
        }
    }
    nodes.len()
}

fn all() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw)).collect()
}

/// Whether a process is a node whose configuration lies in the endpoint's directory: `… node … --config FILE`.
fn is_node_of(pid: Pid, endpoint: &EndpointDir) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    line.contains(" node ") && line.contains(&format!(" --config {}/", endpoint.path().display()))
}
