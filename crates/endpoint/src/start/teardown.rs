//! Runs `endpoint_teardown`: once after each `endpoint_setup` that succeeded.
//!
//! While it is owed, a file in the endpoint's directory holds the script. The next start runs it when this process could not,
//! because it was killed, or because its manager was: nothing may outlive a manager, so there is no time for a script.

use std::fs;
use std::io;

use super::script;
use crate::config::Config;
use crate::console::complain;
use crate::directory::{EndpointDir, unwritable, write_private};
use crate::exit::CommandResult;

const WHAT: &str = "endpoint_teardown";

/// Remembers that the script is owed.
pub(super) fn owe(endpoint: &EndpointDir, config: &Config) -> CommandResult {
    let Some(script) = &config.endpoint_teardown else { return Ok(()) };
    let path = endpoint.owed_teardown();
    write_private(&path, script.as_bytes()).map_err(|error| unwritable(&path, &error))
}

/// Runs the script that an earlier run owes. A failure is printed: it must not keep the endpoint from starting.
pub(super) fn run_owed(endpoint: &EndpointDir, parent: Option<i32>) {
    let path = endpoint.owed_teardown();
    let script = match fs::read_to_string(&path) {
        Ok(script) => script,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return complain(unwritable(&path, &error).text),
    };
    complain("The run before was killed; running its endpoint_teardown now");
    if let Err(failure) = run_and_forget(endpoint, &script, parent) {
        complain(failure.text);
    }
}

/// Runs the script at the end of a run.
pub(crate) fn tear_down(endpoint: &EndpointDir, config: &Config, parent: Option<i32>) -> CommandResult {
    config.endpoint_teardown.as_deref().map_or(Ok(()), |script| run_and_forget(endpoint, script, parent))
}

/// It is owed until it has ended, successful or not.
fn run_and_forget(endpoint: &EndpointDir, text: &str, parent: Option<i32>) -> CommandResult {
    let outcome = script::run(WHAT, text, parent);
    let path = endpoint.owed_teardown();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => outcome.and(Err(unwritable(&path, &error))),
        _ => outcome,
    }
}
