//! Blocks as the core sees them: how many there should be, and when too many have failed.
//!
//! ```text
//! asked for --submitted--> live --(its job ends)--> ended: completed | cancelled | failed | missing
//!     \--refused----------------------------------/
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How a block's job ended, with all that can be told to users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExitReport {
    pub(crate) message: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) stdout: Option<String>,
    pub(crate) stderr: Option<String>,
}

/// How a block ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BlockEnd {
    Completed(ExitReport),
    Cancelled(ExitReport),
    Failed(ExitReport),
    /// It ended, in whatever way, before any node of it had called.
    Missing(ExitReport),
}

const MISSING: &str = "Job is marked as MISSING since the workers failed to register to the executor. Check the \
                       stdout/stderr logs in the submit_scripts directory for more debug information";

/// How blocks follow the tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ScalingStrategy {
    /// The first blocks, and no others.
    None,
    /// More while tasks wait; when nothing is left to do, all above the least are given back.
    #[default]
    Simple,
    /// As simple, and idle blocks are given back while others still work.
    HtexAutoScale,
}

/// What the blocks should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScalingRules {
    pub(crate) strategy: ScalingStrategy,
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
    wanted: ScalingRules,
    /// Asked for or running; and whether a node of it has ever called.
    live: BTreeMap<u32, bool>,
    next: u32,
    idle_since: Option<Duration>,
    /// When idle blocks may next be looked for.
    next_look: Duration,
    /// Failures since a task last came to a result; one that never had a node weighs as much as several that had.
    strikes: u32,
    /// The last of them, to be told to users.
    failures: VecDeque<ExitReport>,
}

/// A block that never had a node fails for a reason that lasts; one that had may have met an accident.
const STRIKES_NEVER_CALLED: u32 = 3;

/// So many failures are told.
const TOLD: usize = 10;

/// A step of scaling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScalingStep {
    Nothing,
    Submit(Vec<u32>),
    Cancel(Vec<u32>),
}

impl Blocks {
    pub(crate) fn new(wanted: ScalingRules) -> Self {
        Self {
            wanted,
            live: BTreeMap::new(),
            next: 0,
            idle_since: None,
            next_look: Duration::ZERO,
            strikes: 0,
            failures: VecDeque::new(),
        }
    }

    /// The first blocks, asked for as soon as the engine starts.
    pub(crate) fn first(&mut self) -> ScalingStep {
        self.more(self.wanted.init.min(self.wanted.max))
    }

    fn more(&mut self, count: u32) -> ScalingStep {
        if count == 0 {
            return ScalingStep::Nothing;
        }
        let numbers: Vec<_> = (self.next..self.next.saturating_add(count)).collect();
        self.live.extend(numbers.iter().map(|&number| (number, false)));
        self.next += count;
        ScalingStep::Submit(numbers)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.live.len()).unwrap_or(u32::MAX)
    }

    fn per_block(&self) -> f64 {
        f64::from(self.wanted.workers_per_node) * f64::from(self.wanted.nodes_per_block)
    }

    /// The next step towards what `outstanding` tasks need; `draining` nodes take none of them.
    pub(crate) fn scale(&mut self, outstanding: usize, draining: usize, now: Duration) -> ScalingStep {
        let (wanted, live) = (self.wanted, self.count());
        if wanted.strategy == ScalingStrategy::None {
            return ScalingStep::Nothing;
        }
        if outstanding == 0 {
            if live <= wanted.min {
                self.idle_since = None;
                return ScalingStep::Nothing;
            }
            let since = *self.idle_since.get_or_insert(now);
            if now.saturating_sub(since) < wanted.max_idle {
                return ScalingStep::Nothing;
            }
            self.idle_since = None;
            let surplus = self.live.keys().copied().take((live - wanted.min) as usize).collect();
            return self.give_back(surplus);
        }
        self.idle_since = None;
        if live >= wanted.max {
            return ScalingStep::Nothing;
        }
        let draining = draining as f64 * f64::from(wanted.workers_per_node);
        let capacity = (f64::from(live) * self.per_block() - draining).max(0.0);
        let lacking = (outstanding as f64 * wanted.parallelism).ceil() - capacity;
        if lacking > 0.0 {
            let blocks = (lacking / self.per_block()).ceil().min(f64::from(wanted.max - live));
            return self.more(blocks as u32);
        }
        if live == 0 { self.more(1) } else { ScalingStep::Nothing }
    }

    /// How many blocks could go although there are tasks, if so many are idle; asked only when it is time to look.
    pub(crate) fn surplus(&mut self, outstanding: usize, now: Duration) -> Option<usize> {
        let wanted = self.wanted;
        if !self.may_trim(outstanding) || now < self.next_look {
            return None;
        }
        self.next_look = now + wanted.max_idle.clamp(SHORTEST_LOOK, LONGEST_LOOK);
        let spare = f64::from(self.count()) * self.per_block() - outstanding as f64 * wanted.parallelism;
        let blocks = (spare.floor() / self.per_block()).floor().max(0.0);
        Some(blocks.min(f64::from(self.count() - wanted.min)) as usize).filter(|&blocks| blocks > 0)
    }

    fn may_trim(&self, outstanding: usize) -> bool {
        self.wanted.strategy == ScalingStrategy::HtexAutoScale
            && outstanding > 0
            && self.count() > self.wanted.min
    }

    /// How long a block must have been idle to be given back.
    pub(crate) fn max_idle(&self) -> Duration {
        self.wanted.max_idle
    }

    /// When [`Self::scale`] or [`Self::surplus`] may give idle blocks back.
    pub(crate) fn idle_until(&self, outstanding: usize) -> Option<Duration> {
        let all = self.idle_since.map(|since| since + self.wanted.max_idle);
        all.into_iter().chain(self.may_trim(outstanding).then_some(self.next_look)).min()
    }

    /// Ends these blocks because nobody needs them.
    pub(crate) fn give_back(&mut self, mut numbers: Vec<u32>) -> ScalingStep {
        numbers.retain(|number| self.live.remove(number).is_some());
        if numbers.is_empty() { ScalingStep::Nothing } else { ScalingStep::Cancel(numbers) }
    }

    /// All that live, to be cancelled because the engine stops.
    pub(crate) fn give_up(&mut self) -> ScalingStep {
        self.give_back(self.live.keys().copied().collect())
    }

    /// Whether a node may belong to this block.
    pub(crate) fn is_live(&self, number: u32) -> bool {
        self.live.contains_key(&number)
    }

    pub(crate) fn node_joined(&mut self, number: u32) {
        if let Some(had_nodes) = self.live.get_mut(&number) {
            *had_nodes = true;
        }
    }

    /// A task came to a result: whatever failed before, blocks work.
    pub(crate) fn task_ended(&mut self) {
        if self.strikes > 0 {
            self.strikes = 0;
            self.failures.clear();
        }
    }

    /// A block's job has ended by itself, or could not be submitted.
    pub(crate) fn job_ended(&mut self, number: u32, ended: BlockEnd) {
        let Some(had_nodes) = self.live.remove(&number) else { return };
        let (strikes, report) = match ended {
            BlockEnd::Failed(report) if had_nodes => (1, report),
            BlockEnd::Completed(_) | BlockEnd::Cancelled(_) if had_nodes => return,
            BlockEnd::Completed(report)
            | BlockEnd::Cancelled(report)
            | BlockEnd::Failed(report)
            | BlockEnd::Missing(report) => (STRIKES_NEVER_CALLED, missing(report)),
        };
        self.strikes = self.strikes.saturating_add(strikes);
        self.failures.push_back(report);
        if self.failures.len() > TOLD {
            self.failures.pop_front();
        }
    }

    /// What the last block that failed has left, as long as no task has come to a result since.
    pub(crate) fn last_failure(&self) -> Option<String> {
        self.failures.back().map(ExitReport::text)
    }

    /// What to tell users when too many blocks have failed for another one to be worth asking for.
    pub(crate) fn verdict(&self) -> Option<String> {
        let enough = STRIKES_NEVER_CALLED.saturating_mul(self.wanted.init.max(1));
        if !self.wanted.mind_failures || !self.live.is_empty() || self.strikes < enough {
            return None;
        }
        let failures = self.failures.iter().enumerate();
        Some(failures.map(|(index, failure)| format!("Error {}:\n{}", index + 1, failure.text())).collect())
    }
}

/// Between two looks for idle blocks.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_secs(5);

impl ExitReport {
    /// As it is told, one tab before each thing known.
    fn text(&self) -> String {
        let code = self.exit_code.map(|code| code.to_string());
        [
            ("", self.message.as_deref()),
            ("EXIT CODE: ", code.as_deref()),
            ("STDOUT: ", self.stdout.as_deref()),
            ("STDERR: ", self.stderr.as_deref()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)))
        .map(|(name, value)| format!("\t{name}{value}\n"))
        .collect()
    }
}

fn missing(report: ExitReport) -> ExitReport {
    ExitReport { message: report.message.or_else(|| Some(MISSING.to_owned())), ..report }
}
