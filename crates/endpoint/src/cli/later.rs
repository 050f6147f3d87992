//! Commands of upstream's that a later version brings: refused by name, with what to do meanwhile.

use crate::exit::{Failure, Outcome};

/// Each command and what does its work today.
const LATER: [(&str, &str); 9] = [
    ("restart", "use `stop`, then `start`"),
    ("delete", "use `stop`, then remove the endpoint's directory"),
    ("login", "set GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET to those of a client identity"),
    ("logout", "unset GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET"),
    ("whoami", "look at GLOBUS_COMPUTE_CLIENT_ID: that is who you are"),
    ("enable-on-boot", "write a systemd unit that runs `start` with `detach_endpoint: false`"),
    ("disable-on-boot", "disable the systemd unit you wrote"),
    ("self-diagnostic", "look into the endpoint's endpoint.log"),
    ("python-exec", "run `python3 -m MODULE`"),
];

/// Refuses a command: one we know by name, or one nobody knows.
pub(super) fn run(words: &[String]) -> Outcome {
    let name = words.first().map(String::as_str).unwrap_or_default();
    Err(match LATER.iter().find(|(later, _)| *later == name) {
        Some((name, meanwhile)) => {
            Failure::error(format!("{name} is not part of this version yet; meanwhile {meanwhile}"))
        }
        None => Failure::new(
            2,
            format!(
                "Usage: globus-compute-endpoint [OPTIONS] COMMAND [ARGS]...\n\nError: No such command '{name}'.\n\
                 Try 'globus-compute-endpoint --help'."
            ),
        ),
    })
}
