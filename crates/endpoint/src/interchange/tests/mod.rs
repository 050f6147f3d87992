//! Tests of single decisions of the interchange; [`simulation`] tests random sequences of events, failures included.

mod audit;
mod intake;
mod leftovers;
mod results;
mod simulation;
mod stop;

use client::amqp::{Delivery, PublishStatus, Tag};
use serde_json::json;
use uuid::Uuid;
use wire::message::{TaskResult, TaskState};
use wire::{EndpointId, TaskId};

use super::*;

fn endpoint() -> EndpointId {
    EndpointId::from_uuid(Uuid::from_u128(0xE))
}

fn task(number: u128) -> TaskId {
    TaskId::from_uuid(Uuid::from_u128(number))
}

fn tag(session: u32, number: u64) -> Tag {
    Tag { session, number }
}

const FUNCTION: &str = "00000000-0000-4000-8000-0000000000f1";

fn delivery(tag: Tag, task: TaskId, body: &[u8]) -> Delivery {
    let headers =
        json!({"task_uuid": task.to_string(), "function_uuid": FUNCTION, "resource_specification": "null"});
    Delivery {
        tag,
        content_type: None,
        timestamp: None,
        headers: headers.as_object().unwrap().clone(),
        body: body.to_vec(),
    }
}

fn settings() -> Settings {
    Settings {
        endpoint: endpoint(),
        allowed: None,
        bytes: 1000,
        in_flight: 2,
        grace: Duration::from_secs(5),
        idle: Idle { soft: 0, hard: 0 },
        audited: false,
    }
}

/// An interchange under test.
struct Fixture {
    interchange: Interchange,
}

impl Fixture {
    fn new(settings: Settings) -> Self {
        let mut actions = Vec::new();
        let interchange = Interchange::new(settings, Leftovers::default(), &mut actions);
        assert_eq!(actions, []);
        Self { interchange }
    }

    /// An interchange whose link is up.
    fn up(settings: Settings) -> Self {
        let mut fixture = Self::new(settings);
        assert_eq!(
            fixture.on(Input::LinkUp { session: 0 }),
            [Action::Heartbeat { session: 0, active: true }]
        );
        fixture
    }

    fn on(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        self.interchange.apply(input, &mut actions);
        actions
    }

    fn deliver(&mut self, number: u128) -> Vec<Action> {
        let session = self.interchange.session.unwrap();
        self.on(Input::Delivered(delivery(tag(session, u64::try_from(number).unwrap()), task(number), b"x")))
    }

    /// Brings a task to a worker.
    fn begin(&mut self, number: u128) {
        self.deliver(number);
        self.on(Input::Assigned(vec![task(number)]));
        self.on(Input::Journaled(vec![task(number)]));
    }

    fn end(&mut self, number: u128) -> Vec<Action> {
        self.on(Input::Ended { task: task(number), result: b"r".to_vec() })
    }

    fn kept(&mut self, number: u128) -> Vec<Action> {
        self.on(Input::Kept { task: task(number), result: b"r".to_vec() })
    }

    fn settled(&mut self, number: u128, status: PublishStatus) -> Vec<Action> {
        self.on(Input::Settled { task: task(number), status })
    }
}

fn publish(session: u32, number: u128) -> Action {
    Action::Publish { session, task: task(number), result: b"r".to_vec() }
}

fn is_submit(actions: &[Action]) -> bool {
    matches!(actions, [Action::Submit(_)])
}

#[test]
fn one_task_from_delivery_to_confirmation() {
    let mut fixture = Fixture::up(settings());
    assert!(is_submit(&fixture.deliver(1)));
    assert_eq!(fixture.on(Input::Assigned(vec![task(1)])), [Action::Journal(vec![task(1)])]);
    assert_eq!(
        fixture.on(Input::Journaled(vec![task(1)])),
        [Action::Acknowledge(vec![tag(0, 1)]), Action::Begin(vec![task(1)])],
        "acknowledged and begun only now"
    );
    assert_eq!(fixture.end(1), [Action::Keep { task: task(1), result: b"r".to_vec() }]);
    assert_eq!(fixture.kept(1), [publish(0, 1)]);
    assert_eq!(fixture.settled(1, PublishStatus::Confirmed), [Action::JournalEnded(vec![task(1)])]);
    assert_eq!(fixture.deliver(1), [Action::LookUp(task(1))]);
    let known = fixture.on(Input::LookedUp { task: task(1), known: true });
    assert_eq!(known, [Action::Acknowledge(vec![tag(0, 1)])], "and never runs again");
}

#[test]
fn a_message_that_is_delivered_again_does_not_run_again() {
    let mut fixture = Fixture::up(settings());
    fixture.deliver(1);
    fixture.begin(2);
    fixture.begin(3);
    fixture.end(3);
    fixture.begin(4);
    fixture.end(4);
    fixture.kept(4);
    assert_eq!(fixture.deliver(1), [Action::Acknowledge(vec![tag(0, 1)])], "it was in the queue twice");
    fixture.on(Input::LinkDown);
    fixture.on(Input::LinkUp { session: 1 });
    assert_eq!(fixture.deliver(1), [], "the engine has it; the new tag replaces the old one");
    assert_eq!(fixture.deliver(2), [Action::Acknowledge(vec![tag(1, 2)])], "it runs");
    assert_eq!(fixture.deliver(3), [], "its result is being kept");
    assert_eq!(fixture.deliver(4), [Action::Acknowledge(vec![tag(1, 4)])], "its result is kept");
    assert_eq!(fixture.kept(3)[0], Action::Acknowledge(vec![tag(1, 3)]));
    fixture.on(Input::Assigned(vec![task(1)]));
    assert_eq!(fixture.on(Input::Journaled(vec![task(1)]))[0], Action::Acknowledge(vec![tag(1, 1)]));
}

#[test]
fn a_delivery_of_a_session_that_is_over_is_ignored() {
    let mut fixture = Fixture::up(settings());
    fixture.on(Input::LinkDown);
    assert_eq!(fixture.on(Input::Delivered(delivery(tag(0, 1), task(1), b"x"))), []);
    fixture.on(Input::LinkUp { session: 1 });
    assert_eq!(fixture.on(Input::Delivered(delivery(tag(0, 1), task(1), b"x"))), []);
}

#[test]
fn a_further_attempt_begins_without_another_record() {
    let mut fixture = Fixture::up(settings());
    fixture.begin(1);
    assert_eq!(fixture.on(Input::Assigned(vec![task(1)])), [Action::Begin(vec![task(1)])]);
}

#[test]
fn a_task_that_the_engine_refuses_is_acknowledged_once_its_result_is_kept() {
    let mut fixture = Fixture::up(settings());
    fixture.deliver(1);
    assert_eq!(fixture.end(1), [Action::Keep { task: task(1), result: b"r".to_vec() }]);
    assert_eq!(fixture.kept(1), [Action::Acknowledge(vec![tag(0, 1)]), publish(0, 1)]);
}

#[test]
fn a_task_is_cancelled_in_every_state() {
    let mut fixture = Fixture::up(settings());
    fixture.deliver(1);
    fixture.begin(2);
    let cancelled = fixture.on(Input::Cancel(vec![task(1), task(2), task(3)]));
    assert_eq!(cancelled, [Action::Cancel(task(1)), Action::Cancel(task(2))]);
    let late = fixture.deliver(3);
    assert!(late.contains(&Action::Cancel(task(3))), "it was cancelled before it was delivered: {late:?}");
    // A task that has ended can't be cancelled.
    fixture.on(Input::Ended { task: task(2), result: b"r".to_vec() });
    assert_eq!(fixture.on(Input::Cancel(vec![task(2)])), []);
}
