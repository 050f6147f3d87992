//! Tests the audit records: which there are, in which order, and that nothing begins before those it needs.

use super::*;

fn audited() -> Settings {
    Settings { audited: true, ..settings() }
}

/// The records among these actions, without the ids that all of them have. Managers take each for a record.
fn records(actions: &[Action]) -> Vec<String> {
    let head = |block: &str| format!("fid={FUNCTION} tid={} bid={block} ", task(1));
    let short = |record: &String| {
        assert!(manager::audit::is_record(record.as_bytes()), "{record}");
        let mut record = record.clone();
        for block in ["", "0", "1"] {
            record = record.replace(&head(block), &format!("[{block}] "));
        }
        record
    };
    let record = |action: &Action| match action {
        Action::Record(record) => Some(short(record)),
        _ => None,
    };
    actions.iter().filter_map(record).collect()
}

#[test]
fn a_task_from_delivery_to_end() {
    let mut fixture = Fixture::up(audited());
    let delivered = fixture.deliver(1);
    assert_eq!(records(&delivered), ["[] RECEIVED", "[] EXEC_START"]);
    assert!(
        matches!(delivered.last(), Some(Action::Submit(_))),
        "what it needs is recorded first: {delivered:?}"
    );
    assert_eq!(records(&fixture.deliver(1)), [""; 0], "delivered twice");
    fixture.on(Input::Assigned(vec![task(1)]));
    assert_eq!(records(&fixture.on(Input::Journaled(vec![task(1)]))), [""; 0]);
    let placed = |block| Input::Placed { task: task(1), block };
    assert_eq!(records(&fixture.on(placed(0))), ["[0] RUNNING"]);
    assert_eq!(records(&fixture.on(placed(0))), [""; 0], "another node of the same block");
    assert_eq!(records(&fixture.on(placed(1))), ["[1] RUNNING"], "tried again");
    let ended = fixture.end(1);
    assert_eq!(records(&ended), ["[1] EXEC_END"]);
    assert!(matches!(ended.last(), Some(Action::Keep { .. })));
    assert_eq!(records(&fixture.on(placed(1))), [""; 0]);
}

#[test]
fn without_blocks_nothing_says_where_it_runs() {
    let mut fixture = Fixture::up(audited());
    fixture.begin(1);
    assert_eq!(records(&fixture.end(1)), ["[] EXEC_END"]);
}

#[test]
fn a_function_that_is_not_allowed() {
    let mut fixture = Fixture::up(Settings { allowed: Some(HashSet::new()), ..audited() });
    assert_eq!(
        records(&fixture.deliver(1)),
        ["[] RECEIVED", "[] FAILED - Function not permitted on endpoint", "[] EXEC_END"]
    );
}

#[test]
fn a_function_that_is_no_longer_allowed() {
    let mut fixture = Fixture::up(audited());
    fixture.deliver(1);
    let refused = fixture.on(Input::Allowed(Some(HashSet::new())));
    assert_eq!(records(&refused), ["[] FAILED - Function not permitted on endpoint"]);
    assert_eq!(records(&fixture.end(1)), ["[] EXEC_END"]);
}

/// What a message says where its function should be is nothing that a record could repeat.
#[test]
fn a_message_without_a_function() {
    let mut fixture = Fixture::up(audited());
    let mut message = delivery(tag(0, 1), task(1), b"x");
    message.headers.insert("function_uuid".to_owned(), "x tid=y RUNNING".into());
    let id = task(1);
    assert_eq!(
        records(&fixture.on(Input::Delivered(message))),
        [format!("fid= tid={id} bid= RECEIVED"), format!("fid= tid={id} bid= EXEC_END")]
    );
}

#[test]
fn a_task_that_goes_back_to_its_queue_is_recorded_again() {
    let mut fixture = Fixture::up(audited());
    fixture.deliver(1);
    assert_eq!(records(&fixture.on(Input::Stop)), [""; 0]);
    assert_eq!(records(&fixture.on(Input::Returned(vec![task(1)]))), [""; 0]);
    let mut next = Fixture::up(audited());
    assert_eq!(records(&next.deliver(1)), ["[] RECEIVED", "[] EXEC_START"]);
}

/// Its function is not known any more, as upstream's is not.
#[test]
fn a_task_that_was_lost_ends_in_the_next_run() {
    let mut actions = Vec::new();
    let left = Leftovers { lost: vec![(task(1), b"lost".to_vec())], ..Leftovers::default() };
    Interchange::new(audited(), left, &mut actions);
    assert_eq!(records(&actions), [format!("fid= tid={} bid= EXEC_END", task(1))]);
}

#[test]
fn when_records_fail_everything_ends_at_once() {
    let mut fixture = Fixture::up(audited());
    fixture.begin(1);
    let actions = fixture.on(Input::RecordsFailed);
    assert!(actions.contains(&Action::StopEngine { grace: Duration::ZERO }), "{actions:?}");
}
