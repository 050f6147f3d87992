//! The options that only one batch scheduler has, with upstream's names and defaults.

use super::fields::Fields;
use super::scheduler_options as lines;
use super::walltime::Walltime;
use crate::config::error::InvalidOptions;

const ONE_CALL: &str = "one call asks for all jobs, however many there are";

/// What stands before the job's id in the answer of `sbatch`.
const SUBMITTED: &str = "Submitted batch job ";

/// The options of a SlurmProvider.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SlurmOptions {
    pub(crate) partition: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) qos: Option<String>,
    pub(crate) constraint: Option<String>,
    /// One cluster, or several with commas.
    pub(crate) clusters: Option<String>,
    pub(crate) cores_per_node: Option<u32>,
    /// In GB.
    pub(crate) mem_per_node: Option<u32>,
    pub(crate) gpus_per_node: Option<u32>,
    pub(crate) gres: Option<String>,
    pub(crate) walltime: Walltime,
    pub(crate) scheduler_options: String,
    /// What stands before the job's id in the answer of `sbatch`.
    pub(crate) before_job_id: String,
    pub(crate) exclusive: bool,
}

/// The options of a PBSProProvider.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PbsProOptions {
    pub(crate) account: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) cpus_per_node: u32,
    pub(crate) select_options: Option<String>,
    pub(crate) walltime: Walltime,
    pub(crate) scheduler_options: String,
}

/// The options of a TorqueProvider.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TorqueOptions {
    pub(crate) account: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) walltime: Walltime,
    pub(crate) scheduler_options: String,
}

/// What an LSFProvider asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LsfRequest {
    /// As many nodes as a block has.
    Nodes,
    Cores {
        per_block: u32,
        per_node: u32,
    },
}

/// The options of an LSFProvider.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LsfOptions {
    pub(crate) project: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) request: LsfRequest,
    /// `bsub < script` instead of `bsub script`.
    pub(crate) bsub_redirection: bool,
    pub(crate) walltime: Walltime,
    pub(crate) scheduler_options: String,
}

/// The options of a GridEngineProvider.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GridEngineOptions {
    pub(crate) queue: Option<String>,
    pub(crate) walltime: Walltime,
    pub(crate) scheduler_options: String,
}

/// The options of a CondorProvider.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CondorOptions {
    pub(crate) cores_per_slot: Option<u32>,
    /// In GB.
    pub(crate) mem_per_slot: Option<f64>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) project: Option<String>,
    pub(crate) transfer_input_files: Vec<String>,
    pub(crate) requirements: Option<String>,
    pub(crate) scheduler_options: String,
}

impl SlurmOptions {
    pub(super) fn read(fields: &mut Fields) -> Result<Self, InvalidOptions> {
        let before_job_id = match fields.text("regex_job_id")? {
            pattern if pattern.is_empty() => SUBMITTED.to_owned(),
            pattern => match literal_before_id(&pattern) {
                Some(before) => before,
                None => {
                    return fields.refuse(
                        "regex_job_id",
                        r"must be text and then (?P<id>\S*), (?P<id>\d+) or their like: the words before the job's id",
                    );
                }
            },
        };
        let options = Self {
            partition: fields.word("partition")?,
            account: fields.word("account")?,
            qos: fields.word("qos")?,
            constraint: fields.word("constraint")?,
            clusters: fields.word("clusters")?.map(|names| names.replace(' ', "")),
            cores_per_node: fields.count("cores_per_node")?,
            mem_per_node: fields.count("mem_per_node")?,
            gpus_per_node: fields.count("gpus_per_node")?,
            gres: fields.word("gres")?,
            walltime: fields.walltime(Walltime::minutes(10))?,
            scheduler_options: fields.text("scheduler_options")?,
            before_job_id,
            exclusive: fields.flag("exclusive", true)?,
        };
        fields.note_without_effect("status_batch_size", ONE_CALL);
        fields.count("status_batch_size")?;
        lines::SLURM.check(&options.scheduler_options)?;
        Ok(options)
    }
}

/// The text before the group `id` of a regular expression that has no other part.
fn literal_before_id(pattern: &str) -> Option<String> {
    const IDS: [&str; 6] =
        [r"(?P<id>\S*)", r"(?P<id>\S+)", r"(?P<id>\d*)", r"(?P<id>\d+)", "(?P<id>[0-9]+)", "(?P<id>[0-9]*)"];
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let pattern = pattern.strip_suffix('$').unwrap_or(pattern);
    let text = IDS.iter().find_map(|id| pattern.strip_suffix(id))?;
    let mut before = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next()? {
                's' => before.push(' '),
                escaped if !escaped.is_ascii_alphanumeric() => before.push(escaped),
                _ => return None,
            },
            '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => return None,
            plain => before.push(plain),
        }
    }
    Some(before)
}

impl PbsProOptions {
    pub(super) fn read(fields: &mut Fields) -> Result<Self, InvalidOptions> {
        let options = Self {
            account: fields.word("account")?,
            queue: fields.word("queue")?,
            cpus_per_node: fields.count("cpus_per_node")?.unwrap_or(1),
            select_options: fields.word("select_options")?,
            walltime: fields.walltime(Walltime::minutes(20))?,
            scheduler_options: fields.text("scheduler_options")?,
        };
        lines::PBS_PRO.check(&options.scheduler_options)?;
        Ok(options)
    }
}

impl TorqueOptions {
    pub(super) fn read(fields: &mut Fields) -> Result<Self, InvalidOptions> {
        let options = Self {
            account: fields.word("account")?,
            queue: fields.word("queue")?,
            walltime: fields.walltime(Walltime::minutes(20))?,
            scheduler_options: fields.text("scheduler_options")?,
        };
        lines::TORQUE.check(&options.scheduler_options)?;
        Ok(options)
    }
}

impl LsfOptions {
    pub(super) fn read(fields: &mut Fields) -> Result<Self, InvalidOptions> {
        let by_nodes = fields.flag("request_by_nodes", true)?;
        let cores = (fields.count("cores_per_block")?, fields.count("cores_per_node")?);
        let request = match cores {
            _ if by_nodes => LsfRequest::Nodes,
            (Some(per_block), Some(per_node)) => LsfRequest::Cores { per_block, per_node },
            _ => {
                return fields.refuse(
                    "request_by_nodes",
                    "is false, so cores_per_block and cores_per_node must be given",
                );
            }
        };
        let options = Self {
            project: fields.word("project")?,
            queue: fields.word("queue")?,
            request,
            bsub_redirection: fields.flag("bsub_redirection", false)?,
            walltime: fields.walltime(Walltime::minutes(10))?,
            scheduler_options: fields.text("scheduler_options")?,
        };
        lines::LSF.check(&options.scheduler_options)?;
        Ok(options)
    }
}

impl GridEngineOptions {
    pub(super) fn read(fields: &mut Fields) -> Result<Self, InvalidOptions> {
        let options = Self {
            queue: fields.word("queue")?,
            walltime: fields.walltime(Walltime::minutes(10))?,
            scheduler_options: fields.text("scheduler_options")?,
        };
        lines::GRID_ENGINE.check(&options.scheduler_options)?;
        Ok(options)
    }
}

impl CondorOptions {
    pub(super) fn read(fields: &mut Fields) -> Result<Self, InvalidOptions> {
        let options = Self {
            cores_per_slot: fields.count("cores_per_slot")?,
            mem_per_slot: fields.number("mem_per_slot")?,
            environment: fields.map("environment")?,
            project: fields.word("project")?,
            transfer_input_files: fields.texts("transfer_input_files")?,
            requirements: fields.word("requirements")?,
            scheduler_options: fields.text("scheduler_options")?,
        };
        for (name, value) in &options.environment {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(is_name) || value.chars().any(char::is_control) {
                return fields.refuse(
                    "environment",
                    format!("can't hold {name:?}: names are letters, digits and _, values one line"),
                );
            }
        }
        if let Some(path) = options.transfer_input_files.iter().find(|path| path.contains([',', '\n'])) {
            return fields.refuse(
                "transfer_input_files",
                format!("can't hold {path:?}: HTCondor separates paths by commas"),
            );
        }
        fields.note_without_effect(
            "walltime",
            "HTCondor's jobs have no time limit unless scheduler_options set one",
        );
        fields.walltime(Walltime::minutes(10))?;
        fields.note_without_effect("cmd_chunk_size", ONE_CALL);
        fields.count("cmd_chunk_size")?;
        lines::check_condor(&options.scheduler_options)?;
        Ok(options)
    }
}
