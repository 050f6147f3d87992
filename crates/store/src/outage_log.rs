//! Logs an outage of the database once for all that fails with it: while a server is away, every request and every loop of
//! the service fails for the same reason.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::StoreError;

/// An outage that lasts is logged again after so long.
const REPEATED: Duration = Duration::from_secs(60);

static OUTAGE: Mutex<Outage> = Mutex::new(Outage { logged: None, failures: 0 });

#[derive(Debug)]
struct Outage {
    logged: Option<Instant>,
    /// Failures since the last line.
    failures: u64,
}

impl Outage {
    /// Adds a failure. Returns how many to log now, if a line is due.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.failures += 1;
        if self.logged.is_some_and(|logged| now.duration_since(logged) < REPEATED) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.failures))
    }
}

/// Whether `error` is an outage; then it has been logged here, and the caller logs nothing.
pub fn logs(error: &StoreError) -> bool {
    if !error.is_outage() {
        return false;
    }
    let due = OUTAGE.lock().unwrap_or_else(PoisonError::into_inner).count(Instant::now());
    if let Some(failures) = due {
        tracing::error!(
            %error,
            failures,
            "the database cannot be used: requests get 503, results wait at their endpoints; this line comes once a minute until it can"
        );
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_once_a_minute() {
        let mut outage = Outage { logged: None, failures: 0 };
        let began = Instant::now();
        let mut at = |seconds| outage.count(began + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(1));
        assert_eq!((at(1), at(30), at(59)), (None, None, None));
        assert_eq!(at(60), Some(4));
        assert_eq!(at(61), None);
    }
}
