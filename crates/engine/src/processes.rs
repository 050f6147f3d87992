//! Kills workers with every process that they have started.
//!
//! The node is a child subreaper: a process whose parent has died becomes the node's child, so that none escapes. A
//! worker's descendants are recognised by three marks: its session; an environment variable, which a process keeps in
//! a new session; and a resource limit, which a process keeps even with an empty environment.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// How often the processes are scanned at most: new ones may appear between two scans. A few scans outrun a fork
/// bomb.
const MAX_SCANS: u32 = 200;

/// The environment variable that names the worker from which a process descends.
pub(crate) const MARK: &str = "FARCALL_WORKER";

pub(crate) fn mark(pool: &str, rank: u32) -> String {
    format!("{pool}.{rank}")
}

/// The limit of POSIX message queues, which hardly any program uses: lowered by a few bytes it identifies a worker's
/// descendants.
pub(crate) const MARKED_LIMIT: Resource = Resource::RLIMIT_MSGQUEUE;

/// The soft and the hard [`MARKED_LIMIT`] of the worker of this rank; none where the limit can't serve as a mark.
pub(crate) fn marking_limit(rank: u32) -> Option<(u64, u64)> {
    let (soft, hard) = getrlimit(MARKED_LIMIT).ok()?;
    (soft != RLIM_INFINITY).then_some(())?;
    Some((soft.checked_sub(u64::from(rank) + 1)?, hard))
}

/// Lets a process that is to be started inherit this descriptor, by the same number.
pub(crate) fn inherit(command: &mut Command, descriptor: &OwnedFd) {
    let number = descriptor.as_raw_fd();
    // SAFETY: between fork and exec only a system call is made. The caller's descriptor is open until then.
    unsafe {
        command.pre_exec(move || {
            let descriptor = BorrowedFd::borrow_raw(number);
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(())
        });
    }
}

/// Gives a process that is to be started the soft limit of open files that users had.
pub(crate) fn limit_open_files(command: &mut Command, soft: Option<u64>) {
    let Some(soft) = soft else { return };
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        command.pre_exec(move || {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            Ok(setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)?)
        });
    }
}

/// Held while a process is started: when `exec` fails, the standard library waits for the process and panics if it
/// was reaped.
static STARTING: Mutex<()> = Mutex::new(());

/// Starts a process. [`reap`] can't take its exit status before this returns.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let _held = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// Makes this process a child subreaper.
pub(crate) fn adopt_orphans() {
    // On a kernel without it, orphans go to the system's first process, as with upstream.
    let _ = nix::sys::prctl::set_child_subreaper(true);
}

/// Kills the processes that these workers of a pool have started, and waits until they are gone. It takes many
/// workers at once because each scan reads all processes of the machine.
pub(crate) async fn kill_descendants(pool: &str, workers: &[(Pid, u32)]) {
    let marks = DescendantMarks {
        sessions: workers.iter().map(|(worker, _)| *worker).collect(),
        variables: workers
            .iter()
            .map(|(_, rank)| format!("{MARK}={}", mark(pool, *rank)).into_bytes())
            .collect(),
        limits: workers.iter().filter_map(|(_, rank)| Some(marking_limit(*rank)?.0)).collect(),
    };
    for _ in 0..MAX_SCANS {
        for (worker, _) in workers {
            let _ = killpg(*worker, Signal::SIGKILL); // it may have ended already
        }
        let left: Vec<_> =
            processes().filter(|pid| !marks.sessions.contains(pid) && marks.are_on(*pid)).collect();
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = kill(pid, Signal::SIGKILL);
        }
        reap(&marks.sessions);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Reaps orphans that have ended; `known` processes are waited for elsewhere. Does nothing while a process is being
/// started.
pub(crate) fn reap(known: &HashSet<Pid>) {
    let Ok(_held) = STARTING.try_lock().or_else(|error| match error {
        TryLockError::Poisoned(error) => Ok(error.into_inner()),
        TryLockError::WouldBlock => Err(()),
    }) else {
        return;
    };
    let here = nix::unistd::getpid();
    for pid in processes().filter(|pid| !known.contains(pid)) {
        if is_zombie_of(pid, here) {
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG)); // it may have been reaped already
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

/// Whether a process of this group still runs. Zombies do not count: reaping may lag.
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
    // The process's name is in parentheses and may contain anything, `)` too.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let mut number = || fields.next()?.parse().ok().map(Pid::from_raw);
    Some(Stat { state, parent: number()?, group: number()?, session: number()? })
}

fn is_zombie_of(pid: Pid, parent: Pid) -> bool {
    stat(pid).is_some_and(|stat| stat.is_dead() && stat.parent == parent)
}

/// The marks by which descendants of some workers are recognised.
struct DescendantMarks {
    sessions: HashSet<Pid>,
    variables: HashSet<Vec<u8>>,
    limits: HashSet<u64>,
}

impl DescendantMarks {
    fn are_on(&self, pid: Pid) -> bool {
        stat(pid).is_some_and(|stat| {
            !stat.is_dead()
                && (self.sessions.contains(&stat.session) || self.in_environment(pid) || self.in_limits(pid))
        })
    }

    fn in_environment(&self, pid: Pid) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| self.variables.contains(entry))
    }

    /// Workers of other nodes have the same limits, so the process must also descend from this node.
    fn in_limits(&self, pid: Pid) -> bool {
        let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
        let soft = text.lines().find_map(|line| {
            line.strip_prefix("Max msgqueue size")?.split_ascii_whitespace().next()?.parse::<u64>().ok()
        });
        soft.is_some_and(|soft| self.limits.contains(&soft)) && descends_from(pid, nix::unistd::getpid())
    }
}

/// The deepest process tree that is followed: /proc changes meanwhile and may show a loop.
const MAX_DEPTH: usize = 1000;

fn descends_from(mut pid: Pid, ancestor: Pid) -> bool {
    for _ in 0..MAX_DEPTH {
        match stat(pid) {
            Some(stat) if stat.parent == ancestor => return true,
            Some(stat) if stat.parent.as_raw() > 1 => pid = stat.parent,
            _ => return false,
        }
    }
    false
}
