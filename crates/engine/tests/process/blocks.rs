//! Blocks with real processes: how they start and end, and how failures are reported.

use std::collections::{HashMap, HashSet};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::{
    CancelError, Job, JobId, JobOutput, JobState, Provider, ProviderFuture, QueryError, Staging, StagingKind,
    SubmitError,
};
use serde_json::json;
use tokio::sync::Notify;

use crate::cases::{cases, walk};
use crate::rig::{Outcome, Rig, until};

cases! {
    the_states_of_all_waiting_jobs_are_asked_for_in_one_call,
    a_node_drains_and_another_block_takes_over,
    idle_blocks_are_released_while_others_work,
    nodes_without_a_shared_file_system_get_their_files_otherwise,
    the_directory_of_a_killed_node_is_removed,
    the_output_of_a_failed_block_is_in_the_status,
    worker_init_activates_a_virtual_environment,
    worker_init_sets_the_python_path_of_workers,
    a_node_finds_its_engine_where_it_listens,
    jobs_and_their_files_have_upstreams_names,
    workers_are_bound_to_their_cpus,
    a_worker_that_fits_on_no_node_is_reported,
}

/// A job's state, the job until it is started, and its process.
type Queued = (JobState, Option<Job>, Option<Child>);

/// A batch scheduler on this machine: jobs wait in a queue until [`Queue::run_jobs`].
#[derive(Default)]
struct Queue {
    jobs: Mutex<HashMap<JobId, Queued>>,
    /// How many jobs each call of `status` asked for.
    status_calls: Mutex<Vec<usize>>,
    submitted: AtomicUsize,
    changed: Arc<Notify>,
}

impl Queue {
    fn run_jobs(&self) {
        for (state, job, child) in self.jobs.lock().unwrap().values_mut() {
            if let Some(job) = job.take() {
                let mut bash = Command::new("bash");
                let Staging::SharedFile(config) = &job.staging else { panic!("{:?}", job.staging) };
                let command = job.command(config.to_str().unwrap());
                bash.args(["-c", &format!("exec {command}")]).stdin(Stdio::null());
                *child = Some(bash.spawn().unwrap());
                *state = JobState::Running;
            }
        }
    }
}

impl Provider for Queue {
    fn submit(&self, job: Job) -> ProviderFuture<'_, Result<JobId, SubmitError>> {
        Box::pin(async move {
            let number = self.submitted.fetch_add(1, Ordering::Relaxed);
            if number == 1 {
                return Err(SubmitError::Refused("sbatch: error: invalid partition".into()));
            }
            let id = JobId(format!("{number}.cluster"));
            let state = if number == 0 { JobState::Held } else { JobState::Pending };
            self.jobs.lock().unwrap().insert(id.clone(), (state, Some(job), None));
            Ok(id)
        })
    }

    fn status<'a>(
        &'a self,
        jobs: &'a [JobId],
    ) -> ProviderFuture<'a, Result<HashMap<JobId, JobState>, QueryError>> {
        Box::pin(async move {
            self.status_calls.lock().unwrap().push(jobs.len());
            let mut known = self.jobs.lock().unwrap();
            let known = jobs.iter().filter_map(|id| {
                let (state, _, child) = known.get_mut(id)?;
                if let Some(code) = child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                    let output = JobOutput { exit_code: code.code(), ..JobOutput::default() };
                    *state = JobState::TimedOut(output);
                }
                Some((id.clone(), state.clone()))
            });
            Ok(known.collect())
        })
    }

    fn find<'a>(&'a self, _: &'a str) -> ProviderFuture<'a, Result<Option<JobId>, QueryError>> {
        Box::pin(async { Ok(None) })
    }

    fn cancel<'a>(&'a self, jobs: &'a [JobId]) -> ProviderFuture<'a, Result<(), CancelError>> {
        Box::pin(async move {
            for id in jobs {
                if let Some((_, _, Some(child))) = self.jobs.lock().unwrap().get_mut(id) {
                    let _ = child.kill();
                    child.wait().unwrap();
                }
            }
            Ok(())
        })
    }

    fn staging(&self) -> StagingKind {
        StagingKind::TransferredFile
    }

    fn queue(&self) -> Option<&str> {
        Some("debug")
    }

    fn account(&self) -> Option<&str> {
        Some("bio")
    }

    fn status_period(&self) -> Duration {
        Duration::from_millis(20)
    }

    fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }
}

async fn the_states_of_all_waiting_jobs_are_asked_for_in_one_call() {
    let queue = Arc::new(Queue::default());
    let options = json!({
        "max_workers_per_node": 1,
        "provider": {"type": "LocalProvider", "init_blocks": 4, "max_blocks": 4},
    });
    let mut rig = Rig::start_on(Arc::clone(&queue) as Arc<dyn Provider>, options).await;
    let ids: Vec<_> = (0..8).map(|n| rig.call("def f(n): return n\n", json!([n]))).collect();
    // The engine waits for held and pending jobs. It reports the refused one, and requests another block.
    until(|| queue.status_calls.lock().unwrap().len() > 3).await;
    let failure = rig.handle.report().await.unwrap().last_block_failure.unwrap();
    assert_eq!(failure, "\tFailed to start block 1: sbatch: error: invalid partition\n");
    queue.run_jobs();
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(rig.end_of(id).await.value(), n);
    }
    let report = rig.handle.report().await.unwrap();
    assert_eq!((report.queue.as_deref(), report.account.as_deref()), (Some("debug"), Some("bio")));
    let asked = queue.status_calls.lock().unwrap().clone();
    assert_eq!(asked.last(), Some(&4), "one call for all of them: {asked:?}");
    assert_eq!(queue.submitted.load(Ordering::Relaxed), 5, "never more than four live");
    rig.stop(Duration::ZERO).await;
}

/// Returns the node that it runs on.
const NODE: &str = "def f():\n    import os\n    return os.getppid()\n";

async fn a_node_drains_and_another_block_takes_over() {
    let mut rig = Rig::start(json!({"drain_period": 1, "max_workers_per_node": 1})).await;
    let wait = "def f():\n    import os, time\n    time.sleep(2)\n    return os.getppid()\n";
    // The first began before the node drains, and ends there; the one behind it runs on the next node.
    let (long, behind) = (rig.call(wait, json!([])), rig.call(NODE, json!([])));
    let long = rig.end_of(long).await;
    let behind = rig.end_of(behind).await;
    assert!(long.value().is_number() && behind.value().is_number());
    assert_ne!(long, behind);
    let mut nodes = HashSet::new();
    while nodes.len() < 2 {
        nodes.insert(rig.run(NODE, json!([])).await.value().as_i64());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rig.handle.report().await.unwrap().last_block_failure, None, "draining is no failure");
}

async fn idle_blocks_are_released_while_others_work() {
    let mut rig = Rig::start(json!({
        "max_workers_per_node": 1,
        "strategy": "htex_auto_scale",
        "job_status_kwargs": {"max_idletime": 0.5},
        "provider": {"type": "LocalProvider", "init_blocks": 3, "max_blocks": 3},
    }))
    .await;
    let go = rig.path().join("go");
    let wait = "def f(go):\n    import os, time\n    while not os.path.exists(go):\n        time.sleep(0.01)\n    return 'went'\n";
    let long = rig.call(wait, json!([go]));
    let managers = async |rig: &mut Rig, wanted| loop {
        drop(tokio::time::timeout(Duration::from_millis(20), rig.next_event()).await);
        if rig.handle.report().await.unwrap().managers == wanted {
            break;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), managers(&mut rig, 1)).await.expect("two were idle");
    std::fs::write(&go, "").unwrap();
    assert_eq!(rig.end_of(long).await.value(), "went");
    tokio::time::timeout(Duration::from_secs(60), managers(&mut rig, 0)).await.expect("then the last, too");
    assert_eq!(rig.run("def f(): return 1\n", json!([])).await.value(), 1, "and one comes when it is needed");
}

async fn nodes_without_a_shared_file_system_get_their_files_otherwise() {
    let mut rig = Rig::start(json!({"shared_file_system": false})).await;
    let look = "\
def f():
    import os, sys
    return [os.getcwd(), sys.modules['farcall-worker'].__file__, sorted(k for k in os.environ if k.startswith('FARCALL'))]
";
    let outcome = rig.run(look, json!([])).await;
    let [directory, library, variables] = outcome.value().as_array().unwrap().as_slice() else { panic!() };
    let own = std::path::Path::new(directory.as_str().unwrap()).parent().unwrap();
    assert!(own.file_name().unwrap().to_str().unwrap().starts_with("farcall-node-"), "{own:?}");
    assert!(library.as_str().unwrap().starts_with(own.to_str().unwrap()), "{library}");
    assert_eq!(variables, &json!(["FARCALL_WORKER"]), "the keys are not for functions");
    for file in walk(rig.path()) {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains("certificate"), "the keys lie in {file:?}");
    }
    rig.stop(Duration::ZERO).await;
    until(|| !own.exists()).await;
}

/// The next node on the machine removes it, and so does the engine on its own machine.
async fn the_directory_of_a_killed_node_is_removed() {
    let look =
        "def f():\n    import os, sys\n    return [os.getppid(), sys.modules['farcall-worker'].__file__]\n";
    // A task may be sent to a node before the engine knows that it is dead.
    let options = json!({"shared_file_system": false, "max_retries_on_system_failure": 9});
    let mut rig = Rig::start(options).await;
    let kill = async |rig: &mut Rig| {
        let outcome = rig.run(look, json!([])).await;
        let library = std::path::PathBuf::from(outcome.value()[1].as_str().unwrap());
        let own = library.ancestors().find(|path| path.parent() == Some(&std::env::temp_dir())).unwrap();
        let pid = nix::unistd::Pid::from_raw(outcome.value()[0].as_i64().unwrap() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
        own.to_owned()
    };
    let first = kill(&mut rig).await;
    let second = kill(&mut rig).await;
    assert_ne!(first, second);
    assert!(!first.exists(), "{first:?}");
    rig.stop(Duration::ZERO).await;
    until(|| !second.exists()).await;
}

async fn the_output_of_a_failed_block_is_in_the_status() {
    let init = "echo 'loading python/3.12'; echo 'module: no such module' >&2; exit 3";
    let options =
        json!({"block_error_handler": false, "provider": {"type": "LocalProvider", "worker_init": init}});
    let mut rig = Rig::start(options).await;
    let said = async |rig: &mut Rig| loop {
        drop(tokio::time::timeout(Duration::from_millis(20), rig.next_event()).await);
        if let Some(failure) = rig.handle.report().await.unwrap().last_block_failure {
            break failure;
        }
    };
    let failure = tokio::time::timeout(Duration::from_secs(60), said(&mut rig)).await.unwrap();
    for part in ["EXIT CODE: 3", "STDOUT: loading python/3.12", "STDERR: module: no such module"] {
        assert!(failure.contains(part), "{failure}");
    }
    let report = serde_json::to_value(rig.handle.report().await.unwrap()).unwrap();
    assert_eq!(report["last_block_failure"].as_str(), Some(failure.as_str()), "for the endpoint's status");
    rig.stop(Duration::ZERO).await;
}

async fn worker_init_activates_a_virtual_environment() {
    let dir = tempfile::tempdir().unwrap();
    let python = crate::rig::options(json!({})).python.unwrap();
    let made =
        Command::new(python).args(["-m", "venv", "--without-pip"]).arg(dir.path().join("env")).status();
    assert!(made.unwrap().success());
    let init = format!("source {}/env/bin/activate", dir.path().display());
    let options = json!({"python": null, "provider": {"type": "LocalProvider", "worker_init": init}});
    let mut rig = Rig::start(options).await;
    let outcome = rig
        .run("def f():\n    import os, sys\n    return [sys.prefix, os.environ['VIRTUAL_ENV']]\n", json!([]))
        .await;
    let env = dir.path().join("env");
    assert_eq!(outcome.value(), &json!([env, env]));
}

async fn worker_init_sets_the_python_path_of_workers() {
    for safe in ["", "export PYTHONSAFEPATH=1; "] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("farcall_worker.py"), "whose = 'the user'").unwrap();
        std::fs::write(dir.path().join("json.py"), "raise SystemExit('not on the path')").unwrap();
        let (first, here) = (dir.path().join("first"), dir.path().display());
        let init = format!("{safe}export PYTHONPATH={}:{here}/second; cd {here}", first.display());
        std::fs::create_dir(&first).unwrap();
        std::fs::rename(dir.path().join("farcall_worker.py"), first.join("farcall_worker.py")).unwrap();
        let mut rig = Rig::start(json!({"provider": {"type": "LocalProvider", "worker_init": init}})).await;
        let look = "\
def f():
    import farcall_worker, sys
    return [sys.path[:2], farcall_worker.whose, [p for p in sys.path if 'worker' in p or p == '']]
";
        let outcome = rig.run(look, json!([])).await;
        assert_eq!(outcome.value(), &json!([[first, format!("{here}/second")], "the user", []]), "{init}");
    }
}

async fn a_node_finds_its_engine_where_it_listens() {
    let mut rig = Rig::start(json!({"address": {"type": "address_by_interface", "ifname": "lo"}})).await;
    assert_eq!(rig.run("def f(): return 1\n", json!([])).await.value(), 1);
    let mut rig = Rig::start(json!({"worker_port_range": [20000, 30000], "address": "127.0.0.1"})).await;
    assert_eq!(rig.run("def f(): return 2\n", json!([])).await.value(), 2);
}

async fn jobs_and_their_files_have_upstreams_names() {
    let mut rig = Rig::start(json!({"label": "Midway@RCC.UChicago", "provider": {"type": "LocalProvider", "worker_init": "export SEEN=yes"}})).await;
    let outcome = rig.run("def f():\n    import os\n    return [os.environ['JOBNAME'], os.environ['CORES'], os.environ['SEEN']]\n", json!([])).await;
    let name = outcome.value()[0].as_str().unwrap();
    let time = name.strip_prefix("parsl.Midway@RCC.UChicago-HighThroughputExecutor.block-0.").unwrap();
    assert!(time.parse::<f64>().unwrap() > 1.7e9, "{name}");
    let keys = rig.path().join("Midway@RCC.UChicago-HighThroughputExecutor/node.json");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(keys).unwrap());
    assert_eq!(mode & 0o777, 0o600, "the keys of this run are their owner's");
    let scripts = rig.path().join("submit_scripts");
    let text = std::fs::read_to_string(scripts.join(format!("{name}.sh"))).unwrap();
    let (init, rest) = text.split_once('\n').unwrap();
    assert_eq!(init, "export SEEN=yes", "before the node, in its shell");
    assert!(rest.starts_with(&format!("export JOBNAME={name}\n")), "{text}");
    for (suffix, content) in [(".sh.out", Some("")), (".sh.err", None), (".sh.ec", Some("-\n"))] {
        let found = std::fs::read_to_string(scripts.join(format!("{name}{suffix}"))).unwrap();
        assert!(content.is_none_or(|content| content == found), "{suffix}: {found}");
    }
    let Outcome::Returned(_) = outcome else { panic!() };
    let logs = rig.path().join("Midway@RCC.UChicago-HighThroughputExecutor/block-0");
    until(|| logs.exists() && walk(&logs).iter().any(|file| file.ends_with("worker_0.log"))).await;
}

async fn workers_are_bound_to_their_cpus() {
    let look = "\
def f():
    import os
    names = ['OMP_NUM_THREADS', 'GOMP_CPU_AFFINITY', 'KMP_AFFINITY']
    return [sorted(os.sched_getaffinity(0))] + [os.environ[name] for name in names]
";
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    let all = "def f():\n    import os\n    return sorted(os.sched_getaffinity(0))\n";
    let all = rig.run(all, json!([])).await.value().as_array().unwrap().clone();
    let first = all[0].as_u64().unwrap();
    let options = json!({"max_workers_per_node": 1, "cpu_affinity": format!("list:{first}")});
    let mut rig = Rig::start(options).await;
    let expected = json!([[first], "1", first.to_string(), format!("explicit,proclist=[{first}]")]);
    assert_eq!(rig.run(look, json!([])).await.value(), &expected);
    let mut rig = Rig::start(json!({"max_workers_per_node": 1, "cpu_affinity": "block-reverse"})).await;
    assert_eq!(rig.run(look, json!([])).await.value()[0], json!(all), "one worker: all of them");
}

/// A worker that needs more than a node has can't start: waiting tasks fail at once.
async fn a_worker_that_fits_on_no_node_is_reported() {
    let mut rig = Rig::start(json!({"cores_per_worker": 100_000})).await;
    let outcome = rig.run("def f(): pass\n", json!([])).await;
    assert!(outcome.text().contains("no worker fits on this node: it has "), "{outcome:?}");
}
