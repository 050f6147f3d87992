//! The cores and the memory that a node may use: limited by its CPU affinity, its control group and its batch job.
//!
//! When a scheduler grants two of 64 cores, the node has two workers, not 64 that compete. `PARSL_CORES` and
//! `PARSL_MEMORY_GB`, which Parsl's batch scripts set, override everything else.

use std::fs;
use std::path::{Path, PathBuf};

/// A number, and the source that error messages name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) value: f64,
    pub(crate) source: String,
}

impl Measured {
    fn new(value: f64, source: &str) -> Self {
        Self { value, source: source.to_owned() }
    }
}

/// The cores and the memory, in GiB, that may be used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Allotment {
    pub(crate) cores: Measured,
    pub(crate) memory: Measured,
}

/// The variables that say how many cores of this machine a job has, each with the variable that shows that there is a
/// job.
const CORES: [(&str, &str); 4] = [
    ("SLURM_JOB_ID", "SLURM_CPUS_ON_NODE"),
    ("PBS_JOBID", "NCPUS"),
    ("PBS_JOBID", "PBS_NUM_PPN"),
    ("JOB_ID", "NSLOTS"),
];

/// Where control groups are mounted.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

const GIB: f64 = (1u64 << 30) as f64;

/// The allotment of this process, on a machine with `cpus` CPUs and `memory` GiB.
pub(crate) fn measure(cpus: usize, memory: f64) -> Allotment {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = read_limits(&groups, Path::new(CONTROL_GROUPS));
    least_allotment(cpus, memory, limits, |name| std::env::var(name).ok())
}

/// What a control group allows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Limits {
    cores: Option<f64>,
    /// In bytes.
    memory: Option<f64>,
}

fn least_allotment(
    cpus: usize,
    memory: f64,
    limits: Limits,
    variable: impl Fn(&str) -> Option<String>,
) -> Allotment {
    let number = |name: &str| variable(name)?.trim().parse::<f64>().ok().filter(|value| *value > 0.0);
    let job = |job: &str| variable(job).is_some_and(|id| !id.trim().is_empty());

    let mut cores = vec![Measured::new(cpus as f64, "its CPUs")];
    cores.extend(limits.cores.map(|cores| Measured::new(cores, "its control group")));
    for (id, name) in CORES {
        cores.extend(number(name).filter(|_| job(id)).map(|value| Measured::new(value, name)));
    }
    // A part of one core is enough for one worker.
    let cores = least(cores).map(|cores| Measured { value: cores.value.max(1.0), ..cores });

    let mut memories = vec![Measured::new(memory, "what is available")];
    memories.extend(limits.memory.map(|bytes| Measured::new(bytes / GIB, "its control group")));
    if job("SLURM_JOB_ID") {
        // In MiB; zero means all of it.
        let node = number("SLURM_MEM_PER_NODE").map(|mib| Measured::new(mib / 1024.0, "SLURM_MEM_PER_NODE"));
        let cpu = number("SLURM_MEM_PER_CPU").zip(number("SLURM_CPUS_ON_NODE"));
        let cpu = cpu.map(|(mib, cpus)| Measured::new(mib * cpus / 1024.0, "SLURM_MEM_PER_CPU"));
        memories.extend(node.or(cpu));
    }
    let override_by = |name| number(name).map(|value| Measured::new(value, name));
    let none = || Measured::new(0.0, "nothing");
    let memory = override_by("PARSL_MEMORY_GB").or_else(|| least(memories)).unwrap_or_else(none);
    Allotment {
        cores: override_by("PARSL_CORES").or(cores).unwrap_or_else(none),
        memory: Measured { value: (memory.value * 10.0).round() / 10.0, ..memory },
    }
}

/// The first of the smallest.
fn least(all: Vec<Measured>) -> Option<Measured> {
    all.into_iter().min_by(|one, other| one.value.total_cmp(&other.value))
}

/// What the control groups of a process allow: the least limit of each and of its ancestors. `groups` is its
/// `/proc/<pid>/cgroup`, which may name groups of both versions.
fn read_limits(groups: &str, root: &Path) -> Limits {
    let mut found = Limits::default();
    let mut less = |cores: Option<f64>, memory: Option<f64>| {
        let least = |now: Option<f64>, other: Option<f64>| now.into_iter().chain(other).reduce(f64::min);
        found = Limits { cores: least(found.cores, cores), memory: least(found.memory, memory) };
    };
    for line in groups.lines() {
        let Some((_, rest)) = line.split_once(':') else { continue };
        let Some((controllers, path)) = rest.split_once(':') else { continue };
        for controller in controllers.split(',') {
            let mount = match controller {
                "" => root.to_owned(),
                "cpu" | "memory" => mount_of(root, controllers, controller),
                _ => continue,
            };
            for group in ancestors_of(&mount, path) {
                match controller {
                    "" => less(read_max_cores(&group), read_max_memory(&group.join("memory.max"))),
                    "cpu" => less(read_quota_cores(&group), None),
                    _ => less(None, read_max_memory(&group.join("memory.limit_in_bytes"))),
                }
            }
        }
    }
    found
}

/// Where version 1 mounts a controller: alone, or together with others.
fn mount_of(root: &Path, controllers: &str, controller: &str) -> PathBuf {
    let together = root.join(controllers);
    if together.is_dir() { together } else { root.join(controller) }
}

/// A group and its ancestors. In a container the path may be the host's, which does not exist; the mount does.
fn ancestors_of(mount: &Path, path: &str) -> Vec<PathBuf> {
    let path = Path::new(path.trim_start_matches('/'));
    let safe = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let groups = path.ancestors().filter(|_| safe).map(|group| mount.join(group));
    let mut groups: Vec<_> = groups.collect();
    if !safe {
        groups.push(mount.to_owned());
    }
    groups
}

fn read_trimmed(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// `cpu.max`: quota and period, or `max`.
fn read_max_cores(group: &Path) -> Option<f64> {
    let text = read_trimmed(&group.join("cpu.max"))?;
    let (quota, period) = text.split_once(' ')?;
    ratio(quota, period)
}

/// A quota of -1 means no limit.
fn read_quota_cores(group: &Path) -> Option<f64> {
    ratio(&read_trimmed(&group.join("cpu.cfs_quota_us"))?, &read_trimmed(&group.join("cpu.cfs_period_us"))?)
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let number = |text: &str| text.parse::<f64>().ok().filter(|value| *value > 0.0);
    Some(number(quota)? / number(period)?)
}

/// More memory than any machine has: version 1 reports it where there is no limit.
const NO_LIMIT: f64 = (1u64 << 60) as f64;

fn read_max_memory(file: &Path) -> Option<f64> {
    read_trimmed(file)?.parse::<f64>().ok().filter(|bytes| *bytes > 0.0 && *bytes < NO_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(variables: &[(&str, &str)], limits: Limits) -> (f64, String, f64, String) {
        let variable =
            |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        let found = least_allotment(64, 250.04, limits, variable);
        (found.cores.value, found.cores.source, found.memory.value, found.memory.source)
    }

    #[test]
    fn the_least_limit_counts_and_parsls_variables_override_it() {
        let none = Limits::default();
        let group = Limits { cores: Some(2.5), memory: Some(4.0 * GIB) };
        let slurm = ("SLURM_JOB_ID", "7");
        for (variables, limits, cores, memory) in [
            (&[][..], none, (64.0, "its CPUs"), (250.0, "what is available")),
            (&[], group, (2.5, "its control group"), (4.0, "its control group")),
            (
                &[],
                Limits { cores: Some(0.5), memory: None },
                (1.0, "its control group"),
                (250.0, "what is available"),
            ),
            (
                &[],
                Limits { cores: Some(900.0), memory: Some(900.0 * GIB) },
                (64.0, "its CPUs"),
                (250.0, "what is available"),
            ),
            (
                &[slurm, ("SLURM_CPUS_ON_NODE", "8"), ("SLURM_MEM_PER_NODE", "16384")],
                none,
                (8.0, "SLURM_CPUS_ON_NODE"),
                (16.0, "SLURM_MEM_PER_NODE"),
            ),
            (
                &[slurm, ("SLURM_CPUS_ON_NODE", "8"), ("SLURM_MEM_PER_CPU", "1024")],
                none,
                (8.0, "SLURM_CPUS_ON_NODE"),
                (8.0, "SLURM_MEM_PER_CPU"),
            ),
            // All of the node's memory.
            (&[slurm, ("SLURM_MEM_PER_NODE", "0")], none, (64.0, "its CPUs"), (250.0, "what is available")),
            (
                &[slurm, ("SLURM_CPUS_ON_NODE", "8")],
                group,
                (2.5, "its control group"),
                (4.0, "its control group"),
            ),
            (&[("PBS_JOBID", "7.pbs"), ("NCPUS", "4")], none, (4.0, "NCPUS"), (250.0, "what is available")),
            (
                &[("PBS_JOBID", "7"), ("PBS_NUM_PPN", "3")],
                none,
                (3.0, "PBS_NUM_PPN"),
                (250.0, "what is available"),
            ),
            (&[("JOB_ID", "7"), ("NSLOTS", "5")], none, (5.0, "NSLOTS"), (250.0, "what is available")),
            // Of no job, and no number.
            (
                &[("NCPUS", "4"), ("NSLOTS", "5"), ("SLURM_CPUS_ON_NODE", "6"), ("SLURM_MEM_PER_NODE", "1")],
                none,
                (64.0, "its CPUs"),
                (250.0, "what is available"),
            ),
            (
                &[slurm, ("SLURM_CPUS_ON_NODE", "many")],
                none,
                (64.0, "its CPUs"),
                (250.0, "what is available"),
            ),
            (
                &[("PARSL_CORES", "128"), ("PARSL_MEMORY_GB", "12.34"), slurm, ("SLURM_CPUS_ON_NODE", "8")],
                group,
                (128.0, "PARSL_CORES"),
                (12.3, "PARSL_MEMORY_GB"),
            ),
            (
                &[("PARSL_CORES", "0"), ("PARSL_MEMORY_GB", "")],
                none,
                (64.0, "its CPUs"),
                (250.0, "what is available"),
            ),
        ] {
            let expected = (cores.0, cores.1.to_owned(), memory.0, memory.1.to_owned());
            assert_eq!(by(variables, limits), expected, "{variables:?} {limits:?}");
        }
    }

    #[test]
    fn control_groups_of_both_versions_are_read_with_their_ancestors() {
        const MIB: f64 = (1u64 << 20) as f64;
        for (groups, files, cores, memory) in [
            ("0::/\n", &[][..], None, None),
            (
                "0::/job/step\n",
                &[("job/step/cpu.max", "200000 100000"), ("job/step/memory.max", "1048576")],
                Some(2.0),
                Some(MIB),
            ),
            // A limit above, and none here.
            (
                "0::/job/step\n",
                &[
                    ("job/step/cpu.max", "max 100000"),
                    ("job/step/memory.max", "max"),
                    ("job/cpu.max", "150000 100000"),
                    ("job/memory.max", "2097152"),
                ],
                Some(1.5),
                Some(2.0 * MIB),
            ),
            // The least counts, wherever it is.
            (
                "0::/job/step\n",
                &[("job/step/cpu.max", "400000 100000"), ("job/cpu.max", "300000 100000")],
                Some(3.0),
                None,
            ),
            // In a container the mount is its own group, whatever its path says.
            (
                "0::/kubepods/pod7\n",
                &[("cpu.max", "50000 100000"), ("memory.max", "1048576")],
                Some(0.5),
                Some(MIB),
            ),
            ("0::/../../other\n", &[("cpu.max", "50000 100000")], Some(0.5), None),
            (
                "4:cpu,cpuacct:/job\n3:memory:/job\n1:name=systemd:/x\n",
                &[
                    ("cpu,cpuacct/job/cpu.cfs_quota_us", "250000"),
                    ("cpu,cpuacct/job/cpu.cfs_period_us", "100000"),
                    ("memory/job/memory.limit_in_bytes", "1048576"),
                ],
                Some(2.5),
                Some(MIB),
            ),
            (
                "4:cpu,cpuacct:/job\n3:memory:/job\n",
                &[
                    ("cpu/job/cpu.cfs_quota_us", "-1"),
                    ("cpu/job/cpu.cfs_period_us", "100000"),
                    ("memory/job/memory.limit_in_bytes", "9223372036854771712"),
                ],
                None,
                None,
            ),
            ("nonsense\n4:cpu\n", &[("cpu.max", "nonsense")], None, None),
        ] {
            let root = tempfile::tempdir().unwrap();
            for (name, content) in files {
                let path = root.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, format!("{content}\n")).unwrap();
            }
            assert_eq!(read_limits(groups, root.path()), Limits { cores, memory }, "{groups} {files:?}");
        }
    }
}
