//! The version that this endpoint reports.

/// The release of upstream's endpoint whose behaviour this one has. `version` prints it and registrations carry it, because
/// services compare it with their minimum. Our own version is sent beside it, as `farcall.version`.
pub(crate) const UPSTREAM: &str = "3.8.0";
