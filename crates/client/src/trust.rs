//! Which certificates are trusted: the system's authorities, and those that are added.

/// What is trusted in addition to the system's authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Certificates of authorities, as PEM.
    pub pem: Option<String>,
    /// Verifies no HTTPS certificate at all: upstream's `GLOBUS_SDK_VERIFY_SSL=false`.
    pub anybody: bool,
}
