//! Launchers: how a block's one command becomes one node per machine of the block.
//!
//! A launcher only writes shell text; the provider runs it. It may never run anything itself.

use serde::{Deserialize, Serialize};

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
}

fn yes() -> bool {
    true
}

impl Default for Launcher {
    fn default() -> Self {
        Self::SingleNodeLauncher { debug: true, fail_on_any: false }
    }
}

impl Launcher {
    /// The shell text that runs `command` once per node.
    pub(crate) fn wrap(&self, command: &str, nodes: u32) -> String {
        match self {
            Self::SimpleLauncher { .. } => command.to_owned(),
            Self::WrappedLauncher { prepend, .. } => format!("{prepend} {command}"),
            // One node needs nobody to wait for it: one shell less per block.
            Self::SingleNodeLauncher { .. } if nodes <= 1 => {
                format!("export CORES=$(getconf _NPROCESSORS_ONLN)\n{command}")
            }
            Self::SingleNodeLauncher { fail_on_any, .. } => {
                let verdict = if *fail_on_any { "[ $FAILED -eq 0 ]" } else { "[ $FAILED -lt $STARTED ]" };
                format!(
                    "export CORES=$(getconf _NPROCESSORS_ONLN)\n\
                     NODES=\"\"; STARTED=0; FAILED=0\n\
                     while [ $STARTED -lt {nodes} ]; do\n\
                     {command} &\n\
                     NODES=\"$NODES $!\"; STARTED=$((STARTED + 1))\n\
                     done\n\
                     for NODE in $NODES; do\n\
                     wait $NODE || FAILED=$((FAILED + 1))\n\
                     done\n\
                     {verdict}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn run(launcher: &Launcher, command: &str, nodes: u32) -> (i32, String) {
        let output = Command::new("bash").arg("-c").arg(launcher.wrap(command, nodes)).output().unwrap();
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
}
