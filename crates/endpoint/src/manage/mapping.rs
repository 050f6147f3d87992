//! Maps identities on threads that may block, and reads the mapping again when its file changes.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use manager::children::Mapped;
use manager::core::{MAPPINGS_AT_A_TIME, MappingOutcome};
use manager::mapping::watch::{Change, LoadError, Loaded, Watched};
use manager::mapping::{Mapping, Settings, Warning};
use tokio::sync::mpsc;
use wire::start_document::LinkedIdentity;

/// How many evaluations may be under way: those that the core waits for, and as many that it has given up on. These keep
/// their threads until they come to an end, and the manager needs threads for other things.
const MOST_UNDER_WAY: usize = 2 * MAPPINGS_AT_A_TIME;

/// The mapping in force. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct IdentityMapper {
    current: Arc<RwLock<Arc<Mapping>>>,
    watched: Arc<Mutex<Watched>>,
    /// Each evaluation that is under way has a clone.
    under_way: Arc<()>,
}

impl IdentityMapper {
    /// Reads the file. Also returns what the administrator should know about it.
    pub(super) fn open(path: &Path, settings: Settings) -> Result<(Self, Vec<Warning>), LoadError> {
        let (watched, Loaded { mapping, warnings }) = Watched::open(path, settings)?;
        let current = Arc::new(RwLock::new(Arc::new(mapping)));
        let watched = Arc::new(Mutex::new(watched));
        Ok((Self { current, watched, under_way: Arc::default() }, warnings))
    }

    /// Maps, on a thread of its own, and sends the outcome.
    pub(super) fn map(
        &self,
        number: u64,
        identities: Vec<LinkedIdentity>,
        outbox: mpsc::UnboundedSender<(u64, MappingOutcome)>,
    ) {
        let mapping = Arc::clone(&*self.current.read().unwrap_or_else(PoisonError::into_inner));
        self.on_a_thread(number, outbox, move || evaluate(&mapping, &identities));
    }

    fn on_a_thread(
        &self,
        number: u64,
        outbox: mpsc::UnboundedSender<(u64, MappingOutcome)>,
        evaluate: impl FnOnce() -> MappingOutcome + Send + 'static,
    ) {
        let mut answer = Answer { number, outbox, given: false };
        let under_way = Arc::clone(&self.under_way);
        let others = Arc::strong_count(&under_way).saturating_sub(2);
        if others >= MOST_UNDER_WAY {
            let why = format!("{others} earlier evaluations have not come to an end.");
            return answer.give(MappingOutcome::Failed(why));
        }
        tokio::task::spawn_blocking(move || {
            answer.give(evaluate());
            drop(under_way);
        });
    }

    /// Looks at the file, on a thread of its own.
    pub(super) fn look(&self) {
        let mapper = self.clone();
        tokio::task::spawn_blocking(move || {
            // A look that is under way, on a file system that does not answer, is enough.
            let Ok(mut watched) = mapper.watched.try_lock() else { return };
            let Some(change) = watched.changed() else { return };
            let text = change.text(watched.path());
            match change {
                Change::Replaced(Loaded { mapping, warnings }) => {
                    *mapper.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(mapping);
                    tracing::info!("{text}");
                    warn(&warnings);
                }
                Change::Refused(_) => tracing::error!("{text}"),
            }
        });
    }
}

/// The answer to a question, which is given once, also if the evaluation panics.
struct Answer {
    number: u64,
    outbox: mpsc::UnboundedSender<(u64, MappingOutcome)>,
    given: bool,
}

impl Answer {
    fn give(&mut self, outcome: MappingOutcome) {
        self.given = true;
        let _ = self.outbox.send((self.number, outcome));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.given {
            self.give(MappingOutcome::Failed("The evaluation panicked.".to_owned()));
        }
    }
}

/// Writes what the administrator should know about a mapping to the log.
pub(super) fn warn(warnings: &[Warning]) {
    for warning in warnings {
        tracing::warn!("Identity mapping: {warning}");
    }
}

fn evaluate(mapping: &Mapping, identities: &[LinkedIdentity]) -> MappingOutcome {
    let evaluation = mapping.evaluate(identities);
    for warning in &evaluation.warnings {
        tracing::warn!("{warning}");
    }
    let candidates = evaluation.candidates_json();
    match (evaluation.matched, evaluation.refused) {
        (Some(matched), _) => MappingOutcome::To(Mapped {
            identity: matched.identity,
            local_user: matched.local_user,
            candidates,
        }),
        (None, Some(refused)) => MappingOutcome::Forbidden(format!(
            "identity {} is mapped to '{}': {}",
            refused.identity, refused.local_user, refused.problem
        )),
        (None, None) => MappingOutcome::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn evaluations_that_hang_leave_threads_for_others() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("mapping.json");
        std::fs::write(&path, "[]").unwrap();
        let settings = Settings { connector: String::new(), gateway: String::new() };
        let (mapper, _) = IdentityMapper::open(&path, settings).unwrap();
        let (outbox, mut answers) = mpsc::unbounded_channel();
        let (hangs, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for number in 0..10 * MOST_UNDER_WAY as u64 {
            let held = Arc::clone(&held);
            mapper.on_a_thread(number, outbox.clone(), move || {
                // Until the other end is dropped.
                let _ = held.lock().unwrap().recv();
                MappingOutcome::Nobody
            });
        }
        for number in MOST_UNDER_WAY as u64..10 * MOST_UNDER_WAY as u64 {
            let answer = answers.recv().await;
            assert!(matches!(answer, Some((it, MappingOutcome::Failed(_))) if it == number), "{answer:?}");
        }
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        drop(hangs);
        for _ in 0..MOST_UNDER_WAY {
            assert!(matches!(answers.recv().await, Some((_, MappingOutcome::Nobody))));
        }
        while Arc::strong_count(&mapper.under_way) > 1 {
            tokio::task::yield_now().await;
        }
        mapper.map(9, Vec::new(), outbox);
        assert_eq!(answers.recv().await, Some((9, MappingOutcome::Nobody)));
    }

    #[test]
    fn an_evaluation_that_panics_is_answered() {
        let (outbox, mut answers) = mpsc::unbounded_channel();
        let panicking = outbox.clone();
        let ended = std::thread::spawn(move || {
            let _answer = Answer { number: 7, outbox: panicking, given: false };
            panic!("in an expression");
        });
        assert!(ended.join().is_err());
        assert!(matches!(answers.try_recv(), Ok((7, MappingOutcome::Failed(_)))));
        Answer { number: 8, outbox, given: false }.give(MappingOutcome::Nobody);
        assert_eq!(answers.try_recv(), Ok((8, MappingOutcome::Nobody)));
        assert!(answers.try_recv().is_err(), "once");
    }
}
