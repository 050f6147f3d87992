//! The token of a client identity, renewed before it runs out.

use std::time::{Duration, Instant};

use serde::Deserialize;

/// The scope of everything this crate asks a service for.
pub(crate) const SCOPE: &str = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all";

/// A token is renewed so long before it runs out.
const EARLY: Duration = Duration::from_secs(60);

/// Who we are. The `Debug` form holds no secret.
#[derive(Clone)]
pub struct Credentials {
    pub client_id: String,
    pub client_secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// What the identity service answers, as far as we need it.
#[derive(Deserialize)]
pub(crate) struct Granted {
    pub(crate) access_token: String,
    #[serde(default)]
    pub(crate) expires_in: u64,
}

/// A token and when to renew it.
pub(crate) struct Token {
    text: String,
    renew: Instant,
}

impl Token {
    pub(crate) fn new(granted: Granted, now: Instant) -> Self {
        let lasts = Duration::from_secs(granted.expires_in).saturating_sub(EARLY);
        // Further in the future than the clock can say: it won't run out while we live.
        let renew = now.checked_add(lasts).unwrap_or(now);
        Self { text: granted.access_token, renew }
    }

    /// The token, unless it is time for a new one.
    pub(crate) fn good(&self, now: Instant) -> Option<&str> {
        (now < self.renew).then_some(self.text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_a_minute_early() {
        let start = crate::ambient::now();
        let granted = Granted { access_token: "t".into(), expires_in: 100 };
        let token = Token::new(granted, start);
        assert_eq!(token.good(start), Some("t"));
        assert_eq!(token.good(start + Duration::from_secs(39)), Some("t"));
        assert_eq!(token.good(start + Duration::from_secs(40)), None);
    }

    #[test]
    fn a_secret_is_never_shown() {
        let credentials = Credentials { client_id: "id".into(), client_secret: "hidden".into() };
        assert!(!format!("{credentials:?}").contains("hidden"));
    }
}
