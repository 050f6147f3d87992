//! Tests how results are kept, published and confirmed.

use super::*;

#[test]
fn results_without_an_answer_are_sent_again_after_a_lost_session() {
    let mut fixture = Fixture::up(settings());
    fixture.begin(1);
    fixture.end(1);
    fixture.kept(1);
    fixture.begin(2);
    fixture.on(Input::LinkDown);
    fixture.end(2);
    assert_eq!(fixture.kept(2), [], "it waits in the spool");
    let actions = fixture.on(Input::LinkUp { session: 1 });
    assert_eq!(actions[1..], [Action::Load(task(1)), Action::Load(task(2))]);
    let loaded = |number| Input::Loaded { task: task(number), result: Some(b"r".to_vec()) };
    assert_eq!(fixture.on(loaded(1)), [publish(1, 1)]);
    fixture.on(Input::LinkDown);
    assert_eq!(fixture.on(loaded(2)), [], "read too late for the session");
    let actions = fixture.on(Input::LinkUp { session: 2 });
    assert_eq!(actions[1..], [Action::Load(task(1)), Action::Load(task(2))]);
    fixture.on(loaded(1));
    fixture.on(loaded(2));
    for number in [1, 2] {
        assert_eq!(
            fixture.settled(number, PublishStatus::Confirmed),
            [Action::JournalEnded(vec![task(number)])]
        );
    }
}

#[test]
fn the_number_of_unconfirmed_results_is_limited() {
    let mut fixture = Fixture::up(settings());
    for number in 1..=3 {
        fixture.begin(number);
        fixture.end(number);
    }
    assert_eq!(fixture.kept(1), [publish(0, 1)]);
    assert_eq!(fixture.kept(2), [publish(0, 2)]);
    assert_eq!(fixture.kept(3), [], "the third waits in the spool");
    assert_eq!(fixture.settled(1, PublishStatus::Confirmed)[1..], [Action::Load(task(3))]);
}

#[test]
fn a_result_that_the_broker_refuses_is_sent_again_with_a_heartbeat() {
    for status in [PublishStatus::Returned("NO_ROUTE".into()), PublishStatus::Refused] {
        let mut fixture = Fixture::up(settings());
        fixture.begin(1);
        fixture.end(1);
        fixture.kept(1);
        assert_eq!(fixture.settled(1, status), [], "it is kept, and sent again later");
        let actions = fixture.on(Input::HeartbeatDue);
        assert_eq!(actions, [Action::Heartbeat { session: 0, active: true }, Action::Load(task(1))]);
    }
}

#[test]
fn a_result_that_cannot_be_kept_is_sent_from_memory() {
    let mut fixture = Fixture::up(settings());
    fixture.deliver(1);
    fixture.end(1);
    let not_kept = Input::NotKept { task: task(1), result: b"r".to_vec() };
    assert_eq!(fixture.on(not_kept), [publish(0, 1)], "not acknowledged: only the message is safe");
    fixture.on(Input::LinkDown);
    assert_eq!(fixture.on(Input::LinkUp { session: 1 })[1..], [publish(1, 1)]);
    let actions = fixture.settled(1, PublishStatus::Confirmed);
    assert_eq!(actions[0], Action::Acknowledge(vec![tag(0, 1)]), "now the broker has the result");
}
