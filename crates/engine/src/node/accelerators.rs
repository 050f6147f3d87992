//! Chooses the accelerator that each worker sees.
//!
//! A list of names works as with Parsl: the worker of rank `i` gets the `i`-th name. A number means that many of the
//! devices that the batch scheduler has granted, by the names in its variables. Without such variables the names are
//! 0, 1 and so on. If the number exceeds that of the NVIDIA devices, several workers share each of them, as with
//! Parsl.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::config::Accelerators;

const CUDA: &str = "CUDA_VISIBLE_DEVICES";
const ROCR: &str = "ROCR_VISIBLE_DEVICES";
/// Its numbers count the devices that [`ROCR`] leaves visible.
const HIP: &str = "HIP_VISIBLE_DEVICES";
const LEVEL_ZERO: &str = "ZE_AFFINITY_MASK";
const LEVEL_ZERO_ORDER: &str = "ZE_ENABLE_PCI_ID_DEVICE_ORDER";

/// A driver that hangs must not hang the node.
pub(super) const NVIDIA_SMI_LIMIT: Duration = Duration::from_secs(10);

/// Numbers, UUIDs, MIG instances or tiles, as written in a variable; absent if it is not set.
type DeviceList = Option<Vec<String>>;

/// A variable, and the devices that it grants.
type Grant = (&'static str, Vec<String>);

/// The devices that the environment grants, and how many NVIDIA devices there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GrantedAccelerators {
    cuda: DeviceList,
    rocr: DeviceList,
    hip: DeviceList,
    level_zero: DeviceList,
    pub(super) cuda_devices: Option<u32>,
}

impl GrantedAccelerators {
    /// Reads the variables of a job.
    pub(super) fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let granted = |name| variable(name).as_deref().map(parse_devices);
        let (cuda, level_zero) = (granted(CUDA), granted(LEVEL_ZERO));
        Self { cuda, rocr: granted(ROCR), hip: granted(HIP), level_zero, cuda_devices: None }
    }

    pub(super) fn is_unspecified(&self) -> bool {
        self.grants().is_empty()
    }

    /// The kinds of devices whose variable is set.
    fn grants(&self) -> Vec<Grant> {
        let roc = match (&self.rocr, &self.hip) {
            (Some(rocr), Some(hip)) => Some((ROCR, select_devices(rocr, hip))),
            (Some(rocr), None) => Some((ROCR, rocr.clone())),
            (None, Some(hip)) => Some((HIP, hip.clone())),
            (None, None) => None,
        };
        let kind = |name, granted: &DeviceList| granted.clone().map(|granted| (name, granted));
        [kind(CUDA, &self.cuda), roc, kind(LEVEL_ZERO, &self.level_zero)].into_iter().flatten().collect()
    }

    /// Refuses more devices than are granted, unless they are NVIDIA's, which workers may share.
    pub(super) fn check(&self, asked: &Accelerators) -> Result<(), String> {
        let &Accelerators::Count(asked) = asked else { return Ok(()) };
        let grants = self.grants();
        if grants.is_empty() || is_enough(&grants, asked) || Self::shared_cuda(&grants, asked).is_some() {
            return Ok(());
        }
        let granted: Vec<_> = grants
            .iter()
            .map(|(name, granted)| format!("{name}={} grants {}", granted.join(","), granted.len()))
            .collect();
        Err(format!(
            "available_accelerators asks for {asked} accelerators, and {}. Ask for no more than that, or write a list of \
             names in which those that workers share stand several times, such as [\"0\", \"0\", \"1\", \"1\"]",
            granted.join(", ")
        ))
    }

    /// The NVIDIA devices that workers share because no kind has as many devices as are asked for.
    fn shared_cuda(grants: &[Grant], asked: u32) -> Option<&[String]> {
        let (_, devices) = grants.iter().find(|(name, devices)| *name == CUDA && !devices.is_empty())?;
        (!is_enough(grants, asked)).then_some(devices)
    }

    /// The variables of the worker of this rank.
    pub(super) fn variables_for(
        &self,
        asked: &Accelerators,
        rank: u32,
        workers: u32,
    ) -> Vec<(&'static str, String)> {
        let &Accelerators::Count(count) = asked else { return self.variables_by_name(asked, rank, workers) };
        if self.is_unspecified() {
            return self.variables_by_name(asked, rank, workers);
        }
        let grants = self.grants();
        if let Some(devices) = Self::shared_cuda(&grants, count) {
            // Neighbouring ranks share a device.
            let per_device = workers.div_ceil(devices.len() as u32).max(1);
            let device = devices.get((rank / per_device) as usize);
            return device.map(|device| (CUDA, device.clone())).into_iter().collect();
        }
        let mut environment = Vec::new();
        for (name, granted) in grants {
            // Another kind has enough devices; this variable stays as it is.
            let Some(device) = granted.get(rank as usize).filter(|_| granted.len() >= count as usize) else {
                continue;
            };
            environment.push((name, device.clone()));
            if name == ROCR && self.hip.is_some() {
                environment.push((HIP, "0".to_owned()));
            }
        }
        environment
    }

    /// As with Parsl: the same name for every kind; several workers share an NVIDIA device when there are more
    /// workers than devices.
    fn variables_by_name(
        &self,
        asked: &Accelerators,
        rank: u32,
        workers: u32,
    ) -> Vec<(&'static str, String)> {
        let Some(name) = asked.names().into_iter().nth(rank as usize) else { return Vec::new() };
        vec![
            (CUDA, cuda_device(&name, workers, self.cuda_devices)),
            (ROCR, name.clone()),
            (LEVEL_ZERO, name),
            (LEVEL_ZERO_ORDER, "1".to_owned()),
        ]
    }
}

fn is_enough(grants: &[Grant], asked: u32) -> bool {
    grants.iter().any(|(_, granted)| granted.len() >= asked as usize)
}

/// The entries of a variable, up to the first that names no device: drivers stop there, too.
fn parse_devices(text: &str) -> Vec<String> {
    let names = text.split(',').map(str::trim);
    let device = |name: &&str| !["", "-1", "NoDevFiles", "none", "void"].contains(name);
    names.take_while(device).map(str::to_owned).collect()
}

/// The devices that `places` selects: by position in `devices`, or by a name of their own.
fn select_devices(devices: &[String], places: &[String]) -> Vec<String> {
    let pick = |place: &String| match place.parse::<usize>() {
        Ok(index) => devices.get(index).cloned(),
        Err(_) => Some(place.clone()),
    };
    places.iter().map_while(pick).collect()
}

fn cuda_device(name: &str, workers: u32, devices: Option<u32>) -> String {
    let shared = || {
        let per_device = workers / devices?;
        Some((name.parse::<u32>().ok()?.checked_div(per_device)?).to_string())
    };
    shared().unwrap_or_else(|| name.to_owned())
}

/// How many NVIDIA devices there are, if any. Waits for `nvidia-smi` no longer than `limit`.
pub(super) async fn count_cuda_devices(nvidia_smi: &Path, limit: Duration) -> Option<u32> {
    let mut command = Command::new(nvidia_smi);
    command.arg("-L").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let Ok(output) = timeout(limit, command.output()).await else {
        tracing::warn!(
            limit_s = limit.as_secs(),
            "nvidia-smi -L did not end within its limit and was killed"
        );
        return None;
    };
    let output = output.ok().filter(|output| output.status.success())?;
    u32::try_from(String::from_utf8_lossy(&output.stdout).lines().count()).ok().filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AcceleratorName;

    fn visible(variables: &[(&str, &str)]) -> GrantedAccelerators {
        GrantedAccelerators::from_variables(|name| {
            variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn environments(visible: &GrantedAccelerators, asked: &Accelerators, workers: u32) -> Vec<String> {
        let text = |share: Vec<(&str, String)>| {
            share.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        (0..workers).map(|rank| text(visible.variables_for(asked, rank, workers))).collect()
    }

    #[test]
    fn a_number_of_accelerators_are_those_that_the_environment_grants() {
        let cuda = "CUDA_VISIBLE_DEVICES";
        for (variables, count, expected) in [
            (&[(cuda, "4,5")][..], 2, ["CUDA_VISIBLE_DEVICES=4", "CUDA_VISIBLE_DEVICES=5"]),
            (&[(cuda, " 4, 5 ,6")], 2, ["CUDA_VISIBLE_DEVICES=4", "CUDA_VISIBLE_DEVICES=5"]),
            (
                &[(cuda, "GPU-8932f937,GPU-1234")],
                2,
                ["CUDA_VISIBLE_DEVICES=GPU-8932f937", "CUDA_VISIBLE_DEVICES=GPU-1234"],
            ),
            (
                &[(cuda, "MIG-GPU-8932f937/1/0,MIG-77")],
                2,
                ["CUDA_VISIBLE_DEVICES=MIG-GPU-8932f937/1/0", "CUDA_VISIBLE_DEVICES=MIG-77"],
            ),
            (&[(ROCR, "2,3")], 2, ["ROCR_VISIBLE_DEVICES=2", "ROCR_VISIBLE_DEVICES=3"]),
            (&[(HIP, "2,3")], 2, ["HIP_VISIBLE_DEVICES=2", "HIP_VISIBLE_DEVICES=3"]),
            (
                &[(ROCR, "4,5,6,7"), (HIP, "2,3")],
                2,
                [
                    "ROCR_VISIBLE_DEVICES=6 HIP_VISIBLE_DEVICES=0",
                    "ROCR_VISIBLE_DEVICES=7 HIP_VISIBLE_DEVICES=0",
                ],
            ),
            (
                &[(ROCR, "GPU-a,GPU-b"), (HIP, "1,GPU-a")],
                2,
                [
                    "ROCR_VISIBLE_DEVICES=GPU-b HIP_VISIBLE_DEVICES=0",
                    "ROCR_VISIBLE_DEVICES=GPU-a HIP_VISIBLE_DEVICES=0",
                ],
            ),
            (&[(LEVEL_ZERO, "1.0,1.1")], 2, ["ZE_AFFINITY_MASK=1.0", "ZE_AFFINITY_MASK=1.1"]),
            // Slurm may set the variables of several kinds of devices alike.
            (
                &[(cuda, "4,5"), (ROCR, "4,5")],
                2,
                [
                    "CUDA_VISIBLE_DEVICES=4 ROCR_VISIBLE_DEVICES=4",
                    "CUDA_VISIBLE_DEVICES=5 ROCR_VISIBLE_DEVICES=5",
                ],
            ),
            (&[(cuda, "NoDevFiles"), (ROCR, "4,5")], 2, ["ROCR_VISIBLE_DEVICES=4", "ROCR_VISIBLE_DEVICES=5"]),
        ] {
            let (visible, asked) = (visible(variables), Accelerators::Count(count));
            assert_eq!(visible.check(&asked), Ok(()), "{variables:?}");
            assert_eq!(environments(&visible, &asked, count), expected, "{variables:?}");
        }
    }

    #[test]
    fn more_accelerators_than_granted_are_refused() {
        for (variables, words) in [
            (&[(ROCR, "4,5")][..], "asks for 3 accelerators, and ROCR_VISIBLE_DEVICES=4,5 grants 2. "),
            (&[(CUDA, "")], "asks for 3 accelerators, and CUDA_VISIBLE_DEVICES= grants 0. "),
            (
                &[(CUDA, "NoDevFiles"), (LEVEL_ZERO, "0")],
                "CUDA_VISIBLE_DEVICES= grants 0, ZE_AFFINITY_MASK=0 grants 1. ",
            ),
            (&[(ROCR, "0,1,2"), (HIP, "2,3")], "ROCR_VISIBLE_DEVICES=2 grants 1. "),
            (&[(ROCR, "4,5")], "stand several times, such as [\"0\", \"0\", \"1\", \"1\"]"),
        ] {
            let refused = visible(variables).check(&Accelerators::Count(3)).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
    }

    /// `available_accelerators: 4` on a job of two devices: with Parsl, too, two workers share each (NVIDIA's MPS).
    #[test]
    fn workers_share_nvidia_devices_when_more_are_asked_for_than_granted() {
        for (variables, count, workers, expected) in [
            (&[(CUDA, "4,5")][..], 4, 4, &["4", "4", "5", "5"][..]),
            (&[(CUDA, "4,5")], 3, 3, &["4", "4", "5"]),
            (&[(CUDA, "4,5")], 4, 2, &["4", "5"]),
            (&[(CUDA, "GPU-89,GPU-12")], 4, 4, &["GPU-89", "GPU-89", "GPU-12", "GPU-12"]),
            (&[(CUDA, "0,-1,1,2")], 3, 3, &["0", "0", "0"]),
            (&[(CUDA, "7"), (ROCR, "4,5")], 3, 3, &["7", "7", "7"]),
        ] {
            let (visible, asked) = (visible(variables), Accelerators::Count(count));
            assert_eq!(visible.check(&asked), Ok(()), "{variables:?}");
            let expected: Vec<_> = expected.iter().map(|name| format!("{CUDA}={name}")).collect();
            assert_eq!(environments(&visible, &asked, workers), expected, "{variables:?}");
        }
    }

    #[test]
    fn names_and_numbers_without_a_grant_work_as_with_parsl() {
        let name = |text: &str| AcceleratorName::Text(text.into());
        let names = Accelerators::Names(vec![name("0"), name("1"), name("opencl:gpu:1")]);
        let granted = visible(&[(CUDA, "4,5")]);
        assert_eq!(granted.check(&names), Ok(()), "a list is not compared with what is granted");
        assert_eq!(
            granted.variables_for(&names, 2, 3),
            [
                ("CUDA_VISIBLE_DEVICES", "opencl:gpu:1".to_owned()),
                ("ROCR_VISIBLE_DEVICES", "opencl:gpu:1".to_owned()),
                ("ZE_AFFINITY_MASK", "opencl:gpu:1".to_owned()),
                ("ZE_ENABLE_PCI_ID_DEVICE_ORDER", "1".to_owned()),
            ]
        );
        let silent = GrantedAccelerators { cuda_devices: Some(2), ..visible(&[]) };
        let shared: Vec<_> =
            (0..4).map(|rank| silent.variables_for(&Accelerators::Count(4), rank, 4)[0].1.clone()).collect();
        assert_eq!(shared, ["0", "0", "1", "1"], "two workers to a device");
        assert_eq!(cuda_device("3", 4, Some(8)), "3", "fewer workers than devices: the plain name");
        assert_eq!(cuda_device("x", 4, Some(2)), "x");
        assert_eq!(granted.variables_for(&Accelerators::default(), 0, 1), []);
    }

    #[tokio::test]
    async fn an_nvidia_smi_that_hangs_is_killed() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let program = |name: &str, does: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{does}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let (hangs, two) = (program("hangs", "exec sleep 1000"), program("two", "echo GPU 0; echo GPU 1"));
        let fails = program("fails", "echo GPU 0; exit 9");
        assert_eq!(count_cuda_devices(&hangs, Duration::from_millis(50)).await, None);
        assert_eq!(count_cuda_devices(&two, Duration::from_secs(60)).await, Some(2));
        assert_eq!(count_cuda_devices(&fails, Duration::from_secs(60)).await, None);
        assert_eq!(count_cuda_devices(&dir.path().join("none"), Duration::from_secs(60)).await, None);
    }
}
