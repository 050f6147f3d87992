//! What holds in every order of events.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::tests::{LIMIT, answered, at, block, ended, found, id, known, lost, polled, waiting, wanted};
use super::*;
use crate::provider::scheduler::{BatchState, EndCause};

#[derive(Clone, Debug)]
enum Move {
    Want,
    Written,
    Submit(u8),
    Find(u8),
    Poll(u8),
    Unwant,
    Cancel(bool),
    Tick,
}

fn moves() -> impl Strategy<Value = Vec<(u8, u128, Move)>> {
    let one = prop_oneof![
        Just(Move::Want),
        Just(Move::Written),
        (0..4u8).prop_map(Move::Submit),
        (0..3u8).prop_map(Move::Find),
        (0..6u8).prop_map(Move::Poll),
        Just(Move::Unwant),
        any::<bool>().prop_map(Move::Cancel),
        Just(Move::Tick),
    ];
    proptest::collection::vec((0..90u8, 1..4u128, one), 0..120)
}

proptest! {
    /// In any order of events: no submission without an entry on disk, one answer for each submission before another,
    /// and no entry that leaves while its job may run.
    #[test]
    fn the_rules_hold_in_every_order_of_events(moves in moves(), keeps in any::<bool>()) {
        let mut ledger = Ledger::new(LIMIT, keeps);
        let (mut now, mut on_disk, mut submitting) = (0u64, BTreeSet::new(), BTreeSet::new());
        for (pause, number, one) in moves {
            now += u64::from(pause);
            let job = format!("{number}");
            let event = match one {
                Move::Want => wanted(number),
                Move::Written => Event::Written(block(number)),
                Move::Submit(kind) => {
                    submitting.remove(&block(number));
                    answered(number, match kind {
                        0 => Ok(job.as_str()),
                        1 => Err(SubmitError::Refused(String::new())),
                        2 => Err(SubmitError::TryAgain(String::new())),
                        _ => Err(lost()),
                    })
                }
                Move::Find(kind) => found(number, match kind {
                    0 => Ok(Some(job.as_str())),
                    1 => Ok(None),
                    _ => Err("down"),
                }),
                Move::Poll(kind) => polled(&[(&job, match kind {
                    0 => known(waiting()),
                    1 => known(BatchState::Running),
                    2 => known(ended(EndCause::Failed)),
                    3 => known(ended(EndCause::Cancelled { by: None })),
                    4 => known(BatchState::Unrecognised("x".into())),
                    _ => Verdict::Absent(None),
                })]),
                Move::Unwant => Event::Unwanted(block(number)),
                Move::Cancel(true) => Event::Cancelled(Ok(vec![id(&job)])),
                Move::Cancel(false) => {
                    Event::Cancelled(Err(CancelError { jobs: vec![id(&job)], reason: String::new() }))
                }
                Move::Tick => Event::Tick,
            };
            let runs = matches!(&event, Event::Polled(verdicts)
                if verdicts.values().all(|it| matches!(it, Verdict::Known(report) if report.state == BatchState::Running)));
            let before = ledger.entries.len();
            for action in ledger.apply(event, at(now)) {
                match action {
                    Action::Write(record) => drop(on_disk.insert(record.block)),
                    Action::Erase(block) => {
                        prop_assert!(on_disk.remove(&block));
                        prop_assert!(!submitting.contains(&block), "its answer is still to come");
                    }
                    Action::Submit { block, .. } => {
                        prop_assert!(on_disk.contains(&block));
                        prop_assert!(submitting.insert(block), "submitted again before it was answered");
                    }
                    _ => {}
                }
            }
            prop_assert!(!runs || ledger.entries.len() == before, "a job that runs stays");
            prop_assert_eq!(ledger.entries.len(), on_disk.len());
        }
    }
}
