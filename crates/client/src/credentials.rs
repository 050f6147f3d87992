//! The credentials of a client identity, and the scope that this crate asks for.

/// The scope of the service's REST interface.
pub(crate) const SCOPE: &str = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all";

/// The id and the secret of a client identity. The `Debug` form leaves the secret out.
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
