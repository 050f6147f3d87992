//! `provider:` of a batch scheduler: every option of the contract, with its default.
//!
//! What no scheduler could take is refused here, by the option's name, before anything starts. The text that schedulers
//! get is made elsewhere.

mod fields;
mod options;
mod scheduler_options;
mod walltime;

use std::time::Duration;

use serde_json::{Map, Value};

use self::fields::Fields;
pub(crate) use self::options::{
    CondorOptions, GridEngineOptions, LsfOptions, LsfRequest, PbsProOptions, SlurmOptions, TorqueOptions,
};
use super::error::InvalidOptions;
use super::provider::{BlockOptions, COMMON};

/// A provider that submits jobs to a batch scheduler.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BatchOptions {
    pub(crate) blocks: BlockOptions,
    pub(crate) scheduler: SchedulerOptions,
    /// How long one command of the scheduler may take before it is killed.
    pub(crate) command_limit: Duration,
    /// The options that are given and have no effect, each with the reason.
    pub(crate) without_effect: Vec<(&'static str, &'static str)>,
}

/// The options that only one scheduler has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SchedulerOptions {
    Slurm(SlurmOptions),
    PbsPro(PbsProOptions),
    Torque(TorqueOptions),
    Lsf(LsfOptions),
    GridEngine(GridEngineOptions),
    Condor(CondorOptions),
}

/// The longest time for one command, in seconds.
const LONGEST_COMMAND: u32 = 3600;

impl BatchOptions {
    /// Reads the mapping under `provider:`, without its `type`, which is `class`. None for any other class.
    pub(crate) fn read(class: &str, mut map: Map<String, Value>) -> Option<Result<Self, InvalidOptions>> {
        let common: Map<_, _> = COMMON
            .into_iter()
            .filter_map(|name| map.remove_entry(name))
            .filter(|(_, value)| !value.is_null())
            .collect();
        let (class, seconds) = match class {
            "SlurmProvider" => ("SlurmProvider", 10),
            "PBSProProvider" => ("PBSProProvider", 120),
            "TorqueProvider" => ("TorqueProvider", 120),
            "LSFProvider" => ("LSFProvider", 120),
            "GridEngineProvider" => ("GridEngineProvider", 60),
            "CondorProvider" => ("CondorProvider", 60),
            _ => return None,
        };
        Some(Self::read_class(class, seconds, common, Fields::new(class, map)))
    }

    fn read_class(
        class: &'static str,
        seconds: u32,
        mut common: Map<String, Value>,
        mut fields: Fields,
    ) -> Result<Self, InvalidOptions> {
        if class == "TorqueProvider" && !common.contains_key("launcher") {
            common.insert("launcher".to_owned(), serde_json::json!({"type": "AprunLauncher"}));
        }
        let shape = |error: serde_json::Error| InvalidOptions::Shape(format!("{class}: {error}"));
        let mut blocks: BlockOptions = serde_json::from_value(common.into()).map_err(shape)?;
        let scheduler = match class {
            "SlurmProvider" => SchedulerOptions::Slurm(SlurmOptions::read(&mut fields)?),
            "PBSProProvider" => SchedulerOptions::PbsPro(PbsProOptions::read(&mut fields)?),
            "TorqueProvider" => SchedulerOptions::Torque(TorqueOptions::read(&mut fields)?),
            "LSFProvider" => SchedulerOptions::Lsf(LsfOptions::read(&mut fields)?),
            "GridEngineProvider" => SchedulerOptions::GridEngine(GridEngineOptions::read(&mut fields)?),
            _ => SchedulerOptions::Condor(CondorOptions::read(&mut fields)?),
        };
        let seconds = fields.count("cmd_timeout")?.unwrap_or(seconds);
        if seconds > LONGEST_COMMAND {
            return fields.refuse("cmd_timeout", format!("must be at most {LONGEST_COMMAND} seconds"));
        }
        let without_effect = fields.finish()?;
        if let SchedulerOptions::Lsf(LsfOptions {
            request: LsfRequest::Cores { per_block, per_node }, ..
        }) = &scheduler
        {
            blocks.nodes_per_block = per_block.div_ceil(*per_node);
        }
        blocks.check()?;
        Ok(Self { blocks, scheduler, command_limit: Duration::from_secs(seconds.into()), without_effect })
    }

    /// The scheduler's name in texts for users.
    pub(crate) fn scheduler_name(&self) -> &'static str {
        match self.scheduler {
            SchedulerOptions::Slurm(_) => "Slurm",
            SchedulerOptions::PbsPro(_) => "PBS",
            SchedulerOptions::Torque(_) => "Torque",
            SchedulerOptions::Lsf(_) => "LSF",
            SchedulerOptions::GridEngine(_) => "Grid Engine",
            SchedulerOptions::Condor(_) => "HTCondor",
        }
    }

    /// The memory and cores of a node that the scheduler is asked for, which nodes get as `PARSL_MEMORY_GB` and
    /// `PARSL_CORES`.
    pub(crate) fn node_size(&self) -> (Option<String>, Option<u32>) {
        match &self.scheduler {
            SchedulerOptions::Slurm(slurm) => {
                (slurm.mem_per_node.map(|memory| memory.to_string()), slurm.cores_per_node)
            }
            SchedulerOptions::Condor(condor) => {
                (condor.mem_per_slot.map(|memory| memory.to_string()), condor.cores_per_slot)
            }
            _ => (None, None),
        }
    }
}

#[cfg(test)]
mod tests;
