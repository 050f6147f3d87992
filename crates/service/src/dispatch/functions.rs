//! Caches small functions, so that a burst of tasks reads each once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use wire::FunctionId;

use store::{Function, Store, StoreError};

/// The most functions in the cache, and the largest that is cached.
const REMEMBERED: usize = 256;
const REMEMBERED_BYTES: usize = 256 << 10;

/// The cache of functions. Clones share it.
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
