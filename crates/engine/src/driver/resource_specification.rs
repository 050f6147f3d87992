//! Reads `resource_specification`. Of all resources, tasks can only ask these engines for a priority.

use crate::config::EngineKind;
use crate::core::{AttemptFailure, Priority};

/// The priority that a task asks for.
pub(super) fn read_priority(
    kind: &EngineKind,
    specification: &serde_json::Map<String, serde_json::Value>,
) -> Result<Priority, AttemptFailure> {
    if specification.is_empty() {
        return Ok(Priority(None));
    }
    if !kind.traits().has_blocks {
        let text = format!(
            "resource_specification is not supported on {}.  For MPI apps, use GlobusMPIEngine.",
            kind.name()
        );
        return Err(AttemptFailure::NotStarted { text });
    }
    let unknown: Vec<_> =
        specification.keys().filter(|key| *key != "priority").map(|key| format!("'{key}'")).collect();
    let wrong = |what: String| {
        let text = format!(
            "Invalid Resource Specification Supplied: {{{what}}}. Task resource specification only accepts these types of \
             resources: priority"
        );
        AttemptFailure::InvalidSpecification { text }
    };
    if !unknown.is_empty() {
        return Err(wrong(unknown.join(", ")));
    }
    match specification.get("priority") {
        None | Some(serde_json::Value::Null) => Ok(Priority(None)),
        Some(value) => value
            .as_f64()
            .map(|priority| Priority(Some(priority)))
            .ok_or_else(|| wrong(format!("'priority': {value}"))),
    }
}
