//! Maps identities on threads that may block, and reads the mapping again when its file changes.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use manager::children::Mapped;
use manager::core::MappingOutcome;
use manager::mapping::watch::{Change, LoadError, Loaded, Watched};
use manager::mapping::{Mapping, Settings, Warning};
use tokio::sync::mpsc;
use wire::start_document::LinkedIdentity;

/// The mapping in force. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct IdentityMapper {
    current: Arc<RwLock<Arc<Mapping>>>,
    watched: Arc<Mutex<Watched>>,
}

impl IdentityMapper {
    /// Reads the file. Also returns what the administrator should know about it.
    pub(super) fn open(path: &Path, settings: Settings) -> Result<(Self, Vec<Warning>), LoadError> {
        let (watched, Loaded { mapping, warnings }) = Watched::open(path, settings)?;
        let current = Arc::new(RwLock::new(Arc::new(mapping)));
        Ok((Self { current, watched: Arc::new(Mutex::new(watched)) }, warnings))
    }

    /// Maps, on a thread of its own, and sends the outcome.
    pub(super) fn map(
        &self,
        number: u64,
        identities: Vec<LinkedIdentity>,
        outbox: mpsc::UnboundedSender<(u64, MappingOutcome)>,
    ) {
        let mapping = Arc::clone(&*self.current.read().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(move || {
            let mut answer = Answer { number, outbox, given: false };
            answer.give(evaluate(&mapping, &identities));
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
