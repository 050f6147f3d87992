//! The functions of tasks on their way: those that are small are remembered, so that a burst reads them once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use wire::FunctionId;

use store::{Function, Store, StoreError};

/// Functions remembered, and the most that one of them may measure to be remembered.
const REMEMBERED: usize = 256;
const REMEMBERED_BYTES: usize = 256 << 10;

/// Clones share what is remembered.
#[derive(Clone, Debug)]
pub(super) struct Functions {
    store: Store,
    remembered: Arc<Mutex<HashMap<FunctionId, Arc<Function>>>>,
}

impl Functions {
    pub(super) fn new(store: Store) -> Functions {
        Functions { store, remembered: Arc::default() }
    }

    pub(super) async fn get(&self, id: FunctionId) -> Result<Option<Arc<Function>>, StoreError> {
        if let Some(function) = self.remembered().get(&id).cloned() {
            return Ok(Some(function));
        }
        let Some(function) = self.store.function(id).await?.map(Arc::new) else { return Ok(None) };
        if function.code.len() <= REMEMBERED_BYTES {
            let mut functions = self.remembered();
            if functions.len() >= REMEMBERED {
                functions.clear();
            }
            functions.insert(id, function.clone());
        }
        Ok(Some(function))
    }

    pub(super) fn forget(&self, id: FunctionId) {
        self.remembered().remove(&id);
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<FunctionId, Arc<Function>>> {
        // A panic while it was held cannot have left it half changed.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
