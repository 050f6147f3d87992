//! Cancelling: what ends with a cancelled task, and what does not.

use std::time::Duration;

use serde_json::json;

use crate::cases::cases;
use crate::rig::{Outcome, Rig, alive};

cases! {
    cancelling_ends_the_task_and_its_worker,
    a_cancelled_function_may_clean_up,
    cancelling_ends_the_processes_of_the_task_and_no_others,
    a_task_that_was_cancelled_in_the_queue_never_runs,
}

async fn cancelling_ends_the_task_and_its_worker() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    let path = rig.path().join("pid");
    let running = rig.call(
        "def f(path):\n    import os, signal, time\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    \
         with open(path + '~', 'w') as file:\n        file.write(str(os.getpid()))\n    os.rename(path + '~', path)\n    \
         time.sleep(1000)\n",
        json!([path]),
    );
    let waiting = rig.call("def f(): return 1\n", json!([]));
    while !path.exists() {
        let event = tokio::time::timeout(Duration::from_millis(10), rig.next_event()).await;
        drop(event);
    }
    let pid: i64 = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    rig.handle.cancel(waiting).unwrap();
    rig.handle.cancel(running).unwrap();
    for id in [waiting, running] {
        let Outcome::Raised { code, .. } = rig.end_of(id).await else { panic!("cancelled") };
        assert_eq!(code, "TaskCancelled");
    }
    assert!(!alive(pid));
    assert_eq!(rig.run("def f(): return 2\n", json!([])).await.value(), 2);
}

/// Cancelling sends SIGTERM to the process group first, and kills what ignores it.
async fn a_cancelled_function_may_clean_up() {
    let mut rig = Rig::start(json!({"max_workers_per_node": 1})).await;
    let (began, cleaned) = (rig.path().join("began"), rig.path().join("cleaned"));
    let source = "\
def f(began, cleaned):
    import signal, sys, time
    def clean(*_):
        open(cleaned, 'w').close()
        sys.exit()
    signal.signal(signal.SIGTERM, clean)
    open(began, 'w').close()
    time.sleep(1000)
";
    let id = rig.call(source, json!([began, cleaned]));
    while !began.exists() {
        drop(tokio::time::timeout(Duration::from_millis(10), rig.next_event()).await);
    }
    rig.handle.cancel(id).unwrap();
    let Outcome::Raised { code, .. } = rig.end_of(id).await else { panic!("cancelled") };
    assert_eq!(code, "TaskCancelled");
    assert!(cleaned.exists());
    assert_eq!(rig.run("def f(): return 2\n", json!([])).await.value(), 2);
}

/// One task sleeps in C, one has a child in another session, one ignores signals. Other tasks on the node go on, and
/// so do their children.
async fn cancelling_ends_the_processes_of_the_task_and_no_others() {
    const SOURCE: &str = "\
def f(directory, name, kind):
    import ctypes, os, signal, subprocess, time
    children = [subprocess.Popen(['sleep', '1000'])]
    if kind == 'escaped':
        children.append(subprocess.Popen(['sleep', '1000'], start_new_session=True))
    if kind == 'deaf':
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    path = os.path.join(directory, name)
    with open(path + '~', 'w') as file:
        file.write(' '.join(str(pid) for pid in [os.getpid()] + [child.pid for child in children]))
    os.rename(path + '~', path)
    if kind == 'stays':
        while not os.path.exists(os.path.join(directory, 'go')):
            time.sleep(0.01)
        alive = [child.poll() is None for child in children]
        for child in children:
            child.kill()
        return [os.getpid(), alive]
    ctypes.CDLL(None).sleep(1000)
";
    let mut rig = Rig::start(json!({"max_workers_per_node": 3})).await;
    let scratch = tempfile::tempdir().unwrap();
    let pids = |name: &str| -> Option<Vec<i64>> {
        let text = std::fs::read_to_string(scratch.path().join(name)).ok()?;
        Some(text.split(' ').map(|pid| pid.parse().unwrap()).collect())
    };
    let neighbours = ["one", "other"].map(|name| rig.call(SOURCE, json!([scratch.path(), name, "stays"])));
    for kind in ["in C", "escaped", "deaf"] {
        let id = rig.call(SOURCE, json!([scratch.path(), kind, kind]));
        while pids("one").is_none() || pids("other").is_none() || pids(kind).is_none() {
            drop(tokio::time::timeout(Duration::from_millis(10), rig.next_event()).await);
        }
        assert!(pids(kind).unwrap().into_iter().all(alive));
        rig.handle.cancel(id).unwrap();
        let Outcome::Raised { code, .. } = rig.end_of(id).await else { panic!("cancelled") };
        assert_eq!(code, "TaskCancelled");
        assert!(!pids(kind).unwrap().into_iter().any(alive), "{kind}: gone before the task has ended");
        for name in ["one", "other"] {
            assert!(pids(name).unwrap().into_iter().all(alive), "{name} goes on");
        }
    }
    std::fs::write(scratch.path().join("go"), "").unwrap();
    for (id, name) in neighbours.into_iter().zip(["one", "other"]) {
        assert_eq!(
            rig.end_of(id).await.value(),
            &json!([pids(name).unwrap()[0], [true]]),
            "in its first worker"
        );
    }
}

/// It makes no difference where the task waits: for a node, for a worker, or prefetched to a worker.
async fn a_task_that_was_cancelled_in_the_queue_never_runs() {
    const SOURCE: &str = "\
def f(directory, n):
    import os, time
    open(os.path.join(directory, str(n)), 'w').close()
    while n == 0 and not os.path.exists(os.path.join(directory, 'go')):
        time.sleep(0.01)
    return n
";
    let mut rig = Rig::start(json!({"max_workers_per_node": 1, "prefetch_capacity": 4})).await;
    let scratch = tempfile::tempdir().unwrap();
    let ids: Vec<_> = (0..12).map(|n| rig.call(SOURCE, json!([scratch.path(), n]))).collect();
    while !scratch.path().join("0").exists() {
        drop(tokio::time::timeout(Duration::from_millis(10), rig.next_event()).await);
    }
    for id in ids[1..].iter().step_by(2) {
        rig.handle.cancel(*id).unwrap();
        let Outcome::Raised { code, .. } = rig.end_of(*id).await else { panic!("cancelled") };
        assert_eq!(code, "TaskCancelled", "while the one before still runs");
    }
    std::fs::write(scratch.path().join("go"), "").unwrap();
    for (n, id) in ids.iter().enumerate().step_by(2) {
        assert_eq!(rig.end_of(*id).await.value(), n);
    }
    let ran = (0..12).filter(|n| scratch.path().join(n.to_string()).exists());
    assert_eq!(ran.collect::<Vec<_>>(), [0, 2, 4, 6, 8, 10]);
}
