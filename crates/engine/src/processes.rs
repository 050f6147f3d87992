//! Ends processes with everything they have started.
//!
//! The node is the reaper of its orphans (a "child subreaper"), so nothing a worker leaves behind escapes to the
//! system. What belongs to a worker is told by its session, and by the two variables that only its descendants
//! have, which a new session does not wash off.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// New processes may appear between two looks; a fork bomb is outrun within a few.
const LOOKS: u32 = 200;

/// Makes this process the reaper of its orphans.
pub(crate) fn adopt_orphans() {
    // A kernel that can't leaves orphans to the system's first process, as upstream does.
    let _ = nix::sys::prctl::set_child_subreaper(true);
}

/// Kills what a dead worker has left behind, and waits until it is gone.
pub(crate) async fn sweep(worker: Pid, pool: &str, rank: u32) {
    let marks = [format!("PARSL_WORKER_POOL_ID={pool}"), format!("PARSL_WORKER_RANK={rank}")];
    for _ in 0..LOOKS {
        let _ = killpg(worker, Signal::SIGKILL); // nobody there is as good
        let left: Vec<_> = processes().filter(|&pid| pid != worker && belongs(pid, worker, &marks)).collect();
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = kill(pid, Signal::SIGKILL);
        }
        reap(&HashSet::new());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Takes in the exit statuses of orphans; `known` processes have somebody else who waits for them.
pub(crate) fn reap(known: &HashSet<Pid>) {
    let here = nix::unistd::getpid();
    for pid in processes().filter(|pid| !known.contains(pid)) {
        if zombie_of(pid, here) {
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG)); // somebody else was faster
        }
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let here = nix::unistd::getpid();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .filter(move |&pid| pid != here)
}

/// Whether anybody of a process group still runs. The dead whom nobody has waited for do not count: a system may
/// take its time to bury them.
pub(crate) fn group_runs(group: Pid) -> bool {
    killpg(group, None).is_ok()
        && processes().any(|pid| stat(pid).is_some_and(|stat| stat.group == group && !stat.is_dead()))
}

struct Stat {
    state: char,
    parent: Pid,
    group: Pid,
    session: Pid,
}

impl Stat {
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

fn stat(pid: Pid) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let mut number = || fields.next()?.parse().ok().map(Pid::from_raw);
    Some(Stat { state, parent: number()?, group: number()?, session: number()? })
}

fn zombie_of(pid: Pid, parent: Pid) -> bool {
    stat(pid).is_some_and(|stat| stat.is_dead() && stat.parent == parent)
}

fn belongs(pid: Pid, worker: Pid, marks: &[String]) -> bool {
    let Some(stat) = stat(pid) else { return false };
    if stat.is_dead() {
        return false;
    }
    stat.session == worker || {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        marks.iter().all(|mark| environment.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes()))
    }
}
