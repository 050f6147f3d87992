//! Tests what a run does about tasks of earlier runs: spooled results, lost tasks, and tasks that have ended.

use super::*;

#[test]
fn results_and_lost_tasks_of_earlier_runs_are_reported() {
    let lost_result = lost(task(2), endpoint(), "vm", 7);
    let mut actions = Vec::new();
    let mut ended = Filter::default();
    ended.insert(task(3));
    let left = Leftovers {
        spooled: vec![task(1)],
        lost: vec![(task(1), b"not this one".to_vec()), (task(2), lost_result.clone())],
        ended,
        awaited: false,
    };
    let mut interchange = Interchange::new(settings(), left, &mut actions);
    assert_eq!(
        actions,
        [Action::Keep { task: task(2), result: lost_result.clone() }],
        "the first has its result"
    );
    let mut on = |input| {
        let mut actions = Vec::new();
        interchange.apply(input, &mut actions);
        actions
    };
    assert_eq!(on(Input::Kept { task: task(2), result: lost_result.clone() }), []);
    assert_eq!(on(Input::LinkUp { session: 0 })[1..], [Action::Load(task(1)), Action::Load(task(2))]);
    for number in [1, 2] {
        let again = on(Input::Delivered(delivery(tag(0, 1), task(number), b"x")));
        assert_eq!(again, [Action::Acknowledge(vec![tag(0, 1)])], "task {number} does not run again");
    }
    assert_eq!(on(Input::Delivered(delivery(tag(0, 1), task(3), b"x"))), [Action::LookUp(task(3))]);
    assert_eq!(
        on(Input::LookedUp { task: task(3), known: true }),
        [Action::Acknowledge(vec![tag(0, 1)])],
        "task 3 does not run again"
    );
    let result = TaskResult::decode(&lost_result).unwrap();
    assert_eq!(
        result.data.to_str(),
        format!(
            "{}\nTraceback (most recent call last):\nparsl.executors.high_throughput.errors.ManagerLost: Task failure \
             due to loss of endpoint {} on host vm\n{}",
            "+".repeat(68),
            endpoint(),
            "-".repeat(68)
        )
    );
    let states: Vec<_> = result.task_statuses.unwrap().into_iter().map(|status| status.state).collect();
    assert_eq!(states, [TaskState::WaitingForLaunch, TaskState::ExecutionEnd]);
}

#[test]
fn leftovers_are_reported_once_all_are_confirmed() {
    let lost = vec![(task(2), b"lost".to_vec())];
    let left = Leftovers { spooled: vec![task(1)], lost, ..Leftovers::default() };
    let interchange = Interchange::new(settings(), left, &mut Vec::new());
    let mut fixture = Fixture { interchange };
    fixture.on(Input::LinkUp { session: 0 });
    fixture.kept(2);
    fixture.on(Input::Loaded { task: task(1), result: Some(b"r".to_vec()) });
    fixture.settled(1, PublishStatus::Confirmed);
    assert!(!fixture.interchange.has_reported_leftovers());
    fixture.settled(2, PublishStatus::Refused);
    assert!(!fixture.interchange.has_reported_leftovers());
    fixture.on(Input::HeartbeatDue);
    fixture.on(Input::Loaded { task: task(2), result: Some(b"lost".to_vec()) });
    fixture.settled(2, PublishStatus::Confirmed);
    assert!(fixture.interchange.has_reported_leftovers());
    fixture.begin(3);
    fixture.end(3);
    assert!(fixture.interchange.has_reported_leftovers(), "results of its own run do not count");
}

/// The filter tells that a task may have ended; the journal knows whether it has.
#[test]
fn a_task_that_may_have_ended_waits_for_the_journal() {
    let mut ended = Filter::default();
    (1..=4).for_each(|number| ended.insert(task(number)));
    let mut actions = Vec::new();
    let interchange = Interchange::new(settings(), Leftovers { ended, ..Leftovers::default() }, &mut actions);
    let mut fixture = Fixture { interchange };
    fixture.on(Input::LinkUp { session: 0 });
    let asks = |number| [Action::LookUp(task(number))];
    assert_eq!(fixture.on(Input::Delivered(delivery(tag(0, 1), task(1), b"x"))), asks(1));
    let twice = fixture.on(Input::Delivered(delivery(tag(0, 2), task(1), b"x")));
    assert_eq!(twice, [Action::Acknowledge(vec![tag(0, 2)])], "one of the messages is acknowledged at once");
    // In a new session the message is delivered again; the journal's answer applies to the new delivery.
    fixture.on(Input::LinkDown);
    fixture.on(Input::LinkUp { session: 1 });
    assert_eq!(fixture.on(Input::Delivered(delivery(tag(1, 1), task(1), b"x"))), []);
    let known = fixture.on(Input::LookedUp { task: task(1), known: true });
    assert_eq!(known, [Action::Acknowledge(vec![tag(1, 1)])]);
    assert_eq!(
        fixture.on(Input::LookedUp { task: task(1), known: true }),
        [],
        "it is acknowledged only once"
    );
    // If the filter was wrong, the task runs, or is cancelled, like any other.
    fixture.on(Input::Delivered(delivery(tag(1, 2), task(2), b"x")));
    assert_eq!(fixture.on(Input::Cancel(vec![task(2)])), []);
    let new = fixture.on(Input::LookedUp { task: task(2), known: false });
    assert!(matches!(&new[..], [Action::Submit(_), Action::Cancel(_)]), "{new:?}");
    // A task that waits for the journal counts towards the memory limit.
    let long = [b'x'; 1000];
    let full = fixture.on(Input::Delivered(delivery(tag(1, 3), task(3), &long)));
    assert_eq!(full, [Action::LookUp(task(3)), Action::Consume(false)]);
    let room = fixture.on(Input::LookedUp { task: task(3), known: true });
    assert_eq!(room, [Action::Acknowledge(vec![tag(1, 3)]), Action::Consume(true)]);
    // An endpoint that stops takes no task.
    fixture.on(Input::Delivered(delivery(tag(1, 4), task(4), b"x")));
    fixture.on(Input::Stop);
    let stopping = fixture.on(Input::LookedUp { task: task(4), known: false });
    assert_eq!(stopping, [Action::Requeue(vec![tag(1, 4)])]);
}

/// The earlier run may only be suspended, on another host: its results count until the time limit.
#[test]
fn results_of_a_suspended_run_are_awaited_and_then_lost() {
    let lost = vec![(task(1), b"lost 1".to_vec()), (task(2), b"lost 2".to_vec())];
    let left = Leftovers { lost, awaited: true, ..Leftovers::default() };
    let mut actions = Vec::new();
    let interchange = Interchange::new(settings(), left, &mut actions);
    assert_eq!(actions, [], "nothing is lost yet");
    let mut fixture = Fixture { interchange };
    fixture.on(Input::LinkUp { session: 0 });
    assert!(fixture.interchange.awaits() && !fixture.interchange.has_reported_leftovers());
    // The broker delivers a task again that the earlier run did not acknowledge.
    assert_eq!(fixture.deliver(1), [Action::Acknowledge(vec![tag(0, 1)])], "it does not begin twice");
    let both = vec![task(1), task(2)];
    assert_eq!(
        fixture.on(Input::LookForResults { last: false }),
        [Action::LookForResults { tasks: both, last: false }]
    );
    assert_eq!(
        fixture.on(Input::ResultsFound { tasks: vec![task(2)], last: false }),
        [Action::Load(task(2))]
    );
    let result = b"it ran".to_vec();
    let loaded = fixture.on(Input::Loaded { task: task(2), result: Some(result.clone()) });
    assert_eq!(loaded, [Action::Publish { session: 0, task: task(2), result }]);
    assert_eq!(
        fixture.on(Input::LookForResults { last: true }),
        [Action::LookForResults { tasks: vec![task(1)], last: true }]
    );
    let ended = fixture.on(Input::ResultsFound { tasks: vec![], last: true });
    assert_eq!(ended, [Action::Keep { task: task(1), result: b"lost 1".to_vec() }]);
    assert!(!fixture.interchange.awaits());
    assert_eq!(fixture.on(Input::LookForResults { last: false }), []);
}

#[test]
fn the_files_of_a_suspended_run_are_removed_when_all_its_results_have_come() {
    let left = Leftovers { lost: vec![(task(1), b"lost".to_vec())], awaited: true, ..Leftovers::default() };
    let mut fixture = Fixture { interchange: Interchange::new(settings(), left, &mut Vec::new()) };
    fixture.on(Input::LinkUp { session: 0 });
    let tidies = Action::LookForResults { tasks: vec![], last: true };
    let found = fixture.on(Input::ResultsFound { tasks: vec![task(1)], last: false });
    assert_eq!(found, [Action::Load(task(1)), tidies]);
    assert_eq!(fixture.on(Input::ResultsFound { tasks: vec![], last: true }), []);
}
