//! Refuses unknown commands, and those of upstream's that this version does not support yet, with an alternative.

use crate::exit::{CommandResult, Failure};

/// Upstream's commands that are not supported yet, each with an alternative.
const UNSUPPORTED: [(&str, &str); 1] = [(
    "update_funcx_config",
    "write the configuration anew: `configure` makes an example, `check` says whether it will do",
)];

/// Refuses a command that is not supported yet or does not exist.
pub(super) fn run(words: &[String], known: &[String]) -> CommandResult {
    let name = words.first().map(String::as_str).unwrap_or_default();
    if let Some((name, meanwhile)) = UNSUPPORTED.iter().find(|(command, _)| *command == name) {
        return Err(Failure::error(format!("{name} is not part of this version yet; meanwhile {meanwhile}")));
    }
    let near = crate::config::nearest(name, known.iter().map(String::as_str));
    let near = near.map(|near| format!(" Did you mean '{near}'?")).unwrap_or_default();
    Err(Failure::new(
        2,
        format!(
            "Usage: globus-compute-endpoint [OPTIONS] COMMAND [ARGS]...\n\
             Try 'globus-compute-endpoint --help' for help.\n\nError: No such command '{name}'.{near}"
        ),
    ))
}
