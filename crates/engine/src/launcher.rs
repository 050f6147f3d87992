//! Launchers: how a block's one command becomes one node per machine of the block.
//!
//! A launcher only writes shell text; the provider runs it. It may never run anything itself. Those that start
//! programs of a batch system or of MPI write the command to a file, which every machine of the block must see; they
//! work wherever those programs are on the PATH, in a LocalProvider inside a batch job too.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::provider::quote;

/// `launcher:` under a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum Launcher {
    /// Starts the nodes here, all on this machine, and waits for every one.
    SingleNodeLauncher {
        #[serde(default = "yes")]
        debug: bool,
        /// Fail when any node failed, rather than when all did.
        #[serde(default)]
        fail_on_any: bool,
    },
    /// Runs the command as it is.
    SimpleLauncher {
        #[serde(default = "yes")]
        debug: bool,
    },
    /// Puts a text before the command.
    WrappedLauncher {
        prepend: String,
        #[serde(default = "yes")]
        debug: bool,
    },
    /// Slurm's `srun`.
    SrunLauncher {
        #[serde(default = "yes")]
        debug: bool,
        #[serde(default)]
        overrides: String,
    },
    /// One `srun` for each node, for workers that start MPI programs themselves.
    SrunMPILauncher {
        #[serde(default = "yes")]
        debug: bool,
        #[serde(default)]
        overrides: String,
    },
    /// Cray's `aprun`.
    AprunLauncher {
        #[serde(default = "yes")]
        debug: bool,
        #[serde(default)]
        overrides: String,
    },
    /// IBM's `jsrun`.
    JsrunLauncher {
        #[serde(default = "yes")]
        debug: bool,
        #[serde(default)]
        overrides: String,
    },
    /// MPI's `mpiexec`, over the machines of a PBS job or on this one.
    MpiExecLauncher {
        #[serde(default = "yes")]
        debug: bool,
        #[serde(default = "bind_to")]
        bind_cmd: String,
        #[serde(default)]
        overrides: String,
    },
    /// MPI's `mpirun`.
    MpiRunLauncher {
        #[serde(default = "yes")]
        debug: bool,
        #[serde(default = "bash")]
        bash_location: String,
        #[serde(default)]
        overrides: String,
    },
    /// GNU parallel, over the machines of a PBS job or on this one.
    GnuParallelLauncher {
        #[serde(default = "yes")]
        debug: bool,
    },
}

fn yes() -> bool {
    true
}

fn bind_to() -> String {
    "--bind-to".to_owned()
}

fn bash() -> String {
    "/bin/bash".to_owned()
}

impl Default for Launcher {
    fn default() -> Self {
        Self::SingleNodeLauncher { debug: true, fail_on_any: false }
    }
}

const CORES: &str = "export CORES=$(getconf _NPROCESSORS_ONLN)\n";

/// The machines of a PBS job, each once; this one where there is no such job.
const MACHINES: &str = "if [ -f \"$PBS_NODEFILE\" ]; then sort -u \"$PBS_NODEFILE\"; else echo localhost; fi";

impl Launcher {
    /// Whether it was asked to say less.
    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Self::SingleNodeLauncher { debug, .. }
            | Self::SimpleLauncher { debug }
            | Self::WrappedLauncher { debug, .. }
            | Self::SrunLauncher { debug, .. }
            | Self::SrunMPILauncher { debug, .. }
            | Self::AprunLauncher { debug, .. }
            | Self::JsrunLauncher { debug, .. }
            | Self::MpiExecLauncher { debug, .. }
            | Self::MpiRunLauncher { debug, .. }
            | Self::GnuParallelLauncher { debug } => !debug,
        }
    }

    /// The shell text that runs `command` once per node; files it needs go to `scripts`.
    ///
    /// The command's file comes from a here-document without quotes, so variables and substitutions in it are
    /// expanded once, on the machine that runs the script.
    pub(crate) fn wrap(&self, command: &str, nodes: u32, scripts: &Path) -> String {
        let directory = quote(&scripts.to_string_lossy());
        let file = format!("{directory}/\"cmd_$JOBNAME.sh\"");
        let with_file = |line: String| {
            format!("{CORES}cat > {file} << FARCALL_EOF\n{command}\nFARCALL_EOF\nchmod u+x {file}\n{line}")
        };
        match self {
            Self::SimpleLauncher { .. } => command.to_owned(),
            Self::WrappedLauncher { prepend, .. } => format!("{prepend} {command}"),
            // One node needs nobody to wait for it: one shell less per block.
            Self::SingleNodeLauncher { .. } if nodes <= 1 => format!("{CORES}{command}"),
            Self::SingleNodeLauncher { fail_on_any, .. } => {
                format!("{CORES}{}", each(command, nodes, *fail_on_any))
            }
            Self::SrunLauncher { overrides, .. } => with_file(format!(
                "export NODES=$SLURM_JOB_NUM_NODES\nsrun --ntasks {nodes} -l {overrides} bash {file}"
            )),
            Self::SrunMPILauncher { overrides, .. } => {
                let one = format!("srun --exclusive --nodes 1 --ntasks 1 -l {overrides} bash {file}");
                with_file(format!("export NODES=$SLURM_JOB_NUM_NODES\n{}", each(&one, nodes, false)))
            }
            Self::AprunLauncher { overrides, .. } => {
                with_file(format!("aprun -n {nodes} -N 1 {overrides} /bin/bash {file}"))
            }
            Self::JsrunLauncher { overrides, .. } => {
                with_file(format!("jsrun -n {nodes} -r 1 {overrides} /bin/bash {file}"))
            }
            Self::MpiExecLauncher { bind_cmd, overrides, .. } => {
                let hosts = format!("{directory}/\"$JOBNAME.nodes\"");
                with_file(format!(
                    "{{ {MACHINES}; }} > {hosts}\n\
                     mpiexec {bind_cmd} none {overrides} -n {nodes} --hostfile {hosts} /usr/bin/sh {file}"
                ))
            }
            Self::MpiRunLauncher { bash_location, overrides, .. } => {
                with_file(format!("mpirun -np {nodes} {overrides} {bash_location} {file}"))
            }
            Self::GnuParallelLauncher { .. } => {
                let hosts = format!("{directory}/\"$JOBNAME.nodes\"");
                // To parallel, a colon is this machine without a login.
                with_file(format!(
                    "{{ {MACHINES}; }} | sed 's/^localhost$/:/' > {hosts}\n\
                     seq {nodes} | parallel --sshloginfile {hosts} --jobs 1 --env JOBNAME /bin/bash {file}"
                ))
            }
        }
    }
}

/// Runs a command several times at once, and waits for all.
fn each(command: &str, times: u32, fail_on_any: bool) -> String {
    let verdict = if fail_on_any { "[ $FAILED -eq 0 ]" } else { "[ $FAILED -lt $STARTED ]" };
    format!(
        "CHILDREN=\"\"; STARTED=0; FAILED=0\n\
         while [ $STARTED -lt {times} ]; do\n\
         {command} &\n\
         CHILDREN=\"$CHILDREN $!\"; STARTED=$((STARTED + 1))\n\
         done\n\
         for CHILD in $CHILDREN; do\n\
         wait $CHILD || FAILED=$((FAILED + 1))\n\
         done\n\
         {verdict}"
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn run(launcher: &Launcher, command: &str, nodes: u32) -> (i32, String) {
        let scripts = tempfile::tempdir().unwrap();
        let text = launcher.wrap(command, nodes, scripts.path());
        let output = Command::new("bash").arg("-c").arg(text).env("JOBNAME", "job").output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn simple_and_wrapped_run_the_command_once() {
        assert_eq!(run(&Launcher::SimpleLauncher { debug: true }, "echo $((1+1))", 3), (0, "2\n".into()));
        let wrapped = Launcher::WrappedLauncher { prepend: "env A=b".into(), debug: false };
        assert_eq!(run(&wrapped, "sh -c 'echo $A'", 1), (0, "b\n".into()));
    }

    #[test]
    fn a_single_node_launcher_starts_as_many_as_the_block_has_and_exports_the_cores() {
        let (code, out) = run(&Launcher::default(), "echo c$CORES", 3);
        assert_eq!(code, 0);
        assert_eq!(out.lines().count(), 3);
        assert!(out.starts_with('c') && out.trim().len() > 1);
    }

    #[test]
    fn the_exit_status_tells_of_failed_nodes() {
        // The first to make the directory succeeds, the others fail.
        let scratch = tempfile::tempdir().unwrap();
        let command = format!("mkdir {}/x 2>/dev/null", scratch.path().display());
        assert_eq!(run(&Launcher::default(), &command, 2).0, 0, "one success is enough");
        let strict = Launcher::SingleNodeLauncher { debug: true, fail_on_any: true };
        assert_eq!(run(&strict, &command, 2).0, 1);
        assert_eq!(run(&Launcher::default(), "false", 2).0, 1);
        assert_eq!(run(&Launcher::default(), "(exit 7)", 1).0, 7, "alone, its own status");
    }

    /// Stands in for a launching program: says how it was called, and runs the file as often as it was asked to.
    const STAND_IN: &str = "#!/bin/bash
echo \"${0##*/} $*\"
times=1
while [ $# -gt 0 ]; do
  case $1 in -n|-np|--ntasks) times=$2; shift;; *.sh) file=$1;; esac
  shift
done
for _ in $(seq $times); do bash $file & done
wait -n
";

    /// Runs a launcher on a PATH of stand-ins, in a directory with a space; what it printed, sorted.
    fn run_with_stand_ins(
        launcher: &serde_json::Value,
        nodes: u32,
        environment: &[(&str, &str)],
    ) -> (i32, Vec<String>) {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = tempfile::tempdir().unwrap();
        let scripts = scratch.path().join("of a block");
        std::fs::create_dir(&scripts).unwrap();
        for name in ["srun", "aprun", "jsrun", "mpiexec", "mpirun"] {
            let path = scratch.path().join(name);
            std::fs::write(&path, STAND_IN.replace("bash $file", "bash \"$file\"")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let launcher: Launcher = serde_json::from_value(launcher.clone()).unwrap();
        let text = launcher.wrap("echo node of $JOBNAME; exit 7", nodes, &scripts);
        let path = format!("{}:{}", scratch.path().display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .args(["-c", &text])
            .env("PATH", path)
            .env("JOBNAME", "job")
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap().replace(&*scripts.to_string_lossy(), "DIR");
        let mut lines: Vec<_> = printed.lines().map(str::to_owned).collect();
        lines.sort();
        (output.status.code().unwrap(), lines)
    }

    #[test]
    fn programs_of_batch_systems_and_mpi_are_called_as_sites_know_it() {
        let node = "node of job";
        for (launcher, nodes, expected) in [
            (
                serde_json::json!({"type": "SrunLauncher", "overrides": "-c 128"}),
                2,
                vec![node, node, "srun --ntasks 2 -l -c 128 bash DIR/cmd_job.sh"],
            ),
            (
                serde_json::json!({"type": "AprunLauncher", "debug": false}),
                2,
                vec!["aprun -n 2 -N 1 /bin/bash DIR/cmd_job.sh", node, node],
            ),
            (
                serde_json::json!({"type": "JsrunLauncher"}),
                1,
                vec!["jsrun -n 1 -r 1 /bin/bash DIR/cmd_job.sh", node],
            ),
            (
                serde_json::json!({"type": "MpiExecLauncher", "bind_cmd": "--cpu-bind", "overrides": "--ppn 1"}),
                2,
                vec![
                    "mpiexec --cpu-bind none --ppn 1 -n 2 --hostfile DIR/job.nodes /usr/bin/sh DIR/cmd_job.sh",
                    node,
                    node,
                ],
            ),
            (
                serde_json::json!({"type": "MpiRunLauncher"}),
                3,
                vec!["mpirun -np 3 /bin/bash DIR/cmd_job.sh", node, node, node],
            ),
        ] {
            let (code, lines) = run_with_stand_ins(&launcher, nodes, &[]);
            assert_eq!(lines, expected, "{launcher}");
            assert_eq!(code, 7, "the exit status comes through: {launcher}");
        }
        let (code, lines) = run_with_stand_ins(&serde_json::json!({"type": "SrunMPILauncher"}), 2, &[]);
        let once = "srun --exclusive --nodes 1 --ntasks 1 -l bash DIR/cmd_job.sh";
        assert_eq!((code, lines), (1, vec![node.to_owned(), node.into(), once.into(), once.into()]));
    }

    #[test]
    fn the_machines_of_a_pbs_job_are_named_once() {
        let scratch = tempfile::tempdir().unwrap();
        let (scripts, nodefile) = (scratch.path(), scratch.path().join("nodefile"));
        std::fs::write(&nodefile, "b\na\nb\na\n").unwrap();
        let hosts = |environment: Option<&Path>| {
            let launcher: Launcher =
                serde_json::from_value(serde_json::json!({"type": "MpiExecLauncher"})).unwrap();
            let text = format!("mpiexec() {{ true; }}\n{}", launcher.wrap("true", 2, scripts));
            let mut bash = Command::new("bash");
            bash.args(["-c", &text]).env("JOBNAME", "job").env_remove("PBS_NODEFILE");
            environment.map(|path| bash.env("PBS_NODEFILE", path));
            assert!(bash.status().unwrap().success());
            std::fs::read_to_string(scripts.join("job.nodes")).unwrap()
        };
        assert_eq!(hosts(Some(&nodefile)), "a\nb\n");
        assert_eq!(hosts(None), "localhost\n");
    }
}
