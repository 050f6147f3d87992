//! Reaps processes that nobody else does: as the first process of a container, the manager is the parent of every process
//! whose own parent has ended. Without this, each would stay a zombie, until the container has no numbers left.
//!
//! Other parts of the manager wait for children of their own, at most for seconds after their end. So only a zombie that was
//! one at the look before, and is no child that is known, belongs to nobody.

use std::collections::HashSet;
use std::time::Duration;

use manager::waiting;
use nix::unistd::Pid;

/// How often to look: longer than anybody leaves a zombie.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    zombies: HashSet<Zombie>,
}

/// A process that has ended and is not reaped: its number, and when it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Zombie {
    pid: i32,
    since: u64,
}

impl Orphans {
    /// Whether this process becomes the parent of others' children.
    pub(super) fn come_to_us() -> bool {
        let mut subreaper: libc::c_int = 0;
        // SAFETY: the number lives through the call, which sets it.
        let asked = unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut subreaper) };
        std::process::id() == 1 || asked == 0 && subreaper != 0
    }

    /// Reaps those that were zombies at the look before. `is_known`: who is waited for elsewhere.
    pub(super) fn reap(&mut self, is_known: impl Fn(i32) -> bool) {
        for orphan in self.look(zombies().into_iter().filter(|it| !is_known(it.pid)).collect()) {
            if let Ok(Some(status)) = waiting::reap(Pid::from_raw(orphan.pid)) {
                tracing::debug!(pid = orphan.pid, %status, "reaped an orphan");
            }
        }
    }

    /// Which of these zombies were there at the look before.
    fn look(&mut self, now: HashSet<Zombie>) -> Vec<Zombie> {
        let before = std::mem::replace(&mut self.zombies, now);
        before.intersection(&self.zombies).copied().collect()
    }
}

/// The children of this process that have ended.
fn zombies() -> Vec<Zombie> {
    // Each thread has a list of its own.
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let children =
        threads.flatten().filter_map(|it| std::fs::read_to_string(it.path().join("children")).ok());
    let numbers: Vec<i32> = children
        .flat_map(|text| text.split_ascii_whitespace().map(str::parse).collect::<Vec<_>>())
        .flatten()
        .collect();
    numbers.into_iter().filter_map(zombie).collect()
}

fn zombie(pid: i32) -> Option<Zombie> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may be anything.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let is_zombie = fields.next()? == "Z";
    let since = fields.nth(18)?.parse().ok()?;
    is_zombie.then_some(Zombie { pid, since })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn only_what_was_a_zombie_before_belongs_to_nobody() {
        let zombie = |pid, since| Zombie { pid, since };
        let mut orphans = Orphans::default();
        assert_eq!(orphans.look(HashSet::from([zombie(5, 1), zombie(6, 1)])), []);
        assert_eq!(orphans.look(HashSet::from([zombie(5, 1), zombie(6, 2), zombie(7, 1)])), [zombie(5, 1)]);
        assert_eq!(orphans.look(HashSet::new()), []);
        assert_eq!(orphans.look(HashSet::from([zombie(7, 1)])), []);
    }

    #[test]
    fn an_orphan_is_reaped_and_a_child_that_is_known_is_not() {
        assert!(!Orphans::come_to_us());
        // SAFETY: takes plain numbers.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }, 0);
        assert!(Orphans::come_to_us());
        let known = Command::new("true").spawn().unwrap();
        let known_pid = i32::try_from(known.id()).unwrap();
        let output = Command::new("sh")
            .args(["-c", "sleep 0.2 >/dev/null & echo $!"])
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let orphan: i32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        while zombie(orphan).is_none() || zombie(known_pid).is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut orphans = Orphans::default();
        orphans.reap(|pid| pid == known_pid);
        assert!(zombie(orphan).is_some(), "somebody may wait for it");
        orphans.reap(|pid| pid == known_pid);
        assert!(zombie(orphan).is_none(), "it is gone");
        assert!(zombie(known_pid).is_some());
        let mut known = known;
        assert!(known.wait().unwrap().success());
    }
}
