//! Counts the slots of a node, and chooses the environment and the CPUs of each worker.

use std::fs;
use std::path::Path;

use super::accelerators::{GrantedAccelerators, NVIDIA_SMI_LIMIT, count_cuda_devices};
use super::allotment::{self, Allotment};
use super::config::Config;
use crate::config::{Accelerators, CpuAffinity};
use crate::report::MachineInfo;

/// No node has more workers than this, whatever its options say.
const MAX_WORKERS: u32 = 4096;

/// The machine, as far as slots depend on it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Machine {
    pub(crate) allotment: Allotment,
    /// The CPUs this process may run on, sorted.
    pub(crate) cpus: Vec<usize>,
    pub(crate) accelerators: GrantedAccelerators,
}

/// Why no slot can be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSlots {
    #[error("no worker fits on this node: it has {0}")]
    TooSmall(String),
    #[error("{0}")]
    Accelerators(String),
    #[error("no worker can be started on this node: {0}")]
    Descriptors(String),
    #[error("cpu_affinity needs {0}")]
    Affinity(String),
}

impl Machine {
    /// Inspects this machine, and what of it this process may use.
    pub(crate) async fn inspect(asked: &Accelerators) -> Self {
        let cpus = allowed_cpus();
        let allotment = allotment::measure(cpus.len(), available_memory());
        let mut accelerators = GrantedAccelerators::from_variables(|name| std::env::var(name).ok());
        // For a number of granted devices the driver need not be asked.
        let as_parsl = accelerators.is_unspecified() || matches!(asked, Accelerators::Names(_));
        if as_parsl && !asked.is_empty() {
            accelerators.cuda_devices = count_cuda_devices(Path::new("nvidia-smi"), NVIDIA_SMI_LIMIT).await;
        }
        Self { allotment, cpus, accelerators }
    }
}

fn measure_allotment() -> Allotment {
    allotment::measure(allowed_cpus().len(), available_memory())
}

/// The cores this process may use.
pub(crate) fn count_cores() -> u32 {
    measure_allotment().cores.value as u32
}

/// This machine, for the status of a pool engine.
pub(crate) fn machine_info() -> MachineInfo {
    let Allotment { cores, memory } = measure_allotment();
    MachineInfo { total_cores: cores.value as u32, total_mem: memory.value, total_core_hrs: 0 }
}

fn allowed_cpus() -> Vec<usize> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap_or_default();
    let cpus: Vec<_> =
        (0..nix::sched::CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// In GiB.
fn available_memory() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()
    });
    kib.unwrap_or(0.0) / f64::from(1 << 20)
}

/// The number of slots: what the machine has, divided by what a worker needs, within the limits of the options.
pub(crate) fn count_slots(config: &Config, machine: &Machine) -> Result<u32, NoSlots> {
    let floor = |have: f64, need: f64| (have / need).floor().clamp(0.0, f64::from(MAX_WORKERS)) as u32;
    let Allotment { cores, memory } = &machine.allotment;
    let mut count =
        floor(cores.value, config.cores_per_worker).min(config.max_workers.unwrap_or(MAX_WORKERS));
    if let Some(need) = config.mem_per_worker {
        count = count.min(floor(memory.value, need));
    }
    if !config.accelerators.is_empty() {
        machine.accelerators.check(&config.accelerators).map_err(NoSlots::Accelerators)?;
        count = count.min(config.accelerators.len());
    }
    if count == 0 {
        return Err(NoSlots::TooSmall(format!(
            "{} cores (by {}) and {} GiB (by {})",
            cores.value, cores.source, memory.value, memory.source
        )));
    }
    Ok(count)
}

/// The environment variables and the CPUs of one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkerResources {
    pub(crate) environment: Vec<(&'static str, String)>,
    /// The CPUs it is bound to, when it is.
    pub(crate) cpus: Option<Vec<usize>>,
}

pub(crate) fn for_worker(
    config: &Config,
    machine: &Machine,
    rank: u32,
    count: u32,
) -> Result<WorkerResources, NoSlots> {
    let mut environment = machine.accelerators.variables_for(&config.accelerators, rank, count);
    let cpus = cpus_of_worker(&config.cpu_affinity, &machine.cpus, rank as usize, count as usize)?;
    if let Some(cpus) = &cpus {
        let list = cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        environment.push(("OMP_NUM_THREADS", cpus.len().to_string()));
        environment.push(("GOMP_CPU_AFFINITY", list.clone()));
        environment.push(("KMP_AFFINITY", format!("explicit,proclist=[{list}]")));
    }
    Ok(WorkerResources { environment, cpus })
}

fn cpus_of_worker(
    affinity: &CpuAffinity,
    available: &[usize],
    rank: usize,
    count: usize,
) -> Result<Option<Vec<usize>>, NoSlots> {
    let each = available.len() / count.max(1);
    let enough = || {
        if each == 0 {
            let text = format!("a CPU for each of {count} workers, and there are {}", available.len());
            return Err(NoSlots::Affinity(text));
        }
        Ok(())
    };
    let chunk = |index: usize| available.iter().skip(index * each).take(each).copied().collect();
    Ok(Some(match affinity {
        CpuAffinity::None => return Ok(None),
        CpuAffinity::Block => {
            enough()?;
            chunk(rank)
        }
        CpuAffinity::BlockReverse => {
            enough()?;
            chunk(count - 1 - rank)
        }
        CpuAffinity::Alternating => {
            enough()?;
            available.iter().skip(rank).step_by(count).copied().collect()
        }
        CpuAffinity::List(lists) if lists.len() == count => lists.get(rank).cloned().unwrap_or_default(),
        CpuAffinity::List(lists) => {
            let text = format!("one list for each of {count} workers, and there are {}", lists.len());
            return Err(NoSlots::Affinity(text));
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::allotment::Measured;

    fn machine() -> Machine {
        let measured = |value| Measured { value, source: "itself".into() };
        let allotment = Allotment { cores: measured(8.0), memory: measured(10.5) };
        Machine { allotment, cpus: (0..8).collect(), accelerators: GrantedAccelerators::default() }
    }

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::for_tests();
        change(&mut config);
        config
    }

    #[test]
    fn slots_are_the_least_of_what_each_limit_allows() {
        let count = |change: fn(&mut Config)| count_slots(&config(change), &machine());
        assert_eq!(count(|_| ()), Ok(8));
        assert_eq!(count(|c| c.cores_per_worker = 3.0), Ok(2));
        assert_eq!(count(|c| c.cores_per_worker = 0.5), Ok(16), "below one: oversubscribed");
        assert_eq!(count(|c| c.cores_per_worker = 1e-9), Ok(MAX_WORKERS));
        assert_eq!(count(|c| c.mem_per_worker = Some(4.0)), Ok(2));
        assert_eq!(count(|c| c.max_workers = Some(3)), Ok(3));
        assert_eq!(count(|c| c.accelerators = Accelerators::Count(2)), Ok(2));
        let words = "no worker fits on this node: it has 8 cores (by itself) and 10.5 GiB (by itself)";
        assert_eq!(count(|c| c.cores_per_worker = 9.0).unwrap_err().to_string(), words);
    }

    #[test]
    fn cpus_are_shared_out_as_the_option_says() {
        let lists = |text: &str, count| -> Vec<_> {
            let affinity = CpuAffinity::try_from(text.to_owned()).unwrap();
            (0..count)
                .map(|rank| cpus_of_worker(&affinity, &machine().cpus, rank, count).unwrap().unwrap())
                .collect()
        };
        assert_eq!(lists("block", 3), [[0, 1], [2, 3], [4, 5]]);
        assert_eq!(lists("block-reverse", 3), [[4, 5], [2, 3], [0, 1]]);
        assert_eq!(lists("alternating", 3), [vec![0, 3, 6], vec![1, 4, 7], vec![2, 5]]);
        assert_eq!(lists("list:0-2,5:7", 2), [vec![0, 1, 2, 5], vec![7]]);
        assert!(cpus_of_worker(&CpuAffinity::List(vec![vec![0]]), &[0, 1], 0, 2).is_err());
        assert!(cpus_of_worker(&CpuAffinity::Block, &[0, 1], 0, 3).is_err());
    }
}
