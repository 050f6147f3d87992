//! Many workers on one node, and the limit of open files.

use serde_json::{Value, json};

use crate::cases::cases;
use crate::rig::{Rig, alive, until};

cases! {
    a_hard_limit_of_open_files_limits_the_workers_and_is_reported,
    users_keep_their_soft_limit_of_open_files_and_256_workers_are_ended_side_by_side,
}

fn options(limit: &str, workers: u32) -> Value {
    json!({
        "max_workers_per_node": workers,
        "cores_per_worker": 0.001,
        "provider": {"type": "LocalProvider", "worker_init": limit},
    })
}

async fn a_hard_limit_of_open_files_limits_the_workers_and_is_reported() {
    let mut rig = Rig::start(options("ulimit -n 256", 256)).await;
    let limits = "def f():\n    import resource\n    return resource.getrlimit(resource.RLIMIT_NOFILE)\n";
    assert_eq!(rig.run(limits, json!([])).await.value(), &json!([256, 256]));
    let report = serde_json::to_value(rig.handle.report().await.unwrap()).unwrap();
    let workers = report["total_workers"].as_u64().unwrap();
    assert!((20..60).contains(&workers), "{report}");
    let text = report["slots_missing"].as_str().unwrap();
    assert!(text.contains(&format!("{workers} of 256 workers fit: ")), "{text}");
    // As many workers as reported exist: each waits for the others.
    let path = rig.path().join("here");
    std::fs::create_dir(&path).unwrap();
    let ids: Vec<_> = (0..workers).map(|n| rig.call(MEET, json!([path, n, workers]))).collect();
    for id in ids {
        rig.end_of(id).await.value();
    }
}

/// Waits until so many workers run it, and starts a process that only its parent ties to the worker. The last to come
/// makes the file `all` that the others wait for: that many of them must not list the directory again and again.
const MEET: &str = "\
def f(path, n, count):
    import os, resource, subprocess, time
    open('%s/%d' % (path, n), 'w').close()
    if len(os.listdir(path)) >= count:
        open(path + '/all', 'w').close()
    while not os.path.exists(path + '/all'):
        time.sleep(0.05)
    escaped = subprocess.Popen(['env', '-i', 'sleep', '1000'], start_new_session=True)
    return [os.getpid(), escaped.pid, resource.getrlimit(resource.RLIMIT_NOFILE)[0]]
";

/// There are more workers than the users' limit allows. They must end within the provider's grace period of two
/// seconds, or the processes that they have started would outlive them.
async fn users_keep_their_soft_limit_of_open_files_and_256_workers_are_ended_side_by_side() {
    let count = 256;
    let mut rig = Rig::start(options("ulimit -Sn 256", count)).await;
    let path = rig.path().join("here");
    std::fs::create_dir(&path).unwrap();
    let ids: Vec<_> = (0..count).map(|n| rig.call(MEET, json!([path, n, count]))).collect();
    let mut pids = Vec::new();
    for id in ids {
        let [worker, escaped, limit] =
            <[Value; 3]>::try_from(rig.end_of(id).await.value().as_array().unwrap().clone()).unwrap();
        assert_eq!(limit, 256, "what users had");
        pids.extend([worker, escaped].map(|pid| pid.as_i64().unwrap()));
    }
    let open = "def f():\n    import os\n    return len(os.listdir('/proc/%d/fd' % os.getppid()))\n";
    let open = rig.run(open, json!([])).await.value().as_u64().unwrap();
    assert!(open <= u64::from(5 * count + 32), "what a worker costs its node: {open} for {count}");
    let report = serde_json::to_value(rig.handle.report().await.unwrap()).unwrap();
    assert_eq!((&report["total_workers"], report.get("slots_missing")), (&json!(count), None));
    rig.stop(std::time::Duration::ZERO).await;
    until(|| !pids.iter().any(|pid| alive(*pid))).await;
}
