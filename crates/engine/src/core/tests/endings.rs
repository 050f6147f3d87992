//! Tasks end once: with a lost node or worker, by cancelling, and when the engine stops.

use super::*;

#[test]
fn a_lost_node_fails_the_tasks_it_was_sent_and_requeues_the_others() {
    table(
        rules(),
        &[
            (Input::Started, &[Action::SubmitBlocks(vec![0])]),
            (join(1, 2), &[]),
            (submit(1), &[assign(&[1])]),
            (submit(2), &[assign(&[2])]),
            (begun(&[1]), &[send(1, 1)]),
            (Input::NodeLost(NodeKey(1)), &[lost_manager(1, 1)]),
            // The endpoint is asked once; its answer comes before the next node joins.
            (begun(&[2]), &[]),
            (join(2, 1), &[send(2, 2)]),
            (ended(1, 2), &[]),
            (ended(2, 2), &[Action::Deliver(id(2))]),
        ],
    );
}

#[test]
fn a_lost_attempt_is_tried_again_as_often_as_allowed() {
    let loss = || AttemptFailure::WorkerLost { rank: 0, node: name(1).into(), hint: None };
    let failure = TaskFailure { attempts: vec![loss(), loss()], began: Duration::ZERO };
    table(
        Rules { max_retries: 1, ..rules() },
        &[
            (Input::Started, &[Action::SubmitBlocks(vec![0])]),
            (join(1, 1), &[]),
            (submit(1), &[assign(&[1])]),
            (begun(&[1]), &[send(1, 1)]),
            (worker_lost(1, 1), &[send(1, 1)]),
            (worker_lost(1, 1), &[Action::Fail { task: id(1), failure }]),
        ],
    );
}

#[test]
fn a_task_can_be_cancelled_in_every_state() {
    table(
        rules(),
        &[
            (Input::Started, &[Action::SubmitBlocks(vec![0])]),
            (join(1, 1), &[]),
            (submit(1), &[assign(&[1])]),
            (submit(2), &[]),
            (Input::Cancelled(id(2)), &[Action::Cancel(id(2))]),
            (Input::Cancelled(id(1)), &[Action::Cancel(id(1))]),
            (begun(&[1]), &[]),
            (submit(3), &[assign(&[3])]),
            (begun(&[3]), &[send(1, 3)]),
            (Input::Cancelled(id(3)), &[Action::Abandon { node: NodeKey(1), task: id(3) }]),
            (Input::Cancelled(id(3)), &[]),
            (worker_lost(1, 3), &[Action::Cancel(id(3))]),
        ],
    );
}

#[test]
fn a_result_that_was_faster_than_the_cancellation_counts() {
    table(
        rules(),
        &[
            (Input::Started, &[Action::SubmitBlocks(vec![0])]),
            (join(1, 1), &[]),
            (submit(1), &[assign(&[1])]),
            (begun(&[1]), &[send(1, 1)]),
            (Input::Cancelled(id(1)), &[Action::Abandon { node: NodeKey(1), task: id(1) }]),
            (ended(1, 1), &[Action::Deliver(id(1))]),
            (worker_lost(1, 1), &[]),
        ],
    );
}

#[test]
fn a_stop_returns_what_has_not_begun_and_waits_for_the_rest() {
    let mut core = table(
        rules(),
        &[
            (Input::Started, &[Action::SubmitBlocks(vec![0])]),
            (join(1, 2), &[]),
            (submit(1), &[assign(&[1])]),
            (submit(2), &[assign(&[2])]),
            (submit(3), &[]),
            (begun(&[1]), &[send(1, 1)]),
            (Input::Stop { grace: ms(100) }, &[Action::Return(vec![id(3)])]),
            (submit(4), &[Action::Return(vec![id(4)])]),
            // The endpoint has already journaled that it begins, so it can't be returned.
            (begun(&[2]), &[send(1, 2)]),
            (ended(1, 2), &[Action::Deliver(id(2))]),
        ],
    );
    assert_eq!(core.wake_at(), Some(ms(100)));
    assert_eq!(core.apply(Input::Tick, ms(99)), []);
    assert_eq!(
        core.apply(Input::Tick, ms(100)),
        [lost_manager(1, 1), Action::CancelBlocks(vec![0]), Action::Finish]
    );
    assert_eq!(core.apply(submit(9), ms(101)), []);
    assert_eq!(core.wake_at(), None);
}

#[test]
fn a_second_stop_shortens_the_first() {
    let mut core = table(
        rules(),
        &[
            (Input::Started, &[Action::SubmitBlocks(vec![0])]),
            (join(1, 1), &[]),
            (submit(1), &[assign(&[1])]),
            (begun(&[1]), &[send(1, 1)]),
            (Input::Stop { grace: ms(5000) }, &[]),
        ],
    );
    let actions = core.apply(Input::Stop { grace: ms(0) }, ms(10));
    assert_eq!(actions, [lost_manager(1, 1), Action::CancelBlocks(vec![0]), Action::Finish]);
}

#[test]
fn a_silent_node_is_dropped() {
    let mut core = table(
        rules(),
        &[
            (Input::Started, &[Action::SubmitBlocks(vec![0])]),
            (join(1, 1), &[]),
            (submit(1), &[assign(&[1])]),
            (begun(&[1]), &[send(1, 1)]),
        ],
    );
    let second = Duration::from_secs(1);
    core.apply(Input::NodeHeartbeat(NodeKey(1)), second * 60);
    assert_eq!(core.apply(Input::Tick, second * 150), []);
    assert_eq!(core.apply(Input::Tick, second * 181), [lost_manager(1, 1), Action::DropNode(NodeKey(1))]);
}
