//! Prints what was measured: one number a line on standard output, as JSON, which `bench/run` collects.
//!
//! ```json
//! {"subject":"engine","measure":"serial, median","value":0.131,"unit":"ms"}
//! ```
//!
//! The subject is who was measured; subjects with the same measures stand side by side in `bench/RESULTS.md`.
#![allow(clippy::print_stdout, reason = "the measurements are what this program is for")]

use std::time::Duration;

use serde_json::json;

/// Prints one measurement.
pub(crate) fn record(subject: &str, measure: &str, value: f64, unit: &str) {
    println!("{}", json!({"subject": subject, "measure": measure, "value": value, "unit": unit}));
}

/// What was measured of one contender over a transport.
pub(crate) struct Row {
    pub(crate) contender: String,
    /// From the start of its process to the first result.
    pub(crate) first_result: Duration,
    /// One task after another.
    pub(crate) serial: Vec<Duration>,
    /// How long the whole burst took to send.
    pub(crate) sent_in: Duration,
    /// From the first task sent to the last result received.
    pub(crate) burst: Duration,
    pub(crate) tasks: usize,
    /// Processor time that the burst cost, of our own processes and of the Python workers.
    pub(crate) native: Duration,
    pub(crate) python: Duration,
    /// Proportional memory of all its processes, once it is idle again; if it was measured.
    pub(crate) memory_kib: Option<u64>,
}

impl Row {
    pub(crate) fn record(&self) {
        let per_task = |spent: Duration| milliseconds(spent) / self.tasks as f64;
        let per_second = |time: Duration| self.tasks as f64 / time.as_secs_f64();
        let record = |measure, value, unit| record(&self.contender, measure, value, unit);
        record("first result", milliseconds(self.first_result), "ms");
        record("serial, median", milliseconds(quantile(&self.serial, 0.5)), "ms");
        record("serial, p95", milliseconds(quantile(&self.serial, 0.95)), "ms");
        record("sent", per_second(self.sent_in), "/s");
        record("burst", per_second(self.burst), "/s");
        record("native CPU per task", per_task(self.native), "ms");
        record("Python CPU per task", per_task(self.python), "ms");
        if let Some(kib) = self.memory_kib {
            record("memory", megabytes(kib), "MB");
        }
    }
}

/// The value below which the given share of the samples lies.
pub(crate) fn quantile(samples: &[Duration], share: f64) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

pub(crate) fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

pub(crate) fn megabytes(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few_samples() {
        let samples: Vec<_> = [5, 1, 4, 2, 3].map(Duration::from_millis).to_vec();
        assert_eq!(quantile(&samples, 0.5), Duration::from_millis(3));
        assert_eq!(quantile(&samples, 0.95), Duration::from_millis(5));
        assert_eq!(quantile(&samples, 0.0), Duration::from_millis(1));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
