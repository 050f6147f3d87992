//! Tests of single decisions; [`simulation`] tests random sequences of events, failures included.

mod simulation;

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
    Delivery { tag, headers: headers.as_object().unwrap().clone(), body: body.to_vec() }
}

fn settings() -> Settings {
    Settings {
        endpoint: endpoint(),
        allowed: None,
        bytes: 1000,
        in_flight: 2,
        grace: Duration::from_secs(5),
        idle: Idle { soft: 0, hard: 0 },
    }
}

/// An interchange under test, and what it wants done.
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

    /// One that is connected.
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
fn one_tasks_walk() {
    let mut fixture = Fixture::up(settings());
    assert!(is_submit(&fixture.deliver(1)));
    assert_eq!(fixture.on(Input::Assigned(vec![task(1)])), [Action::Journal(vec![task(1)])]);
    assert_eq!(
        fixture.on(Input::Journaled(vec![task(1)])),
        [Action::Acknowledge(vec![tag(0, 1)]), Action::Begin(vec![task(1)])],
        "acknowledged only now, and begun only now"
    );
    assert_eq!(fixture.end(1), [Action::Keep { task: task(1), result: b"r".to_vec() }]);
    assert_eq!(fixture.kept(1), [publish(0, 1)]);
    assert_eq!(fixture.settled(1, PublishStatus::Confirmed), [Action::JournalEnded(vec![task(1)])]);
    assert_eq!(fixture.deliver(1), [Action::LookUp(task(1))]);
    let known = fixture.on(Input::LookedUp { task: task(1), known: true });
    assert_eq!(known, [Action::Acknowledge(vec![tag(0, 1)])], "and never runs again");
}

#[test]
fn a_message_that_comes_again_is_answered_and_not_run_again() {
    let mut fixture = Fixture::up(settings());
    fixture.deliver(1);
    fixture.begin(2);
    fixture.begin(3);
    fixture.end(3);
    fixture.begin(4);
    fixture.end(4);
    fixture.kept(4);
    assert_eq!(fixture.deliver(1), [Action::Acknowledge(vec![tag(0, 1)])], "twice in the queue");
    fixture.on(Input::LinkDown);
    fixture.on(Input::LinkUp { session: 1 });
    assert_eq!(fixture.deliver(1), [], "the engine has it; the new tag counts");
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
fn a_further_attempt_is_begun_without_more_ado() {
    let mut fixture = Fixture::up(settings());
    fixture.begin(1);
    assert_eq!(fixture.on(Input::Assigned(vec![task(1)])), [Action::Begin(vec![task(1)])]);
}

#[test]
fn a_task_the_engine_refuses_is_acknowledged_once_its_result_is_kept() {
    let mut fixture = Fixture::up(settings());
    fixture.deliver(1);
    assert_eq!(fixture.end(1), [Action::Keep { task: task(1), result: b"r".to_vec() }]);
    assert_eq!(fixture.kept(1), [Action::Acknowledge(vec![tag(0, 1)]), publish(0, 1)]);
}

/// The result in a `Keep`, decoded: its data, and its error's code.
fn refusal(actions: &[Action]) -> (String, String) {
    let [Action::Keep { result, .. }] = actions else { panic!("{actions:?}") };
    let result = TaskResult::decode(result).unwrap();
    (result.data.to_str().into_owned(), result.error_details.unwrap().code)
}

#[test]
fn bad_headers_end_in_an_error_result_that_names_them() {
    let table = [
        (json!({"function_uuid": null}), "the message has no header function_uuid"),
        (json!({"function_uuid": 5}), "the message has no header function_uuid"),
        (json!({"function_uuid": "f"}), "the header function_uuid is no id"),
        (json!({"resource_specification": "{"}), "the header resource_specification: not JSON"),
        (json!({"resource_specification": "[]"}), "the header resource_specification: not an object"),
        (json!({"resource_specification": 5}), "the header resource_specification: not an object"),
        (json!({"result_serializers": "x"}), "the header result_serializers is no list of texts"),
        (json!({"result_serializers": [1]}), "the header result_serializers is no list of texts"),
    ];
    for (changes, why) in table {
        let mut fixture = Fixture::up(settings());
        let mut message = delivery(tag(0, 1), task(1), b"x");
        message.headers.extend(changes.as_object().unwrap().clone());
        let (data, code) = refusal(&fixture.on(Input::Delivered(message)));
        assert!(data.starts_with(&format!("Failed to start task: {why}")), "{changes}: {data}");
        assert_eq!(code, "RemoteExecutionError");
        assert_eq!(
            fixture.kept(1)[0],
            Action::Acknowledge(vec![tag(0, 1)]),
            "{changes}: never a stuck queue"
        );
    }
}

#[test]
fn a_body_that_no_link_carries_ends_in_an_error_result() {
    let mut fixture = Fixture::up(settings());
    let message = delivery(tag(0, 1), task(1), &vec![b' '; wire::message::LIMIT + 1]);
    let (data, _) = refusal(&fixture.on(Input::Delivered(message)));
    assert!(data.starts_with("Failed to start task: the message has 83886081 bytes"), "{data}");
    assert_eq!(fixture.kept(1)[0], Action::Acknowledge(vec![tag(0, 1)]), "never a stuck queue");
}

#[test]
fn good_headers_reach_the_engine() {
    let mut fixture = Fixture::up(settings());
    let mut message = delivery(tag(0, 1), task(1), b"body");
    let more = json!({"resource_specification": "{\"num_nodes\": 2}", "result_serializers": ["a.B"],
                      "function_python": "3.11", "unknown": true});
    message.headers.extend(more.as_object().unwrap().clone());
    let actions = fixture.on(Input::Delivered(message));
    let [Action::Submit(submitted)] = actions.as_slice() else { panic!("{actions:?}") };
    let Task(submission) = submitted.as_ref();
    assert_eq!(submission.body, &b"body"[..]);
    assert_eq!(submission.resource_specification["num_nodes"], 2);
    assert_eq!(submission.result_serializers, ["a.B"]);
    assert_eq!(submission.function_python.as_deref(), Some("3.11"));
}

#[test]
fn a_message_that_names_no_task_is_rejected() {
    let mut fixture = Fixture::up(settings());
    for (headers, body) in [
        (json!({}), &b""[..]),
        (json!({}), b"\x01{}"),
        (json!({"task_uuid": "x"}), b"x"),
        (json!({"task_uuid": 1}), b"x"),
    ] {
        let message =
            Delivery { tag: tag(0, 1), headers: headers.as_object().unwrap().clone(), body: body.to_vec() };
        assert_eq!(fixture.on(Input::Delivered(message)), [Action::Reject(vec![tag(0, 1)])], "{headers}");
    }
    let body = wire::message::Task {
        task_id: task(7),
        container_id: None,
        container: None,
        task_buffer: wire::Text::plain("x"),
    };
    let message = Delivery { tag: tag(0, 2), headers: Default::default(), body: body.encode() };
    let actions = fixture.on(Input::Delivered(message));
    assert!(
        matches!(actions.as_slice(), [Action::Keep { task: known, .. }] if *known == task(7)),
        "{actions:?}"
    );
}

#[test]
fn a_function_that_is_not_allowed_is_refused_in_upstreams_words() {
    let allowed = Some([FunctionId::from_uuid(Uuid::from_u128(5))].into());
    let mut fixture = Fixture::up(Settings { allowed, ..settings() });
    let actions = fixture.deliver(1);
    let [Action::Keep { result, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    let text = format!("Function {FUNCTION} not permitted on endpoint {}", endpoint());
    assert_eq!(
        String::from_utf8_lossy(result),
        format!(
            "\u{1}{{\"message_type\":\"result\",\"data\":{{\"task_id\":\"{}\",\"data\":\"{text}\",\
             \"details\":{{\"fid\":\"{FUNCTION}\",\"eid\":\"{}\"}},\"error_details\":{{\"code\":\"FUNCTION_NOT_ALLOWED\",\
             \"user_message\":\"{text}\"}},\"task_statuses\":null}}}}",
            task(1),
            endpoint()
        )
    );
    let mut none = Fixture::up(Settings { allowed: Some(HashSet::new()), ..settings() });
    assert!(matches!(none.deliver(1).as_slice(), [Action::Keep { .. }]), "an empty list allows nothing");
}

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
fn only_so_many_results_are_on_their_way() {
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
fn what_the_broker_does_not_take_is_sent_again_with_a_heartbeat() {
    for status in [PublishStatus::Returned("NO_ROUTE".into()), PublishStatus::Refused] {
        let mut fixture = Fixture::up(settings());
        fixture.begin(1);
        fixture.end(1);
        fixture.kept(1);
        assert_eq!(fixture.settled(1, status), [], "kept, and not in a hurry");
        let actions = fixture.on(Input::Beat);
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

#[test]
fn the_window_is_bounded_in_bytes() {
    let mut fixture = Fixture::up(Settings { bytes: 100, ..settings() });
    let mut deliver = |number: u64, size| {
        fixture.on(Input::Delivered(delivery(tag(0, number), task(u128::from(number)), &vec![0; size])))
    };
    assert!(is_submit(&deliver(1, 60)));
    assert!(matches!(deliver(2, 60).as_slice(), [Action::Submit(_), Action::Consume(false)]));
    assert_eq!(deliver(3, 1), [Action::GiveBack(vec![tag(0, 3)])], "it was on its way");
    assert_eq!(fixture.end(1).len(), 1, "60 bytes are left: more than half");
    assert_eq!(fixture.end(2)[1..], [Action::Consume(true)]);
    assert!(is_submit(&fixture.deliver(3)));
}

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
            Action::LeaveWithin(Duration::from_secs(10)),
        ]
    );
    assert_eq!(fixture.on(Input::Stop), [], "once");
    assert_eq!(fixture.deliver(9), [Action::GiveBack(vec![tag(0, 9)])]);
    assert_eq!(fixture.on(Input::Returned(vec![task(1)])), [Action::GiveBack(vec![tag(0, 1)])]);
    assert_eq!(
        fixture.on(Input::Journaled(vec![task(2)])),
        [Action::Acknowledge(vec![tag(0, 2)]), Action::Begin(vec![task(2)])],
        "the engine had asked: it begins, and has the grace like the others"
    );
    fixture.end(2);
    fixture.kept(2);
    fixture.settled(2, PublishStatus::Confirmed);
    fixture.end(3);
    assert_eq!(fixture.on(Input::EngineStopped), [], "a result is on its way to the spool");
    assert_eq!(fixture.kept(3), [publish(0, 3)]);
    assert_eq!(
        fixture.settled(3, PublishStatus::Confirmed)[1..],
        [Action::Heartbeat { session: 0, active: false }, Action::Leave]
    );
    assert_eq!(fixture.on(Input::Late), [], "left already");
}

#[test]
fn what_never_began_goes_back_however_the_engine_ends_it() {
    let mut fixture = Fixture::up(settings());
    fixture.deliver(1);
    fixture.deliver(2);
    fixture.on(Input::Assigned(vec![task(2)]));
    fixture.on(Input::JournalFailed);
    assert_eq!(fixture.end(1), [Action::GiveBack(vec![tag(0, 1)])]);
    assert_eq!(fixture.end(2), [Action::JournalReturned(vec![task(2)]), Action::GiveBack(vec![tag(0, 2)])]);
}

#[test]
fn a_stop_does_not_wait_for_a_broker_that_is_away() {
    let mut fixture = Fixture::up(settings());
    fixture.begin(1);
    fixture.on(Input::LinkDown);
    fixture.on(Input::Stop);
    fixture.end(1);
    fixture.on(Input::EngineStopped);
    assert_eq!(fixture.kept(1), [Action::Leave], "the next start sends it");
}

#[test]
fn what_the_engine_forgot_to_return_goes_back_when_it_is_gone() {
    let mut fixture = Fixture::up(settings());
    fixture.deliver(1);
    assert_eq!(
        fixture.on(Input::EngineStopped)[3..],
        [Action::GiveBack(vec![tag(0, 1)]), Action::Heartbeat { session: 0, active: false }, Action::Leave]
    );
}

#[test]
fn the_second_signal_spools_and_leaves() {
    let mut fixture = Fixture::up(settings());
    fixture.begin(1);
    fixture.on(Input::Stop);
    assert_eq!(
        fixture.on(Input::Hurry),
        [Action::StopEngine { grace: Duration::ZERO }, Action::LeaveWithin(Duration::from_secs(2))]
    );
    fixture.end(1);
    fixture.on(Input::EngineStopped);
    let actions = fixture.kept(1);
    assert_eq!(actions.last(), Some(&Action::Leave), "without waiting for the broker: {actions:?}");
}

#[test]
fn time_runs_out() {
    let mut fixture = Fixture::up(settings());
    fixture.begin(1);
    fixture.on(Input::Stop);
    assert_eq!(fixture.on(Input::Late), [Action::Heartbeat { session: 0, active: false }, Action::Leave]);
}

#[test]
fn trouble_that_lasts_ends_the_run_in_order() {
    for trouble in [Input::Superseded, Input::JournalFailed, Input::LinkEnded] {
        let mut fixture = Fixture::up(settings());
        let shown = format!("{trouble:?}");
        assert_eq!(fixture.on(trouble)[0], Action::Consume(false), "{shown}");
    }
}

/// Tasks that wait in the queue get the reason, too: for a moment they are still taken, and the engine fails them.
#[test]
fn an_engine_that_is_no_good_has_a_last_round() {
    let mut fixture = Fixture::up(settings());
    assert_eq!(fixture.on(Input::EngineBad), [Action::StopWithin(Duration::from_secs(3))]);
    assert!(matches!(&fixture.deliver(1)[..], [Action::Submit(_)]));
    let result = b"no block works".to_vec();
    let ended = fixture.on(Input::Ended { task: task(1), result: result.clone() });
    assert_eq!(ended, [Action::Keep { task: task(1), result }]);
    assert_eq!(fixture.on(Input::Stop)[0], Action::Consume(false));
    assert_eq!(fixture.on(Input::EngineBad), [], "it stops already");
}

#[test]
fn an_idle_endpoint_stops_when_it_is_told_to() {
    let stops = |fixture: &mut Fixture| fixture.on(Input::Beat).contains(&Action::Consume(false));
    let mut never = Fixture::up(settings());
    assert!(!(0..50).any(|_| stops(&mut never)));
    let idle = || Settings { idle: Idle { soft: 2, hard: 4 }, ..settings() };
    let mut fresh = Fixture::up(idle());
    assert_eq!((1..).find(|_| stops(&mut fresh)), Some(5), "never had a task: beyond the hard limit");
    let mut done = Fixture::up(idle());
    done.begin(1);
    done.end(1);
    done.kept(1);
    done.settled(1, PublishStatus::Confirmed);
    assert!(!stops(&mut done), "something moved since the last heartbeat");
    assert_eq!((1..).find(|_| stops(&mut done)), Some(2), "two idle heartbeats");
    let mut busy = Fixture::up(idle());
    busy.begin(1);
    assert_eq!((0..).find(|_| stops(&mut busy)), Some(5), "it works on one task: the hard limit");
}

#[test]
fn what_earlier_runs_left() {
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
fn it_has_told_when_all_that_was_left_is_confirmed() {
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
    fixture.on(Input::Beat);
    fixture.on(Input::Loaded { task: task(2), result: Some(b"lost".to_vec()) });
    fixture.settled(2, PublishStatus::Confirmed);
    assert!(fixture.interchange.has_reported_leftovers());
    fixture.begin(3);
    fixture.end(3);
    assert!(fixture.interchange.has_reported_leftovers(), "of its own run's results nothing is to be feared");
}

#[test]
fn the_service_cancels_wherever_a_task_stands() {
    let mut fixture = Fixture::up(settings());
    fixture.deliver(1);
    fixture.begin(2);
    let cancelled = fixture.on(Input::Cancel(vec![task(1), task(2), task(3)]));
    assert_eq!(cancelled, [Action::Cancel(task(1)), Action::Cancel(task(2))]);
    let late = fixture.deliver(3);
    assert!(late.contains(&Action::Cancel(task(3))), "it was cancelled before it came: {late:?}");
    // Once it has ended there is nothing to cancel.
    fixture.on(Input::Ended { task: task(2), result: b"r".to_vec() });
    assert_eq!(fixture.on(Input::Cancel(vec![task(2)])), []);
}

/// The filter says that a task may have ended; only the journal knows.
#[test]
fn what_may_have_ended_waits_for_the_journals_word() {
    let mut ended = Filter::default();
    (1..=4).for_each(|number| ended.insert(task(number)));
    let mut actions = Vec::new();
    let interchange = Interchange::new(settings(), Leftovers { ended, ..Leftovers::default() }, &mut actions);
    let mut fixture = Fixture { interchange };
    fixture.on(Input::LinkUp { session: 0 });
    let asks = |number| [Action::LookUp(task(number))];
    assert_eq!(fixture.on(Input::Delivered(delivery(tag(0, 1), task(1), b"x"))), asks(1));
    let twice = fixture.on(Input::Delivered(delivery(tag(0, 2), task(1), b"x")));
    assert_eq!(twice, [Action::Acknowledge(vec![tag(0, 2)])], "one message is enough to be answered");
    // A new session brings the message again; the word of the journal is for the new one.
    fixture.on(Input::LinkDown);
    fixture.on(Input::LinkUp { session: 1 });
    assert_eq!(fixture.on(Input::Delivered(delivery(tag(1, 1), task(1), b"x"))), []);
    let known = fixture.on(Input::LookedUp { task: task(1), known: true });
    assert_eq!(known, [Action::Acknowledge(vec![tag(1, 1)])]);
    assert_eq!(fixture.on(Input::LookedUp { task: task(1), known: true }), [], "told once");
    // A filter errs; the task runs then, or is cancelled, as any other.
    fixture.on(Input::Delivered(delivery(tag(1, 2), task(2), b"x")));
    assert_eq!(fixture.on(Input::Cancel(vec![task(2)])), []);
    let new = fixture.on(Input::LookedUp { task: task(2), known: false });
    assert!(matches!(&new[..], [Action::Submit(_), Action::Cancel(_)]), "{new:?}");
    // What is asked about takes its room.
    let long = [b'x'; 1000];
    let full = fixture.on(Input::Delivered(delivery(tag(1, 3), task(3), &long)));
    assert_eq!(full, [Action::LookUp(task(3)), Action::Consume(false)]);
    let room = fixture.on(Input::LookedUp { task: task(3), known: true });
    assert_eq!(room, [Action::Acknowledge(vec![tag(1, 3)]), Action::Consume(true)]);
    // An endpoint that stops takes nothing.
    fixture.on(Input::Delivered(delivery(tag(1, 4), task(4), b"x")));
    fixture.on(Input::Stop);
    let stopping = fixture.on(Input::LookedUp { task: task(4), known: false });
    assert_eq!(stopping, [Action::GiveBack(vec![tag(1, 4)])]);
}

/// The earlier run is on another host and may only be stopped: its results count as long as they can come.
#[test]
fn what_another_run_may_still_have_is_awaited_and_then_lost() {
    let lost = vec![(task(1), b"lost 1".to_vec()), (task(2), b"lost 2".to_vec())];
    let left = Leftovers { lost, awaited: true, ..Leftovers::default() };
    let mut actions = Vec::new();
    let interchange = Interchange::new(settings(), left, &mut actions);
    assert_eq!(actions, [], "nothing is lost yet");
    let mut fixture = Fixture { interchange };
    fixture.on(Input::LinkUp { session: 0 });
    assert!(fixture.interchange.awaits() && !fixture.interchange.has_reported_leftovers());
    // The broker delivers again what the earlier run never acknowledged.
    assert_eq!(fixture.deliver(1), [Action::Acknowledge(vec![tag(0, 1)])], "it does not begin twice");
    let both = vec![task(1), task(2)];
    assert_eq!(fixture.on(Input::Look { last: false }), [Action::LookFor { tasks: both, last: false }]);
    assert_eq!(fixture.on(Input::Found { tasks: vec![task(2)], last: false }), [Action::Load(task(2))]);
    let result = b"it ran".to_vec();
    let loaded = fixture.on(Input::Loaded { task: task(2), result: Some(result.clone()) });
    assert_eq!(loaded, [Action::Publish { session: 0, task: task(2), result }]);
    assert_eq!(
        fixture.on(Input::Look { last: true }),
        [Action::LookFor { tasks: vec![task(1)], last: true }]
    );
    let ended = fixture.on(Input::Found { tasks: vec![], last: true });
    assert_eq!(ended, [Action::Keep { task: task(1), result: b"lost 1".to_vec() }]);
    assert!(!fixture.interchange.awaits());
    assert_eq!(fixture.on(Input::Look { last: false }), []);
}

#[test]
fn when_all_that_was_awaited_has_come_the_earlier_run_is_tidied_up_after() {
    let left = Leftovers { lost: vec![(task(1), b"lost".to_vec())], awaited: true, ..Leftovers::default() };
    let mut fixture = Fixture { interchange: Interchange::new(settings(), left, &mut Vec::new()) };
    fixture.on(Input::LinkUp { session: 0 });
    let tidies = Action::LookFor { tasks: vec![], last: true };
    let found = fixture.on(Input::Found { tasks: vec![task(1)], last: false });
    assert_eq!(found, [Action::Load(task(1)), tidies]);
    assert_eq!(fixture.on(Input::Found { tasks: vec![], last: true }), []);
}
