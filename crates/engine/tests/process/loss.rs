//! What is lost when a worker, a node or the link dies, and what is not.

use serde_json::json;

use crate::cases::cases;
use crate::proxy::Cut;
use crate::rig::{Outcome, Rig};

cases! {
    killing_at_random_loses_nothing_and_repeats_nothing,
    a_reset_link_costs_what_was_running_and_no_more,
    a_link_that_swallows_everything_is_noticed_by_its_silence,
    a_link_that_only_the_node_has_lost_is_noticed_by_its_silence,
    fifty_simulated_nodes_take_a_burst_and_lose_nothing,
    a_long_task_does_not_hold_up_the_short_ones_behind_it,
    what_lay_ahead_of_a_worker_that_died_runs_elsewhere,
}

/// Notes in the file that it has run, takes a moment, and says who runs it.
const NOTED: &str = "\
def f(path, n):
    import os, time
    with open(path, 'a') as file:
        file.write('%d\\n' % n)
    time.sleep(0.003)
    return [os.getpid(), os.getppid()]
";

/// How often each of so many tasks has run.
fn runs(path: &std::path::Path, count: usize) -> Vec<usize> {
    let mut times = vec![0; count];
    let ran = std::fs::read_to_string(path).unwrap_or_default();
    ran.lines().for_each(|line| times[line.parse::<usize>().unwrap()] += 1);
    times
}

/// The same numbers for the same seed, so that a failure can be had again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Kills workers, nodes and the link while tasks run. Every task ends once (the rig insists), none has run more often
/// than the retries allow, and what returned has run.
async fn killing_at_random_loses_nothing_and_repeats_nothing() {
    for (seed, retries) in [(0x5eed, 0), (0xfa11, 2)] {
        let options = json!({"max_retries_on_system_failure": retries, "max_workers_per_node": 3});
        let (mut rig, proxy) = Rig::start_behind_proxy(options).await;
        let path = rig.path().join("ran");
        let ids: Vec<_> = (0..400).map(|n| rig.call(NOTED, json!([path, n]))).collect();
        let (mut chance, mut hits, mut quiet, mut returned) = (Chance(seed), [0; 3], 0, 0);
        for id in &ids {
            let Outcome::Returned(pids) = rig.end_of(*id).await else { continue };
            returned += 1;
            quiet += 1;
            // Something must come back in between, or no block would seem to work.
            if quiet < 10 || chance.below(8) > 0 {
                continue;
            }
            quiet = 0;
            // A worker now and then, its node or the link less often.
            let victim = [0, 0, 0, 1, 2][chance.below(5) as usize];
            hits[victim] += 1;
            match pids.get(victim) {
                Some(pid) => {
                    let pid = nix::unistd::Pid::from_raw(pid.as_i64().unwrap() as i32);
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL); // gone already is as good
                }
                None => proxy.cut(Cut::Reset),
            }
        }
        let times = runs(&path, ids.len());
        assert!(times.iter().all(|times| *times <= 1 + retries), "{times:?}");
        for (id, times) in ids.iter().zip(&times) {
            assert!(*times > 0 || matches!(rig.known(*id), Some(Outcome::Raised { .. })));
        }
        assert!(hits.iter().all(|hits| *hits > 0), "seed {seed:x}: {hits:?}");
        assert!(returned > 300, "{returned} returned");
    }
}

/// Cuts the link under load. What the lost node had been sent ends so; the rest runs on the node that comes after it;
/// nothing runs twice.
async fn cut_under_load(how: Cut) {
    // Five seconds is little for a crowded machine, and as long as a lost task may take to be told here.
    let options = json!({"heartbeat_period": 1, "heartbeat_threshold": 5, "max_workers_per_node": 3});
    let (mut rig, proxy) = Rig::start_behind_proxy(options).await;
    let path = rig.path().join("ran");
    let ids: Vec<_> = (0..300).map(|n| rig.call(NOTED, json!([path, n]))).collect();
    rig.end_of(ids[20]).await;
    proxy.cut(how);
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
    assert!(lost > 0, "the cut went unnoticed");
    rig.run(NOTED, json!([path, 0])).await.value();
}

async fn a_reset_link_costs_what_was_running_and_no_more() {
    cut_under_load(Cut::Reset).await;
}

async fn a_link_that_swallows_everything_is_noticed_by_its_silence() {
    cut_under_load(Cut::Blackhole).await;
}

async fn a_link_that_only_the_node_has_lost_is_noticed_by_its_silence() {
    cut_under_load(Cut::HalfOpen).await;
}

/// The small sister of `bench nodes`. The rig insists on one end for each task.
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

/// Short tasks make the worker quick, so that some are given to it ahead, behind the long one.
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

/// No retry is allowed, and yet one task only is lost.
async fn what_lay_ahead_of_a_worker_that_died_runs_elsewhere() {
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
