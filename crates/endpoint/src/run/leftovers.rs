//! Ends the nodes that a dead endpoint left running on this machine. Their workers end with them.
//!
//! Most nodes end with the process that started them, except those that a launcher detached from it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::directory::EndpointDir;

/// How long a node may take to end after a signal.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often to check: these nodes are not children of this process, so no event reports their end.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Ends the nodes and returns how many there were.
pub(crate) fn end(endpoint: &EndpointDir) -> usize {
    let nodes: Vec<Pid> = all().into_iter().filter(|pid| is_node_of(*pid, endpoint)).collect();
    for (signal, looks) in [
        (Signal::SIGTERM, PATIENCE.as_millis() / CHECK_INTERVAL.as_millis()),
        (Signal::SIGKILL, PATIENCE.as_millis() / CHECK_INTERVAL.as_millis()),
    ] {
        let alive = || nodes.iter().filter(|pid| is_node_of(**pid, endpoint));
        for pid in alive() {
            // It may have ended, or belong to another user: the next check shows.
            let _ = kill(*pid, signal);
        }
        for _ in 0..looks {
            if alive().next().is_none() {
                return nodes.len();
            }
            sleep(CHECK_INTERVAL);
        }
    }
    nodes.len()
}

fn all() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw)).collect()
}

/// Whether a process is a node whose configuration is in the endpoint's directory.
fn is_node_of(pid: Pid, endpoint: &EndpointDir) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| is_node(&line, endpoint.path()))
}

/// `PROGRAM node … --config FILE …`, word by word: an editor that has such a file open is no node.
fn is_node(line: &[u8], directory: &Path) -> bool {
    let mut words = line.split(|octet| *octet == 0).skip(1);
    words.next() == Some(b"node")
        && words.any(|word| word == b"--config")
        && words.next().is_some_and(|file| Path::new(OsStr::from_bytes(file)).starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_recognized_by_its_command_line() {
        let table = [
            ("/opt/ep|node|--block|0|--config|/home/u/ep/run/node.json", true),
            ("/opt/ep|node|--config|/home/u/ep/run/node.json|--block|0", true),
            ("/opt/ep|node|--config|/home/u/ep2/run/node.json", false),
            ("less| node  --config /home/u/ep/run/node.json", false),
            ("vim|node|/home/u/ep/--config", false),
            ("", false),
        ];
        for (line, expected) in table {
            let words = line.replace('|', "\0");
            assert_eq!(is_node(words.as_bytes(), Path::new("/home/u/ep")), expected, "{line}");
        }
    }
}
