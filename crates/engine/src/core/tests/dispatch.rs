//! Which task goes to which node, and when.

use std::collections::BTreeMap;

use super::*;

#[test]
fn a_task_is_assigned_confirmed_sent_and_delivered() {
    table(
        rules(),
        &[
            (Input::Started, &[Action::SubmitBlocks(vec![0])]),
            (submit(1), &[]),
            (join(1, 2), &[assign(&[1])]),
            (begun(&[1]), &[send(1, 1)]),
            (begun(&[1]), &[]),
            (ended(1, 1), &[Action::Deliver(id(1))]),
            (ended(1, 1), &[]),
        ],
    );
}

#[test]
fn tasks_go_by_priority_then_arrival_and_those_without_priority_last() {
    let with = |n, priority: f64| Input::Submitted { task: id(n), priority: Priority(Some(priority)) };
    table(
        rules(),
        &[
            (Input::Started, &[Action::SubmitBlocks(vec![0])]),
            (submit(1), &[]),
            (with(2, 5.0), &[]),
            (with(3, -1.0), &[]),
            (submit(4), &[]),
            (with(5, 5.0), &[]),
            (join(1, 5), &[assign(&[3, 2, 5, 1, 4])]),
        ],
    );
}

#[test]
fn a_burst_spreads_over_the_nodes() {
    let mut core = Core::new(rules());
    for input in [Input::Started, join(1, 4), join(2, 4), join(3, 4)] {
        core.apply(input, Duration::ZERO);
    }
    let mut actions = Vec::new();
    for n in 0..6 {
        core.handle(submit(n), Duration::ZERO, &mut actions);
    }
    core.settle(Duration::ZERO, &mut actions);
    let sent = core.apply(begun(&[0, 1, 2, 3, 4, 5]), Duration::ZERO);
    let mut per_node = BTreeMap::new();
    for action in sent {
        let Action::Send { node, .. } = action else { panic!("{action:?}") };
        *per_node.entry(node).or_insert(0) += 1;
    }
    assert_eq!(per_node.into_values().collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn prefetch_gives_a_node_more_than_its_slots_but_idle_nodes_come_first() {
    let rules = Rules { prefetch: 1, ..rules() };
    table(
        rules,
        &[
            (Input::Started, &[Action::SubmitBlocks(vec![0])]),
            (join(1, 1), &[]),
            (submit(1), &[assign(&[1])]),
            (submit(2), &[assign(&[2])]),
            (submit(3), &[]),
            (begun(&[1, 2]), &[send(1, 1), send(1, 2)]),
            (join(2, 1), &[assign(&[3])]),
            (begun(&[3]), &[send(2, 3)]),
        ],
    );
}

#[test]
fn a_fast_node_gets_tasks_beyond_its_slots_and_a_slow_one_does_not() {
    let mut core = Core::new(rules());
    core.apply(Input::Started, ms(0));
    core.apply(join(1, 1), ms(0));
    for n in 0..20 {
        core.apply(submit(n), ms(0));
    }
    assert_eq!(core.apply(begun(&[0]), ms(0)), [send(1, 0)]);
    // Nothing beyond its slots until the node has shown its throughput.
    assert_eq!(core.apply(ended(1, 0), ms(1)), [Action::Deliver(id(0)), assign(&[1, 2])]);
    core.apply(begun(&[1, 2]), ms(1));
    assert_eq!(core.apply(ended(1, 1), ms(2)), [Action::Deliver(id(1)), assign(&[3, 4])]);
    core.apply(begun(&[3, 4]), ms(2));
    // The node keeps what it has, but it has become slow and gets no more.
    assert_eq!(core.apply(ended(1, 2), ms(60)), [Action::Deliver(id(2))]);
}

#[test]
fn tasks_that_a_slow_node_has_not_begun_move_to_a_free_one() {
    let mut core = Core::new(rules());
    core.apply(Input::Started, ms(0));
    core.apply(join(1, 1), ms(0));
    for n in 0..4 {
        core.apply(submit(n), ms(0));
    }
    core.apply(begun(&[0]), ms(0));
    core.apply(ended(1, 0), ms(1));
    core.apply(begun(&[1, 2]), ms(1));
    core.apply(Input::Cancelled(id(3)), ms(1));
    // Task 1 is long; task 2 waits behind it. A second node joins and is idle.
    assert_eq!(core.apply(join(2, 1), ms(2)), []);
    let later = core.wake_at().unwrap();
    assert!(later < ms(50), "{later:?}");
    assert_eq!(core.apply(Input::Tick, later), [Action::Recall(NodeKey(1))]);
    assert_eq!(core.apply(Input::Tick, ms(60)), [], "asked once");
    let unstarted = Input::Unstarted { node: NodeKey(1), tasks: vec![id(2)] };
    assert_eq!(core.apply(unstarted, ms(61)), [send(2, 2)]);
    assert_eq!(core.apply(ended(2, 2), ms(62)), [Action::Deliver(id(2))]);
}

#[test]
fn a_node_that_had_nothing_to_give_back_is_asked_again_only_after_a_change() {
    let mut core = Core::new(rules());
    core.apply(Input::Started, ms(0));
    core.apply(join(1, 1), ms(0));
    for n in 0..4 {
        core.apply(submit(n), ms(0));
    }
    core.apply(begun(&[0]), ms(0));
    core.apply(ended(1, 0), ms(1));
    core.apply(begun(&[1, 2]), ms(1));
    core.apply(Input::Cancelled(id(3)), ms(1));
    core.apply(join(2, 1), ms(2));
    assert_eq!(core.apply(Input::Tick, ms(60)), [Action::Recall(NodeKey(1))]);
    let nothing = Input::Unstarted { node: NodeKey(1), tasks: vec![] };
    assert_eq!(core.apply(nothing, ms(61)), []);
    assert_eq!(core.apply(Input::Tick, ms(62)), []);
    assert_eq!(core.apply(ended(1, 1), ms(63)), [Action::Deliver(id(1))]);
}
