//! Which errors of the store a caller can do something about, and when to try again: one table for the API, the token routes and
//! the pages, which each say it in their own form.

use store::{StoreError, outage_log};

/// When a caller may try again if the service can't answer now, in seconds.
pub const RETRY_AFTER: u32 = 2;
/// The same while the database cannot be used: a restart or a failover takes longer.
const RETRY_AFTER_OUTAGE: u32 = 5;

/// Why a request failed at the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFailure {
    /// The caller's text holds the character NUL.
    Nul,
    /// Others were changing the same, and nothing was done.
    Conflict,
    /// The database cannot be used.
    Outage,
    Other,
}

impl StoreFailure {
    /// Finds out why a request failed, and logs what the operator has to know.
    pub fn of(error: &StoreError) -> StoreFailure {
        match error {
            StoreError::Nul => StoreFailure::Nul,
            StoreError::TryAgain => {
                tracing::warn!(%error, "a request failed because others were changing the same");
                StoreFailure::Conflict
            }
            _ if outage_log::logs(error) => StoreFailure::Outage,
            _ => {
                tracing::error!(%error, "a request failed because the store failed");
                StoreFailure::Other
            }
        }
    }

    /// When the caller may try again, in seconds.
    pub fn retry_after(self) -> u32 {
        match self {
            StoreFailure::Outage => RETRY_AFTER_OUTAGE,
            StoreFailure::Nul | StoreFailure::Conflict | StoreFailure::Other => RETRY_AFTER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_an_error_of_the_store() {
        for (error, failure, seconds) in [
            (StoreError::Nul, StoreFailure::Nul, 2),
            (StoreError::TryAgain, StoreFailure::Conflict, 2),
            (StoreError::InUse("db".into()), StoreFailure::Outage, 5),
            (StoreError::Corrupt("name"), StoreFailure::Other, 2),
        ] {
            assert_eq!(StoreFailure::of(&error), failure, "{error}");
            assert_eq!(failure.retry_after(), seconds, "{error}");
        }
    }
}
