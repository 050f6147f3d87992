//! What a batch job grants: accelerators, cores and memory.

use serde_json::{Value, json};

use crate::cases::cases;
use crate::rig::Rig;

cases! {
    workers_see_the_accelerators_that_the_job_was_granted,
    workers_share_the_nvidia_devices_of_a_job_that_was_granted_fewer,
    a_node_refuses_more_accelerators_than_its_job_was_granted,
    slots_are_counted_by_what_the_job_was_granted,
}

fn options(job: &str, mut more: Value) -> Value {
    more["provider"] = json!({"type": "LocalProvider", "worker_init": format!("export {job}")});
    more
}

/// Waits until as many workers run this function, and returns the worker's variables.
const SEEN: &str = "\
def f(path, n, workers):
    import os, time
    open('%s/%d' % (path, n), 'w').close()
    while len(os.listdir(path)) < workers:
        time.sleep(0.02)
    return [os.environ.get(name) for name in ('CUDA_VISIBLE_DEVICES', 'ROCR_VISIBLE_DEVICES', 'HIP_VISIBLE_DEVICES')]
";

async fn workers_see_the_accelerators_that_the_job_was_granted() {
    for (job, expected) in [
        ("CUDA_VISIBLE_DEVICES=4,5", json!([["4", null, null], ["5", null, null]])),
        ("ROCR_VISIBLE_DEVICES=6,7 HIP_VISIBLE_DEVICES=0,1", json!([[null, "6", "0"], [null, "7", "0"]])),
    ] {
        assert_eq!(seen(options(job, json!({"available_accelerators": 2})), 2).await, expected);
    }
}

/// As with Parsl, whose documentation recommends it for NVIDIA's Multi-Process Service.
async fn workers_share_the_nvidia_devices_of_a_job_that_was_granted_fewer() {
    let more = json!({"available_accelerators": 4, "max_workers_per_node": 4, "cores_per_worker": 0.25});
    let seen = seen(options("CUDA_VISIBLE_DEVICES=4,5", more), 4).await;
    let device = |name: &str| json!([name, null, null]);
    assert_eq!(seen, json!([device("4"), device("4"), device("5"), device("5")]));
}

/// The variables of each worker, sorted.
async fn seen(options: Value, workers: usize) -> Value {
    let mut rig = Rig::start(options).await;
    let path = rig.path().join("here");
    std::fs::create_dir(&path).unwrap();
    let ids: Vec<_> = (0..workers).map(|n| rig.call(SEEN, json!([path, n, workers]))).collect();
    let mut seen = Vec::new();
    for id in ids {
        seen.push(rig.end_of(id).await.value().clone());
    }
    seen.sort_by_key(Value::to_string);
    seen.into()
}

async fn a_node_refuses_more_accelerators_than_its_job_was_granted() {
    let job = "ROCR_VISIBLE_DEVICES=GPU-8932f937,GPU-1f2e";
    let mut rig = Rig::start(options(job, json!({"available_accelerators": 4}))).await;
    let text = rig.bad_state().await;
    let words = "available_accelerators asks for 4 accelerators, and ROCR_VISIBLE_DEVICES=GPU-8932f937,GPU-1f2e grants 2.";
    assert!(text.contains(words), "{text}");
}

async fn slots_are_counted_by_what_the_job_was_granted() {
    let many = || json!({"max_workers_per_node": null, "cores_per_worker": 0.25});
    for (job, more, workers) in [
        ("SLURM_JOB_ID=7 SLURM_CPUS_ON_NODE=1", many(), 4),
        ("PBS_JOBID=7 NCPUS=1", many(), 4),
        ("JOB_ID=7 NSLOTS=1 SLURM_JOB_ID=7 SLURM_MEM_PER_NODE=2048", json!({"mem_per_worker": 2.0}), 1),
    ] {
        let mut rig = Rig::start(options(job, more)).await;
        rig.run("def f(): return 1\n", json!([])).await.value();
        assert_eq!(rig.handle.report().await.unwrap().total_workers, workers, "{job}");
    }
    let mut rig =
        Rig::start(options("SLURM_JOB_ID=7 SLURM_MEM_PER_NODE=2048", json!({"mem_per_worker": 3.0}))).await;
    let text = rig.bad_state().await;
    assert!(text.contains("2 GiB (by SLURM_MEM_PER_NODE)"), "{text}");
}
