//! The basic behaviour of an engine, with real processes.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use engine::Event;
use serde_json::json;

use crate::rig::{Outcome, Rig, alive, until};

pub(crate) type Case = fn() -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const ALL: &[(&str, $crate::cases::Case)] = &[$((stringify!($name), || Box::pin($name()))),+];
    };
}

pub(crate) use cases;

cases! {
    a_value_comes_back,
    an_error_comes_back_with_its_traceback,
    a_burst_comes_back_whole,
    functions_see_their_environment,
    a_worker_that_exits_ends_only_its_task,
    a_lost_task_is_retried_as_often_as_allowed,
    a_lost_node_ends_its_tasks,
    a_block_that_does_not_start_is_reported,
    an_interpreter_that_does_not_work_is_reported,
    worker_init_chooses_the_environment,
    nothing_is_sent_before_it_has_begun,
    a_stop_returns_waiting_tasks_and_ends_running_ones_after_its_grace,
    bad_requests_are_refused,
    output_is_kept_and_bounded,
    nothing_outlives_the_engine,
    a_stop_while_a_block_is_starting_ends_it,
    big_values_cross,
    byte_code_of_another_python_is_refused,
    the_report_counts_nodes_workers_and_tasks,
}

async fn a_value_comes_back() {
    let mut rig = Rig::start(json!({})).await;
    let outcome = rig.run("def f(x, y):\n    return {'sum': x + y}\n", json!([40, 2])).await;
    assert_eq!(outcome.value(), &json!({"sum": 42}));
    let id = rig.submit("def f():\n    return 42\n", json!([]), |_| ());
    assert_eq!(rig.end_of(id).await.value(), "00\ngARLKi4=\n", "the default: what dill writes");
}

async fn an_error_comes_back_with_its_traceback() {
    let mut rig = Rig::start(json!({})).await;
    let outcome = rig.run("def f(x):\n    return 1 / x\n", json!([0])).await;
    let Outcome::Raised { code, text } = outcome else { panic!("{outcome:?}") };
    assert_eq!(code, "RemoteExecutionError");
    assert_eq!(
        text,
        "Traceback (most recent call last):\n  File \"<string>\", line 2, in f\nZeroDivisionError: division by zero\n"
    );
}

async fn a_burst_comes_back_whole() {
    let mut rig = Rig::start(json!({})).await;
    let ids: Vec<_> = (0..2000).map(|n| rig.call("def f(n):\n    return n * n\n", json!([n]))).collect();
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(rig.end_of(id).await.value(), &json!(n * n));
    }
}

async fn functions_see_their_environment() {
    let mut rig = Rig::start(json!({"run_in_sandbox": true, "available_accelerators": ["7", "8"]})).await;
    let source = "def f():\n    import os\n    return [os.getcwd(), dict(os.environ)]\n";
    let id = rig.call(source, json!([]));
    let outcome = rig.end_of(id).await;
    let directory = rig.path().canonicalize().unwrap().join("tasks_working_dir").join(id.to_string());
    assert_eq!(outcome.value()[0], json!(directory));
    let environment = &outcome.value()[1];
    assert_eq!(environment["GC_TASK_UUID"], json!(id));
    assert_eq!(environment["GC_TASK_SANDBOX_DIR"], json!(directory));
    let rank: usize = environment["PARSL_WORKER_RANK"].as_str().unwrap().parse().unwrap();
    assert_eq!(environment["PARSL_WORKER_COUNT"], "2");
    assert_eq!(environment["PARSL_WORKER_BLOCK_ID"], "0");
    assert_eq!(environment["PARSL_WORKER_POOL_ID"].as_str().unwrap().len(), 12);
    assert_eq!(environment["CUDA_VISIBLE_DEVICES"], ["7", "8"][rank]);
    assert!(
        environment["JOBNAME"]
            .as_str()
            .unwrap()
            .starts_with("parsl.GlobusComputeEngine-HighThroughputExecutor.block-0.")
    );
    assert!(environment.get("FARCALL_WORKER_CONFIG").is_none());
}

/// Ways to end a process without an exception, and the error text of each.
async fn a_worker_that_exits_ends_only_its_task() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    for (source, how) in [
        ("import sys\n    sys.exit(3)", "exited with status 3"),
        ("import os\n    os._exit(4)", "exited with status 4"),
        ("import os, signal\n    os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL"),
        ("import ctypes\n    ctypes.string_at(0)", "ended by SIGSEGV"),
        (
            "import os\n    os.closerange(3, 256)\n    import time\n    time.sleep(1000)",
            "connection to its node was closed",
        ),
        ("import os, signal\n    os.killpg(0, signal.SIGTERM)", "ended by SIGTERM"),
    ] {
        let lost = rig.call(&format!("def f():\n    {source}\n"), json!([]));
        let next = rig.call("def f():\n    return 'fine'\n", json!([]));
        let outcome = rig.end_of(lost).await;
        let text = outcome.text();
        let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
        let words = format!(
            "{}\nTraceback (most recent call last):\nparsl.executors.high_throughput.errors.WorkerLost: Task failure \
             due to loss of worker 0 on host {host}\n",
            "+".repeat(68)
        );
        assert!(text.starts_with(&words), "{text}");
        assert!(text.contains(how), "{how}: {text}");
        assert!(text.ends_with(&"-".repeat(68)), "{text}");
        assert_eq!(rig.end_of(next).await.value(), "fine", "after {source}");
    }
}

async fn a_lost_task_is_retried_as_often_as_allowed() {
    let mut rig = Rig::start(json!({"max_retries_on_system_failure": 2})).await;
    let source = "\
def f(path, needed):
    import os
    with open(path, 'a') as file:
        file.write('x')
    if os.path.getsize(path) < needed:
        os._exit(1)
    return os.path.getsize(path)
";
    let path = rig.path().join("attempts");
    assert_eq!(rig.run(source, json!([path, 3])).await.value(), 3, "the third attempt");
    let path = rig.path().join("more");
    let outcome = rig.run(source, json!([path, 9])).await;
    assert_eq!(std::fs::read(&path).unwrap().len(), 3, "no fourth one");
    for words in [
        "Traceback from attempt: 0\n",
        "Traceback from attempt: 1\n",
        "Traceback from attempt: final attempt\n",
    ] {
        assert!(outcome.text().contains(words), "{outcome:?}");
    }
}

/// The process id of the node.
async fn node_pid(rig: &mut Rig) -> i64 {
    rig.run("def f():\n    import os\n    return os.getppid()\n", json!([])).await.value().as_i64().unwrap()
}

async fn a_lost_node_ends_its_tasks() {
    let mut rig = Rig::start(json!({})).await;
    let node = node_pid(&mut rig).await;
    let running = rig.call("def f():\n    import time\n    time.sleep(1000)\n", json!([]));
    let worker = rig
        .run("def f():\n    import os\n    return os.getpid()\n", json!([]))
        .await
        .value()
        .as_i64()
        .unwrap();
    let kill =
        |pid: i64| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::SIGKILL);
    kill(node).unwrap();
    let outcome = rig.end_of(running).await;
    assert!(
        outcome.text().contains(
            "parsl.executors.high_throughput.errors.ManagerLost: Task failure due to loss of manager "
        ),
        "{outcome:?}"
    );
    until(|| !alive(worker)).await;
    // One lost node is no bad state: the next task gets a new block.
    assert_eq!(rig.run("def f():\n    return 'back'\n", json!([])).await.value(), "back");
}

async fn a_block_that_does_not_start_is_reported() {
    let init = "echo hello; echo 'module: not found' >&2; exit 3";
    let mut rig = Rig::start(json!({"provider": {"type": "LocalProvider", "worker_init": init}})).await;
    let waiting = rig.call("def f(): pass\n", json!([]));
    let text = rig.bad_state().await;
    assert_eq!(
        text,
        "Error 1:\n\tJob is marked as MISSING since the workers failed to register to the executor. Check the \
         stdout/stderr logs in the submit_scripts directory for more debug information\n\tEXIT CODE: 3\n\tSTDOUT: \
         hello\n\n\tSTDERR: module: not found\n\n"
    );
    let outcome = rig.end_of(waiting).await;
    let words = "parsl.executors.errors.BadStateException: Executor GlobusComputeEngine-HighThroughputExecutor failed due to: Error 1:\n";
    assert!(outcome.text().contains(words), "{outcome:?}");
    let outcome = rig.run("def f(): pass\n", json!([])).await;
    assert!(outcome.text().contains("parsl.jobs.errors.TooManyJobFailuresError: Error 1:\n"), "{outcome:?}");
}

async fn an_interpreter_that_does_not_work_is_reported() {
    let mut rig = Rig::start(json!({"python": "no-such-python"})).await;
    let text = rig.bad_state().await;
    assert!(text.contains("no Python interpreter: no-such-python is not on the PATH of this node"), "{text}");
    let mut rig = Rig::start(json!({"python": "/bin/false"})).await;
    let text = rig.bad_state().await;
    assert!(text.contains("workers do not start: The worker process exited with status 1."), "{text}");
}

async fn worker_init_chooses_the_environment() {
    // A shell function that changes the PATH, as those of conda and module do; the interpreter is the first on it.
    let real = crate::rig::options(json!({})).python.unwrap();
    let init = format!(
        "activate() {{ mkdir -p $1/bin; printf '#!/bin/sh\\nACTIVE=yes exec {real} \"$@\"\\n' > $1/bin/python3; chmod \
         +x $1/bin/python3; export PATH=$1/bin:$PATH; }}\nactivate \"$HOME/env\""
    );
    let home = tempfile::tempdir().unwrap();
    let init = format!("HOME={}\n{init}", home.path().display());
    let options = json!({"python": null, "provider": {"type": "LocalProvider", "worker_init": init}});
    let mut rig = Rig::start(options).await;
    let outcome = rig.run("def f():\n    import os\n    return os.environ['ACTIVE']\n", json!([])).await;
    assert_eq!(outcome.value(), "yes");
}

async fn nothing_is_sent_before_it_has_begun() {
    let mut rig = Rig::start(json!({})).await;
    rig.run("def f(): pass\n", json!([])).await; // workers are ready
    rig.confirms_begun = false;
    let path = rig.path().join("ran");
    let id = rig.call("def f(path):\n    open(path, 'w')\n    return 1\n", json!([path]));
    let Some(Event::Assigned(tasks)) = rig.next_event().await else { panic!("assigned first") };
    assert_eq!(tasks, [id]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!path.exists());
    rig.handle.begin(tasks).unwrap();
    assert_eq!(rig.end_of(id).await.value(), 1);
}

async fn a_stop_returns_waiting_tasks_and_ends_running_ones_after_its_grace() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 2})).await;
    let dir = rig.path().to_owned();
    let sleep = "def f(path, seconds):\n    import time\n    open(path, 'w')\n    time.sleep(seconds)\n    return seconds\n";
    let short = rig.call(sleep, json!([dir.join("short"), 0.5]));
    let long = rig.call(sleep, json!([dir.join("long"), 1000]));
    let waiting = rig.call(sleep, json!([dir.join("waiting"), 0]));
    while !(dir.join("short").exists() && dir.join("long").exists()) {
        let event = tokio::time::timeout(Duration::from_millis(10), rig.next_event()).await;
        drop(event);
    }
    rig.stop(Duration::from_secs(3)).await;
    assert_eq!(rig.known(short).unwrap().value(), 0.5);
    assert!(rig.known(long).unwrap().text().contains("ManagerLost"), "{:?}", rig.known(long));
    assert_eq!(rig.known(waiting).unwrap(), &Outcome::HandedBack);
    assert!(!dir.join("waiting").exists());
}

async fn bad_requests_are_refused() {
    let mut rig = Rig::start(json!({})).await;
    let id = rig.submit("def f(): pass\n", json!([]), |submission| {
        submission.resource_specification = json!({"num_nodes": 2}).as_object().unwrap().clone();
    });
    let outcome = rig.end_of(id).await;
    let words = "parsl.executors.errors.InvalidResourceSpecification: Invalid Resource Specification Supplied: \
                 {'num_nodes'}. Task resource specification only accepts these types of resources: priority\n";
    assert!(outcome.text().contains(words), "{outcome:?}");
    for (specification, words) in [
        (json!({"priority": "high"}), "Invalid Resource Specification Supplied: {'priority': \"high\"}. "),
        (json!({"cores": 2, "memory": 4}), "Invalid Resource Specification Supplied: {'cores', 'memory'}. "),
    ] {
        let id = rig.submit("def f(): pass\n", json!([]), |submission| {
            submission.resource_specification = specification.as_object().unwrap().clone();
        });
        assert!(rig.end_of(id).await.text().contains(words), "{words}");
    }
    let id = rig.submit_buffer("nonsense", |_| ());
    assert!(rig.end_of(id).await.text().contains("ValueError"));
}

async fn output_is_kept_and_bounded() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    let source = "\
def f(megabytes):
    import sys
    line = 'x' * 1023 + '\\n'
    for _ in range(megabytes):
        sys.stdout.write(line * 1024)
    print('the last words')
";
    rig.run(source, json!([64])).await;
    let mut kept = 0;
    let mut last_words = false;
    let logs = rig.path().join("GlobusComputeEngine-HighThroughputExecutor").join("block-0");
    until(|| {
        kept = 0;
        for file in walk(&logs) {
            kept += std::fs::metadata(&file).unwrap().len();
            last_words |= std::fs::read(&file).unwrap().ends_with(b"the last words\n");
        }
        last_words
    })
    .await;
    assert!(kept <= 17 << 20, "{kept}");
}

pub(crate) fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files.extend(walk(&entry.path()))
        } else {
            files.push(entry.path())
        }
    }
    files
}

async fn nothing_outlives_the_engine() {
    let mut rig = Rig::start(json!({})).await;
    let node = node_pid(&mut rig).await;
    let worker = rig
        .run("def f():\n    import os\n    return os.getpid()\n", json!([]))
        .await
        .value()
        .as_i64()
        .unwrap();
    rig.stop(Duration::ZERO).await;
    until(|| !alive(node) && !alive(worker)).await;
    let keys = rig.path().join("GlobusComputeEngine-HighThroughputExecutor/node.json");
    until(|| !keys.exists()).await;
}

async fn a_stop_while_a_block_is_starting_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pid");
    let init = format!("trap '' TERM; echo $$ > {}; sleep 1000; sleep 1000", path.display());
    let mut rig = Rig::start(json!({"provider": {"type": "LocalProvider", "worker_init": init}})).await;
    let pid = || std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
    until(|| pid().is_some()).await;
    rig.stop(Duration::ZERO).await;
    assert!(!alive(pid().unwrap()), "it has ended before the engine's last event");
}

async fn big_values_cross() {
    let mut rig = Rig::start(json!({})).await;
    let text = "é\n\"".repeat(500_000);
    let outcome = rig.run("def f(text):\n    return text[::-1]\n", json!([text])).await;
    assert_eq!(outcome.value().as_str().unwrap(), text.chars().rev().collect::<String>());
    let id = rig.submit("def f(n):\n    return 'x' * n\n", json!([11 << 20]), |_| ());
    let Outcome::Raised { code, text } = rig.end_of(id).await else { panic!("too large") };
    assert_eq!(code, "MaxResultSizeExceeded");
    assert!(text.starts_with("MaxResultSizeExceeded(115343"), "{text}");
    assert!(text.contains(", 10485760)\nThe result takes 11.5 MB, and"), "{text}");
}

async fn byte_code_of_another_python_is_refused() {
    let mut rig = Rig::start(json!({})).await;
    // Source is never refused, whichever Python it comes from.
    let id = rig.submit("def f(): return 1\n", json!([]), |submission| {
        submission.function_python = Some("2.7".into());
        submission.result_serializers = vec!["globus_compute_sdk.serialize.JSONData".into()];
    });
    assert_eq!(rig.end_of(id).await.value(), 1);
    let code = wire::buffer::pack(&["01\ngARjZGlsbC5fZGlsbApfY3JlYXRlX2NvZGUKLg==\n", "11\n[]", "11\n{}"]);
    let id = rig.submit_buffer(&code, |submission| submission.function_python = Some("2.7".into()));
    let outcome = rig.end_of(id).await;
    assert!(outcome.text().contains("byte code of Python 2.7"), "{outcome:?}");
    assert!(outcome.text().contains("AllCodeStrategies"), "{outcome:?}");
}

async fn the_report_counts_nodes_workers_and_tasks() {
    let mut rig = Rig::start(json!({})).await;
    rig.run("def f(): pass\n", json!([])).await;
    let report = rig.handle.report().await.unwrap();
    assert_eq!((report.managers, report.active_managers, report.total_workers), (1, 1, 2));
    assert_eq!(
        (report.total_tasks, report.outstanding_tasks, report.pending_tasks, report.idle_workers),
        (1, 0, 0, 2)
    );
    assert_eq!((report.engine_type, report.provider_type), ("GlobusComputeEngine", "LocalProvider"));
    let (job, nodes) = report.node_info.first_key_value().unwrap();
    assert!(job.parse::<u32>().is_ok(), "a process id: {job}");
    assert_eq!(nodes[0].worker_count, 2);
    assert!(nodes[0].python_version.as_deref().unwrap().starts_with("3."));
}
