//! Reads the mapping under `engine:`, whose keys depend on the kind of engine.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::error::InvalidOptions;
use super::kind::{COMPUTE, EngineKind, FORMER, MPI, PROCESSES, THREADS};
use super::options::Options;
use super::provider::{BlockOptions, ProviderOptions};
use crate::launcher::Launcher;

impl Options {
    /// Reads the mapping under `engine:`; without a `type` it is a GlobusComputeEngine's.
    pub fn from_value(value: Value) -> Result<Self, InvalidOptions> {
        let options = read(value)?;
        options.check()?;
        Ok(options)
    }
}

/// The mapping under `engine:` of a pool engine.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PoolOptions {
    label: Option<String>,
    endpoint_id: Option<Value>,
    max_retries_on_system_failure: u32,
    working_dir: PathBuf,
    run_in_sandbox: bool,
    allowed_serializers: Vec<String>,
    result_size_limit: u64,
    python: Option<String>,
    worker_start_timeout: u64,
    max_workers: Option<u32>,
    thread_name_prefix: Option<String>,
    max_tasks_per_child: Option<u32>,
}

impl Default for PoolOptions {
    fn default() -> Self {
        let Options { working_dir, result_size_limit, worker_start_timeout, .. } = Options::default();
        Self {
            label: None,
            endpoint_id: None,
            max_retries_on_system_failure: 0,
            working_dir,
            run_in_sandbox: false,
            allowed_serializers: Vec::new(),
            result_size_limit,
            python: None,
            worker_start_timeout,
            max_workers: None,
            thread_name_prefix: None,
            max_tasks_per_child: None,
        }
    }
}

fn read(mut value: Value) -> Result<Options, InvalidOptions> {
    let name = value.as_object_mut().and_then(|map| map.remove("type"));
    let shape = |error: serde_json::Error| InvalidOptions::Shape(error.to_string());
    match name.as_ref().map_or(Some(COMPUTE), Value::as_str) {
        Some(COMPUTE) => serde_json::from_value(value).map_err(shape),
        Some(name @ (PROCESSES | THREADS)) => read_pool(name, serde_json::from_value(value).map_err(shape)?),
        Some(MPI) => Err(InvalidOptions::Unsupported {
            what: MPI,
            meanwhile: "use GlobusComputeEngine: there an MPIFunction runs its command once, so write `mpiexec -n …` \
                        into the command",
        }),
        Some(FORMER) => Err(InvalidOptions::Renamed { former: FORMER, now: COMPUTE }),
        other => Err(InvalidOptions::UnknownEngine(other.unwrap_or("that is no text").to_owned())),
    }
}

fn read_pool(name: &str, own: PoolOptions) -> Result<Options, InvalidOptions> {
    let foreign =
        |option: &str| InvalidOptions::Shape(format!("unknown field `{option}`, which {name} does not have"));
    let kind = if name == THREADS {
        if own.max_tasks_per_child.is_some() {
            return Err(foreign("max_tasks_per_child"));
        }
        let thread_name_prefix = own.thread_name_prefix.unwrap_or_default();
        EngineKind::ThreadPool { max_workers: own.max_workers, thread_name_prefix }
    } else {
        if own.thread_name_prefix.is_some() {
            return Err(foreign("thread_name_prefix"));
        }
        EngineKind::ProcessPool { max_workers: own.max_workers, max_tasks_per_child: own.max_tasks_per_child }
    };
    // One block on this machine that stays as long as the engine does.
    let blocks = BlockOptions {
        init_blocks: 1,
        min_blocks: 1,
        max_blocks: 1,
        launcher: Launcher::SimpleLauncher { debug: true },
        ..BlockOptions::default()
    };
    let provider = ProviderOptions { blocks, ..ProviderOptions::default() };
    Ok(Options {
        kind,
        provider,
        label: own.label,
        endpoint_id: own.endpoint_id,
        max_retries_on_system_failure: own.max_retries_on_system_failure,
        working_dir: own.working_dir,
        run_in_sandbox: own.run_in_sandbox,
        allowed_serializers: own.allowed_serializers,
        result_size_limit: own.result_size_limit,
        python: own.python,
        worker_start_timeout: own.worker_start_timeout,
        ..Options::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(value: Value) -> String {
        Options::from_value(value).unwrap_err().to_string()
    }

    #[test]
    fn each_engine_is_known_by_its_name() {
        let threads = json!({"type": "ThreadPoolEngine", "max_workers": 3, "thread_name_prefix": "mine"});
        let threads = Options::from_value(threads).unwrap();
        assert_eq!(threads.label(), "ThreadPoolEngine");
        assert_eq!(threads.kind.pool_size(64), Some(3));
        let processes =
            Options::from_value(json!({"type": "ProcessPoolEngine", "max_tasks_per_child": 9})).unwrap();
        assert_eq!((processes.label(), processes.kind.pool_size(64)), ("ProcessPoolEngine", Some(64)));
        let threads = Options::from_value(json!({"type": "ThreadPoolEngine"})).unwrap();
        assert_eq!((threads.kind.pool_size(2), threads.kind.pool_size(64)), (Some(6), Some(32)));
        let compute = Options::from_value(json!({"type": "GlobusComputeEngine"})).unwrap();
        assert_eq!(compute, Options::default());
        assert_eq!(compute.kind.pool_size(64), None);
    }

    #[test]
    fn other_engines_are_refused_with_what_to_use() {
        assert_eq!(
            refused(json!({"type": "HighThroughputEngine"})),
            "HighThroughputEngine is now called GlobusComputeEngine; its options keep their names"
        );
        let mpi = refused(json!({"type": "GlobusMPIEngine", "mpi_launcher": "srun"}));
        assert!(
            mpi.starts_with("GlobusMPIEngine is not supported yet; meanwhile use GlobusComputeEngine"),
            "{mpi}"
        );
        assert_eq!(
            refused(json!({"type": "MyEngine"})),
            "'MyEngine' is not a valid engine. Valid options are: GlobusComputeEngine, GlobusMPIEngine, \
             ProcessPoolEngine, ThreadPoolEngine"
        );
        for (kind, option) in [
            (THREADS, "max_tasks_per_child"),
            (PROCESSES, "thread_name_prefix"),
            (THREADS, "provider"),
            (PROCESSES, "max_workers_per_node"),
        ] {
            let value = json!({"type": kind, option: 1});
            assert!(Options::from_value(value).is_err(), "{kind} {option}");
        }
        assert!(
            refused(json!({"type": THREADS, "max_workers": 0})).contains("max_workers must be at least 1")
        );
    }
}
