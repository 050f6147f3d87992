//! Whom we believe: the system's certificate authorities, and those of a site beside them.

/// Certificates to trust in addition to the system's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM, of any number of authorities.
    pub pem: Option<String>,
    /// Believe whoever answers, over HTTPS. What upstream's `GLOBUS_SDK_VERIFY_SSL=false` asks for.
    pub anybody: bool,
}
