//! The credentials that clients have sent to the service, which no other host may get. Pure.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderValue, header};

use store::secret::Hash;

/// Some for each program that runs at a time. The oldest are forgotten.
const REMEMBERED: usize = 1_024;

/// Hashes of the values of `Authorization` that went to the service, the newest last.
#[derive(Debug, Default)]
pub(super) struct ServiceCredentials(Mutex<VecDeque<Hash>>);

impl ServiceCredentials {
    /// Remembers what a request to the service carries.
    pub(super) fn remember(&self, headers: &HeaderMap) {
        for value in headers.get_all(header::AUTHORIZATION) {
            let hash = hash(value);
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.back() == Some(&hash) {
                continue;
            }
            if let Some(at) = known.iter().position(|it| *it == hash) {
                known.remove(at);
            } else if known.len() == REMEMBERED {
                known.pop_front();
            }
            known.push_back(hash);
        }
    }

    /// Removes `Authorization` from a request to another host if the service knows one of its values. What a program sends to
    /// other hosts of its own accord, such as the key of an API, stays.
    pub(super) fn remove_from(&self, headers: &mut HeaderMap) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if headers.get_all(header::AUTHORIZATION).iter().any(|value| known.contains(&hash(value))) {
            headers.remove(header::AUTHORIZATION);
        }
    }
}

fn hash(value: &HeaderValue) -> Hash {
    Hash::of_parts(&[value.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn other_hosts_get_what_the_service_was_never_sent() {
        let credentials = ServiceCredentials::default();
        let goes_along = |value| {
            let mut headers = with(value);
            credentials.remove_from(&mut headers);
            !headers.is_empty()
        };
        credentials.remember(&with("Bearer token"));
        credentials.remember(&HeaderMap::new());
        assert!(!goes_along("Bearer token"));
        assert!(goes_along("Bearer of-another-service"));
        for number in 1..REMEMBERED {
            credentials.remember(&with(&format!("Bearer {number}")));
        }
        assert!(!goes_along("Bearer token"), "as many are remembered");
        credentials.remember(&with("Bearer token"));
        credentials.remember(&with("Bearer one more"));
        assert!(!goes_along("Bearer token"), "used again, remembered again");
        assert!(goes_along("Bearer 1"), "the oldest is forgotten");
    }
}
