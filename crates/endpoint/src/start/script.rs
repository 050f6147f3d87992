//! Runs the scripts of a configuration: `endpoint_setup` and `endpoint_teardown`.

use std::process::{Command, Stdio};

use crate::exit::{CommandResult, Failure, status};

/// Runs a script of the configuration. The failure quotes the end of its output.
pub(super) fn run(what: &str, script: &str) -> CommandResult {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).stdin(Stdio::null());
    daemon::stop::deliver_signals_to(&mut command);
    let output = command
        .output()
        .map_err(|error| Failure::new(status::CONFIG, format!("Error: {what} could not be run: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let bytes = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
    Err(Failure::new(status::CONFIG, format!("Error: {what} failed ({}):\n  {last}", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_of_a_script_quotes_its_output() {
        assert_eq!(run("endpoint_setup", "exit 0"), Ok(()));
        let failure = run("endpoint_setup", "echo out; echo err >&2; exit 3").unwrap_err();
        assert_eq!(failure.status, 78);
        assert_eq!(failure.text, "Error: endpoint_setup failed (exit status: 3):\n  out\n  err");
    }
}
