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
    pub(crate) failures_end_engine: bool,
}

#[derive(Debug)]
pub(crate) struct Blocks {
    rules: ScalingRules,
    /// Asked for or running; and whether a node of it has ever called.
    live: BTreeMap<u32, bool>,
    next: u32,
    idle_since: Option<Duration>,
    /// When idle blocks may next be looked for.
    next_scan: Duration,
    /// Failures since a task last came to a result; one that never had a node weighs as much as several that had.
    strikes: u32,
    /// The last of them, to be told to users.
    failures: VecDeque<ExitReport>,
}

/// A block that never had a node fails for a reason that lasts; one that had may have met an accident.
const STRIKES_WITHOUT_NODE: u32 = 3;

/// So many failures are told.
const MAX_REPORTED_FAILURES: usize = 10;

/// A step of scaling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScalingStep {
    Nothing,
    Submit(Vec<u32>),
    Cancel(Vec<u32>),
}

impl Blocks {
    pub(crate) fn new(rules: ScalingRules) -> Self {
        Self {
            rules,
            live: BTreeMap::new(),
            next: 0,
            idle_since: None,
            next_scan: Duration::ZERO,
            strikes: 0,
            failures: VecDeque::new(),
        }
    }

    /// The first blocks, asked for as soon as the engine starts.
    pub(crate) fn request_initial(&mut self) -> ScalingStep {
        self.request(self.rules.init.min(self.rules.max))
    }

    fn request(&mut self, count: u32) -> ScalingStep {
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

    fn workers_per_block(&self) -> f64 {
        f64::from(self.rules.workers_per_node) * f64::from(self.rules.nodes_per_block)
    }

    /// The next step towards what `outstanding` tasks need; `draining` nodes take none of them.
    pub(crate) fn scale(&mut self, outstanding: usize, draining: usize, now: Duration) -> ScalingStep {
        let (rules, live) = (self.rules, self.count());
        if rules.strategy == ScalingStrategy::None {
            return ScalingStep::Nothing;
        }
        if outstanding == 0 {
            if live <= rules.min {
                self.idle_since = None;
                return ScalingStep::Nothing;
            }
            let since = *self.idle_since.get_or_insert(now);
            if now.saturating_sub(since) < rules.max_idle {
                return ScalingStep::Nothing;
            }
            self.idle_since = None;
            let surplus = self.live.keys().copied().take((live - rules.min) as usize).collect();
            return self.release(surplus);
        }
        self.idle_since = None;
        if live >= rules.max {
            return ScalingStep::Nothing;
        }
        let draining = draining as f64 * f64::from(rules.workers_per_node);
        let capacity = (f64::from(live) * self.workers_per_block() - draining).max(0.0);
        let lacking = (outstanding as f64 * rules.parallelism).ceil() - capacity;
        if lacking > 0.0 {
            let blocks = (lacking / self.workers_per_block()).ceil().min(f64::from(rules.max - live));
            return self.request(blocks as u32);
        }
        if live == 0 { self.request(1) } else { ScalingStep::Nothing }
    }

    /// How many blocks could go although there are tasks, if so many are idle; asked only when it is time to look.
    pub(crate) fn count_surplus(&mut self, outstanding: usize, now: Duration) -> Option<usize> {
        let rules = self.rules;
        if !self.may_release(outstanding) || now < self.next_scan {
            return None;
        }
        self.next_scan = now + rules.max_idle.clamp(MIN_SCAN_PERIOD, MAX_SCAN_PERIOD);
        let spare =
            f64::from(self.count()) * self.workers_per_block() - outstanding as f64 * rules.parallelism;
        let blocks = (spare.floor() / self.workers_per_block()).floor().max(0.0);
        Some(blocks.min(f64::from(self.count() - rules.min)) as usize).filter(|&blocks| blocks > 0)
    }

    fn may_release(&self, outstanding: usize) -> bool {
        self.rules.strategy == ScalingStrategy::HtexAutoScale
            && outstanding > 0
            && self.count() > self.rules.min
    }

    /// How long a block must have been idle to be given back.
    pub(crate) fn max_idle(&self) -> Duration {
        self.rules.max_idle
    }

    /// When [`Self::scale`] or [`Self::count_surplus`] may give idle blocks back.
    pub(crate) fn idle_until(&self, outstanding: usize) -> Option<Duration> {
        let all = self.idle_since.map(|since| since + self.rules.max_idle);
        all.into_iter().chain(self.may_release(outstanding).then_some(self.next_scan)).min()
    }

    /// Ends these blocks because nobody needs them.
    pub(crate) fn release(&mut self, mut numbers: Vec<u32>) -> ScalingStep {
        numbers.retain(|number| self.live.remove(number).is_some());
        if numbers.is_empty() { ScalingStep::Nothing } else { ScalingStep::Cancel(numbers) }
    }

    /// All that live, to be cancelled because the engine stops.
    pub(crate) fn release_all(&mut self) -> ScalingStep {
        self.release(self.live.keys().copied().collect())
    }

    /// Whether a node may belong to this block.
    pub(crate) fn is_live(&self, number: u32) -> bool {
        self.live.contains_key(&number)
    }

    pub(crate) fn record_node(&mut self, number: u32) {
        if let Some(had_nodes) = self.live.get_mut(&number) {
            *had_nodes = true;
        }
    }

    /// A task came to a result: whatever failed before, blocks work.
    pub(crate) fn record_result(&mut self) {
        if self.strikes > 0 {
            self.strikes = 0;
            self.failures.clear();
        }
    }

    /// A block's job has ended by itself, or could not be submitted.
    pub(crate) fn record_job_end(&mut self, number: u32, ended: BlockEnd) {
        let Some(had_nodes) = self.live.remove(&number) else { return };
        let (strikes, report) = match ended {
            BlockEnd::Failed(report) if had_nodes => (1, report),
            BlockEnd::Completed(_) | BlockEnd::Cancelled(_) if had_nodes => return,
            BlockEnd::Completed(report)
            | BlockEnd::Cancelled(report)
            | BlockEnd::Failed(report)
            | BlockEnd::Missing(report) => (STRIKES_WITHOUT_NODE, missing(report)),
        };
        self.strikes = self.strikes.saturating_add(strikes);
        self.failures.push_back(report);
        if self.failures.len() > MAX_REPORTED_FAILURES {
            self.failures.pop_front();
        }
    }

    /// What the last block that failed has left, as long as no task has come to a result since.
    pub(crate) fn last_failure(&self) -> Option<String> {
        self.failures.back().map(ExitReport::text)
    }

    /// What to tell users when too many blocks have failed for another one to be worth asking for.
    pub(crate) fn bad_state_text(&self) -> Option<String> {
        let enough = STRIKES_WITHOUT_NODE.saturating_mul(self.rules.init.max(1));
        if !self.rules.failures_end_engine || !self.live.is_empty() || self.strikes < enough {
            return None;
        }
        let failures = self.failures.iter().enumerate();
        Some(failures.map(|(index, failure)| format!("Error {}:\n{}", index + 1, failure.text())).collect())
    }
}

/// Between two looks for idle blocks.
const MIN_SCAN_PERIOD: Duration = Duration::from_millis(10);
const MAX_SCAN_PERIOD: Duration = Duration::from_secs(5);

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
