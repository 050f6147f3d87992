//! Tests how a run ends: by a signal, by a failure, or because it is idle.

use super::*;

#[test]
fn an_orderly_stop() {
    let mut fixture = Fixture::up(settings());
    fixture.deliver(1);
    fixture.deliver(2);
    fixture.on(Input::Assigned(vec![task(2)]));
    fixture.begin(3);
    assert_eq!(
        fixture.on(Input::Stop),
        [
            Action::Consume(false),
            Action::StopEngine { grace: Duration::from_secs(5) },
            Action::EndWithin(Duration::from_secs(10)),
        ]
    );
    assert_eq!(fixture.on(Input::Stop), [], "only once");
    assert_eq!(fixture.deliver(9), [Action::Requeue(vec![tag(0, 9)])]);
    assert_eq!(fixture.on(Input::Returned(vec![task(1)])), [Action::Requeue(vec![tag(0, 1)])]);
    assert_eq!(
        fixture.on(Input::Journaled(vec![task(2)])),
        [Action::Acknowledge(vec![tag(0, 2)]), Action::Begin(vec![task(2)])],
        "the engine had assigned it: it begins, and has the grace like the others"
    );
    fixture.end(2);
    fixture.kept(2);
    fixture.settled(2, PublishStatus::Confirmed);
    fixture.end(3);
    assert_eq!(fixture.on(Input::EngineStopped), [], "a result is on its way to the spool");
    assert_eq!(fixture.kept(3), [publish(0, 3)]);
    assert_eq!(
        fixture.settled(3, PublishStatus::Confirmed)[1..],
        [Action::Heartbeat { session: 0, active: false }, Action::End]
    );
    assert_eq!(fixture.on(Input::StopTimedOut), [], "it has ended already");
}

#[test]
fn a_task_that_never_began_is_returned_however_the_engine_ends_it() {
    let mut fixture = Fixture::up(settings());
    fixture.deliver(1);
    fixture.deliver(2);
    fixture.on(Input::Assigned(vec![task(2)]));
    fixture.on(Input::JournalFailed);
    assert_eq!(fixture.end(1), [Action::Requeue(vec![tag(0, 1)])]);
    assert_eq!(fixture.end(2), [Action::JournalReturned(vec![task(2)]), Action::Requeue(vec![tag(0, 2)])]);
}

#[test]
fn a_stop_does_not_wait_for_a_broker_that_is_away() {
    let mut fixture = Fixture::up(settings());
    fixture.begin(1);
    fixture.on(Input::LinkDown);
    fixture.on(Input::Stop);
    fixture.end(1);
    fixture.on(Input::EngineStopped);
    assert_eq!(fixture.kept(1), [Action::End], "the next start sends it");
}

#[test]
fn a_task_that_the_engine_did_not_return_is_returned_when_the_engine_has_stopped() {
    let mut fixture = Fixture::up(settings());
    fixture.deliver(1);
    assert_eq!(
        fixture.on(Input::EngineStopped)[3..],
        [Action::Requeue(vec![tag(0, 1)]), Action::Heartbeat { session: 0, active: false }, Action::End]
    );
}

#[test]
fn the_second_signal_ends_the_run_with_results_in_the_spool() {
    let mut fixture = Fixture::up(settings());
    fixture.begin(1);
    fixture.on(Input::Stop);
    assert_eq!(
        fixture.on(Input::Hurry),
        [Action::StopEngine { grace: Duration::ZERO }, Action::EndWithin(Duration::from_secs(2))]
    );
    fixture.end(1);
    fixture.on(Input::EngineStopped);
    let actions = fixture.kept(1);
    assert_eq!(actions.last(), Some(&Action::End), "without waiting for the broker: {actions:?}");
}

/// Running tasks have no grace: what a manager started must not outlive it. Their results are in the spool for the next start.
#[test]
fn the_end_of_the_manager_ends_the_run_at_once_also_while_it_stops() {
    for stopping in [false, true] {
        let mut fixture = Fixture::up(settings());
        fixture.begin(1);
        if stopping {
            fixture.on(Input::Stop);
        }
        let actions = fixture.on(Input::Orphaned);
        let hurried =
            [Action::StopEngine { grace: Duration::ZERO }, Action::EndWithin(Duration::from_secs(1))];
        assert!(actions.ends_with(&hurried), "{actions:?}");
        fixture.end(1);
        fixture.on(Input::EngineStopped);
        assert_eq!(fixture.kept(1).last(), Some(&Action::End));
    }
}

#[test]
fn a_stop_ends_at_its_time_limit() {
    let mut fixture = Fixture::up(settings());
    fixture.begin(1);
    fixture.on(Input::Stop);
    assert_eq!(
        fixture.on(Input::StopTimedOut),
        [Action::Heartbeat { session: 0, active: false }, Action::End]
    );
}

#[test]
fn a_permanent_failure_ends_the_run_in_order() {
    for trouble in [Input::Superseded, Input::JournalFailed, Input::LinkEnded] {
        let mut fixture = Fixture::up(settings());
        let shown = format!("{trouble:?}");
        assert_eq!(fixture.on(trouble)[0], Action::Consume(false), "{shown}");
    }
}

/// For a short time, waiting tasks are still taken, and the engine fails them with the reason.
#[test]
fn waiting_tasks_get_the_reason_why_the_engine_fails() {
    let mut fixture = Fixture::up(settings());
    assert_eq!(fixture.on(Input::EngineFailed), [Action::StopWithin(Duration::from_secs(3))]);
    assert!(matches!(&fixture.deliver(1)[..], [Action::Submit(_)]));
    let result = b"no block works".to_vec();
    let ended = fixture.on(Input::Ended { task: task(1), result: result.clone() });
    assert_eq!(ended, [Action::Keep { task: task(1), result }]);
    assert_eq!(fixture.on(Input::Stop)[0], Action::Consume(false));
    assert_eq!(fixture.on(Input::EngineFailed), [], "it stops already");
}

#[test]
fn an_idle_endpoint_stops_as_configured() {
    let stops = |fixture: &mut Fixture| fixture.on(Input::HeartbeatDue).contains(&Action::Consume(false));
    let mut never = Fixture::up(settings());
    assert!(!(0..50).any(|_| stops(&mut never)));
    let idle = || Settings { idle: Idle { soft: 2, hard: 4 }, ..settings() };
    let mut fresh = Fixture::up(idle());
    assert_eq!((1..).find(|_| stops(&mut fresh)), Some(5), "it never had a task: beyond the hard limit");
    let mut done = Fixture::up(idle());
    done.begin(1);
    done.end(1);
    done.kept(1);
    done.settled(1, PublishStatus::Confirmed);
    assert!(!stops(&mut done), "something moved since the last heartbeat");
    assert_eq!((1..).find(|_| stops(&mut done)), Some(2), "two idle heartbeats");
    assert!(done.interchange.stops_idle() && !never.interchange.stops_idle());
    let mut busy = Fixture::up(idle());
    busy.begin(1);
    assert_eq!((0..).find(|_| stops(&mut busy)), Some(5), "it has a task: the hard limit");
}
