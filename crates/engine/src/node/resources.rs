//! How many slots a node has, and what each of its workers finds in its environment.

use std::fs;
use std::process::Stdio;

use tokio::process::Command;

use super::config::Config;
use crate::config::CpuAffinity;
use crate::handle::MachineInfo;

/// No node has more workers than this, whatever its options say.
const MOST_WORKERS: u32 = 4096;

/// The machine, as far as slots depend on it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Machine {
    pub(crate) cores: f64,
    /// In GiB.
    pub(crate) memory: f64,
    /// The CPUs this process may run on, sorted.
    pub(crate) cpus: Vec<usize>,
    /// NVIDIA devices, when there are any.
    pub(crate) cuda_devices: Option<u32>,
}

/// Why no slot can be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSlots {
    #[error("no worker fits on this node: it has {0}")]
    TooSmall(String),
    #[error("no worker can be started on this node: {0}")]
    Descriptors(String),
    #[error("cpu_affinity needs {0}")]
    Affinity(String),
}

impl Machine {
    /// Looks at this machine; the batch script may say better by `PARSL_CORES` and `PARSL_MEMORY_GB`.
    pub(crate) async fn here(with_accelerators: bool) -> Self {
        let told =
            |name: &str| std::env::var(name).ok()?.trim().parse::<f64>().ok().filter(|value| *value > 0.0);
        let cpus = allowed_cpus();
        let cores = told("PARSL_CORES").unwrap_or(cpus.len() as f64);
        let memory = told("PARSL_MEMORY_GB").unwrap_or_else(available_memory);
        let cuda_devices = if with_accelerators { cuda_devices().await } else { None };
        Self { cores, memory, cpus, cuda_devices }
    }
}

/// The cores this process may use.
pub(crate) fn cores_here() -> u32 {
    u32::try_from(allowed_cpus().len()).unwrap_or(u32::MAX)
}

/// What a pool's status says of this machine.
pub(crate) fn machine_info() -> MachineInfo {
    MachineInfo { total_cores: cores_here(), total_mem: available_memory(), total_core_hrs: 0 }
}

fn allowed_cpus() -> Vec<usize> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap_or_default();
    let cpus: Vec<_> =
        (0..nix::sched::CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// In GiB, to one decimal.
fn available_memory() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()
    });
    (kib.unwrap_or(0.0) / f64::from(1 << 20) * 10.0).round() / 10.0
}

async fn cuda_devices() -> Option<u32> {
    let output =
        Command::new("nvidia-smi").arg("-L").stdin(Stdio::null()).stderr(Stdio::null()).output().await;
    let output = output.ok().filter(|output| output.status.success())?;
    u32::try_from(String::from_utf8_lossy(&output.stdout).lines().count()).ok().filter(|count| *count > 0)
}

/// The number of slots: what the machine has by what a worker needs, no more than the options allow.
pub(crate) fn slots(config: &Config, machine: &Machine) -> Result<u32, NoSlots> {
    let floor = |have: f64, need: f64| (have / need).floor().clamp(0.0, f64::from(MOST_WORKERS)) as u32;
    let mut count =
        floor(machine.cores, config.cores_per_worker).min(config.max_workers.unwrap_or(MOST_WORKERS));
    if let Some(need) = config.mem_per_worker {
        count = count.min(floor(machine.memory, need));
    }
    if !config.accelerators.is_empty() {
        count = count.min(u32::try_from(config.accelerators.len()).unwrap_or(u32::MAX));
    }
    if count == 0 {
        return Err(NoSlots::TooSmall(format!("{} cores and {} GiB", machine.cores, machine.memory)));
    }
    Ok(count)
}

/// What is special about the worker of this rank.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) environment: Vec<(&'static str, String)>,
    /// The CPUs it is bound to, when it is.
    pub(crate) cpus: Option<Vec<usize>>,
}

pub(crate) fn share(config: &Config, machine: &Machine, rank: u32, count: u32) -> Result<Share, NoSlots> {
    let mut environment = Vec::new();
    if let Some(name) = config.accelerators.get(rank as usize) {
        environment.push(("CUDA_VISIBLE_DEVICES", cuda_device(name, count, machine.cuda_devices)));
        environment.push(("ROCR_VISIBLE_DEVICES", name.clone()));
        environment.push(("ZE_AFFINITY_MASK", name.clone()));
        environment.push(("ZE_ENABLE_PCI_ID_DEVICE_ORDER", "1".to_owned()));
    }
    let cpus = cpus(&config.cpu_affinity, &machine.cpus, rank as usize, count as usize)?;
    if let Some(cpus) = &cpus {
        let list = cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        environment.push(("OMP_NUM_THREADS", cpus.len().to_string()));
        environment.push(("GOMP_CPU_AFFINITY", list.clone()));
        environment.push(("KMP_AFFINITY", format!("explicit,proclist=[{list}]")));
    }
    Ok(Share { environment, cpus })
}

/// Several workers share one NVIDIA device when there are more of them than devices.
fn cuda_device(name: &str, workers: u32, devices: Option<u32>) -> String {
    let shared = || {
        let per_device = workers / devices?;
        Some((name.parse::<u32>().ok()?.checked_div(per_device)?).to_string())
    };
    shared().unwrap_or_else(|| name.to_owned())
}

fn cpus(
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

    fn machine() -> Machine {
        Machine { cores: 8.0, memory: 10.5, cpus: (0..8).collect(), cuda_devices: None }
    }

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::for_tests();
        change(&mut config);
        config
    }

    #[test]
    fn slots_are_the_least_of_what_each_limit_allows() {
        let count = |change: fn(&mut Config)| slots(&config(change), &machine());
        assert_eq!(count(|_| ()), Ok(8));
        assert_eq!(count(|c| c.cores_per_worker = 3.0), Ok(2));
        assert_eq!(count(|c| c.cores_per_worker = 0.5), Ok(16), "below one: oversubscribed");
        assert_eq!(count(|c| c.cores_per_worker = 1e-9), Ok(MOST_WORKERS));
        assert_eq!(count(|c| c.mem_per_worker = Some(4.0)), Ok(2));
        assert_eq!(count(|c| c.max_workers = Some(3)), Ok(3));
        assert_eq!(count(|c| c.accelerators = vec!["a".into(), "b".into()]), Ok(2));
        assert!(count(|c| c.cores_per_worker = 9.0).is_err());
    }

    #[test]
    fn cpus_are_shared_out_as_the_option_says() {
        let shares = |text: &str, count| -> Vec<_> {
            let affinity = CpuAffinity::try_from(text.to_owned()).unwrap();
            (0..count).map(|rank| cpus(&affinity, &machine().cpus, rank, count).unwrap().unwrap()).collect()
        };
        assert_eq!(shares("block", 3), [[0, 1], [2, 3], [4, 5]]);
        assert_eq!(shares("block-reverse", 3), [[4, 5], [2, 3], [0, 1]]);
        assert_eq!(shares("alternating", 3), [vec![0, 3, 6], vec![1, 4, 7], vec![2, 5]]);
        assert_eq!(shares("list:0-2,5:7", 2), [vec![0, 1, 2, 5], vec![7]]);
        assert!(cpus(&CpuAffinity::List(vec![vec![0]]), &[0, 1], 0, 2).is_err());
        assert!(cpus(&CpuAffinity::Block, &[0, 1], 0, 3).is_err());
    }

    #[test]
    fn each_worker_sees_its_accelerator() {
        let config = config(|c| c.accelerators = vec!["0".into(), "1".into(), "opencl:gpu:1".into()]);
        let share = share(&config, &machine(), 2, 3).unwrap();
        assert_eq!(
            share.environment,
            [
                ("CUDA_VISIBLE_DEVICES", "opencl:gpu:1".to_owned()),
                ("ROCR_VISIBLE_DEVICES", "opencl:gpu:1".to_owned()),
                ("ZE_AFFINITY_MASK", "opencl:gpu:1".to_owned()),
                ("ZE_ENABLE_PCI_ID_DEVICE_ORDER", "1".to_owned()),
            ]
        );
        assert_eq!(cuda_device("3", 4, Some(2)), "1", "two workers to a device");
        assert_eq!(cuda_device("3", 4, Some(8)), "3", "fewer workers than devices: the plain name");
        assert_eq!(cuda_device("x", 4, Some(2)), "x");
    }
}
