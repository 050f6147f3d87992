//! Tables of events, and the actions that they must lead to.

use super::*;
use crate::provider::scheduler::{BatchState, EndCause, Exit, Wait, WaitReason};

pub(super) const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn block(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub(super) fn id(text: &str) -> JobId {
    JobId(text.to_owned())
}

fn ledger() -> Ledger {
    Ledger::new(LIMIT, false)
}

pub(super) fn wanted(number: u128) -> Event {
    Event::Wanted { block: block(number), name: format!("n{number}") }
}

pub(super) fn answered(number: u128, answer: Result<&str, SubmitError>) -> Event {
    Event::Submitted { block: block(number), answer: answer.map(id) }
}

pub(super) fn found(number: u128, answer: Result<Option<&str>, &str>) -> Event {
    let answer = answer.map(|found| found.map(id)).map_err(|error| QueryError(error.to_owned()));
    Event::Found { block: block(number), answer }
}

pub(super) fn polled(verdicts: &[(&str, Verdict)]) -> Event {
    Event::Polled(verdicts.iter().map(|(job, verdict)| (id(job), verdict.clone())).collect())
}

pub(super) fn known(state: BatchState) -> Verdict {
    Verdict::Known(JobReport { state, name: None })
}

pub(super) fn ended(cause: EndCause) -> BatchState {
    BatchState::Ended(Ended { cause, exit: Some(Exit::Status(1)), words: "W".into() })
}

pub(super) fn waiting() -> BatchState {
    BatchState::Waiting(Wait { reason: WaitReason::Priority, words: "Priority".into(), expected: None })
}

pub(super) fn lost() -> SubmitError {
    SubmitError::Unknown("timed out".into())
}

/// The actions in short.
fn short(actions: &[Action]) -> String {
    let news = |news: &News| match news {
        News::Submitted(job) => format!("submitted:{}", job.0),
        News::Refused(words) => format!("refused:{words}"),
        News::Away(words) => format!("away:{words}"),
        News::Searching(_) => "searching".to_owned(),
        News::State(BatchState::Waiting(_)) => "waiting".to_owned(),
        News::State(state) => format!("{state:?}").to_lowercase(),
        News::NodesLost(how) => format!("lost:{:?}", how.cause),
        News::Ended { how, ran } => {
            let how = how.as_ref().map_or_else(String::new, |how| format!(":{:?}", how.cause));
            format!("ended{how}{}", if *ran { ":ran" } else { "" })
        }
        News::CannotCancel { job, .. } => format!("cannot-cancel:{}", job.0),
    };
    let one = |action: &Action| match action {
        Action::Write(Record { job: None, .. }) => "write".to_owned(),
        Action::Write(Record { job: Some(job), .. }) => format!("write:{}", job.0),
        Action::Erase(_) => "erase".to_owned(),
        Action::Submit { .. } => "submit".to_owned(),
        Action::Find { .. } => "find".to_owned(),
        Action::Cancel(jobs) => {
            format!("cancel:{}", jobs.iter().map(|job| job.0.as_str()).collect::<Vec<_>>().join(","))
        }
        Action::Tell { news: told, .. } => news(told),
    };
    actions.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Plays events, each at its second, against what they must lead to.
fn play(ledger: &mut Ledger, steps: Vec<(u64, Event, &str)>) {
    for (number, (second, event, expected)) in steps.into_iter().enumerate() {
        let said = format!("step {number}: {event:?}");
        assert_eq!(short(&ledger.apply(event, at(second))), expected, "{said}");
    }
}

/// The steps to a job with the id 7.
fn opened() -> Vec<(u64, Event, &'static str)> {
    vec![
        (0, wanted(1), "write"),
        (0, Event::Written(block(1)), "submit"),
        (0, answered(1, Ok("7")), "write:7 submitted:7"),
    ]
}

#[test]
fn nothing_is_submitted_before_it_is_on_disk() {
    let mut ledger = ledger();
    play(
        &mut ledger,
        vec![
            (0, wanted(1), "write"),
            (0, wanted(1), ""),
            (5, Event::Tick, ""),
            (9, Event::Written(block(1)), "submit"),
            (9, Event::Written(block(1)), ""),
            (10, answered(1, Ok("7")), "write:7 submitted:7"),
            (10, answered(1, Ok("8")), ""),
            (60, polled(&[("7", known(waiting()))]), "waiting"),
            (120, polled(&[("7", known(waiting()))]), ""),
            (180, polled(&[("7", known(BatchState::Running))]), "running"),
            (240, polled(&[("7", Verdict::Absent(None))]), "erase ended:ran"),
        ],
    );
    assert_eq!((ledger.count(), ledger.next_tick()), (0, None));
}

#[test]
fn a_refusal_ends_and_an_outage_is_waited_for_with_growing_pauses() {
    let again = || Err(SubmitError::TryAgain("down".into()));
    let mut ledger = ledger();
    play(
        &mut ledger,
        vec![
            (0, wanted(1), "write"),
            (0, Event::Written(block(1)), "submit"),
            (0, answered(1, again()), "away:down"),
            (1, Event::Tick, ""),
            (2, Event::Tick, "submit"),
            (2, answered(1, again()), "away:down"),
            (5, Event::Tick, ""),
            (6, Event::Tick, "submit"),
            (6, answered(1, Err(SubmitError::Refused("no queue".into()))), "erase refused:no queue"),
        ],
    );
    let pauses: Vec<_> =
        [1, 2, 3, 8, 9, 1000, u32::MAX].into_iter().map(|tries| pause(tries).as_secs()).collect();
    assert_eq!(pauses, [2, 4, 8, 256, 300, 300, 300]);
}

#[test]
fn a_lost_answer_counts_as_a_job_until_it_is_denied_twice_a_time_limit_apart() {
    let mut ledger = ledger();
    play(
        &mut ledger,
        vec![
            (0, wanted(1), "write"),
            (0, Event::Written(block(1)), "submit"),
            (10, answered(1, Err(lost())), "searching"),
            (19, Event::Tick, ""),
            (20, Event::Tick, "find"),
            (25, Event::Tick, ""),
            (25, found(1, Err("down")), ""),
            (35, Event::Tick, "find"),
            (36, found(1, Ok(None)), ""),
            (45, Event::Tick, ""),
            (46, Event::Tick, "find"),
        ],
    );
    assert_eq!(ledger.count(), 1);
    play(&mut ledger, vec![(47, found(1, Ok(None)), "erase ended")]);
    assert_eq!(ledger.count(), 0);
}

#[test]
fn a_job_that_is_found_is_a_job() {
    let mut ledger = ledger();
    play(
        &mut ledger,
        vec![
            (0, wanted(1), "write"),
            (0, Event::Written(block(1)), "submit"),
            (10, answered(1, Err(lost())), "searching"),
            (11, Event::Unwanted(block(1)), ""),
            (20, Event::Tick, "find"),
            (21, found(1, Ok(Some("9"))), "write:9 submitted:9 cancel:9"),
            (22, polled(&[("9", Verdict::Absent(None))]), ""),
            (25, polled(&[("9", Verdict::Absent(None))]), ""),
            (33, polled(&[("9", Verdict::Absent(None))]), "erase ended"),
        ],
    );
}

#[test]
fn a_state_that_comes_back_is_the_same_block() {
    let mut ledger = ledger();
    let mut steps = opened();
    steps.extend([
        (10, polled(&[("7", known(BatchState::Running))]), "running"),
        (20, polled(&[("7", known(ended(EndCause::Preempted)))]), "lost:Preempted"),
        (50, polled(&[("7", known(waiting()))]), "waiting"),
        (60, polled(&[("7", known(BatchState::Running))]), "running"),
        (70, polled(&[("7", known(ended(EndCause::NodeFailed)))]), "lost:NodeFailed"),
        (129, polled(&[("7", known(ended(EndCause::NodeFailed)))]), ""),
        (130, polled(&[("7", known(ended(EndCause::NodeFailed)))]), "erase ended:NodeFailed:ran"),
    ]);
    play(&mut ledger, steps);
}

#[test]
fn accounting_ends_a_block_at_once() {
    let how = Ended { cause: EndCause::OutOfMemory, exit: None, words: "OUT_OF_MEMORY".into() };
    let gone = || polled(&[("7", Verdict::Absent(Some(how.clone())))]);
    let mut unseen = ledger();
    let mut steps = opened();
    steps.push((10, gone(), "erase ended:OutOfMemory:ran"));
    play(&mut unseen, steps);
    let mut seen = ledger();
    let mut steps = opened();
    steps.push((10, polled(&[("7", known(waiting()))]), "waiting"));
    steps.push((70, gone(), "erase ended:OutOfMemory:ran"));
    play(&mut seen, steps);
}

#[test]
fn an_answer_that_says_nothing_of_a_job_changes_nothing() {
    let mut ledger = ledger();
    let mut steps = opened();
    steps.extend([
        (10, polled(&[]), ""),
        (11, polled(&[("8", Verdict::Absent(None))]), ""),
        (12, polled(&[("7", Verdict::Absent(None))]), ""),
        (13, polled(&[("7", known(BatchState::Unrecognised("NEW".into())))]), "unrecognised(\"new\")"),
        (14, polled(&[]), ""),
    ]);
    play(&mut ledger, steps);
    assert_eq!(ledger.open_jobs(), [id("7")]);
}

#[test]
fn a_cancellation_is_repeated_until_the_job_is_gone() {
    let refused = || Event::Cancelled(Err(CancelError { jobs: vec![id("7")], reason: "down".into() }));
    let mut ledger = ledger();
    let mut steps = opened();
    steps.extend([
        (10, polled(&[("7", known(BatchState::Running))]), "running"),
        (10, Event::Unwanted(block(1)), "cancel:7"),
        (10, Event::Unwanted(block(1)), ""),
        (11, refused(), ""),
        (13, Event::Tick, "cancel:7"),
        (13, refused(), ""),
        (17, Event::Tick, "cancel:7"),
        (17, refused(), "cannot-cancel:7"),
        (25, Event::Tick, "cancel:7"),
        (25, Event::Cancelled(Ok(vec![id("7")])), ""),
        (26, polled(&[("7", known(BatchState::Ending))]), "ending"),
        (85, Event::Tick, "cancel:7"),
        (
            90,
            polled(&[("7", known(ended(EndCause::Cancelled { by: None })))]),
            "erase ended:Cancelled { by: None }:ran",
        ),
    ]);
    play(&mut ledger, steps);
    assert_eq!(ledger.count(), 0);
}

#[test]
fn what_is_unwanted_before_it_was_submitted_never_is() {
    let mut written = ledger();
    play(
        &mut written,
        vec![
            (0, wanted(1), "write"),
            (0, Event::Unwanted(block(1)), ""),
            (1, Event::Written(block(1)), "erase ended"),
        ],
    );
    let mut paused = ledger();
    play(
        &mut paused,
        vec![
            (0, wanted(1), "write"),
            (1, Event::Written(block(1)), "submit"),
            (1, answered(1, Err(SubmitError::TryAgain("down".into()))), "away:down"),
            (2, Event::Unwanted(block(1)), "erase ended"),
            (9, Event::Tick, ""),
        ],
    );
    let mut submitting = ledger();
    play(
        &mut submitting,
        vec![
            (0, wanted(1), "write"),
            (1, Event::Written(block(1)), "submit"),
            (2, Event::Unwanted(block(1)), ""),
            (3, answered(1, Ok("7")), "write:7 submitted:7 cancel:7"),
        ],
    );
}

#[test]
fn a_scheduler_that_keeps_ended_jobs_is_made_to_forget_them() {
    let mut ledger = Ledger::new(LIMIT, true);
    let mut steps = opened();
    steps.extend([
        (10, polled(&[("7", known(ended(EndCause::Completed)))]), "lost:Completed"),
        (70, polled(&[("7", known(ended(EndCause::Completed)))]), "ended:Completed:ran cancel:7"),
        (71, polled(&[("7", known(ended(EndCause::Completed)))]), ""),
        (131, polled(&[("7", known(ended(EndCause::Completed)))]), "cancel:7"),
        (140, polled(&[("7", Verdict::Absent(None))]), "erase"),
    ]);
    play(&mut ledger, steps);
}

#[test]
fn what_an_earlier_run_has_left_is_cancelled_unless_its_id_is_of_another_job_now() {
    let mut ledger = ledger();
    let record = |number: u128, job: Option<&str>| Record {
        block: block(number),
        name: format!("n{number}"),
        job: job.map(id),
    };
    ledger.restore(vec![record(1, Some("7")), record(2, Some("8")), record(3, None)]);
    let named =
        |name: &str| Verdict::Known(JobReport { state: BatchState::Running, name: Some(name.to_owned()) });
    play(
        &mut ledger,
        vec![
            (0, Event::Tick, "find"),
            (1, polled(&[("7", named("n1")), ("8", named("somebody"))]), "running cancel:7"),
            (2, found(3, Ok(Some("9"))), "write:9 submitted:9"),
            (
                12,
                polled(&[("7", Verdict::Absent(None)), ("8", named("somebody")), ("9", named("n3"))]),
                "erase ended:ran erase ended running cancel:9",
            ),
            (13, polled(&[("9", Verdict::Absent(None))]), "erase ended:ran"),
        ],
    );
}
