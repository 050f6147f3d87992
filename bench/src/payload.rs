//! The task that is measured: a function that does nothing, packed by the stock SDK itself.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

/// What the SDK packs. The result is what a worker would answer.
#[derive(Deserialize)]
pub(crate) struct NoOp {
    pub(crate) function: String,
    pub(crate) arguments: String,
    pub(crate) result: String,
}

const PACK: &str = r#"
import json
from globus_compute_sdk.serialize import ComputeSerializer

def nothing():
    pass

serializer = ComputeSerializer()
print(json.dumps({
    "function": serializer.pack_buffers([serializer.serialize(nothing)]),
    "arguments": serializer.pack_buffers([serializer.serialize([]), serializer.serialize({})]),
    "result": serializer.pack_buffers([serializer.serialize(None)]),
}))
"#;

impl NoOp {
    /// Of the size of the SDK's, with nothing that a worker could run: for measuring transports only.
    pub(crate) fn carried() -> Self {
        let filled = |size: usize| format!("{size}\n00\n{}", "A".repeat(size - 3));
        Self { function: filled(350), arguments: format!("{}{}", filled(28), filled(24)), result: filled(28) }
    }

    /// What a task message carries.
    pub(crate) fn task_buffer(&self) -> String {
        format!("{}{}", self.function, self.arguments)
    }

    /// Has `python`, the interpreter of an environment that holds the SDK, pack it.
    pub(crate) fn packed_by(python: &Path) -> anyhow::Result<Self> {
        let packed =
            Command::new(python).args(["-c", PACK]).output().context("cannot run the SDK's Python")?;
        ensure!(
            packed.status.success(),
            "the SDK packed nothing: {}",
            String::from_utf8_lossy(&packed.stderr)
        );
        serde_json::from_slice(&packed.stdout).context("the SDK printed something else")
    }
}
