//! Why options are refused.

/// Why options can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOptions {
    #[error("cpu_affinity `{0}` is none of: none, block, block-reverse, alternating, list:<cpus>:<cpus>...")]
    Affinity(String),
    #[error("{option} must be {must}")]
    Range { option: &'static str, must: &'static str },
    /// Running without it would not be what the user asked for, so the engine does not start.
    #[error("{what} is not supported yet; meanwhile {meanwhile}")]
    Unsupported { what: &'static str, meanwhile: &'static str },
    #[error("{former} is now called {now}; its options keep their names")]
    Renamed { former: &'static str, now: &'static str },
    #[error(
        "'{0}' is not a valid engine. Valid options are: GlobusComputeEngine, GlobusMPIEngine, ProcessPoolEngine, \
         ThreadPoolEngine"
    )]
    UnknownEngine(String),
    #[error("MPI mode is not supported on GlobusComputeEngine. Use GlobusMPIEngine instead.")]
    Mpi,
    #[error(
        "the launcher starts nodes by a file that every machine of a block must see; with shared_file_system: false use \
         SingleNodeLauncher, SimpleLauncher or WrappedLauncher"
    )]
    SharedFiles,
    #[error("{0}")]
    Shape(String),
}
