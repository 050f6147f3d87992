//! A client identity's credentials, and the scope of what this crate asks a service for.

/// The scope of everything this crate asks a service for.
pub(crate) const SCOPE: &str = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all";

/// Who a client identity is. The `Debug` form holds no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub client_id: String,
    pub client_secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let credentials = Credentials { client_id: "id".into(), client_secret: "hidden".into() };
        assert!(!format!("{credentials:?}").contains("hidden"));
    }
}
