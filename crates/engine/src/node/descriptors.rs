//! Counts how many workers fit within the limit of open files.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

/// What a worker process costs its node: both ends of its task socket, the stream of its results, the pipe of its
/// output, and its pidfd.
const PER_PROCESS: u64 = 5;

/// What a thread costs: both ends of its task socket, and the stream of its results.
const PER_THREAD: u64 = 3;

/// For the link, for logs, and for what is open while a process is started.
const RESERVED: u64 = 32;

/// The limit of open files, and how many are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    limit: u64,
    open: u64,
}

impl Descriptors {
    /// Of this process, now.
    pub(super) fn read() -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let open = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        Self { limit, open }
    }

    /// How many of `wanted` workers fit, and the reason for users if not all do.
    pub(super) fn fit(self, wanted: u32, threads: bool) -> (u32, Option<String>) {
        let each = if threads { PER_THREAD } else { PER_PROCESS };
        let room = self.limit.saturating_sub(self.open).saturating_sub(RESERVED) / each;
        let fit = wanted.min(u32::try_from(room).unwrap_or(u32::MAX));
        let why = (fit < wanted).then(|| {
            format!(
                "{fit} of {wanted} workers fit: each needs {each} open files, and this node may have {limit}. \
                 Raise the hard limit (`ulimit -Hn`, or LimitNOFILE= in a systemd unit) or lower max_workers_per_node",
                limit = self.limit
            )
        });
        (fit, why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_workers_fit_as_the_limit_of_open_files_allows() {
        for (limit, open, wanted, threads, fit) in [
            (1024, 10, 4, false, 4),
            (1024, 10, 256, false, 196),
            (1024, 10, 256, true, 256),
            (256, 10, 256, false, 42),
            (42, 10, 4, false, 0),
            (10, 20, 4, false, 0),
            (u64::MAX, 10, 4096, false, 4096),
        ] {
            let (found, why) = Descriptors { limit, open }.fit(wanted, threads);
            assert_eq!((found, why.is_some()), (fit, fit < wanted), "{limit} {open} {wanted}");
            let said = format!("{fit} of {wanted} workers fit: each needs ");
            assert!(why.is_none_or(|why| why.starts_with(&said) && why.contains("max_workers_per_node")));
        }
    }
}
