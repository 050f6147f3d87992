//! The files that `configure` writes.

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

/// A template whose user endpoints run functions on this machine, one at a time.
pub(crate) const TEMPLATE: &str = include_str!("initial/user_config_template.yaml.j2");
/// Accepts all options; those that the template takes must be strings.
pub(crate) const SCHEMA: &str = include_str!("initial/user_config_schema.json");
/// Sets nothing.
pub(crate) const ENVIRONMENT: &str = include_str!("initial/user_environment.yaml");
/// Maps nobody but people of `example.com`. The text is upstream's.
pub(crate) const IDENTITY_MAPPING: &str = include_str!("initial/example_identity_mapping_config.json");
