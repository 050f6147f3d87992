//! Ids and secrets that the store draws: the only place that does. Commands get the ids of their rows as parameters.
#![allow(clippy::disallowed_methods)] // this is the module that the lint points everybody to

use std::time::Duration;

use rand::RngExt;
use uuid::Uuid;

/// An id that sorts by the time it was made.
pub(crate) fn ordered_id() -> Uuid {
    Uuid::now_v7()
}

/// 32 random bytes: enough for a secret that nobody can guess.
pub(crate) fn random_bytes() -> [u8; 32] {
    rand::rng().random()
}

/// A number for a process, which no other living one has. It is not negative: the halves of an advisory lock's key, which
/// PostgreSQL shows, have no sign.
pub(crate) fn process_number() -> i64 {
    rand::rng().random_range(0..=i64::MAX)
}

/// A time between nothing and `most`.
pub(crate) fn up_to(most: Duration) -> Duration {
    most.mul_f64(rand::rng().random_range(0.0..1.0))
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_of_processes_are_not_negative() {
        assert!((0..100).all(|_| super::process_number() >= 0));
    }
}
