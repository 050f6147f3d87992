//! Blocks as the core sees them: how many there should be, and when too many have failed.
//!
//! ```text
//! asked for --submitted--> live --(its job ends)--> ended: completed | cancelled | failed | missing | scaled in
//!     \--refused----------------------------------/
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// How a block's job ended, with all that can be told to users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epitaph {
    pub(crate) message: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) stdout: Option<String>,
    pub(crate) stderr: Option<String>,
}

/// How a block ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Completed(Epitaph),
    Cancelled(Epitaph),
    Failed(Epitaph),
    /// It ended, in whatever way, before any node of it had called.
    Missing(Epitaph),
    ScaledIn,
}

const MISSING: &str = "Job is marked as MISSING since the workers failed to register to the executor. Check the \
                       stdout/stderr logs in the submit_scripts directory for more debug information";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Asked for or running.
    Live,
    Ended(Ended),
}

#[derive(Debug)]
struct Block {
    state: State,
    had_nodes: bool,
}

/// What the blocks should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) init: u32,
    pub(crate) min: u32,
    pub(crate) max: u32,
    pub(crate) nodes_per_block: u32,
    pub(crate) workers_per_node: u32,
    pub(crate) parallelism: f64,
    pub(crate) max_idle: Duration,
    /// Whether failed blocks bring the engine into bad state.
    pub(crate) mind_failures: bool,
}

#[derive(Debug)]
pub(crate) struct Blocks {
    wanted: Wanted,
    all: BTreeMap<u32, Block>,
    live: u32,
    next: u32,
    idle_since: Option<Duration>,
    /// Failures since a task last came to a result; one that never had a node weighs as much as several that had.
    strikes: u32,
}

/// A block that never had a node fails for a reason that lasts; one that had may have met an accident.
const STRIKES_NEVER_CALLED: u32 = 3;

/// A step of scaling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scaling {
    Nothing,
    Submit(Vec<u32>),
    Cancel(Vec<u32>),
}

impl Blocks {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self { wanted, all: BTreeMap::new(), live: 0, next: 0, idle_since: None, strikes: 0 }
    }

    /// The first blocks, asked for as soon as the engine starts.
    pub(crate) fn first(&mut self) -> Scaling {
        self.more(self.wanted.init)
    }

    fn more(&mut self, count: u32) -> Scaling {
        if count == 0 {
            return Scaling::Nothing;
        }
        let numbers: Vec<_> = (self.next..self.next.saturating_add(count)).collect();
        for &number in &numbers {
            self.all.insert(number, Block { state: State::Live, had_nodes: false });
        }
        self.live += count;
        self.next += count;
        Scaling::Submit(numbers)
    }

    /// The next step towards what `outstanding` tasks need: the strategy that sites know as `simple`.
    pub(crate) fn scale(&mut self, outstanding: usize, now: Duration) -> Scaling {
        let wanted = self.wanted;
        if outstanding == 0 {
            if self.live <= wanted.min {
                self.idle_since = None;
                return Scaling::Nothing;
            }
            let since = *self.idle_since.get_or_insert(now);
            if now.saturating_sub(since) < wanted.max_idle {
                return Scaling::Nothing;
            }
            return self.fewer(self.live - wanted.min);
        }
        self.idle_since = None;
        if self.live >= wanted.max {
            return Scaling::Nothing;
        }
        let per_block = f64::from(wanted.workers_per_node) * f64::from(wanted.nodes_per_block);
        let lacking = outstanding as f64 * wanted.parallelism - f64::from(self.live) * per_block;
        if lacking > 0.0 {
            let blocks = (lacking / per_block).ceil().min(f64::from(wanted.max - self.live));
            return self.more(blocks as u32);
        }
        if self.live == 0 { self.more(1) } else { Scaling::Nothing }
    }

    /// When [`Self::scale`] would give idle blocks back.
    pub(crate) fn idle_until(&self) -> Option<Duration> {
        Some(self.idle_since? + self.wanted.max_idle)
    }

    fn fewer(&mut self, count: u32) -> Scaling {
        self.idle_since = None;
        let live = self.all.iter().filter(|(_, block)| block.state == State::Live);
        let numbers: Vec<_> = live.map(|(number, _)| *number).take(count as usize).collect();
        for number in &numbers {
            self.end(*number, Ended::ScaledIn);
        }
        if numbers.is_empty() { Scaling::Nothing } else { Scaling::Cancel(numbers) }
    }

    /// All that live, to be cancelled because the engine stops.
    pub(crate) fn give_up(&mut self) -> Scaling {
        self.fewer(self.live)
    }

    /// Whether a node may belong to this block.
    pub(crate) fn is_live(&self, number: u32) -> bool {
        self.all.get(&number).is_some_and(|block| block.state == State::Live)
    }

    pub(crate) fn node_joined(&mut self, number: u32) {
        if let Some(block) = self.all.get_mut(&number) {
            block.had_nodes = true;
        }
    }

    /// A task came to a result: whatever failed before, blocks work.
    pub(crate) fn task_ended(&mut self) {
        self.strikes = 0;
    }

    /// A block's job has ended by itself, or could not be submitted.
    pub(crate) fn job_ended(&mut self, number: u32, ended: Ended) {
        let Some(block) = self.all.get(&number) else { return };
        let ended = match ended {
            ended if block.had_nodes => ended,
            Ended::Completed(epitaph)
            | Ended::Cancelled(epitaph)
            | Ended::Failed(epitaph)
            | Ended::Missing(epitaph) => Ended::Missing(missing(epitaph)),
            Ended::ScaledIn => Ended::ScaledIn,
        };
        self.end(number, ended);
    }

    fn end(&mut self, number: u32, ended: Ended) {
        let Some(block) = self.all.get_mut(&number) else { return };
        if block.state != State::Live {
            return;
        }
        self.strikes += match &ended {
            Ended::Missing(_) => STRIKES_NEVER_CALLED,
            Ended::Failed(_) => 1,
            Ended::Completed(_) | Ended::Cancelled(_) | Ended::ScaledIn => 0,
        };
        block.state = State::Ended(ended);
        self.live -= 1;
    }

    /// What to tell users when too many blocks have failed for another one to be worth asking for.
    pub(crate) fn verdict(&self) -> Option<String> {
        let enough = STRIKES_NEVER_CALLED.saturating_mul(self.wanted.init.max(1));
        if !self.wanted.mind_failures || self.live > 0 || self.strikes < enough {
            return None;
        }
        let mut text = String::new();
        let failed = self.all.values().filter_map(|block| match &block.state {
            State::Ended(Ended::Failed(epitaph) | Ended::Missing(epitaph)) => Some(epitaph),
            _ => None,
        });
        for (index, epitaph) in failed.enumerate() {
            let _ = writeln!(text, "Error {}:", index + 1); // writing to a String can't fail
            let mut line = |name: &str, value: Option<&str>| {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    let _ = writeln!(text, "\t{name}{value}");
                }
            };
            line("", epitaph.message.as_deref());
            line("EXIT CODE: ", epitaph.exit_code.map(|code| code.to_string()).as_deref());
            line("STDOUT: ", epitaph.stdout.as_deref());
            line("STDERR: ", epitaph.stderr.as_deref());
        }
        Some(text)
    }
}

fn missing(epitaph: Epitaph) -> Epitaph {
    Epitaph { message: epitaph.message.or_else(|| Some(MISSING.to_owned())), ..epitaph }
}
