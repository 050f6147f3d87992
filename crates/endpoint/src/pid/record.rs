//! The content of `daemon.host`: which process, on which host, started when.

use std::fs;
use std::io;
use std::path::Path;

use crate::host::host_name;

/// Identifies one process among those of all hosts and times. In the file each field is a line, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) host: String,
    /// How often the process touches the PID file, in seconds.
    pub(super) period: u64,
    pub(super) pid: i32,
    /// When the process started, in clock ticks since the boot.
    pub(super) started: u64,
    /// The kernel's id of this boot.
    pub(super) boot: String,
    /// The PID namespace: a container has its own.
    pub(super) namespace: String,
}

impl Record {
    /// The record of this process.
    pub(super) fn own(period: u64) -> io::Result<Self> {
        let pid = nix::unistd::getpid().as_raw();
        let started = super::process::start(pid).ok_or_else(|| io::Error::other("/proc can't be read"))?;
        Ok(Self { host: host_name(), period, pid, started, boot: boot(), namespace: namespace() })
    }

    /// Whether both are of one process. Its period and the host's name may have changed since it wrote the file.
    pub(super) fn is_of_same_process(&self, other: &Self) -> bool {
        (self.pid, self.started, &self.boot, &self.namespace)
            == (other.pid, other.started, &other.boot, &other.namespace)
    }

    pub(super) fn text(&self) -> String {
        let Self { host, period, pid, started, boot, namespace } = self;
        format!("{host}\n{period}\n{pid}\n{started}\n{boot}\n{namespace}\n")
    }

    /// Reads the record in a file; none if there is no file or no valid record.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let mut lines = text.lines();
        let mut next = || lines.next().map(str::to_owned);
        Some(Self {
            host: next()?,
            period: next()?.parse().ok()?,
            pid: next()?.parse().ok()?,
            started: next()?.parse().ok()?,
            boot: next()?,
            namespace: next()?,
        })
    }
}

pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

pub(super) fn namespace() -> String {
    fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}
