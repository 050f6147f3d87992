//! Counters and histograms for `/metrics`. Their size is fixed: none is kept per person, endpoint or function.
//!
//! Events are counted here as they happen. States (open tasks, connections) are read when the page is made.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use uuid::Uuid;
use wire::TaskId;
use wire::message::{TaskState, TaskTransition};

use store::tasks::state::Outcome;

/// Upper bounds of the histogram of request times, in seconds.
const ANSWERS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0];
/// Upper bounds of the histograms of task times, in seconds.
const TASKS: &[f64] = &[0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0, 600.0, 3_600.0, 36_000.0];

/// Counts values by the bounds that they are below.
#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds: the last counts values above all of them.
    counts: Vec<AtomicU64>,
    micros: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, micros: AtomicU64::new(0) }
    }

    fn observe(&self, value: Duration) {
        let seconds = value.as_secs_f64();
        let at = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[at].fetch_add(1, Relaxed);
        self.micros.fetch_add(u64::try_from(value.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    fn write(&self, name: &str, help: &str, page: &mut String) {
        head(page, name, help, "histogram");
        let mut below = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            below += count.load(Relaxed);
            let _ = writeln!(page, "{name}_bucket{{le=\"{bound}\"}} {below}");
        }
        below += self.counts[self.bounds.len()].load(Relaxed);
        let _ = writeln!(page, "{name}_bucket{{le=\"+Inf\"}} {below}");
        let seconds = Duration::from_micros(self.micros.load(Relaxed)).as_secs_f64();
        let _ = writeln!(page, "{name}_sum {seconds}\n{name}_count {below}");
    }
}

/// All metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    requests: [AtomicU64; 6],
    answer: Histogram,
    submits: AtomicU64,
    submitted: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
    refused: AtomicU64,
    started: AtomicU64,
    not_started: AtomicU64,
    queued: Histogram,
    ran: Histogram,
}

/// The times of a task, as its result reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// From the submit to the start of its execution.
    pub queued: Duration,
    pub ran: Duration,
}

impl Times {
    /// The times of a task whose endpoint reported its start and end. Never negative, also if clocks disagree.
    pub fn of(task: TaskId, transitions: &[TaskTransition]) -> Option<Times> {
        let at = |wanted: TaskState| {
            let found = transitions.iter().find(|transition| transition.state == wanted)?;
            Some(Duration::from_nanos(found.timestamp))
        };
        let begun = at(TaskState::ExecutionStart)?;
        let ended = at(TaskState::ExecutionEnd)?;
        // A task's id holds the time of its submit.
        let (seconds, nanos) = Uuid::get_timestamp(task.as_uuid())?.to_unix();
        Some(Times {
            queued: begun.saturating_sub(Duration::new(seconds, nanos)),
            ran: ended.saturating_sub(begun),
        })
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Metrics(Arc::new(Inner {
            requests: Default::default(),
            answer: Histogram::new(ANSWERS),
            submits: zero(),
            submitted: zero(),
            succeeded: zero(),
            failed: zero(),
            late: zero(),
            refused: zero(),
            started: zero(),
            not_started: zero(),
            queued: Histogram::new(TASKS),
            ran: Histogram::new(TASKS),
        }))
    }
}

impl Metrics {
    /// Counts an answered request.
    pub fn answered(&self, status: u16, took: Duration) {
        self.0.requests[usize::from(status / 100).min(5)].fetch_add(1, Relaxed);
        self.0.answer.observe(took);
    }

    /// Counts an accepted submit of `tasks` tasks.
    pub fn submitted(&self, tasks: usize) {
        self.0.submits.fetch_add(1, Relaxed);
        self.0.submitted.fetch_add(tasks as u64, Relaxed);
    }

    /// Counts a task that ended by its first result.
    pub fn ended(&self, outcome: Outcome, times: Option<Times>) {
        let count = match outcome {
            Outcome::Succeeded => &self.0.succeeded,
            Outcome::Failed => &self.0.failed,
        };
        count.fetch_add(1, Relaxed);
        if let Some(times) = times {
            self.0.queued.observe(times.queued);
            self.0.ran.observe(times.ran);
        }
    }

    /// Counts results of tasks that had ended already, and of tasks that were never sent to the sender.
    pub fn dropped(&self, late: u64, refused: u64) {
        self.0.late.fetch_add(late, Relaxed);
        self.0.refused.fetch_add(refused, Relaxed);
    }

    /// Counts an attempt to start a user endpoint.
    pub fn start(&self, well: bool) {
        (if well { &self.0.started } else { &self.0.not_started }).fetch_add(1, Relaxed);
    }

    /// Writes the metrics of this module to `page`.
    pub fn write(&self, page: &mut String) {
        let it = &self.0;
        let name = "farcall_http_requests_total";
        head(page, name, "Requests answered, by the first digit of the status.", "counter");
        for (class, count) in it.requests.iter().enumerate().skip(1) {
            let _ = writeln!(page, "{name}{{status=\"{class}xx\"}} {}", count.load(Relaxed));
        }
        it.answer.write("farcall_http_request_seconds", "From a request's headers to its answer.", page);
        counter(page, "farcall_submits_total", "Submits accepted.", &it.submits);
        counter(page, "farcall_tasks_submitted_total", "Tasks accepted.", &it.submitted);
        let name = "farcall_tasks_ended_total";
        head(page, name, "Tasks ended with their first result.", "counter");
        let _ = writeln!(page, "{name}{{outcome=\"success\"}} {}", it.succeeded.load(Relaxed));
        let _ = writeln!(page, "{name}{{outcome=\"failed\"}} {}", it.failed.load(Relaxed));
        counter(page, "farcall_results_late_total", "Results of tasks that had ended.", &it.late);
        let help = "Results from endpoints that the task was not sent to.";
        counter(page, "farcall_results_refused_total", help, &it.refused);
        let name = "farcall_user_endpoint_starts_total";
        head(page, name, "User endpoints that managers were to start.", "counter");
        let _ = writeln!(page, "{name}{{outcome=\"ready\"}} {}", it.started.load(Relaxed));
        let _ = writeln!(page, "{name}{{outcome=\"failed\"}} {}", it.not_started.load(Relaxed));
        it.queued.write(
            "farcall_task_queue_seconds",
            "From a submit to the beginning of the execution.",
            page,
        );
        it.ran.write("farcall_task_run_seconds", "From the beginning of an execution to its end.", page);
    }
}

/// Writes the two lines before a metric: help and type.
fn head(page: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn counter(page: &mut String, name: &str, help: &str, value: &AtomicU64) {
    head(page, name, help, "counter");
    let _ = writeln!(page, "{name} {}", value.load(Relaxed));
}

/// Writes a gauge.
pub fn gauge(page: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    head(page, name, help, "gauge");
    let _ = writeln!(page, "{name} {value}");
}

/// Writes a gauge with one label.
pub fn gauges<V: std::fmt::Display>(
    page: &mut String,
    name: &str,
    help: &str,
    label: &str,
    values: impl IntoIterator<Item = (String, V)>,
) {
    head(page, name, help, "gauge");
    for (of, value) in values {
        let _ = writeln!(page, "{name}{{{label}=\"{of}\"}} {value}");
    }
}

/// Writes a counter that is kept elsewhere.
pub fn counted(page: &mut String, name: &str, help: &str, value: u64) {
    head(page, name, help, "counter");
    let _ = writeln!(page, "{name} {value}");
}

#[cfg(test)]
mod tests {
    use wire::message::Actor;

    use super::*;

    #[test]
    fn histograms_add_up() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        for millis in [50, 100, 101, 5_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut page = String::new();
        histogram.write("x", "Help.", &mut page);
        let expected = "# HELP x Help.\n# TYPE x histogram\nx_bucket{le=\"0.1\"} 2\nx_bucket{le=\"1\"} 3\n\
                        x_bucket{le=\"+Inf\"} 4\nx_sum 5.251\nx_count 4\n";
        assert_eq!(page, expected);
    }

    #[test]
    fn a_results_own_times() {
        let made = uuid::Timestamp::from_unix(uuid::NoContext, 1_000, 0);
        let task = TaskId::from_uuid(Uuid::new_v7(made));
        let transition = |seconds: u64, state| TaskTransition {
            timestamp: seconds * 1_000_000_000,
            state,
            actor: Actor::Worker,
        };
        let both = [transition(1_002, TaskState::ExecutionStart), transition(1_005, TaskState::ExecutionEnd)];
        let times = Times { queued: Duration::from_secs(2), ran: Duration::from_secs(3) };
        assert_eq!(Times::of(task, &both), Some(times));
        assert_eq!(Times::of(task, &both[..1]), None);
        let early = [transition(990, TaskState::ExecutionStart), transition(980, TaskState::ExecutionEnd)];
        let none = Times { queued: Duration::ZERO, ran: Duration::ZERO };
        assert_eq!(Times::of(task, &early), Some(none));
    }
}
