//! The pool engines: ProcessPoolEngine and ThreadPoolEngine.

use serde_json::json;

use crate::cases::cases;
use crate::rig::{Outcome, Rig};

cases! {
    a_process_pool_runs_tasks_at_the_same_time,
    a_process_of_a_pool_is_replaced_when_it_has_run_its_tasks,
    threads_share_one_process,
    a_function_that_exits_a_thread_ends_its_task_only,
    the_end_of_the_process_ends_the_tasks_of_all_its_threads,
    a_thread_that_runs_can_not_be_cancelled,
    a_thread_that_computes_too_long_is_interrupted,
    pool_engines_refuse_resource_specifications,
}

/// Waits until `others` tasks run, and returns its process, its thread and its variables.
const MEET: &str = "\
def f(path, others):
    import os, threading, time
    open(os.path.join(path, os.environ['GC_TASK_UUID'] if not others else threading.current_thread().name), 'w')
    while len(os.listdir(path)) < others:
        time.sleep(0.01)
    return [os.getpid(), threading.current_thread().name, sorted(k for k in os.environ if k.startswith('PARSL_'))]
";

async fn a_process_pool_runs_tasks_at_the_same_time() {
    let mut rig = Rig::start(json!({"type": "ProcessPoolEngine", "max_workers": 3})).await;
    let path = rig.path().join("met");
    std::fs::create_dir(&path).unwrap();
    let source = MEET.replace("if not others else threading.current_thread().name", "");
    let ids: Vec<_> = (0..3).map(|_| rig.call(&source, json!([path, 3]))).collect();
    let mut pids = std::collections::BTreeSet::new();
    for id in ids {
        let outcome = rig.end_of(id).await;
        assert_eq!(outcome.value()[2], json!([]), "as in the original, no variables of nodes");
        pids.insert(outcome.value()[0].as_i64());
    }
    assert_eq!(pids.len(), 3);
    let report = rig.handle.report().await.unwrap();
    assert_eq!(
        (report.engine_type, report.total_workers, report.scaling_enabled),
        ("ProcessPoolEngine", 3, false)
    );
    let report = serde_json::to_value(report).unwrap();
    assert!(report["total_cores"].as_u64().unwrap() > 0 && report["total_mem"].is_number(), "{report}");
    assert_eq!(report["total_core_hrs"], 0);
    // A process that dies ends its task, and its slot gets a new process.
    let lost = rig.run("def f():\n    import os\n    os._exit(1)\n", json!([])).await;
    assert!(lost.text().contains("WorkerLost"), "{lost:?}");
    assert_eq!(rig.run("def f(): return 1\n", json!([])).await.value(), 1);
}

async fn a_process_of_a_pool_is_replaced_when_it_has_run_its_tasks() {
    let options = json!({"type": "ProcessPoolEngine", "max_workers": 1, "max_tasks_per_child": 2});
    let mut rig = Rig::start(options).await;
    let ids: Vec<_> =
        (0..5).map(|_| rig.call("def f():\n    import os\n    return os.getpid()\n", json!([]))).collect();
    let mut pids = Vec::new();
    for id in ids {
        pids.push(rig.end_of(id).await.value().as_i64().unwrap());
    }
    assert_eq!(pids[0], pids[1]);
    assert_eq!(pids[2], pids[3]);
    assert!(pids[1] != pids[2] && pids[3] != pids[4], "{pids:?}");
}

async fn threads_share_one_process() {
    let options = json!({"type": "ThreadPoolEngine", "max_workers": 3, "thread_name_prefix": "mine"});
    let mut rig = Rig::start(options).await;
    let path = rig.path().join("met");
    std::fs::create_dir(&path).unwrap();
    let ids: Vec<_> = (0..3).map(|_| rig.call(MEET, json!([path, 3]))).collect();
    let mut pids = std::collections::BTreeSet::new();
    let mut names = std::collections::BTreeSet::new();
    for id in ids {
        let outcome = rig.end_of(id).await;
        pids.insert(outcome.value()[0].as_i64());
        names.insert(outcome.value()[1].as_str().unwrap().to_owned());
    }
    assert_eq!(pids.len(), 1);
    assert_eq!(Vec::from_iter(names), ["mine_0", "mine_1", "mine_2"]);
    // Threads share modules, and hundreds of tasks at once all return.
    let count = "\
def f():
    import builtins, threading
    lock = builtins.__dict__.setdefault('counted', [threading.Lock(), 0])
    with lock[0]:
        lock[1] += 1
        return lock[1]
";
    let ids: Vec<_> = (0..300).map(|_| rig.call(count, json!([]))).collect();
    let mut counted = Vec::new();
    for id in ids {
        counted.push(rig.end_of(id).await.value().as_u64().unwrap());
    }
    counted.sort_unstable();
    assert_eq!(counted, Vec::from_iter(1..=300));
    assert_eq!(rig.handle.report().await.unwrap().engine_type, "ThreadPoolEngine");
}

async fn a_function_that_exits_a_thread_ends_its_task_only() {
    let mut rig = Rig::start(json!({"type": "ThreadPoolEngine"})).await;
    let path = rig.path().join("go");
    let wait = "def f(path):\n    import os, time\n    while not os.path.exists(path):\n        time.sleep(0.01)\n    return os.getpid()\n";
    let running = rig.call(wait, json!([path]));
    let outcome = rig.run("def f():\n    import sys\n    sys.exit(3)\n", json!([])).await;
    let Outcome::Raised { code, text } = outcome else { panic!("{outcome:?}") };
    assert_eq!(code, "RemoteExecutionError");
    assert!(text.ends_with("SystemExit: 3\n"), "{text}");
    std::fs::write(&path, "").unwrap();
    assert!(rig.end_of(running).await.value().is_number(), "its neighbour went on");
}

async fn the_end_of_the_process_ends_the_tasks_of_all_its_threads() {
    let mut rig = Rig::start(json!({"type": "ThreadPoolEngine", "max_workers": 2})).await;
    for end in ["os._exit(4)", "os.kill(os.getpid(), 9)", "os.closerange(3, 256)"] {
        let path = rig.path().join("began");
        let _ = std::fs::remove_file(&path);
        let wait = "def f(path):\n    import time\n    open(path, 'w')\n    time.sleep(1000)\n";
        let neighbour = rig.call(wait, json!([path]));
        while !path.exists() {
            drop(tokio::time::timeout(std::time::Duration::from_millis(10), rig.next_event()).await);
        }
        let ends =
            rig.call(&format!("def f():\n    import os, time\n    {end}\n    time.sleep(1000)\n"), json!([]));
        let waiting = rig.call("def f(): return 'fine'\n", json!([]));
        for id in [neighbour, ends] {
            let text = rig.end_of(id).await.text().to_owned();
            assert!(
                text.contains(
                    "parsl.executors.high_throughput.errors.WorkerLost: Task failure due to loss of worker "
                ),
                "{text}"
            );
        }
        assert_eq!(rig.end_of(waiting).await.value(), "fine", "after {end}");
    }
}

async fn a_thread_that_runs_can_not_be_cancelled() {
    let mut rig = Rig::start(json!({"type": "ThreadPoolEngine", "max_workers": 1})).await;
    let (began, go) = (rig.path().join("began"), rig.path().join("go"));
    let wait = "def f(began, go):\n    import os, time\n    open(began, 'w')\n    while not os.path.exists(go):\n        time.sleep(0.01)\n    return 'done'\n";
    let running = rig.call(wait, json!([began, go]));
    let waiting = rig.call("def f(): return 1\n", json!([]));
    while !began.exists() {
        drop(tokio::time::timeout(std::time::Duration::from_millis(10), rig.next_event()).await);
    }
    let log = rig.path().join("log");
    let file = std::sync::Arc::new(std::fs::File::create(&log).unwrap());
    let logging = tracing::subscriber::set_default(tracing_subscriber::fmt().with_writer(file).finish());
    rig.handle.cancel(running).unwrap();
    rig.handle.cancel(waiting).unwrap();
    let Outcome::Raised { code, .. } = rig.end_of(waiting).await else { panic!("cancelled") };
    assert_eq!(code, "TaskCancelled");
    std::fs::write(&go, "").unwrap();
    assert_eq!(rig.end_of(running).await.value(), "done");
    drop(logging);
    let said = std::fs::read_to_string(log).unwrap();
    assert!(said.contains("if it has begun, it goes on: threads can't be ended"), "{said}");
    assert!(said.contains(&running.to_string()), "{said}");
}

async fn a_thread_that_computes_too_long_is_interrupted() {
    let mut rig = Rig::start(json!({"type": "ThreadPoolEngine"})).await;
    let limit = "def f(seconds):\n    import os\n    os.environ['GC_TASK_TIMEOUT'] = seconds\n";
    rig.run(limit, json!(["0.3"])).await;
    let outcome = rig.run("def f():\n    while True: pass\n", json!([])).await;
    assert!(outcome.text().ends_with("parsl.app.errors.AppTimeout\n"), "{outcome:?}");
    assert_eq!(rig.run("def f(): return 1\n", json!([])).await.value(), 1);
}

async fn pool_engines_refuse_resource_specifications() {
    for engine in ["ProcessPoolEngine", "ThreadPoolEngine"] {
        let mut rig = Rig::start(json!({"type": engine})).await;
        let id = rig.submit("def f(): pass\n", json!([]), |submission| {
            submission.resource_specification = json!({"num_nodes": 2}).as_object().unwrap().clone();
        });
        assert_eq!(
            rig.end_of(id).await.text(),
            format!(
                "Failed to start task: resource_specification is not supported on {engine}.  For MPI apps, use \
                 GlobusMPIEngine."
            )
        );
    }
}
