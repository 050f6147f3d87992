//! `scheduler_options`: lines that users add to a job's script, as they are.
//!
//! A block is one job, found by its name, whose submission says its id at once. Options that would end that are refused
//! by their names; all others are the user's business.

use crate::config::error::InvalidOptions;

/// An option that is refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    /// Without dashes; empty when there is no long form.
    pub(super) long: &'static str,
    /// The shortest beginning of `long` that the scheduler takes for it.
    pub(super) least: usize,
    pub(super) short: Option<char>,
    pub(super) why: &'static str,
}

/// Lines with directives of a script.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directives {
    pub(super) provider: &'static str,
    /// `#SBATCH`.
    pub(super) prefix: &'static str,
    pub(super) refused: &'static [Refused],
    /// Words that are no option and are refused as the first of a line.
    pub(super) words: &'static [(&'static str, &'static str)],
}

impl Directives {
    /// Checks the lines. The order and the text of those that pass stay.
    pub(super) fn check(&self, text: &str) -> Result<(), InvalidOptions> {
        for (number, line) in text.lines().enumerate() {
            if let Err(why) = self.check_line(line) {
                let Self { provider, .. } = self;
                let line = line.trim();
                return Err(InvalidOptions::Shape(format!(
                    "{provider}: scheduler_options, line {}: {why} ({line})",
                    number + 1
                )));
            }
        }
        Ok(())
    }

    fn check_line(&self, line: &str) -> Result<(), String> {
        let line = line.trim();
        let Some(rest) = line.strip_prefix(self.prefix) else {
            return if line.is_empty() || line.starts_with('#') {
                Ok(())
            } else {
                // The scheduler reads no directive after the first command, so ours would be lost.
                Err(format!("is no {} line; commands belong into worker_init", self.prefix))
            };
        };
        if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
            return Ok(()); // another word, hence a comment
        }
        let first = rest.split_whitespace().next();
        if let Some((word, why)) = self.words.iter().find(|(word, _)| Some(*word) == first) {
            return Err(format!("`{word}` is refused: {why}"));
        }
        for word in rest.split_whitespace() {
            if word.starts_with('#') {
                break;
            }
            if let Some(refused) = self.refused.iter().find(|refused| refused.matches(word)) {
                return Err(format!("{} is refused: {}", refused.name(), refused.why));
            }
        }
        Ok(())
    }
}

impl Refused {
    fn matches(&self, word: &str) -> bool {
        if let Some(long) = word.strip_prefix("--") {
            let name = long.split('=').next().unwrap_or_default();
            return !self.long.is_empty() && name.len() >= self.least && self.long.starts_with(name);
        }
        let Some(short) = word.strip_prefix('-') else { return false };
        // Options of one dash and several letters are LSF's and Grid Engine's; those have no long form here.
        match self.short {
            Some(letter) => short.starts_with(letter),
            None => self.least == 0 && short == self.long,
        }
    }

    fn name(&self) -> String {
        match (self.short, self.long) {
            (Some(letter), "") => format!("-{letter}"),
            (Some(letter), long) => format!("--{long} (-{letter})"),
            (None, long) if self.least == 0 => format!("-{long}"),
            (None, long) => format!("--{long}"),
        }
    }
}

const ARRAY: &str = "a block is one job; write max_blocks for more";
const NAME: &str = "the block's name finds the job when the scheduler's answer is lost";
const QUIET: &str = "the scheduler's answer must name the job";
const WAIT: &str = "the submission would wait for the job's end";

const fn short(letter: char, why: &'static str) -> Refused {
    Refused { long: "", least: 1, short: Some(letter), why }
}

/// An option of one dash and several letters.
const fn dashed(name: &'static str, why: &'static str) -> Refused {
    Refused { long: name, least: 0, short: None, why }
}

const fn long(name: &'static str, least: usize, letter: Option<char>, why: &'static str) -> Refused {
    Refused { long: name, least, short: letter, why }
}

pub(super) const SLURM: Directives = Directives {
    provider: "SlurmProvider",
    prefix: "#SBATCH",
    refused: &[
        long("array", 2, Some('a'), ARRAY),
        long("job-name", 1, Some('J'), NAME),
        long("parsable", 4, None, QUIET),
        long("quiet", 3, Some('Q'), QUIET),
        long("wait", 4, Some('W'), WAIT),
        long(
            "clusters",
            8,
            Some('M'),
            "write it as the provider's option `clusters`, so that status and cancel ask there, too",
        ),
        long("wrap", 3, None, "the block's script would not run"),
        long("test-only", 2, None, "no job would be submitted"),
    ],
    words: &[
        ("hetjob", "a heterogeneous job is several jobs"),
        ("packjob", "a heterogeneous job is several jobs"),
    ],
};

const PBS: &[Refused] = &[
    short('J', ARRAY),
    short('N', NAME),
    short('I', "an interactive job waits for a terminal"),
    short('z', QUIET),
];

pub(super) const PBS_PRO: Directives =
    Directives { provider: "PBSProProvider", prefix: "#PBS", refused: PBS, words: &[] };

pub(super) const TORQUE: Directives = Directives {
    provider: "TorqueProvider",
    prefix: "#PBS",
    refused: &[
        short('t', ARRAY),
        short('N', NAME),
        short('I', "an interactive job waits for a terminal"),
        short('z', QUIET),
    ],
    words: &[],
};

pub(super) const LSF: Directives = Directives {
    provider: "LSFProvider",
    prefix: "#BSUB",
    refused: &[
        dashed("J", NAME),
        dashed("K", WAIT),
        dashed("I", "an interactive job waits for a terminal"),
        dashed("Ip", "an interactive job waits for a terminal"),
        dashed("Is", "an interactive job waits for a terminal"),
    ],
    words: &[],
};

pub(super) const GRID_ENGINE: Directives = Directives {
    provider: "GridEngineProvider",
    prefix: "#$",
    refused: &[
        dashed("t", ARRAY),
        dashed("N", NAME),
        dashed("sync", WAIT),
        dashed("now", WAIT),
        dashed("verify", "no job would be submitted"),
    ],
    words: &[],
};

/// The commands of a submit description that HTCondor's jobs have from us.
const CONDOR: [(&str, &str); 7] = [
    ("queue", "a block is one job; write max_blocks for more"),
    ("executable", "the block's script would not run"),
    ("arguments", "the block's script would not run"),
    ("batch_name", NAME),
    ("transfer_executable", "the block's script would not run"),
    ("max_materialize", ARRAY),
    ("universe", "a block is a job of the vanilla universe"),
];

/// Checks lines of HTCondor's submit description.
pub(super) fn check_condor(text: &str) -> Result<(), InvalidOptions> {
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let name = line.split(|c: char| c == '=' || c.is_whitespace()).next().unwrap_or_default();
        let found = CONDOR.iter().find(|(refused, _)| name.eq_ignore_ascii_case(refused));
        if let Some((refused, why)) = found {
            return Err(InvalidOptions::Shape(format!(
                "CondorProvider: scheduler_options, line {}: {refused} is refused: {why} ({line})",
                number + 1
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_make_a_block_another_thing_than_one_job_are_refused_by_name() {
        for (directives, line, words) in [
            (SLURM, "#SBATCH --array=1-3", "--array (-a) is refused"),
            (SLURM, "#SBATCH -a1-3", "--array (-a)"),
            (SLURM, "#SBATCH  --mem=1G --arr 1-3", "--array (-a)"),
            (SLURM, "#SBATCH --wait", "--wait (-W)"),
            (SLURM, "#SBATCH --parsable", "--parsable"),
            (SLURM, "#SBATCH -J mine", "--job-name (-J)"),
            (SLURM, "#SBATCH hetjob", "`hetjob` is refused"),
            (SLURM, "#SBATCH -M other", "`clusters`"),
            (SLURM, "module load x", "is no #SBATCH line; commands belong into worker_init (module load x)"),
            (PBS_PRO, "#PBS -J 1-3", "-J is refused"),
            (PBS_PRO, "#PBS -z", "-z is refused"),
            (TORQUE, "#PBS -t 1-3", "-t is refused"),
            (LSF, "#BSUB -K", "-K is refused"),
            (LSF, "#BSUB -J a[1-3]", "-J is refused"),
            (GRID_ENGINE, "#$ -t 1-3", "-t is refused"),
            (GRID_ENGINE, "#$ -sync y", "-sync is refused"),
        ] {
            let text = format!("# mine\n{line}\n");
            let refused = directives.check(&text).unwrap_err().to_string();
            assert!(refused.contains(words) && refused.contains("line 2"), "{refused}");
        }
        for (line, words) in [("queue 5", "queue is refused"), ("Executable=/bin/x", "executable is refused")]
        {
            assert!(check_condor(line).unwrap_err().to_string().contains(words));
        }
    }

    #[test]
    fn everything_else_is_the_users_business() {
        for (directives, text) in [
            (
                SLURM,
                "#SBATCH --gpus=1\n#SBATCH -C \"a&b\"\n\n# a comment --array\n##SBATCH --array=1\n#SBATCHING",
            ),
            (SLURM, "#SBATCH --wait-all-nodes=1 --mail-type=NONE --requeue # --array"),
            (PBS_PRO, "#PBS -l filesystems=home:eagle\n#PBS -k doe -W group_list=x"),
            (TORQUE, "#PBS -l mem=1gb -j oe"),
            (LSF, "#BSUB -R \"rusage[mem=4]\"\n#BSUB -Jd description"),
            (GRID_ENGINE, "#$ -pe mpi 12\n#$ -terse\n#$ -notify"),
        ] {
            directives.check(text).unwrap();
        }
        check_condor("+ProjectName=\"a\"\nRequirements = OSGVO_OS_STRING == \"RHEL 8\" \n# queue").unwrap();
    }
}
