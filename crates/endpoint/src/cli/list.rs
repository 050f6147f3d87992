//! `list`: shows the endpoints on this machine and their states.

use std::io::IsTerminal as _;

use super::{Form, table};
use crate::console::{self, note, say};
use crate::directory::{Base, EndpointDir};
use crate::environment;
use crate::exit::{CommandResult, Failure};
use crate::host::host_name;
use crate::last_failure::LastFailure;
use crate::pid::{self, ProcessState};

/// The minimum width of a table.
const MIN_WIDTH: usize = 68;
/// The width of a terminal whose width is unknown, as in Python.
const DEFAULT_WIDTH: usize = 80;

pub(super) fn run(base: &Base, form: Form) -> CommandResult {
    let endpoints = base.endpoints().map_err(Failure::error)?;
    if form.json() {
        let all: Vec<_> = endpoints.iter().map(json_row).collect();
        return super::say_json(&all);
    }
    if endpoints.is_empty() {
        say("No endpoints configured!\n\n (Hint: globus-compute-endpoint configure)");
        return Ok(());
    }
    let rows: Vec<_> = endpoints.iter().map(row).collect();
    say(drawn(&rows, terminal_width().max(MIN_WIDTH)));
    for endpoint in &endpoints {
        match pid::process_state(endpoint) {
            ProcessState::Elsewhere(host) => note(format_args!("{} runs on {host}", endpoint.name())),
            ProcessState::Silent(host) => {
                note(format_args!("{} ran on {host}, which has not been heard of for long", endpoint.name()))
            }
            ProcessState::Absent | ProcessState::Alive(_) | ProcessState::Dead => {}
        }
        if let Some(LastFailure { time, text, .. }) = LastFailure::read(endpoint) {
            note(format_args!(
                "{} failed at {time}: {}",
                endpoint.name(),
                text.trim_start_matches("Error: ")
            ));
        }
    }
    Ok(())
}

/// A row as JSON.
fn json_row(endpoint: &EndpointDir) -> serde_json::Value {
    let [_, status, name] = row(endpoint);
    let host = match pid::process_state(endpoint) {
        ProcessState::Alive(_) => Some(host_name()),
        ProcessState::Elsewhere(host) | ProcessState::Silent(host) => Some(host),
        ProcessState::Absent | ProcessState::Dead => None,
    };
    let failure = LastFailure::read(endpoint);
    serde_json::json!({
        "endpoint_id": endpoint.registered_id(), "status": status, "name": name, "host": host, "failure": failure
    })
}

/// Draws the table; no column is narrower than in upstream's users' guide.
fn drawn(rows: &[[String; 3]], width: usize) -> String {
    table::draw([("Endpoint ID", 36), ("Status", 12), ("Endpoint Name", 18)], rows, width)
}

pub(super) fn row(endpoint: &EndpointDir) -> [String; 3] {
    let id = endpoint.registered_id();
    let status = match (id, pid::process_state(endpoint)) {
        (None, _) => "Initialized",
        (Some(_), ProcessState::Alive(_) | ProcessState::Elsewhere(_)) => "Running",
        (Some(_), ProcessState::Silent(_) | ProcessState::Dead) => "Disconnected",
        (Some(_), ProcessState::Absent) => "Stopped",
    };
    [id.map_or_else(|| "None".to_owned(), |id| id.to_string()), status.to_owned(), endpoint.name()]
}

pub(super) fn terminal_width() -> usize {
    if let Some(columns) = environment::variable("COLUMNS").and_then(|text| text.parse().ok()) {
        return columns;
    }
    if !std::io::stdout().is_terminal() {
        return DEFAULT_WIDTH;
    }
    console::width().unwrap_or(DEFAULT_WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of the users' guide, to the letter.
    #[test]
    fn the_tables_of_the_guide() {
        let row = |id: &str, status: &str, name: &str| [id.to_owned(), status.to_owned(), name.to_owned()];
        assert_eq!(
            drawn(&[row("None", "Initialized", "my_first_endpoint")], 80),
            "\
+--------------------------------------+--------------+--------------------+
|             Endpoint ID              |    Status    |   Endpoint Name    |
+======================================+==============+====================+
| None                                 | Initialized  | my_first_endpoint  |
+--------------------------------------+--------------+--------------------+"
        );
        let id = "22222222-2222-4222-8222-222222222222";
        let rows = [
            row(id, "Initialized", "just_configured"),
            row(id, "Stopped", "my_first_endpoint"),
            row(id, "Running", "debug_queue"),
            row(id, "Disconnected", "unexpected_disconnect"),
        ];
        assert_eq!(
            drawn(&rows, 80),
            "\
+--------------------------------------+--------------+-----------------------+
|             Endpoint ID              |    Status    |     Endpoint Name     |
+======================================+==============+=======================+
| 22222222-2222-4222-8222-222222222222 | Initialized  | just_configured       |
+--------------------------------------+--------------+-----------------------+
| 22222222-2222-4222-8222-222222222222 | Stopped      | my_first_endpoint     |
+--------------------------------------+--------------+-----------------------+
| 22222222-2222-4222-8222-222222222222 | Running      | debug_queue           |
+--------------------------------------+--------------+-----------------------+
| 22222222-2222-4222-8222-222222222222 | Disconnected | unexpected_disconnect |
+--------------------------------------+--------------+-----------------------+"
        );
    }
}
