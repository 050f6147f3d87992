//! The configuration that `configure` writes.

/// Runs functions on this machine, one at a time.
pub(crate) const INITIAL: &str = "\
display_name: null
engine:
  max_workers_per_node: 1
  type: GlobusComputeEngine
  provider:
    type: LocalProvider
    init_blocks: 1
    max_blocks: 1
    min_blocks: 0
";
