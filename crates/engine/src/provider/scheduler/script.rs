//! What the scripts of all schedulers have in common, and the names of jobs.

use crate::quote::quote;

use super::BatchJob;

/// The part of a script that the shell runs. What is exported after `worker_init` is what nodes size themselves by.
pub(super) fn body(job: &BatchJob, size: &NodeSize) -> String {
    let mut exports = String::new();
    if let Some(memory) = &size.memory_gb {
        exports.push_str(&format!("export PARSL_MEMORY_GB={}\n", quote(memory)));
    }
    if let Some(cores) = size.cores {
        exports.push_str(&format!("export PARSL_CORES={cores}\n"));
    }
    let BatchJob { worker_init, name, command, .. } = job;
    format!("{worker_init}\n{exports}\nexport JOBNAME={}\n\n{command}\n", quote(name))
}

/// What the scheduler is asked for on each node, where it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeSize {
    pub(super) memory_gb: Option<String>,
    pub(super) cores: Option<u32>,
}

/// The most characters of a label in a job's name. PBS takes names of 230.
const LONGEST_LABEL: usize = 128;

/// The name of a block's job: `parsl.<label>.block-<number>.<uuid>`, the form that sites know, with the block's uuid
/// instead of a time. It holds what every scheduler takes: letters, digits, `_`, `.`, `-`.
pub(crate) fn job_name(label: &str, block: u32, uuid: &uuid::Uuid) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' };
    let label: String = label.chars().take(LONGEST_LABEL).map(plain).collect();
    format!("parsl.{label}.block-{block}.{}", uuid.simple())
}

/// Lines of options, each ended, so that what follows begins a line of its own.
pub(super) fn lines(options: &str) -> String {
    if options.is_empty() || options.ends_with('\n') { options.to_owned() } else { format!("{options}\n") }
}

/// A value of a directive: one word for a scheduler that splits directives as a shell splits a command. What has
/// quotes already stays as it is.
pub(super) fn word(value: &str) -> String {
    let needs = value.contains(|c: char| c.is_whitespace() || c == '#');
    if needs && !value.contains(['"', '\'', '\\']) { format!("\"{value}\"") } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn names_hold_what_every_scheduler_takes() {
        let name = job_name("Midway@RCC.UChicago é,1-HighThroughputExecutor", 3, &uuid::Uuid::nil());
        let expected =
            "parsl.Midway_RCC.UChicago___1-HighThroughputExecutor.block-3.00000000000000000000000000000000";
        assert_eq!(name, expected);
        assert!(job_name(&"x".repeat(500), u32::MAX, &uuid::Uuid::max()).len() < 230);
    }

    #[test]
    fn values_are_one_word() {
        for (value, read) in [
            ("gpu:a100:4", "gpu:a100:4"),
            ("A100 | V100", "\"A100 | V100\""),
            ("\"A100 | V100\"", "\"A100 | V100\""),
            ("a#b", "\"a#b\""),
        ] {
            assert_eq!(word(value), read);
        }
    }

    #[test]
    fn the_body_runs_worker_init_first() {
        let job = BatchJob {
            name: "parsl.x".into(),
            scripts: PathBuf::new(),
            worker_init: "module load python".into(),
            command: "srun it".into(),
            transferred: None,
        };
        let size = NodeSize { memory_gb: Some("16".into()), cores: Some(4) };
        assert_eq!(
            body(&job, &size),
            "module load python\nexport PARSL_MEMORY_GB=16\nexport PARSL_CORES=4\n\nexport JOBNAME=parsl.x\n\nsrun it\n"
        );
    }
}
