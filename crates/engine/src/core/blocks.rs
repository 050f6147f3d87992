//! Blocks in the core: how many are needed, and when too many have failed.
//!
//! ```text
//! asked for --submitted--> live --(its job ends)--> ended: completed | cancelled | failed | missing
//!     \--refused----------------------------------/
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What is known of the end of a block's job, for users to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExitReport {
    pub(crate) message: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) stdout: Option<String>,
    pub(crate) stderr: Option<String>,
    /// What may be the reason.
    pub(crate) hint: Option<String>,
}

/// How a block ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BlockEnd {
    Completed(ExitReport),
    Cancelled(ExitReport),
    Failed(ExitReport),
    /// It ended before any of its nodes had connected.
    Missing(ExitReport),
}

const MISSING: &str = "Job is marked as MISSING since the workers failed to register to the executor. Check the \
                       stdout/stderr logs in the submit_scripts directory for more debug information";

/// How the number of blocks follows the tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ScalingStrategy {
    /// The initial blocks only.
    None,
    /// More blocks while tasks wait. When no task is left, all blocks above the minimum are released.
    #[default]
    Simple,
    /// Like `Simple`, and idle blocks are released while others still work.
    HtexAutoScale,
}

/// The limits of scaling.
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
    /// Blocks that are requested or running, and whether a node of each has ever joined.
    live: BTreeMap<u32, bool>,
    next: u32,
    idle_since: Option<Duration>,
    /// When to scan for idle blocks next.
    next_scan: Duration,
    /// Counts failures since the last result. A block that never had a node counts several times.
    strikes: u32,
    /// The latest failures, for the error text.
    failures: VecDeque<ExitReport>,
}

/// What a failed block without nodes counts. Its reason will last; one that had nodes may have met an accident.
const STRIKES_WITHOUT_NODE: u32 = 3;

/// The most failures in an error text.
const MAX_REPORTED_FAILURES: usize = 10;

/// What scaling decides.
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

    /// Requests the initial blocks, when the engine starts.
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

    /// How many blocks may be released although tasks are outstanding, if as many are idle; none before the next scan
    /// is due.
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

    /// Releases these blocks: their jobs are cancelled.
    pub(crate) fn release(&mut self, mut numbers: Vec<u32>) -> ScalingStep {
        numbers.retain(|number| self.live.remove(number).is_some());
        if numbers.is_empty() { ScalingStep::Nothing } else { ScalingStep::Cancel(numbers) }
    }

    /// Releases all blocks, because the engine stops.
    pub(crate) fn release_all(&mut self) -> ScalingStep {
        self.release(self.live.keys().copied().collect())
    }

    /// Whether this block is requested or running.
    pub(crate) fn is_live(&self, number: u32) -> bool {
        self.live.contains_key(&number)
    }

    pub(crate) fn record_node(&mut self, number: u32) {
        if let Some(had_nodes) = self.live.get_mut(&number) {
            *had_nodes = true;
        }
    }

    /// A task has returned a result, so blocks work: earlier failures no longer count.
    pub(crate) fn record_result(&mut self) {
        if self.strikes > 0 {
            self.strikes = 0;
            self.failures.clear();
        }
    }

    /// A block's job has ended by itself, or could not be submitted.
    pub(crate) fn record_job_end(&mut self, number: u32, ended: BlockEnd) {
        let Some(had_nodes) = self.live.remove(&number) else { return };
        // The configuration kills and cancels nobody: that is an accident as well, if another block can be asked for.
        let accident = match self.rules.strategy {
            ScalingStrategy::None => STRIKES_WITHOUT_NODE,
            _ => 1,
        };
        let (strikes, report) = match ended {
            BlockEnd::Failed(report) if had_nodes => (1, report),
            BlockEnd::Completed(_) | BlockEnd::Cancelled(_) if had_nodes => return,
            BlockEnd::Cancelled(report) => (accident, missing(report)),
            BlockEnd::Failed(report) if report.was_killed() => (accident, missing(report)),
            BlockEnd::Completed(report) | BlockEnd::Failed(report) | BlockEnd::Missing(report) => {
                (STRIKES_WITHOUT_NODE, missing(report))
            }
        };
        self.strikes = self.strikes.saturating_add(strikes);
        self.failures.push_back(report);
        if self.failures.len() > MAX_REPORTED_FAILURES {
            self.failures.pop_front();
        }
    }

    /// The report on the last block that failed, until a task returns a result.
    pub(crate) fn last_failure(&self) -> Option<String> {
        self.failures.back().map(ExitReport::text)
    }

    /// The error text when so many blocks have failed that the engine requests no more.
    pub(crate) fn bad_state_text(&self) -> Option<String> {
        let enough = STRIKES_WITHOUT_NODE.saturating_mul(self.rules.init.max(1));
        if !self.rules.failures_end_engine || !self.live.is_empty() || self.strikes < enough {
            return None;
        }
        let failures = self.failures.iter().enumerate();
        Some(failures.map(|(index, failure)| format!("Error {}:\n{}", index + 1, failure.text())).collect())
    }
}

/// The least and the most time between two scans for idle blocks.
const MIN_SCAN_PERIOD: Duration = Duration::from_millis(10);
const MAX_SCAN_PERIOD: Duration = Duration::from_secs(5);

impl ExitReport {
    /// Whether a signal ended the job: memory ran out, it was preempted, or somebody killed it.
    fn was_killed(&self) -> bool {
        const SIGKILL: i32 = 9;
        const SIGTERM: i32 = 15;
        // As a shell says it.
        self.exit_code.is_some_and(|code| code == 128 + SIGKILL || code == 128 + SIGTERM)
    }

    /// The text for users: a line for each known field, with a tab before it.
    fn text(&self) -> String {
        let code = self.exit_code.map(|code| code.to_string());
        [
            ("", self.message.as_deref()),
            ("EXIT CODE: ", code.as_deref()),
            ("STDOUT: ", self.stdout.as_deref()),
            ("STDERR: ", self.stderr.as_deref()),
            ("HINT: ", self.hint.as_deref()),
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
