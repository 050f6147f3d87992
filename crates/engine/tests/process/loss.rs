//! What is lost when a worker, a node or the link fails, and what is not.

use serde_json::json;

use crate::cases::cases;
use crate::proxy::LinkFault;
use crate::rig::{Outcome, Rig, alive, until};

cases! {
    killing_at_random_loses_nothing_and_repeats_nothing,
    links_that_fail_at_random_lose_nothing_and_repeat_nothing,
    a_reset_link_loses_only_running_tasks,
    a_link_that_drops_everything_is_detected_by_missing_heartbeats,
    a_link_closed_for_the_node_only_is_detected_by_missing_heartbeats,
    a_link_closed_for_the_engine_only_loses_only_running_tasks,
    a_half_closed_link_loses_only_running_tasks,
    a_link_torn_within_a_frame_loses_only_running_tasks,
    a_slow_link_loses_no_task,
    a_frame_that_takes_longer_than_the_heartbeat_threshold_keeps_the_link_alive,
    a_node_without_heartbeats_from_its_engine_ends,
    fifty_simulated_nodes_take_a_burst_and_lose_nothing,
    a_long_task_does_not_hold_up_the_short_ones_behind_it,
    prefetched_tasks_of_a_dead_worker_run_elsewhere,
}

/// Writes to the file that it has run, takes a moment, and returns its process and its node.
const NOTED: &str = "\
def f(path, n):
    import os, time
    with open(path, 'a') as file:
        file.write('%d\\n' % n)
    time.sleep(0.003)
    return [os.getpid(), os.getppid()]
";

/// How often each task has run.
fn runs(path: &std::path::Path, count: usize) -> Vec<usize> {
    let mut times = vec![0; count];
    let ran = std::fs::read_to_string(path).unwrap_or_default();
    ran.lines().for_each(|line| times[line.parse::<usize>().unwrap()] += 1);
    times
}

/// Random numbers that are the same for the same seed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What fails while tasks run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Accident {
    Worker,
    Node,
    Link(LinkFault),
}

/// Causes up to `most` accidents at random moments while tasks run. Every task ends once (which the rig checks), none
/// runs more often than the retries allow, and every task that returned has run.
async fn accidents(seed: u64, retries: usize, among: &[Accident], most: usize) {
    // A silent link is detected after five seconds: short for a busy machine, but the test waits that long for it.
    let options = json!({
        "max_retries_on_system_failure": retries,
        "max_workers_per_node": 3,
        "heartbeat_period": 1,
        "heartbeat_threshold": 5,
    });
    let (mut rig, proxy) = Rig::start_behind_proxy(options).await;
    let path = rig.path().join("ran");
    let ids: Vec<_> = (0..400).map(|n| rig.call(NOTED, json!([path, n]))).collect();
    let (mut random, mut happened, mut quiet, mut returned) = (Random(seed), Vec::new(), 0, 0);
    for id in &ids {
        let Outcome::Returned(pids) = rig.end_of(*id).await else { continue };
        returned += 1;
        quiet += 1;
        // Some results must come between two accidents, or the engine would enter bad state.
        if quiet < 10 || random.below(8) > 0 || happened.len() == most {
            continue;
        }
        quiet = 0;
        let accident = among[happened.len() % among.len()];
        happened.push(accident);
        let pid = match accident {
            Accident::Worker => &pids[0],
            Accident::Node => &pids[1],
            Accident::Link(how) => {
                proxy.inject(how);
                continue;
            }
        };
        let pid = nix::unistd::Pid::from_raw(pid.as_i64().unwrap() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL); // it may have ended already
    }
    let times = runs(&path, ids.len());
    assert!(times.iter().all(|times| *times <= 1 + retries), "{times:?}");
    for (id, times) in ids.iter().zip(&times) {
        assert!(*times > 0 || matches!(rig.known(*id), Some(Outcome::Raised { .. })));
    }
    assert!(among.iter().all(|accident| happened.contains(accident)), "seed {seed:x}: {happened:?}");
    // Each accident loses the running tasks, together about a quarter of all.
    assert!(returned > 250, "{returned} returned");
}

async fn killing_at_random_loses_nothing_and_repeats_nothing() {
    let reset = Accident::Link(LinkFault::Reset);
    // Workers more often than the node or the link.
    let among = [Accident::Worker, Accident::Worker, Accident::Worker, Accident::Node, reset];
    for (seed, retries) in [(0x5eed, 0), (0xfa11, 2)] {
        accidents(seed, retries, &among, usize::MAX).await;
    }
}

async fn links_that_fail_at_random_lose_nothing_and_repeat_nothing() {
    let links = [
        LinkFault::Reset,
        LinkFault::Blackhole,
        LinkFault::NodeOnly,
        LinkFault::EngineOnly,
        LinkFault::HalfClosed,
        LinkFault::Torn,
        LinkFault::Slow(100_000),
    ];
    let among: Vec<_> = links.map(Accident::Link).into_iter().chain([Accident::Worker]).collect();
    accidents(0xc0de, 1, &among, 10).await;
}

/// Makes the link fail under load. The tasks that the lost node had been sent fail; the others run on the next node;
/// nothing runs twice.
async fn fail_link_under_load(how: LinkFault) {
    // Five seconds are short for a busy machine, but the test waits that long for lost tasks.
    let options = json!({"heartbeat_period": 1, "heartbeat_threshold": 5, "max_workers_per_node": 3});
    let (mut rig, proxy) = Rig::start_behind_proxy(options).await;
    let path = rig.path().join("ran");
    let ids: Vec<_> = (0..300).map(|n| rig.call(NOTED, json!([path, n]))).collect();
    rig.end_of(ids[20]).await;
    proxy.inject(how);
    let mut lost = 0;
    for id in &ids {
        match rig.end_of(*id).await {
            Outcome::Returned(_) => {}
            Outcome::Raised { text, .. } => {
                assert!(text.contains("ManagerLost: Task failure due to loss of manager"), "{text}");
                lost += 1;
            }
            Outcome::HandedBack => panic!("the engine was not stopped"),
        }
    }
    let times = runs(&path, ids.len());
    assert!(times.iter().all(|times| *times <= 1), "{times:?}");
    assert!(lost > 0, "the failure of the link was not detected");
    rig.run(NOTED, json!([path, 0])).await.value();
}

async fn a_reset_link_loses_only_running_tasks() {
    fail_link_under_load(LinkFault::Reset).await;
}

async fn a_link_that_drops_everything_is_detected_by_missing_heartbeats() {
    fail_link_under_load(LinkFault::Blackhole).await;
}

async fn a_link_closed_for_the_node_only_is_detected_by_missing_heartbeats() {
    fail_link_under_load(LinkFault::NodeOnly).await;
}

async fn a_link_closed_for_the_engine_only_loses_only_running_tasks() {
    fail_link_under_load(LinkFault::EngineOnly).await;
}

async fn a_half_closed_link_loses_only_running_tasks() {
    fail_link_under_load(LinkFault::HalfClosed).await;
}

async fn a_link_torn_within_a_frame_loses_only_running_tasks() {
    fail_link_under_load(LinkFault::Torn).await;
}

async fn a_slow_link_loses_no_task() {
    let (mut rig, proxy) = Rig::start_behind_proxy(json!({"max_workers_per_node": 3})).await;
    let path = rig.path().join("ran");
    let ids: Vec<_> = (0..300).map(|n| rig.call(NOTED, json!([path, n]))).collect();
    rig.end_of(ids[20]).await;
    proxy.inject(LinkFault::Slow(100_000));
    for id in &ids {
        rig.end_of(*id).await.value();
    }
    assert_eq!(runs(&path, ids.len()), vec![1; ids.len()]);
}

/// It takes half as long again, each way: bytes count as contact, not only whole frames.
async fn a_frame_that_takes_longer_than_the_heartbeat_threshold_keeps_the_link_alive() {
    let options = json!({"heartbeat_period": 1, "heartbeat_threshold": 5, "max_workers_per_node": 1});
    let (mut rig, proxy) = Rig::start_behind_proxy(options).await;
    let before = rig.run(NODE, json!(["warm"])).await;
    proxy.inject(LinkFault::Slow(100_000));
    let outcome = rig.run(NODE, json!(["x".repeat(800_000)])).await;
    assert_eq!(outcome.value()[0], before.value()[0], "the same node");
    assert_eq!(outcome.value()[1].as_str().unwrap().len(), 800_000);
}

/// Returns the node that it runs on, and its argument.
const NODE: &str = "def f(data):\n    import os\n    return [os.getppid(), data]\n";

/// Its workers end with it.
async fn a_node_without_heartbeats_from_its_engine_ends() {
    let options = json!({
        "heartbeat_period": 1,
        "heartbeat_threshold": 4,
        "max_workers_per_node": 1,
        // The next task may be sent to the node before the engine knows that it is lost.
        "max_retries_on_system_failure": 1,
    });
    for how in [LinkFault::Blackhole, LinkFault::EngineOnly] {
        let (mut rig, proxy) = Rig::start_behind_proxy(options.clone()).await;
        let path = rig.path().join("ran");
        let outcome = rig.run(NOTED, json!([path, 0])).await;
        let pids: Vec<_> =
            outcome.value().as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect();
        proxy.inject(how);
        until(|| pids.iter().all(|pid| !alive(*pid))).await;
        rig.run(NOTED, json!([path, 0])).await.value();
    }
}

/// A small version of `bench nodes`. The rig checks that each task ends once.
async fn fifty_simulated_nodes_take_a_burst_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start_in(dir, &["simulate", "50", "128"], json!({"max_workers_per_node": 128})).await;
    let ids: Vec<_> = (0..20_000).map(|_| rig.call("def f(): pass\n", json!([]))).collect();
    for id in ids {
        assert!(matches!(rig.end_of(id).await, Outcome::Returned(_)));
    }
    let report = rig.handle.report().await.unwrap();
    assert_eq!((report.managers, report.total_workers, report.outstanding_tasks), (50, 6400, 0));
}

/// Short tasks make the worker quick, so that some are prefetched to it behind the long one.
async fn a_long_task_does_not_hold_up_the_short_ones_behind_it() {
    const SOURCE: &str = "\
def f(path, n):
    import os, time
    while n == 100 and not os.path.exists(path):
        time.sleep(0.005)
    return n
";
    let mut rig = Rig::start(json!({"max_workers_per_node": 2})).await;
    let path = rig.path().join("go on");
    rig.run(SOURCE, json!([path, 0])).await;
    let ids: Vec<_> = (0..400).map(|n| rig.call(SOURCE, json!([path, n]))).collect();
    for (n, id) in ids.iter().enumerate().filter(|(n, _)| *n != 100) {
        assert_eq!(rig.end_of(*id).await.value(), n, "the long one still runs");
    }
    assert_eq!(rig.known(ids[100]), None);
    std::fs::write(path, "").unwrap();
    assert_eq!(rig.end_of(ids[100]).await.value(), 100);
}

/// No retry is allowed, and yet only the running task is lost.
async fn prefetched_tasks_of_a_dead_worker_run_elsewhere() {
    const SOURCE: &str = "\
def f(path, n):
    import os
    with open(path, 'a') as file:
        file.write('%d\\n' % n)
    if n % 100 == 99:
        os._exit(1)
    return n
";
    let mut rig = Rig::start(json!({"max_workers_per_node": 2})).await;
    let path = rig.path().join("ran");
    let ids: Vec<_> = (0..400).map(|n| rig.call(SOURCE, json!([path, n]))).collect();
    for (n, id) in ids.iter().enumerate() {
        match rig.end_of(*id).await {
            Outcome::Raised { text, .. } if n % 100 == 99 => assert!(text.contains("WorkerLost"), "{text}"),
            outcome => assert_eq!(outcome.value(), n),
        }
    }
    assert_eq!(runs(&path, ids.len()), vec![1; ids.len()]);
}
