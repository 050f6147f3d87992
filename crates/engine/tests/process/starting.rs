//! Nodes and workers that start late, with errors, or not at all.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cases::cases;
use crate::rig::{Rig, alive};

cases! {
    a_worker_that_does_not_start_closes_its_slot_and_the_others_go_on,
    a_node_where_no_worker_starts_reports_the_end_of_the_output,
    a_node_says_hello_before_its_interpreter_is_there,
    an_interpreter_that_is_never_ready_is_reported_with_the_limit,
    one_interpreter_that_is_never_ready_closes_its_slot,
    a_node_of_another_version_is_refused_with_both_versions,
    a_start_on_a_stalled_file_system_blocks_nothing_else,
}

/// An interpreter that runs a shell command before it starts.
fn python(directory: &Path, before: &str) -> PathBuf {
    let real = crate::rig::options(json!({})).python.unwrap();
    let path = directory.join("python");
    std::fs::write(&path, format!("#!/bin/bash\n{before}\nexec {real} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn report(rig: &mut Rig) -> Value {
    drop(tokio::time::timeout(Duration::from_millis(20), rig.next_event()).await);
    serde_json::to_value(rig.handle.report().await.unwrap()).unwrap()
}

/// Waits for a report for which the condition is true.
async fn wait_for_report(rig: &mut Rig, so: impl Fn(&Value) -> bool) -> Value {
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let report = report(rig).await;
        if so(&report) {
            return report;
        }
        assert!(tokio::time::Instant::now() < patience, "{report}");
    }
}

const WAIT: &str = "\
def f(path):
    import os, time
    while not os.path.exists(path):
        time.sleep(0.01)
    return os.environ['PARSL_WORKER_RANK']
";

/// While the first worker runs a task, every start of the second one prints a lot and fails.
async fn a_worker_that_does_not_start_closes_its_slot_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (broken, go) = (dir.path().join("broken"), dir.path().join("go"));
    let before = format!(
        "[ $PARSL_WORKER_RANK = 1 ] && {{ until [ -e {} ]; do sleep 0.01; done; head -c 100000 /dev/zero | tr '\\0' x; \
         echo 'no libpython'; exit 7; }}",
        broken.display()
    );
    let mut rig = Rig::start(json!({"python": python(dir.path(), &before), "max_workers_per_node": 2})).await;
    let running = rig.call(&format!("{WAIT}\n"), json!([go]));
    let behind = rig.call(WAIT, json!([go]));
    wait_for_report(&mut rig, |report| report["managers"] == 1).await;
    std::fs::write(&broken, "").unwrap();
    let said = wait_for_report(&mut rig, |report| report["slots_missing"].is_string()).await;
    let text = said["slots_missing"].as_str().unwrap();
    for part in ["worker 1 does not start", "exited with status 7", "worker_1.log", "no libpython"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(text.len() < 2000, "bounded: {}", text.len());
    assert_eq!((&said["total_workers"], &said["managers"]), (&json!(1), &json!(1)));
    std::fs::write(&go, "").unwrap();
    for id in [running, behind] {
        assert_eq!(rig.end_of(id).await.value(), "0", "on the slot that is left");
    }
}

async fn a_node_where_no_worker_starts_reports_the_end_of_the_output() {
    let dir = tempfile::tempdir().unwrap();
    let before = "seq 1 100000; echo \"no libpython for $PARSL_WORKER_RANK\" >&2; exit 7";
    let mut rig = Rig::start(json!({"python": python(dir.path(), before), "max_workers_per_node": 3})).await;
    let text = rig.bad_state().await;
    for part in ["workers do not start: The worker process exited with status 7.", "no libpython for "] {
        assert!(text.contains(part), "{text}");
    }
    assert!(text.len() < 3000, "bounded: {}", text.len());
}

/// The interpreter starts when the test allows it. Hello and heartbeats do not wait for that.
async fn a_node_says_hello_before_its_interpreter_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let python = python(dir.path(), &format!("until [ -e {} ]; do sleep 0.01; done", go.display()));
    let options = json!({"python": python, "heartbeat_period": 1, "heartbeat_threshold": 2});
    let mut rig = Rig::start(options).await;
    let waiting = rig.call("def f(): return 1\n", json!([]));
    let said = wait_for_report(&mut rig, |report| report["managers"] == 1).await;
    assert_eq!(said["starting_managers"], 1);
    assert_eq!((&said["active_managers"], &said["total_workers"]), (&json!(0), &json!(0)), "{said}");
    // Its heartbeats keep it connected while it starts.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let said = report(&mut rig).await;
    assert_eq!((&said["starting_managers"], &said["pending_tasks"]), (&json!(1), &json!(1)), "{said}");
    std::fs::write(&go, "").unwrap();
    assert_eq!(rig.end_of(waiting).await.value(), 1);
    let said = report(&mut rig).await;
    assert_eq!(said.get("starting_managers"), None);
    assert_eq!((&said["active_managers"], &said["total_workers"]), (&json!(1), &json!(2)), "{said}");
}

async fn an_interpreter_that_is_never_ready_is_reported_with_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let python = python(dir.path(), "echo 'module load takes its time'; sleep 1000");
    let options = json!({"python": python, "worker_start_timeout": 1, "heartbeat_period": 1, "heartbeat_threshold": 60});
    let mut rig = Rig::start(options).await;
    let text = rig.bad_state().await;
    for part in ["It was not ready within 1 s (worker_start_timeout)", "module load takes its time"] {
        assert!(text.contains(part), "{text}");
    }
}

async fn one_interpreter_that_is_never_ready_closes_its_slot() {
    let dir = tempfile::tempdir().unwrap();
    let (pid, python) = (dir.path().join("pid"), dir.path());
    let before = format!("[ $PARSL_WORKER_RANK = 1 ] && {{ echo $$ > {}; sleep 1000; }}", pid.display());
    let python = self::python(python, &before);
    let options = json!({"python": python, "worker_start_timeout": 5, "heartbeat_period": 1, "heartbeat_threshold": 60});
    let mut rig = Rig::start(options).await;
    assert_eq!(rig.run("def f(): return 1\n", json!([])).await.value(), 1, "the other does not wait for it");
    let said = wait_for_report(&mut rig, |report| report["slots_missing"].is_string()).await;
    let text = said["slots_missing"].as_str().unwrap();
    assert!(text.contains("It was not ready within 5 s (worker_start_timeout)"), "{text}");
    let pid = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    assert!(!alive(pid));
    assert_eq!(rig.run("def f(): return 2\n", json!([])).await.value(), 2);
}

/// An upgrade in place: blocks start the new program while the engine is still the old one.
async fn a_node_of_another_version_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start_in(dir, &["node-of-engine-version", "0.0.9"], json!({})).await;
    let text = rig.bad_state().await;
    let both = format!(
        "this node is of version {} and its endpoint runs version 0.0.9: restart the endpoint",
        env!("CARGO_PKG_VERSION")
    );
    assert!(text.contains(&both), "{text}");
}

/// One file is a pipe: reading it blocks until the test writes to it.
async fn a_start_on_a_stalled_file_system_blocks_nothing_else() {
    let mut rig = Rig::start(json!({})).await;
    rig.run("def f(): return 1\n", json!([])).await.value();
    let config = rig.config();
    rig.stop(Duration::ZERO).await;
    let errors = "farcall-worker/errors.py";
    let library = rig.path().join("GlobusComputeEngine-HighThroughputExecutor/worker");
    let version = std::fs::read_dir(library).unwrap().next().unwrap().unwrap().path();
    let source = std::fs::read(version.join(errors)).unwrap();
    std::fs::remove_file(version.join(errors)).unwrap();
    nix::unistd::mkfifo(&version.join(errors), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut start = std::pin::pin!(engine::Engine::start(config));
    tokio::select! {
        _ = &mut start => panic!("it was read"),
        () = tokio::time::sleep(Duration::from_millis(200)) => {}
    }
    let writing = tokio::task::spawn_blocking(move || std::fs::write(version.join(errors), source));
    let (handle, mut events) = start.await.unwrap();
    writing.await.unwrap().unwrap();
    handle.stop(Duration::ZERO).unwrap();
    while events.recv().await.is_some() {}
}
