//! What is lost when a worker, a node or the link dies, and what is not.

use serde_json::json;

use crate::cases::cases;
use crate::proxy::Cut;
use crate::rig::{Outcome, Rig, alive, until};

cases! {
    killing_at_random_loses_nothing_and_repeats_nothing,
    links_that_fail_at_random_lose_nothing_and_repeat_nothing,
    a_reset_link_costs_what_was_running_and_no_more,
    a_link_that_swallows_everything_is_noticed_by_its_silence,
    a_link_that_only_the_node_has_lost_is_noticed_by_its_silence,
    a_link_that_only_the_engine_has_lost_costs_what_was_running_and_no_more,
    a_half_closed_link_costs_what_was_running_and_no_more,
    a_link_torn_within_a_frame_costs_what_was_running_and_no_more,
    a_slow_link_costs_nothing,
    a_frame_that_takes_longer_than_the_silence_allowed_is_no_silence,
    a_node_that_hears_nothing_any_more_leaves,
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

/// What may go wrong while tasks run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Accident {
    Worker,
    Node,
    Link(Cut),
}

/// Lets accidents happen while tasks run, `most` at most: one after the other, at random moments. Every task ends once
/// (the rig insists), none has run more often than the retries allow, and what returned has run.
async fn accidents(seed: u64, retries: usize, among: &[Accident], most: usize) {
    // Silence is noticed after five seconds: little for a crowded machine, and as long as this may wait for it.
    let options = json!({
        "max_retries_on_system_failure": retries,
        "max_workers_per_node": 3,
        "heartbeat_period": 1,
        "heartbeat_threshold": 5,
    });
    let (mut rig, proxy) = Rig::start_behind_proxy(options).await;
    let path = rig.path().join("ran");
    let ids: Vec<_> = (0..400).map(|n| rig.call(NOTED, json!([path, n]))).collect();
    let (mut chance, mut happened, mut quiet, mut returned) = (Chance(seed), Vec::new(), 0, 0);
    for id in &ids {
        let Outcome::Returned(pids) = rig.end_of(*id).await else { continue };
        returned += 1;
        quiet += 1;
        // Something must come back in between, or no block would seem to work.
        if quiet < 10 || chance.below(8) > 0 || happened.len() == most {
            continue;
        }
        quiet = 0;
        let accident = among[happened.len() % among.len()];
        happened.push(accident);
        let pid = match accident {
            Accident::Worker => &pids[0],
            Accident::Node => &pids[1],
            Accident::Link(how) => {
                proxy.cut(how);
                continue;
            }
        };
        let pid = nix::unistd::Pid::from_raw(pid.as_i64().unwrap() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL); // gone already is as good
    }
    let times = runs(&path, ids.len());
    assert!(times.iter().all(|times| *times <= 1 + retries), "{times:?}");
    for (id, times) in ids.iter().zip(&times) {
        assert!(*times > 0 || matches!(rig.known(*id), Some(Outcome::Raised { .. })));
    }
    assert!(among.iter().all(|accident| happened.contains(accident)), "seed {seed:x}: {happened:?}");
    // Each accident costs what ran; about a quarter of all, as the accidents fall.
    assert!(returned > 250, "{returned} returned");
}

async fn killing_at_random_loses_nothing_and_repeats_nothing() {
    let reset = Accident::Link(Cut::Reset);
    // A worker now and then, its node or the link less often.
    let among = [Accident::Worker, Accident::Worker, Accident::Worker, Accident::Node, reset];
    for (seed, retries) in [(0x5eed, 0), (0xfa11, 2)] {
        accidents(seed, retries, &among, usize::MAX).await;
    }
}

async fn links_that_fail_at_random_lose_nothing_and_repeat_nothing() {
    let links = [
        Cut::Reset,
        Cut::Blackhole,
        Cut::NodeOnly,
        Cut::EngineOnly,
        Cut::HalfClosed,
        Cut::Torn,
        Cut::Slow(100_000),
    ];
    let among: Vec<_> = links.map(Accident::Link).into_iter().chain([Accident::Worker]).collect();
    accidents(0xc0de, 1, &among, 10).await;
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
    cut_under_load(Cut::NodeOnly).await;
}

async fn a_link_that_only_the_engine_has_lost_costs_what_was_running_and_no_more() {
    cut_under_load(Cut::EngineOnly).await;
}

async fn a_half_closed_link_costs_what_was_running_and_no_more() {
    cut_under_load(Cut::HalfClosed).await;
}

async fn a_link_torn_within_a_frame_costs_what_was_running_and_no_more() {
    cut_under_load(Cut::Torn).await;
}

async fn a_slow_link_costs_nothing() {
    let (mut rig, proxy) = Rig::start_behind_proxy(json!({"max_workers_per_node": 3})).await;
    let path = rig.path().join("ran");
    let ids: Vec<_> = (0..300).map(|n| rig.call(NOTED, json!([path, n]))).collect();
    rig.end_of(ids[20]).await;
    proxy.cut(Cut::Slow(100_000));
    for id in &ids {
        rig.end_of(*id).await.value();
    }
    assert_eq!(runs(&path, ids.len()), vec![1; ids.len()]);
}

/// Half as long again, each way: what is heard are bytes, not only whole frames.
async fn a_frame_that_takes_longer_than_the_silence_allowed_is_no_silence() {
    let options = json!({"heartbeat_period": 1, "heartbeat_threshold": 5, "max_workers_per_node": 1});
    let (mut rig, proxy) = Rig::start_behind_proxy(options).await;
    let before = rig.run(NODE, json!(["warm"])).await;
    proxy.cut(Cut::Slow(100_000));
    let outcome = rig.run(NODE, json!(["x".repeat(800_000)])).await;
    assert_eq!(outcome.value()[0], before.value()[0], "the same node");
    assert_eq!(outcome.value()[1].as_str().unwrap().len(), 800_000);
}

/// Which node it runs on, and its argument again.
const NODE: &str = "def f(data):\n    import os\n    return [os.getppid(), data]\n";

/// Its workers go with it: nobody wants their results.
async fn a_node_that_hears_nothing_any_more_leaves() {
    let options = json!({
        "heartbeat_period": 1,
        "heartbeat_threshold": 4,
        "max_workers_per_node": 1,
        // The next task may be sent to the node that nobody knows to be lost.
        "max_retries_on_system_failure": 1,
    });
    for how in [Cut::Blackhole, Cut::EngineOnly] {
        let (mut rig, proxy) = Rig::start_behind_proxy(options.clone()).await;
        let path = rig.path().join("ran");
        let outcome = rig.run(NOTED, json!([path, 0])).await;
        let pids: Vec<_> =
            outcome.value().as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect();
        proxy.cut(how);
        until(|| pids.iter().all(|pid| !alive(*pid))).await;
        rig.run(NOTED, json!([path, 0])).await.value();
    }
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
