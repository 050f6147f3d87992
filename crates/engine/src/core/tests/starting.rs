//! Nodes between their hello and their first worker, and nodes that lose slots.

use super::*;

fn starting(node: u64) -> Input {
    Input::NodeStarting { node: NodeKey(node), block: 0 }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_node_gets_tasks_when_it_has_joined_and_not_before() {
    let core = table(
        Rules { prefetch: 5, ..rules() },
        &[
            (Input::Started, &[Action::SubmitBlocks(vec![0])]),
            (starting(1), &[]),
            (submit(1), &[]),
            (join(1, 1), &[assign(&[1])]),
            (begun(&[1]), &[send(1, 1)]),
        ],
    );
    assert_eq!((core.starting_count(), core.counts().slots), (0, 1));
}

#[test]
fn a_starting_node_is_dropped_after_the_heartbeat_threshold() {
    let mut core = table(
        rules(),
        &[(Input::Started, &[Action::SubmitBlocks(vec![0])]), (starting(1), &[]), (submit(1), &[])],
    );
    core.apply(Input::NodeHeartbeat(NodeKey(1)), SECOND * 60);
    assert_eq!(core.apply(Input::Tick, SECOND * 150), []);
    assert_eq!(core.starting_count(), 1);
    assert_eq!(core.apply(Input::Tick, SECOND * 181), [Action::DropNode(NodeKey(1))]);
    assert_eq!(core.starting_count(), 0);
}

#[test]
fn a_starting_node_is_dropped_with_its_block() {
    let mut core = table(rules(), &[(Input::Started, &[Action::SubmitBlocks(vec![0])]), (starting(1), &[])]);
    core.apply(Input::Tick, SECOND);
    let actions = core.apply(Input::Tick, SECOND * 121);
    assert_eq!(actions, [Action::DropNode(NodeKey(1)), Action::CancelBlocks(vec![0])]);
    assert_eq!(core.apply(starting(2), SECOND * 122), [Action::DropNode(NodeKey(2))], "its block is gone");
}

#[test]
fn a_block_whose_node_was_never_ready_counts_as_without_nodes() {
    let mut core = table(
        rules(),
        &[
            (Input::Started, &[Action::SubmitBlocks(vec![0])]),
            (starting(1), &[]),
            (Input::NodeLost(NodeKey(1)), &[]),
        ],
    );
    let actions = core.apply(Input::BlockEnded { block: 0, end: failed(1) }, ms(0));
    assert!(
        matches!(actions.as_slice(), [Action::ReportBadState(text)] if text.contains("MISSING")),
        "{actions:?}"
    );
}

#[test]
fn a_node_with_fewer_slots_keeps_its_tasks_and_gets_no_more() {
    let resize = |slots| Input::NodeResized { node: NodeKey(1), slots };
    let core = table(
        rules(),
        &[
            (Input::Started, &[Action::SubmitBlocks(vec![0])]),
            (join(1, 3), &[]),
            (submit(1), &[assign(&[1])]),
            (submit(2), &[assign(&[2])]),
            (begun(&[1, 2]), &[send(1, 1), send(1, 2)]),
            (resize(1), &[]),
            (submit(3), &[]),
            // From an unknown node.
            (Input::NodeResized { node: NodeKey(9), slots: 7 }, &[]),
        ],
    );
    assert_eq!((core.counts().slots, core.counts().busy), (1, 1));
}
