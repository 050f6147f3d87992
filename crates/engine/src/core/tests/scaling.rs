//! Scaling: each strategy, the limits, draining, and what failed blocks lead to.

use super::*;

fn rules_with(change: impl FnOnce(&mut ScalingRules)) -> Rules {
    let mut rules = rules();
    change(&mut rules.scaling);
    rules
}

fn requested_blocks(actions: &[Action]) -> Vec<u32> {
    actions
        .iter()
        .flat_map(|action| match action {
            Action::SubmitBlocks(blocks) => blocks.clone(),
            _ => Vec::new(),
        })
        .collect()
}

fn cancelled_blocks(actions: &[Action]) -> Vec<u32> {
    actions
        .iter()
        .flat_map(|action| match action {
            Action::CancelBlocks(blocks) => blocks.clone(),
            _ => Vec::new(),
        })
        .collect()
}

/// All blocks that an engine requests at its start and for so many tasks.
fn after_tasks(rules: Rules, tasks: u64) -> Vec<u32> {
    let mut core = Core::new(rules);
    let mut blocks = requested_blocks(&core.apply(Input::Started, ms(0)));
    for n in 0..tasks {
        blocks.extend(requested_blocks(&core.apply(submit(n), ms(0))));
    }
    blocks
}

#[test]
fn blocks_are_asked_for_as_the_options_say() {
    for (what, rules, tasks, blocks) in [
        ("init only", rules_with(|w| (w.init, w.max) = (2, 5)), 0, 2),
        ("never above max, at the start either", rules_with(|w| (w.init, w.max) = (7, 3)), 0, 3),
        ("one for each task", rules_with(|w| (w.init, w.max) = (0, 5)), 3, 3),
        ("no more than max", rules_with(|w| (w.init, w.max) = (0, 5)), 30, 5),
        (
            "slots count",
            rules_with(|w| (w.init, w.max, w.workers_per_node, w.nodes_per_block) = (0, 9, 2, 3)),
            13,
            3,
        ),
        ("half as parallel", rules_with(|w| (w.init, w.max, w.parallelism) = (0, 9, 0.5)), 6, 3),
        ("not parallel: one", rules_with(|w| (w.init, w.max, w.parallelism) = (0, 9, 0.0)), 6, 1),
        (
            "none: the first ones",
            rules_with(|w| (w.strategy, w.init, w.max) = (ScalingStrategy::None, 1, 9)),
            6,
            1,
        ),
        ("none may be wanted", rules_with(|w| (w.init, w.max) = (0, 0)), 6, 0),
    ] {
        assert_eq!(after_tasks(rules, tasks).len(), blocks, "{what}");
    }
}

#[test]
fn idle_blocks_are_released_down_to_the_minimum() {
    for strategy in [ScalingStrategy::Simple, ScalingStrategy::HtexAutoScale] {
        let rules = rules_with(|w| {
            (w.strategy, w.init, w.min, w.max, w.max_idle) = (strategy, 3, 1, 3, Duration::from_secs(10));
        });
        let mut core = Core::new(rules);
        core.apply(Input::Started, ms(0));
        for block in 0..3 {
            core.apply(join_block(block, block as u32, 1), ms(0));
        }
        assert_eq!(core.wake_at(), Some(Duration::from_secs(10)));
        assert_eq!(core.apply(Input::Tick, ms(9_999)), []);
        let actions = core.apply(Input::Tick, ms(10_000));
        assert_eq!(cancelled_blocks(&actions).len(), 2, "{actions:?}");
        assert_eq!(core.apply(Input::Tick, ms(90_000)), [], "the minimum stays");
    }
    let none = rules_with(|w| (w.strategy, w.max_idle) = (ScalingStrategy::None, ms(1)));
    let mut core = Core::new(none);
    core.apply(Input::Started, ms(0));
    core.apply(join(1, 1), ms(0));
    assert_eq!(core.apply(Input::Tick, ms(100)), [], "this strategy does not scale");
}

#[test]
fn a_task_clears_the_idle_time() {
    let mut core = Core::new(rules_with(|w| w.max_idle = Duration::from_secs(10)));
    core.apply(Input::Started, ms(0));
    core.apply(join(1, 1), ms(0));
    core.apply(submit(1), ms(9_000));
    core.apply(begun(&[1]), ms(9_000));
    core.apply(ended(1, 1), ms(9_500));
    assert_eq!(core.apply(Input::Tick, ms(10_000)), []);
    assert_eq!(cancelled_blocks(&core.apply(Input::Tick, ms(19_500))), [0]);
}

#[test]
fn htex_auto_scale_gives_back_idle_blocks_while_others_work() {
    let rules = |strategy| {
        rules_with(|w| (w.strategy, w.init, w.max, w.max_idle) = (strategy, 4, 4, Duration::from_secs(2)))
    };
    for (strategy, gone) in
        [(ScalingStrategy::Simple, vec![]), (ScalingStrategy::HtexAutoScale, vec![2, 1, 3])]
    {
        let mut core = Core::new(rules(strategy));
        core.apply(Input::Started, ms(0));
        core.apply(join_block(10, 0, 1), ms(0));
        core.apply(submit(1), ms(0));
        core.apply(begun(&[1]), ms(0));
        for (node, block, at) in [(12, 2, 100), (11, 1, 200), (13, 3, 300)] {
            core.apply(join_block(node, block, 1), ms(at));
        }
        let mut found = Vec::new();
        let mut clock = ms(300);
        while let Some(wake) = core.wake_at().filter(|wake| *wake < Duration::from_secs(20)) {
            clock = wake.max(clock + ms(1));
            found.extend(cancelled_blocks(&core.apply(Input::Tick, clock)));
        }
        assert_eq!(found, gone, "the longest idle first, and never the one that works: {strategy:?}");
        assert_eq!(core.apply(ended(10, 1), Duration::from_secs(30)), [Action::Deliver(id(1))]);
    }
}

#[test]
fn a_block_half_of_whose_nodes_work_is_not_idle() {
    let rules = rules_with(|w| {
        (w.strategy, w.init, w.max) = (ScalingStrategy::HtexAutoScale, 2, 2);
        (w.nodes_per_block, w.max_idle) = (2, ms(10));
    });
    let mut core = Core::new(rules);
    core.apply(Input::Started, ms(0));
    core.apply(join_block(1, 0, 1), ms(0));
    core.apply(submit(1), ms(0));
    core.apply(begun(&[1]), ms(0));
    core.apply(join_block(2, 0, 1), ms(0));
    assert_eq!(
        cancelled_blocks(&core.apply(Input::Tick, ms(500))),
        [] as [u32; 0],
        "block 1 has no node yet"
    );
    core.apply(join_block(3, 1, 1), ms(500));
    assert_eq!(cancelled_blocks(&core.apply(Input::Tick, ms(1000))), [1]);
}

#[test]
fn a_draining_node_gives_back_what_it_has_not_begun_and_goes_when_it_is_idle() {
    let mut rules = rules_with(|w| (w.init, w.max) = (1, 2));
    rules.drain_period = Some(Duration::from_secs(60));
    rules.prefetch = 1;
    let mut core = Core::new(rules);
    core.apply(Input::Started, ms(0));
    core.apply(join(1, 1), ms(0));
    assert!(core.wake_at().unwrap() <= Duration::from_secs(60));
    core.apply(submit(1), ms(0));
    core.apply(begun(&[1]), ms(0));
    core.apply(submit(2), ms(0)); // requests a second block
    core.apply(begun(&[2]), ms(0));
    assert_eq!(core.apply(Input::Tick, Duration::from_secs(60)), [Action::Recall(NodeKey(1))]);
    assert_eq!(core.apply(submit(3), Duration::from_secs(61)), [], "nothing new for it");
    let unstarted = Input::Unstarted { node: NodeKey(1), tasks: vec![id(2)] };
    assert_eq!(core.apply(unstarted, Duration::from_secs(61)), []);
    assert_eq!(
        core.apply(ended(1, 1), Duration::from_secs(70)),
        [Action::Deliver(id(1)), Action::DropNode(NodeKey(1))],
        "what it had begun it has brought to its end"
    );
    let completed = Input::BlockEnded { block: 0, end: BlockEnd::Completed(ExitReport::default()) };
    assert_eq!(
        requested_blocks(&core.apply(completed, Duration::from_secs(71))),
        [2],
        "two tasks, one block on its way"
    );
    assert_eq!(core.apply(join_block(2, 1, 1), Duration::from_secs(72)), [send(2, 2), assign(&[3])]);
    assert_eq!(core.last_block_failure(), None);
}

#[test]
fn what_was_assigned_to_a_draining_node_goes_elsewhere() {
    let mut rules = rules();
    rules.drain_period = Some(ms(100));
    let mut core = Core::new(rules);
    core.apply(Input::Started, ms(0));
    core.apply(join(1, 1), ms(0));
    core.apply(submit(1), ms(0)); // the endpoint has not answered yet
    assert_eq!(core.apply(Input::Tick, ms(100)), [Action::DropNode(NodeKey(1))]);
    assert_eq!(core.apply(begun(&[1]), ms(101)), []);
    assert_eq!(core.apply(join(2, 1), ms(102)), [send(2, 1)]);
}

#[test]
fn failures_are_reported_until_a_task_returns_a_result() {
    let mut core = Core::new(rules_with(|w| (w.init, w.max, w.failures_end_engine) = (1, 1, false)));
    core.apply(Input::Started, ms(0));
    core.apply(submit(1), ms(0));
    for block in 0..40 {
        let stderr = Some(format!("no luck with {block}"));
        let failure = BlockEnd::Failed(ExitReport { exit_code: Some(3), stderr, ..ExitReport::default() });
        let actions = core.apply(Input::BlockEnded { block, end: failure }, ms(0));
        assert_eq!(requested_blocks(&actions), [block + 1], "failures do not end the engine");
        let failure = core.last_block_failure().unwrap();
        assert!(
            failure.contains(&format!("\tSTDERR: no luck with {block}\n"))
                && failure.contains("\tEXIT CODE: 3\n")
        );
    }
    core.apply(join_block(1, 40, 1), ms(0));
    core.apply(begun(&[1]), ms(0));
    core.apply(ended(1, 1), ms(0));
    assert_eq!(core.last_block_failure(), None);
}

#[test]
fn a_failed_block_without_nodes_brings_the_engine_into_bad_state() {
    let mut core = table(rules(), &[(Input::Started, &[Action::SubmitBlocks(vec![0])]), (submit(1), &[])]);
    let actions = core.apply(Input::BlockEnded { block: 0, end: failed(3) }, ms(0));
    let [Action::Fail { task, failure }, Action::ReportBadState(text)] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(*task, id(1));
    assert!(text.starts_with("Error 1:\n\tJob is marked as MISSING"), "{text}");
    assert!(text.ends_with("\tEXIT CODE: 3\n"), "{text}");
    assert!(
        failure.text().contains("BadStateException: Executor X failed due to: Error 1:"),
        "{}",
        failure.text()
    );
    let late = core.apply(submit(2), ms(0));
    let [Action::Fail { failure, .. }] = late.as_slice() else { panic!("{late:?}") };
    assert!(
        failure.text().contains("parsl.jobs.errors.TooManyJobFailuresError: Error 1:"),
        "{}",
        failure.text()
    );
    assert_eq!(core.apply(Input::Stop { grace: ms(0) }, ms(0)), [Action::Finish]);
}

/// It was preempted, or memory ran out: the next one may work. Upstream's endpoint fails every task of its queue.
#[test]
fn a_block_that_was_killed_before_it_had_nodes_is_tried_again() {
    let mut core = Core::new(rules());
    core.apply(Input::Started, ms(0));
    core.apply(submit(1), ms(0));
    let killed =
        || BlockEnd::Cancelled(ExitReport { message: Some("Killed".into()), ..ExitReport::default() });
    for (block, end) in [(0, failed(137)), (1, killed())] {
        let actions = core.apply(Input::BlockEnded { block, end }, ms(0));
        assert_eq!(actions, [Action::SubmitBlocks(vec![block + 1])], "another one for the task that waits");
    }
    let actions = core.apply(Input::BlockEnded { block: 2, end: failed(143) }, ms(0));
    let Some(Action::ReportBadState(text)) = actions.last() else { panic!("{actions:?}") };
    assert!(text.contains("MISSING") && text.contains("EXIT CODE: 137") && text.contains("Killed"), "{text}");
}

/// Nobody asks for another block then: its tasks would wait for ever.
#[test]
fn a_killed_block_that_is_not_replaced_fails_the_tasks_that_wait() {
    let mut core = Core::new(rules_with(|w| w.strategy = ScalingStrategy::None));
    core.apply(Input::Started, ms(0));
    core.apply(submit(1), ms(0));
    let actions = core.apply(Input::BlockEnded { block: 0, end: failed(137) }, ms(0));
    assert!(matches!(actions.last(), Some(Action::ReportBadState(_))), "{actions:?}");
}

#[test]
fn only_the_third_failure_of_a_block_with_nodes_brings_the_engine_into_bad_state() {
    let mut core = Core::new(rules());
    core.apply(Input::Started, ms(0));
    core.apply(submit(1), ms(0));
    for block in 0..2 {
        let node = u64::from(block);
        core.apply(join_block(node, block, 1), ms(0));
        let actions = core.apply(Input::BlockEnded { block, end: failed(1) }, ms(0));
        assert_eq!(actions, [Action::SubmitBlocks(vec![block + 1])], "another one for the task that waits");
        core.apply(Input::NodeLost(NodeKey(node)), ms(0));
    }
    core.apply(join_block(2, 2, 1), ms(0));
    let actions = core.apply(Input::BlockEnded { block: 2, end: failed(1) }, ms(0));
    assert!(matches!(actions.last(), Some(Action::ReportBadState(_))), "{actions:?}");
}

#[test]
fn a_block_is_asked_for_when_there_is_work_and_given_back_when_there_is_none() {
    let scaling = ScalingRules { init: 0, max: 3, workers_per_node: 2, ..rules().scaling };
    let mut core = Core::new(Rules { scaling, ..rules() });
    assert_eq!(core.apply(Input::Started, ms(0)), []);
    assert_eq!(core.apply(submit(0), ms(0)), [Action::SubmitBlocks(vec![0])]);
    assert_eq!(core.apply(submit(1), ms(0)), [], "one block has room for two");
    assert_eq!(core.apply(submit(2), ms(0)), [Action::SubmitBlocks(vec![1])]);
    for n in 3..20 {
        core.apply(submit(n), ms(0));
    }
    assert_eq!(core.apply(submit(20), ms(0)), [], "never more than max_blocks");
    for n in 0..=20 {
        core.apply(Input::Cancelled(id(n)), ms(0));
    }
    let later = core.wake_at().unwrap();
    assert_eq!(later, Duration::from_secs(120));
    assert_eq!(core.apply(Input::Tick, later), [Action::CancelBlocks(vec![0, 1, 2])]);
    assert_eq!(core.apply(submit(30), later), [Action::SubmitBlocks(vec![3])]);
}

#[test]
fn a_node_of_an_unknown_block_is_dropped() {
    let mut core = Core::new(rules());
    core.apply(Input::Started, ms(0));
    assert_eq!(core.apply(join_block(1, 7, 1), ms(0)), [Action::DropNode(NodeKey(1))]);
}
