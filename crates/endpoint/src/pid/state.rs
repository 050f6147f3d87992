//! Finds out from the PID files whether the process that runs an endpoint lives.

use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use super::process::Process;
use super::record::{self, Record};
use crate::clock;
use crate::directory::EndpointDir;
use crate::host::host_name;

/// The state of the process that runs an endpoint, as the files show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProcessState {
    /// No file: no process runs the endpoint.
    Absent,
    /// The process lives on this host.
    Alive(Process),
    /// The process is on another host, and has touched the file lately.
    Elsewhere(String),
    /// The process is on another host, and has not touched the file for long. It may be suspended and continue later.
    Silent(String),
    /// The process has ended without removing its files.
    Dead,
}

/// The state of the process that runs an endpoint.
pub(crate) fn process_state(endpoint: &EndpointDir) -> ProcessState {
    let number = match fs::read_to_string(endpoint.pid_file()) {
        Ok(text) => Some(text.trim().parse::<i32>().ok().filter(|number| *number > 0)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(None),
    };
    let record = Record::read(&endpoint.host_file());
    match (number, record) {
        (None, None) => ProcessState::Absent,
        // The process is about to write its second file, or one of them was removed.
        (None, Some(record)) => judge(endpoint, &record),
        (Some(number), Some(record)) if number == Some(record.pid) => judge(endpoint, &record),
        // Upstream's endpoint: only the PID and the title of its process identify it.
        (Some(Some(number)), _) => match Process::titled(number, endpoint.registered_id()) {
            Some(process) => ProcessState::Alive(process),
            None => ProcessState::Dead,
        },
        (Some(None), _) => ProcessState::Dead,
    }
}

fn judge(endpoint: &EndpointDir, record: &Record) -> ProcessState {
    if record.boot == record::boot() {
        if let Some(process) = Process::started(record.pid, record.started) {
            return ProcessState::Alive(process);
        }
        if record.namespace == record::namespace() {
            return ProcessState::Dead;
        }
    } else if record.host == host_name() {
        // This host, before its last boot.
        return ProcessState::Dead;
    }
    let touched = [endpoint.pid_file(), endpoint.host_file()]
        .iter()
        .filter_map(|path| fs::metadata(path).and_then(|file| file.modified()).ok())
        .max();
    match touched {
        Some(time) if is_young(time, record.period) => ProcessState::Elsewhere(record.host.clone()),
        _ => ProcessState::Silent(record.host.clone()),
    }
}

/// Whether a file was touched lately: clocks of hosts may differ by a minute, and three heartbeats may be late.
fn is_young(time: SystemTime, period: u64) -> bool {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    clock::since_epoch().abs_diff(since) < Duration::from_secs(period.saturating_mul(3).saturating_add(60))
}
