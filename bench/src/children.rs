//! Child processes: starts them with a document on standard input, ends them when dropped, measures what they use.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::random;

/// What a program is started with hands this on.
const MARK: &str = "FARCALL_BENCH";

/// A running program. Dropping it ends it: politely first, for it has children of its own.
pub(crate) struct Running {
    child: Child,
    mark: String,
    pub(crate) started: Instant,
}

impl Running {
    /// Starts a program that reads `document` from its standard input.
    pub(crate) fn start(command: &mut Command, document: &[u8]) -> anyhow::Result<Self> {
        let started = Instant::now();
        let id = random::id().to_string();
        let mut child = command
            .env(MARK, &id)
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        child.stdin.take().context("a piped standard input")?.write_all(document)?;
        Ok(Self { child, mark: format!("{MARK}={id}"), started })
    }

    /// The program's processes.
    pub(crate) fn tree(&self) -> Tree {
        Tree { root: self.child.id(), mark: Some(self.mark.clone()) }
    }

    pub(crate) fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        let end = Instant::now() + Duration::from_secs(15);
        while asked.is_ok() && Instant::now() < end {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process, its descendants, and what carries its mark: upstream's processes leave their parents.
pub(crate) struct Tree {
    root: u32,
    mark: Option<String>,
}

/// Processor time used so far.
pub(crate) struct Spent {
    pub(crate) native: Duration,
    pub(crate) python: Duration,
}

impl Tree {
    pub(crate) fn of_this_process() -> Self {
        Self { root: std::process::id(), mark: None }
    }

    fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut found = vec![self.root];
        for entry in fs::read_dir("/proc")? {
            let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(parent) = stat(id).and_then(|fields| fields.get(1)?.parse().ok()) {
                children.entry(parent).or_default().push(id);
            }
            if id != self.root && self.mark.as_ref().is_some_and(|mark| carries(id, mark)) {
                found.push(id);
            }
        }
        let mut next = 0;
        while let Some(id) = found.get(next) {
            found.extend(children.remove(id).unwrap_or_default());
            next += 1;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    pub(crate) fn spent(&self) -> anyhow::Result<Spent> {
        let mut spent = Spent { native: Duration::ZERO, python: Duration::ZERO };
        for id in self.processes()? {
            // The scheduler's own count, in nanoseconds; the fields of `stat` come in hundredths of a second.
            let mut nanoseconds = 0;
            for thread in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
                let line = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
                nanoseconds += line.split(' ').next().and_then(|ran| ran.parse::<u64>().ok()).unwrap_or(0);
            }
            *(if is_python(id) { &mut spent.python } else { &mut spent.native }) +=
                Duration::from_nanos(nanoseconds);
        }
        Ok(spent)
    }

    /// Memory in proportion: what processes share counts once.
    pub(crate) fn memory_kib(&self) -> anyhow::Result<u64> {
        Ok(self.processes()?.into_iter().map(pss_kib).sum())
    }

    pub(crate) fn count(&self) -> anyhow::Result<usize> {
        Ok(self.processes()?.len())
    }

    /// The same without Python's processes.
    pub(crate) fn native_kib(&self) -> anyhow::Result<u64> {
        Ok(self.processes()?.into_iter().filter(|id| !is_python(*id)).map(pss_kib).sum())
    }

    /// The largest Python process, or the largest process of ours besides the root.
    pub(crate) fn largest_kib(&self, python: bool) -> anyhow::Result<u64> {
        let others = self.processes()?.into_iter().filter(|id| *id != self.root && is_python(*id) == python);
        Ok(others.map(pss_kib).max().unwrap_or(0))
    }
}

/// Whether a process has this line in its environment.
fn carries(id: u32, line: &str) -> bool {
    let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|one| one == line.as_bytes())
}

fn is_python(id: u32) -> bool {
    let program = fs::read_link(format!("/proc/{id}/exe")).unwrap_or_default();
    program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"))
}

fn pss_kib(id: u32) -> u64 {
    let path = Path::new("/proc").join(id.to_string()).join("smaps_rollup");
    let rollup = fs::read_to_string(path).unwrap_or_default();
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    pss.and_then(|kib| kib.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The fields of a process's `stat` after its name: state, parent, …
fn stat(id: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(line.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}
