//! What was measured, and the Markdown table that shows it.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::time::Duration;

use crate::nodes;

/// One contender's row.
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
    /// Proportional memory of all its processes, once it is idle again.
    pub(crate) memory_kib: u64,
}

impl Row {
    fn print(&self, floor: Option<&Row>) {
        let per_task = |spent: Duration| spent.as_secs_f64() * 1e3 / self.tasks as f64;
        let median = quantile(&self.serial, 0.5);
        let above = floor.map_or_else(String::new, |floor| {
            format!(" (+{:.2})", milliseconds(median) - milliseconds(quantile(&floor.serial, 0.5)))
        });
        println!(
            "| {} | {:.0} ms | {:.2}{above} | {:.2} | {:.0}/s | {:.0}/s | {:.3} | {:.3} | {:.1} MB |",
            self.contender,
            milliseconds(self.first_result),
            milliseconds(median),
            milliseconds(quantile(&self.serial, 0.95)),
            self.tasks as f64 / self.sent_in.as_secs_f64(),
            self.tasks as f64 / self.burst.as_secs_f64(),
            per_task(self.native),
            per_task(self.python),
            self.memory_kib as f64 / 1024.0,
        );
    }
}

/// Prints the rows under a heading; the first is the floor that the others are compared with.
pub(crate) fn print(heading: &str, rows: &[Row]) {
    let [first, ..] = rows else { return };
    println!("\n{heading}: {} serial, burst of {}\n", first.serial.len(), first.tasks);
    println!(
        "| contender | first result | serial median, ms | p95, ms | sent | burst | own CPU per task, ms | Python CPU \
         per task, ms | memory |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (index, row) in rows.iter().enumerate() {
        row.print((index > 0).then_some(first));
    }
}

/// Something measured by itself.
#[derive(Clone)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: String,
}

pub(crate) fn print_pairs(heading: &str, figures: &[Figure]) {
    println!("\n{heading}:\n\n| measure | seen |\n|---|---|");
    for figure in figures {
        println!("| {} | {} |", figure.name, figure.value);
    }
}

pub(crate) fn print_json(figures: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(figures)?);
    Ok(())
}

pub(crate) fn print_nodes(slots: u32, rows: &[nodes::Figures]) {
    println!("\nNodes of {slots} slots, their workers stubs:\n");
    println!(
        "| nodes | joined within | tasks | dispatched and ended | engine's CPU per task, ms | engine's peak memory |"
    );
    println!("|---|---|---|---|---|---|");
    for row in rows {
        println!(
            "| {} | {:.1} s | {} | {:.0}/s | {:.3} | {:.0} MB |",
            row.nodes,
            row.joined.as_secs_f64(),
            row.ended,
            row.ended as f64 / row.burst.as_secs_f64(),
            milliseconds(row.cpu) / row.ended as f64,
            row.peak_kib as f64 / 1024.0,
        );
    }
}

/// The value below which the given share of the samples lies.
pub(crate) fn quantile(samples: &[Duration], share: f64) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
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
