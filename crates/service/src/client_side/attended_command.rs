//! Runs a command for the user and ends every process that it leaves behind.
//!
//! The command is in the process group of this process, so that it can read from the terminal and be interrupted by it. Its
//! processes are the descendants of this process, which adopts orphans ("child subreaper"), so that neither a new session
//! nor a second fork escapes. When the command has ended, its remaining processes are ended too.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// The time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How often the processes are listed after the grace: enough to end a fork bomb, if it can be ended.
const LOOKS_AFTER_GRACE: u32 = 200;

/// The signals that stop this process, caught.
#[derive(Debug)]
pub struct Signals {
    pub(super) terminate: tokio::signal::unix::Signal,
    pub(super) interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub fn catch() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs the command to its end, and ends what it left behind. A SIGTERM for us goes to the command, which may end its
/// children in order; to the rest of its process group, too, if it has not ended a while later, as a shell that waits for a
/// child; and when it ends, it decides. What has a group of its own is the command's to end, until it has ended. When `over`
/// comes to its end, the command ends whether it wants to or not.
pub async fn run(
    mut command: Command,
    signals: &mut Signals,
    over: impl Future<Output = ()>,
) -> io::Result<ExitStatus> {
    // A kernel that can't leaves orphans to the system's first process.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let mut ended = signal(SignalKind::child())?;
    let mut child = command.spawn()?;
    let tree = Tree::of(&child, None);
    let mut all_at = None;
    tokio::pin!(over);
    let status = loop {
        let late = async {
            match all_at {
                Some(moment) => tokio::time::sleep_until(moment).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            status = child.wait() => break status,
            // A terminal's interrupt reaches the command by itself: it decides what that means.
            _ = signals.interrupt.recv() => {}
            _ = signals.terminate.recv() => {
                tree.signal_the_command();
                all_at = all_at.or_else(|| Some(tokio::time::Instant::now() + GRACE));
            }
            () = late => {
                tree.signal_the_group();
                all_at = None;
            }
            _ = ended.recv() => tree.reap(),
            () = &mut over => break end(&mut child, &tree).await,
        }
    };
    tree.end().await;
    status
}

/// The exit status as shells report it: 128 + n for a process killed by signal n.
pub fn as_a_shell_says(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

async fn end(child: &mut Child, tree: &Tree) -> io::Result<ExitStatus> {
    tree.signal_the_command();
    if let Ok(status) = tokio::time::timeout(GRACE, child.wait()).await {
        return status;
    }
    child.kill().await?;
    child.wait().await
}

/// The command's processes: the descendants of this process, except another child and its descendants.
pub(super) struct Tree {
    command: Option<Pid>,
    other: Option<Pid>,
}

impl Tree {
    pub(super) fn of(command: &Child, other: Option<Pid>) -> Tree {
        let command = command.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        Tree { command, other }
    }

    pub(super) fn signal_the_command(&self) {
        if let Some(pid) = self.command {
            let _ = kill(pid, Signal::SIGTERM); // it may end at this moment
        }
    }

    fn signal_the_group(&self) {
        let group = nix::unistd::getpgrp();
        for process in self.living().iter().filter(|process| process.group == group) {
            let _ = kill(process.pid, Signal::SIGTERM); // it may end at this moment
        }
    }

    /// Ends the remaining processes: SIGTERM, then SIGKILL.
    pub(super) async fn end(&self) {
        let mut asked = HashSet::new();
        let asking = tokio::time::timeout(GRACE, async {
            loop {
                self.reap();
                let left = self.living();
                if left.is_empty() {
                    return;
                }
                for process in left {
                    if asked.insert(process.pid) {
                        let _ = kill(process.pid, Signal::SIGTERM);
                    }
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        });
        if asking.await.is_ok() {
            return;
        }
        for _ in 0..LOOKS_AFTER_GRACE {
            let left = self.living();
            if left.is_empty() {
                return;
            }
            for process in left {
                let _ = kill(process.pid, Signal::SIGKILL);
            }
            self.reap();
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        tracing::warn!(left = self.living().len(), "processes of the command did not end");
    }

    fn living(&self) -> Vec<Process> {
        descendants(&processes(), getpid(), self.other)
    }

    /// Takes in the exit statuses of adopted orphans; the command and the other child have somebody who waits.
    pub(super) fn reap(&self) {
        for process in processes() {
            let awaited = [self.command, self.other].contains(&Some(process.pid));
            if process.dead && process.parent == getpid() && !awaited {
                let _ = waitpid(process.pid, Some(WaitPidFlag::WNOHANG));
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: Pid,
    parent: Pid,
    group: Pid,
    /// It is a zombie: it has ended and was not waited for.
    dead: bool,
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().map(Pid::from_raw));
    pids.filter_map(|pid| parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).collect()
}

fn parse(pid: Pid, stat: &str) -> Option<Process> {
    // The name stands in parentheses and may hold anything.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let dead = matches!(fields.next()?, "Z" | "X");
    let mut number = || fields.next()?.parse().ok().map(Pid::from_raw);
    Some(Process { pid, parent: number()?, group: number()?, dead })
}

/// The living descendants of `root`, without `spared` and its own.
fn descendants(processes: &[Process], root: Pid, spared: Option<Pid>) -> Vec<Process> {
    let mut children: HashMap<Pid, Vec<Process>> = HashMap::new();
    for process in processes {
        children.entry(process.parent).or_default().push(*process);
    }
    let (mut found, mut open) = (Vec::new(), vec![root]);
    while let Some(parent) = open.pop() {
        // Taken out: a loop in what /proc said, piece by piece, ends as well.
        for process in children.remove(&parent).unwrap_or_default() {
            if Some(process.pid) != spared {
                open.push(process.pid);
                found.extend((!process.dead).then_some(process));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, dead: bool) -> Process {
        Process { pid: Pid::from_raw(pid), parent: Pid::from_raw(parent), group: Pid::from_raw(1), dead }
    }

    #[test]
    fn descendants_without_the_other_child_and_its_own() {
        let processes = [
            process(1, 0, false),
            process(10, 1, false), // we
            process(11, 10, false),
            process(12, 11, true),
            process(13, 12, false),
            process(20, 10, false), // the other child
            process(21, 20, false),
            process(30, 1, false),
            process(41, 42, false), // a loop
            process(42, 41, false),
        ];
        let found = descendants(&processes, Pid::from_raw(10), Some(Pid::from_raw(20)));
        let mut found: Vec<_> = found.iter().map(|process| process.pid.as_raw()).collect();
        found.sort_unstable();
        assert_eq!(found, [11, 13]);
    }

    #[test]
    fn a_name_may_hold_anything() {
        let pid = Pid::from_raw(7);
        let parsed = parse(pid, "7 (a) Z 9 (b)) S 3 1 7 0 -1");
        assert_eq!(parsed, Some(process(7, 3, false)));
        assert_eq!(parse(pid, "7 (x) Z 3 1 7"), Some(process(7, 3, true)));
        assert_eq!(parse(pid, ""), None);
    }
}
