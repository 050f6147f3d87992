//! Launchers: write the shell text that starts the nodes of a block.
//!
//! A launcher must not run anything: the provider runs the text. Launchers for programs of a batch system or of MPI
//! write the node's command to a file that every machine of the block must see. They work wherever those programs are
//! on the PATH, also with a LocalProvider inside a batch job.

use std::path::Path;

use serde::Deserialize;

use crate::quote::quote;

/// `launcher:` under a provider.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum Launcher {
    /// Starts all nodes on this machine, and waits for them.
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
    /// Runs the command with `prepend` before it.
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

/// The same in a Slurm job, which may have fewer cores than the machine.
const SLURM_CORES: &str = "export CORES=${SLURM_CPUS_ON_NODE:-$(getconf _NPROCESSORS_ONLN)}\n";

/// The machines of a PBS job, each once; this one where there is no such job.
const MACHINES: &str = "if [ -f \"$PBS_NODEFILE\" ]; then sort -u \"$PBS_NODEFILE\"; else echo localhost; fi";

impl Launcher {
    /// Whether `debug` is off.
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

    /// Whether it writes the node's command to a file that every machine of the block must see.
    pub(crate) fn needs_shared_files(&self) -> bool {
        !matches!(
            self,
            Self::SingleNodeLauncher { .. } | Self::SimpleLauncher { .. } | Self::WrappedLauncher { .. }
        )
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
        let in_slurm = |line: String| {
            with_file(format!("{SLURM_CORES}export NODES=${{SLURM_JOB_NUM_NODES:-{nodes}}}\n{line}"))
        };
        match self {
            Self::SimpleLauncher { .. } => command.to_owned(),
            Self::WrappedLauncher { prepend, .. } => format!("{prepend} {command}"),
            // Nothing has to wait for a single node: one shell less per block.
            Self::SingleNodeLauncher { .. } if nodes <= 1 => format!("{CORES}{command}"),
            Self::SingleNodeLauncher { fail_on_any, .. } => {
                format!("{CORES}{}", start_each(command, nodes, *fail_on_any))
            }
            Self::SrunLauncher { overrides, .. } => {
                in_slurm(format!("srun --ntasks {nodes} -l {overrides} bash {file}"))
            }
            Self::SrunMPILauncher { overrides, .. } => {
                let one = format!("srun $SHARE -l {overrides} bash {file}");
                in_slurm(format!(
                    "SHARE=\"--exclusive --nodes $((NODES / {nodes}))\"\n\
                     [ {nodes} -le $NODES ] || SHARE=\"--ntasks $((NODES * CORES / {nodes}))\"\n{}",
                    start_each(&one, nodes, false)
                ))
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
                // A login starts with an environment of its own, so the variables that `worker_init` has set go with the
                // command. To parallel, a colon is this machine without a login.
                format!(
                    "{CORES}{{ export -p; cat << FARCALL_EOF\n{command}\nFARCALL_EOF\n}} > {file}\n\
                     {{ {MACHINES}; }} | sed 's/^localhost$/:/' > {hosts}\n\
                     seq {nodes} | parallel --sshloginfile {hosts} --jobs 1 /bin/bash {file}"
                )
            }
        }
    }
}

/// Runs a command several times at once, and waits for all.
fn start_each(command: &str, times: u32, fail_on_any: bool) -> String {
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

    /// Replaces a launching program: writes down its arguments, and runs the file as many times as it was asked to.
    const STAND_IN: &str = "#!/bin/bash
word=\"${0##*/}\"; for one; do word=\"$word|${one##*/of a block/}\"; done; echo \"$word\" >> \"$CALLS\"
times=1
while [ $# -gt 0 ]; do
  case $1 in -n|-np|--ntasks) times=$2; shift;; *.sh) file=$1;; esac
  shift
done
for _ in $(seq $times); do bash \"$file\" & done
wait -n
";

    /// How a launcher called the replaced programs, in a directory with a space.
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Called {
        launcher: Launcher,
        nodes: u32,
        environment: std::collections::BTreeMap<String, String>,
        calls: Vec<String>,
        file: String,
        hosts: Option<String>,
    }

    /// The status and the output of the launcher's script, and what it has called.
    fn call(golden: &Called, command: &str) -> (i32, String, Called) {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = tempfile::tempdir().unwrap();
        let (scripts, calls) = (scratch.path().join("of a block"), scratch.path().join("calls"));
        std::fs::create_dir(&scripts).unwrap();
        for name in ["srun", "aprun", "jsrun", "mpiexec", "mpirun"] {
            let path = scratch.path().join(name);
            std::fs::write(&path, STAND_IN).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut bash = Command::new("bash");
        bash.args(["-c", &golden.launcher.wrap(command, golden.nodes, &scripts)])
            .env("PATH", format!("{}:{}", scratch.path().display(), std::env::var("PATH").unwrap()))
            .env("JOBNAME", "job")
            .env("CALLS", &calls)
            .env_remove("PBS_NODEFILE");
        for (name, value) in &golden.environment {
            let nodefile = scratch.path().join("nodes");
            match name.as_str() {
                "PBS_NODEFILE" => {
                    std::fs::write(&nodefile, value).unwrap();
                    bash.env(name, nodefile)
                }
                _ => bash.env(name, value),
            };
        }
        let output = bash.output().unwrap();
        let mut calls: Vec<_> = std::fs::read_to_string(calls).unwrap().lines().map(str::to_owned).collect();
        calls.sort();
        let called = Called {
            launcher: golden.launcher.clone(),
            nodes: golden.nodes,
            environment: golden.environment.clone(),
            calls,
            file: std::fs::read_to_string(scripts.join("cmd_job.sh")).unwrap(),
            hosts: std::fs::read_to_string(scripts.join("job.nodes")).ok(),
        };
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), called)
    }

    /// The golden calls are Parsl's (`tests/engine/make_launchers.py`).
    fn golden() -> Vec<Called> {
        serde_json::from_str(include_str!("../tests/golden/launchers.json")).unwrap()
    }

    #[test]
    fn programs_of_batch_systems_and_mpi_are_called_as_parsl_calls_them() {
        for golden in golden() {
            let (_, _, called) = call(&golden, "echo node of $JOBNAME");
            assert_eq!(called, golden);
        }
    }

    /// Parsl's launchers lose the exit status of the nodes.
    #[test]
    fn the_exit_status_of_nodes_comes_through_such_programs() {
        for golden in golden() {
            let (code, out, _) = call(&golden, "echo of $JOBNAME; exit 7");
            let several = matches!(golden.launcher, Launcher::SrunMPILauncher { .. });
            assert_eq!(code, if several { 1 } else { 7 }, "{golden:?}");
            assert!(out.lines().count() >= golden.nodes as usize && out.lines().all(|line| line == "of job"));
        }
    }
}
